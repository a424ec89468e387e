"""A trial from its settings alone: rows and teachers are made ready, then its student trains."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Mapping
from pathlib import Path

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Say, TaskData
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.hub.snapshots import hub_cache, looking_in
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.teachers.threads import making_teachers, teacher_threads
from kdsweep.core.timing import Stopwatch
from kdsweep.core.training.callbacks import Callbacks, OnStep, be_quiet, never_stop
from kdsweep.core.training.loop import finished_trial, run_trial
from kdsweep.core.training.prepare import task_keys
from kdsweep.core.training.trial_inputs import TrialInputs
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult


def train(
    settings: TrialSettings,
    folder: Path | str,
    *,
    cache: Path | str | None = None,
    on_step: OnStep = never_stop,
    say: Say = be_quiet,
    stopwatch: Stopwatch | None = None,
    latency: Mapping[str, float] | None = None,
) -> Generator[Evaluation, None, TrialResult]:
    """Train a student and yield an `Evaluation` each time it is evaluated; stop iterating to prune.

    A trial that was interrupted resumes from its checkpoint, after it has yielded its earlier
    evaluations again. When the iteration ends by itself, `folder` has `student/` (the weights of
    the best evaluation) and `result.json`. The generator returns the same result. What several
    trials share (tokens, the teachers and their logits) is kept in `cache`.

    A step that runs out of memory is repeated with micro-batches of half as many rows, and so are
    all steps after it. `stopwatch` counts the trial's own time, not the time that the caller spends
    between two evaluations. `latency` (`latency_ms`, `latency_p95_ms`) is that of the student's
    architecture; without it, the student is measured when the trial ends.

    Raises Interrupted if `on_step` asked to stop (the state is saved), TrialDiverged if the loss is
    not finite, OutOfMemory if smaller micro-batches didn't help, SettingsConflict if `folder` holds
    another trial or one that started with other rows, and DataError, ModelError or TeacherError for
    data and models that can't be used.
    """
    stopwatch = stopwatch or Stopwatch()
    callbacks = Callbacks(on_step, say, latency=latency)
    trial = _train(
        settings, TrialFolder(Path(folder)), Path(cache or default_cache()), callbacks, stopwatch
    )
    return stopwatch.timing(trial)


def _train(
    settings: TrialSettings,
    folder: TrialFolder,
    cache: Path,
    callbacks: Callbacks,
    stopwatch: Stopwatch,
) -> Generator[Evaluation, None, TrialResult]:
    folder.claim(settings)
    if folder.is_over:
        return (yield from finished_trial(folder))
    with looking_in(hub_cache(cache)):
        task, say = settings.task, callbacks.say
        data = load_task(task, cache, say=say)
        if folder.drop_damaged_checkpoint():
            say(f"{folder.root.name}: its checkpoint can't be read; it starts over")
        # Before the teachers, because other rows would ask for other ones.
        folder.check_same_rows(task_keys(data))
        teachers = _teachers_of(settings, data, cache, callbacks)
        unlabelled = None
        if task.unlabelled is not None and settings.is_taught:
            unlabelled, _ = load_unlabelled(task, data, cache, say=say)
        inputs = TrialInputs(data, teachers, unlabelled)
        return (yield from run_trial(settings, folder, inputs, cache, callbacks, stopwatch))


def _teachers_of(
    settings: TrialSettings, data: TaskData, cache: Path, callbacks: Callbacks
) -> tuple[Teacher, ...]:
    """Its teachers. Where teachers have their own threads, their logits for train and validation
    are in the cache too, because they are made with these threads."""
    on_step, say = callbacks.on_step, callbacks.say
    with making_teachers():
        teachers = tuple(
            prepare_teacher(settings.task, teacher, cache, on_step=on_step, say=say)
            for teacher in settings.teachers
        )
        if settings.needs_logits and teacher_threads() is not None:
            for teacher, split in itertools.product(teachers, ("train", "validation")):
                teacher_logits(teacher, data, cache=cache, split=split, say=say)
    return teachers


def default_cache() -> Path:
    return Path(os.environ.get("KDSWEEP_HOME", "runs")) / "cache"
