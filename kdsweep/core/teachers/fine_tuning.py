"""How one teacher is made: fine-tuned as a trial without teachers, or from a checkpoint."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep import metric_names
from kdsweep.core.data.rows import TaskData
from kdsweep.core.files import locked, publishing
from kdsweep.core.models.loading import save_model
from kdsweep.core.settings import (
    StudentSettings,
    TaskSettings,
    TeacherSettings,
    TrainingSettings,
    TrialSettings,
)
from kdsweep.core.shared_entry import set_aside
from kdsweep.core.teachers.artifact import Teacher, damage_of_teacher, find_teacher, teacher_key
from kdsweep.core.teachers.publishing import Candidate, publish_teacher
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.callbacks import Callbacks
from kdsweep.core.training.loop import run_trial
from kdsweep.core.training.trial_inputs import TrialInputs
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import DamagedFile, TrialDiverged


def make_teacher(
    task: TaskSettings,
    teacher: TeacherSettings,
    data: TaskData,
    cache: Path,
    callbacks: Callbacks,
) -> Teacher:
    """The teacher of one seed and of all rows: from the cache, or made first.

    If two processes need the same teacher, one makes it and the other waits.
    """
    key = teacher_key(task, teacher, data)
    folder = cache / "teachers" / key
    trusted = teacher.trust_remote_code
    if (found := find_teacher(folder, trust_remote_code=trusted)) is not None:
        return found
    run = _run_name(task, teacher, data)
    with locked(
        cache / "teachers" / f"{run}.lock",
        lambda: callbacks.say("teacher: another process is making it; waiting"),
    ):
        if (found := find_teacher(folder, trust_remote_code=trusted)) is not None:
            return found
        if folder.exists() and (damage := damage_of_teacher(folder)) is not None:
            set_aside(folder, damage, callbacks.say)
        if teacher.checkpoint is not None:
            candidate = Candidate(key, teacher.loads_from, task, teacher, data)
            return publish_teacher(candidate, cache)
        work = TrialFolder(cache / "teachers" / f"{run}-training")
        fine_tuning = FineTuning(task, teacher, data, work, cache, callbacks)
        seconds = fine_tuning.run()
        weights = fine_tuning.weights
        candidate = Candidate(key, str(weights), task, teacher, data, seconds, work.root)
        made = publish_teacher(candidate, cache)
        # The cache has the weights now; the metrics stay.
        shutil.rmtree(weights, ignore_errors=True)
        return made


def _run_name(task: TaskSettings, teacher: TeacherSettings, data: TaskData) -> str:
    """Teachers of several epochs share one run, so that no step is taken twice."""
    if teacher.epoch is None:
        return teacher_key(task, teacher, data)
    return f"{teacher_key(task, teacher.model_copy(update={'epoch': None}), data)}-epochs"


@dataclass(frozen=True)
class FineTuning:
    """A run that fine-tunes a teacher in `folder`, as a separate trial."""

    task: TaskSettings
    teacher: TeacherSettings
    data: TaskData
    folder: TrialFolder
    cache: Path
    callbacks: Callbacks

    @property
    def weights(self) -> Path:
        """Where the run leaves the teacher: the best student, or the one after `teacher.epoch`."""
        if self.teacher.epoch is None:
            return self.folder.student
        return self._after_epoch(self.teacher.epoch)

    def run(self) -> float:
        """Train until `weights` exist; returns the seconds that it took.

        The weights move to the cache. If the user removed them there, a run that is past them
        starts over.
        """
        if self.folder.is_over and not self.weights.exists():
            shutil.rmtree(self.folder.root)
        try:
            if self.folder.drop_damaged_checkpoint():
                self.callbacks.say("teacher: its checkpoint can't be read; it starts over")
            seconds = self._train()
        except DamagedFile as damage:
            if not damage.what.startswith(str(self.folder.root)):
                raise
            set_aside(self.folder.root, damage, self.callbacks.say)
            seconds = self._train()
        if not self.weights.exists():
            shutil.rmtree(self.folder.root)
            seconds = self._train()
        return seconds

    def _train(self) -> float:
        say, metric = self.callbacks.say, self.task.metric
        rows, epochs = len(self.data.train), self.teacher.training.epochs
        say(f"teacher: fine-tuning {self.teacher.model} on {rows:,} rows, {epochs} epochs")
        callbacks = replace(self.callbacks, on_epoch=self._keep_epoch)
        settings = fine_tuning_settings(self.task, self.teacher)
        seconds = 0.0
        # Early outputs may go with the labels and yet hardly differ from each other. A teacher
        # teaches their values, so it is not a correlation that chooses it. Labels that aren't
        # standardized keep the rule of 0.1.0.
        scale = self.data.kind.label_scale(self.data.train.labels)
        inputs = TrialInputs(self.data, best_by_loss=not scale.is_plain)
        trial = run_trial(settings, self.folder, inputs, self.cache, callbacks, Stopwatch())
        try:
            with closing(trial):
                for evaluation in trial:
                    seconds = evaluation.seconds
                    reached = evaluation.metrics[metric_names.validation(metric)]
                    say(f"teacher: epoch {evaluation.epoch:.1f}, validation {metric} {reached:.4f}")
                    if self._is_past_its_epoch(evaluation.epoch):
                        break
        except TrialDiverged:
            self.folder.drop_checkpoint()
            raise
        result = self.folder.read_result()
        if result is not None and self.teacher.epoch is None:
            return result.seconds
        return seconds

    def _is_past_its_epoch(self, epoch: float) -> bool:
        """Whether training can stop: the wanted epoch is saved. A later one resumes the run."""
        wanted = self.teacher.epoch
        return wanted is not None and epoch >= wanted and self.weights.exists()

    def _keep_epoch(
        self, epoch: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        if self.teacher.epoch is not None:
            with publishing(self._after_epoch(epoch)) as beside:
                save_model(model, tokenizer, beside)

    def _after_epoch(self, epoch: int) -> Path:
        return self.folder.root / "epochs" / str(epoch)


def fine_tuning_settings(task: TaskSettings, teacher: TeacherSettings) -> TrialSettings:
    """The teacher's fine-tuning as a trial, in which the teacher is the student."""
    assert teacher.model is not None
    training = teacher.training.model_dump(exclude={"learning_rate", "seed"})
    return TrialSettings(
        # Unlabeled text is for the students; it doesn't change how the teacher is trained.
        task=task.model_copy(update={"unlabelled": None}),
        student=StudentSettings(
            model=teacher.model,
            revision=teacher.revision,
            trust_remote_code=teacher.trust_remote_code,
        ),
        training=TrainingSettings(**training),
        alpha=1.0,
        learning_rate=teacher.training.learning_rate,
        seed=teacher.training.seed,
        settled_precision=teacher.settled_precision,
    )
