"""Everything that the steps of a trial need, built once before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.batches import batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.tokenize import (
    TokenizedSplit,
    TokenRows,
    joined_tokens,
    tokenize_split,
)
from kdsweep.core.device import FiniteWatch, pick_device, resolve_precision
from kdsweep.core.distill_settings import STATES_OF_FOLDS
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.inputs import check_length
from kdsweep.core.models.student import load_student, student_source
from kdsweep.core.objective.inner_states import Matching, check_same_tokens
from kdsweep.core.objective.objective import Objective
from kdsweep.core.objective.returned_states import terms_of
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.artifact import Teacher, frozen_teacher, tokenizer_of
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.micro_batches import MicroBatches
from kdsweep.core.training.optimizer import AdamW
from kdsweep.core.training.step_plan import StepPlan, learning_rates
from kdsweep.core.training.teacher_answers import TeacherAnswers, teacher_answers
from kdsweep.core.training.training_rows import TrainingRows, training_rows
from kdsweep.core.training.trial_inputs import TrialInputs
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import TeacherError


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """What the trial learns from: its task, its training rows and its teachers' answers."""

    data: TaskData
    train: TrainingRows
    answers: TeacherAnswers

    @property
    def keys(self) -> dict[str, str]:
        """The content hash of each split that the trial depends on, by the split's name."""
        return task_keys(self.data) | self.train.keys


@dataclass(frozen=True, eq=False)
class ReadingModel:
    """A model with its tokenizer, which makes this model's inputs of a split."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    input_format: InputFormat
    cache: Path
    say: Say

    def tokenized(self, split: Split) -> TokenizedSplit:
        return tokenize_split(
            split, self.tokenizer, self.input_format, cache=self.cache, say=self.say
        )

    def joined(self, splits: Sequence[Split]) -> TokenRows:
        """All rows of these splits, in their order."""
        return joined_tokens([self.tokenized(split) for split in splits])


@dataclass(frozen=True, eq=False)
class PreparedTrial:
    """All that a step, an evaluation and the end of a trial need.

    The value is frozen; the model, the optimizer, the learning rates, the scaler, the micro-batches
    and the watch in it change with each step, and `TrainingState` saves and restores them.
    """

    settings: TrialSettings
    folder: TrialFolder
    device: torch.device
    dtype: torch.dtype
    rows: PreparedRows
    student: ReadingModel
    train_tokens: TokenRows
    validation_tokens: TokenizedSplit
    objective: Objective
    plan: StepPlan
    optimizer: AdamW
    scheduler: LRScheduler
    scaler: torch.amp.GradScaler
    micro_batches: MicroBatches
    finite_watch: FiniteWatch
    best_by_loss: bool

    @property
    def model(self) -> PreTrainedModel:
        return self.student.model

    def batches_from(self, step: int) -> Iterator[np.ndarray]:
        """The row numbers of each batch from this step on, to the end of the trial."""
        first_epoch, position = divmod(step, self.plan.steps_per_epoch)
        batch_size, seed = self.settings.training.batch_size, self.settings.seed
        for epoch in range(first_epoch, self.plan.epochs):
            order = batches(self.train_tokens.lengths, batch_size, seed, epoch)
            for i in range(position, len(order)):
                yield order[i]
            position = 0

    def micro_batches_of(self, batch: np.ndarray) -> list[np.ndarray]:
        """The rows of a batch, cut so that each part goes through the models at once."""
        parts = self.micro_batches.cut(batch)
        parts = [rows for part in parts for rows in self.train_tokens.parts_of(part)]
        if (matching := self.objective.matching) is not None:
            parts = [rows for part in parts for rows in matching.parts_of(part, self.train_tokens)]
        return parts


def prepare(
    settings: TrialSettings,
    folder: TrialFolder,
    inputs: TrialInputs,
    cache: Path,
    say: Say,
    stopwatch: Stopwatch,
) -> PreparedTrial:
    """Collect the rows, load the student, and set up its objective and its optimizer.

    The order matters: new weights draw from torch's global generator, which is seeded once. Raises
    SettingsConflict if `folder` holds a trial that started with other rows.
    """
    data = inputs.data
    train_rows = training_rows(settings, inputs, cache, say)
    folder.check_same_rows(task_keys(data) | train_rows.keys)
    with stopwatch("labelling"):
        answers = teacher_answers(settings, data, train_rows, inputs.teachers, cache, say)
    rows = PreparedRows(data, train_rows, answers)
    torch.manual_seed(settings.seed)
    device, training = pick_device(), settings.training
    dtype = resolve_precision(settings.precision, device)
    student = _load_student(settings, inputs, cache, say)
    student.model.to(device)
    train_tokens = student.joined(train_rows.student)
    validation_tokens = student.tokenized(data.validation)

    matching = None
    if settings.distill.online:
        matching = _match_inner_states(settings, student, inputs.teachers[0], rows)
    objective = Objective(
        settings, student.model, train_rows.labels, answers.train, matching, dtype
    )
    plan = StepPlan.of(training, len(train_tokens))
    optimizer = AdamW(
        student.model,
        training.weight_decay,
        layer_decay=training.layer_decay,
        beside=matching.projection if matching else None,
    )
    return PreparedTrial(
        settings=settings,
        folder=folder,
        device=device,
        dtype=dtype,
        rows=rows,
        student=student,
        train_tokens=train_tokens,
        validation_tokens=validation_tokens,
        objective=objective,
        plan=plan,
        optimizer=optimizer,
        scheduler=learning_rates(optimizer, settings, plan),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        micro_batches=MicroBatches(training.batch_size, training.accumulation_steps),
        finite_watch=FiniteWatch(device),
        best_by_loss=inputs.best_by_loss,
    )


def task_keys(data: TaskData) -> dict[str, str]:
    """The content hashes of the splits that every trial of the task depends on."""
    return {"train": data.train.key, "validation": data.validation.key}


def _load_student(
    settings: TrialSettings, inputs: TrialInputs, cache: Path, say: Say
) -> ReadingModel:
    max_length, data = settings.training.max_length, inputs.data
    teacher_folder = inputs.teacher_folder
    scale = data.kind.label_scale(data.train.labels)
    model, tokenizer = load_student(
        settings.student, data.label_names, teacher_folder, data.kind, scale
    )
    source = student_source(settings.student, teacher_folder)
    check_length(model, tokenizer, max_length, source)
    input_format = input_format_of(model, tokenizer, max_length, settings.task.truncation)
    return ReadingModel(model, tokenizer, input_format, cache, say)


def _match_inner_states(
    settings: TrialSettings, student: ReadingModel, teacher: Teacher, rows: PreparedRows
) -> Matching:
    """The loss terms for which teacher and student both run on the same tokens."""
    if teacher.folds:
        raise TeacherError(f"{terms_of(settings.distill)}: {STATES_OF_FOLDS}")
    model = frozen_teacher(teacher, rows.data.label_names, rows.data.kind)
    tokenizer = tokenizer_of(teacher)
    check_same_tokens(settings.distill, student.tokenizer, tokenizer)
    max_length = settings.training.max_length
    check_length(model, tokenizer, max_length, str(teacher.folder))
    input_format = input_format_of(model, tokenizer, max_length, settings.task.truncation)
    reading = ReadingModel(model, tokenizer, input_format, student.cache, student.say)
    tokens = reading.joined(rows.train.teachers[0])
    return Matching(settings.distill, student.model, model, tokens)
