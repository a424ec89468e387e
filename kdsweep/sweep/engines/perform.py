"""One job, done in the calling thread, whatever the engine. torch is imported with the first job.

A job that was stopped, or whose process died, is started again and resumes from its last
checkpoint, which is in its folder.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdsweep.core.evaluation.latency_figures import MeasuredShapes
from kdsweep.core.hub.snapshots import hub_cache, snapshots_only
from kdsweep.core.standing import fenced
from kdsweep.core.teachers.threads import with_teacher_threads
from kdsweep.errors import (
    DamagedFile,
    DataError,
    FolderGone,
    Interrupted,
    KdsweepError,
    SettingsConflict,
    Superseded,
    TeacherError,
    TrialDiverged,
    first_line,
)
from kdsweep.sweep.engines.events import Ended, Evaluated, LatencyMeasured, Outcome
from kdsweep.sweep.engines.jobs import Job, LatencyJob, TeacherJob, TrialJob

if TYPE_CHECKING:
    from kdsweep.core.settings import TrialSettings
    from kdsweep.core.timing import Stopwatch
    from kdsweep.core.trial_folder import Evaluation

Say = Callable[[str], None]
# Called with the step and the total. Returns True to save and stop, or raises Dropped.
OnStep = Callable[[int, int], bool]


class Train(Protocol):
    """`kdsweep.core.train`, or what takes its place in tests and measurements."""

    def __call__(
        self,
        settings: TrialSettings,
        folder: Path,
        *,
        cache: Path,
        on_step: OnStep,
        say: Say,
        stopwatch: Stopwatch,
        latency: Mapping[str, float] | None,
    ) -> Iterator[Evaluation]: ...


class Dropped(Exception):
    """Raised between two steps to stop a trial without a checkpoint."""


def perform(
    job: Job, on_step: OnStep, say: Say, train: Train | None = None
) -> Generator[Evaluated | LatencyMeasured | Ended, None, None]:
    """Do the job. Yields each evaluation of a trial, or what was measured, and at last how the job
    ended."""
    started = time.monotonic()
    from kdsweep.core.timing import Stopwatch

    stopwatch = Stopwatch()
    import_seconds = time.monotonic() - started

    def ended(
        outcome: Outcome,
        reason: str | None = None,
        *,
        trace: str | None = None,
        error: Exception | None = None,
    ) -> Ended:
        spent = stopwatch.seconds
        spent |= {"start": spent.get("start", 0.0) + import_seconds}
        return Ended(job.name, outcome, reason, trace, error, spent)

    try:
        threads = None if isinstance(job, LatencyJob) else job.teacher_threads
        with snapshots_only(hub_cache(job.cache)), with_teacher_threads(threads):
            if isinstance(job, TeacherJob):
                _make_teachers(job, on_step, say, stopwatch)
            elif isinstance(job, LatencyJob):
                yield LatencyMeasured(job.name, _measure(job, on_step, say, stopwatch, train))
            else:
                with fenced(job.folder, job.fence):
                    for evaluation in _train(job, on_step, say, stopwatch, train):
                        yield Evaluated(job.name, evaluation)
        yield ended("complete")
    except (Interrupted, Superseded):
        yield ended("saved")
    except Dropped:
        yield ended("dropped")
    except TrialDiverged as diverged:
        yield ended("diverged", str(diverged))
    except (DataError, DamagedFile, FolderGone, TeacherError, SettingsConflict, OSError) as error:
        yield ended("fatal", str(error), error=error)
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        if isinstance(error, KdsweepError):
            reason = str(error)
        yield ended("failed", reason, trace=traceback.format_exc())


def _train(
    job: TrialJob, on_step: OnStep, say: Say, stopwatch: Stopwatch, train: Train | None
) -> Iterator[Evaluation]:
    if train is None:
        from kdsweep.sweep.input_check import check_pinned, models_of_trial

        models = models_of_trial(job.settings)
        check_pinned(job.pins, job.settings.task, models, job.cache, sweep=job.sweep)
    return (train or _core_train())(
        job.settings,
        job.folder,
        cache=job.cache,
        on_step=on_step,
        say=say,
        stopwatch=stopwatch,
        latency=job.latency,
    )


def _core_train() -> Train:
    from kdsweep.core.trial import train

    return train


def _measure(
    job: LatencyJob, on_step: OnStep, say: Say, stopwatch: Stopwatch, train: Train | None
) -> MeasuredShapes:
    if train is not None:
        reason = "what trains takes the place of kdsweep's core"
        return MeasuredShapes((), tuple((shape, reason) for shape in job.shapes))
    from kdsweep.core.evaluation.architectures import measure_shapes

    with stopwatch("evaluating"):
        return measure_shapes(job.task, job.shapes, job.known, job.cache, on_step, say)


def _make_teachers(job: TeacherJob, on_step: OnStep, say: Say, stopwatch: Stopwatch) -> None:
    from kdsweep.core.data.loading import load_task
    from kdsweep.core.data.unlabelled import load_unlabelled
    from kdsweep.core.teachers.logits import teacher_logits
    from kdsweep.core.teachers.selection import prepare_teacher
    from kdsweep.core.teachers.threads import making_teachers
    from kdsweep.sweep.input_check import check_pinned

    with stopwatch("training"), making_teachers():
        models = [one.loads_from for one in job.teachers]
        check_pinned(job.pins, job.task, models, job.cache, sweep=job.sweep)
        data = load_task(job.task, job.cache, say=say)
        splits = list(data.splits) if job.judge_test else ["train", "validation"]
        if job.task.unlabelled is not None:
            unlabelled, _ = load_unlabelled(job.task, data, job.cache, say=say)
            data = data.with_splits(unlabelled)
            splits.append(unlabelled.name)
        for number, settings in enumerate(job.teachers):
            if len(job.teachers) > 1:
                say(f"teacher: {settings.words}, {number + 1} of {len(job.teachers)}")
            teacher = prepare_teacher(job.task, settings, job.cache, on_step=on_step, say=say)
            for split in splits:
                teacher_logits(teacher, data, cache=job.cache, split=split, say=say)
