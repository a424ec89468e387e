"""What runs on a slot: one job at a time, told as events. No Ray here; torch is imported with the first job.

A job that was stopped or whose process died is begun again and goes on from its last checkpoint: the folder holds it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdsweep.errors import DataError, Interrupted, SettingsConflict, TeacherError, TrialDiverged
from kdsweep.sweep.engines.process_reaper import MARK
from kdsweep.sweep.startup_timer import without_collecting
from kdsweep.trial_id import TrialId

if TYPE_CHECKING:
    from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings
    from kdsweep.core.timing import Stopwatch
    from kdsweep.core.trial_folder import Evaluation

SECONDS_BETWEEN_STEPS_TOLD = 1.0
LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LEAVING = "leaving"  # a file in a machine's session folder: nothing new may begin there


# --- what a slot is given --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialJob:
    id: TrialId
    settings: TrialSettings
    folder: Path
    cache: Path

    @property
    def name(self) -> str:
        return self.id.name


@dataclass(frozen=True)
class TeacherJob:
    """Make what all trials share: each teacher and its logits. `judge_test`: and what it answers on the test split."""

    name: str
    task: TaskSettings
    teachers: tuple[TeacherSettings, ...]
    cache: Path
    judge_test: bool = False


Job = TrialJob | TeacherJob


# --- what it tells ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """So many optimizer steps of `name` are done."""

    name: str
    step: int
    total_steps: int


@dataclass(frozen=True)
class Said:
    name: str
    line: str


@dataclass(frozen=True)
class Evaluated:
    name: str
    evaluation: Evaluation


@dataclass(frozen=True)
class Ended:
    """The job is over on this slot: `complete`; `saved`, to go on elsewhere or later; `dropped`, as it was asked to;
    `diverged` or `failed` with its reason; `fatal` with an error that every trial would meet.

    `spent`: seconds by purpose (start, training, evaluating, saving).
    """

    name: str
    how: Literal["complete", "saved", "dropped", "diverged", "failed", "fatal"]
    reason: str | None = None
    trace: str | None = None
    error: Exception | None = None
    spent: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Lost:
    """The process that ran the job is gone."""

    name: str
    reason: str


Event = Step | Said | Evaluated | Ended | Lost
Train = Callable[..., Iterator["Evaluation"]]


class Dropped(Exception):
    """Raised between two steps to give a trial up without saving it."""


def perform(
    job: Job,
    on_step: Callable[[int, int], bool],
    say: Callable[[str], None],
    train: Train | None = None,
) -> Generator[Evaluated | Ended, None, None]:
    """Do the job, in this thread. `on_step` returns True to save and stop, or raises Dropped."""
    began = time.monotonic()
    from kdsweep.core.timing import Stopwatch

    stopwatch = Stopwatch()
    imported = time.monotonic() - began

    def ended(how: Any, reason: str | None = None, **more: Any) -> Ended:
        return Ended(
            job.name,
            how,
            reason,
            spent=stopwatch.seconds | {"start": stopwatch.seconds.get("start", 0.0) + imported},
            **more,
        )

    try:
        if isinstance(job, TeacherJob):
            _teach(job, on_step, say, stopwatch)
        else:
            for evaluation in (train or _core_train())(
                job.settings,
                job.folder,
                cache=job.cache,
                on_step=on_step,
                say=say,
                stopwatch=stopwatch,
            ):
                yield Evaluated(job.name, evaluation)
        yield ended("complete")
    except Interrupted:
        yield ended("saved")
    except Dropped:
        yield ended("dropped")
    except TrialDiverged as diverged:
        yield ended("diverged", str(diverged))
    except (DataError, TeacherError, SettingsConflict, OSError) as error:
        yield ended("fatal", str(error), error=error)
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        yield ended("failed", reason, trace=traceback.format_exc())


def _core_train() -> Train:
    from kdsweep.core.trial import train

    return train


def _teach(
    job: TeacherJob,
    on_step: Callable[[int, int], bool],
    say: Callable[[str], None],
    stopwatch: Stopwatch,
) -> None:
    from kdsweep.core.data.loading import load_task
    from kdsweep.core.data.unlabelled import load_unlabelled
    from kdsweep.core.teachers.logits import teacher_logits
    from kdsweep.core.teachers.selection import prepare_teacher

    with stopwatch("training"):
        data = load_task(job.task, job.cache, say=say)
        more = (
            None
            if job.task.unlabelled is None
            else load_unlabelled(job.task, data, job.cache, say=say)[0]
        )
        for number, settings in enumerate(job.teachers):
            if len(job.teachers) > 1:
                say(f"teacher: {settings.words}, {number + 1} of {len(job.teachers)}")
            teacher = prepare_teacher(job.task, settings, job.cache, on_step=on_step, say=say)
            for split in data.splits if job.judge_test else ("train", "validation"):
                teacher_logits(teacher, data, cache=job.cache, split=split, say=say)
            if more is not None:
                with_more = data.with_splits(more)
                teacher_logits(teacher, with_more, cache=job.cache, split=more.name, say=say)


# --- a slot's process ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a worker runs. `shares_home`: whether it sees the driver's home and the driver will see what it writes."""

    host: str
    pid: int
    gpus: str
    shares_home: bool


class Worker:
    """One slot's process. `events` waits; the other methods return at once.

    SIGTERM and SIGUSR1 (a cluster wants its machine back) save the trial at its next step and end with the event None.
    """

    def __init__(self, threads: int | None = None, train: Train | None = None) -> None:
        self._threads, self._train = threads, train
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._asked: Literal["save", "drop"] | None = None
        self._current: str | None = None
        self._leaving = False
        self._told = self._begun = 0.0
        threading.Thread(target=self._work, name="jobs", daemon=True).start()

        self._listen()

    def _listen(self) -> None:
        """Wait for the signals, where they are blocked in every thread of this process (see `kdsweep.sweep.engines.join`)."""
        if set(LEAVE_SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            threading.Thread(target=self._wait_for_signal, name="signals", daemon=True).start()

    def hello(self, probe: Path, content: str) -> Place:
        """Say where this is, having read `probe` and written an answer beside it."""
        while MARK in os.environ and Path(os.environ[MARK], LEAVING).exists():
            time.sleep(0.1)  # until this process ends with its machine
        shared = False
        with contextlib.suppress(OSError):
            shared = probe.read_text() == content
            if shared:
                probe.with_name(f"{probe.name}-{socket.gethostname()}-{os.getpid()}").write_text(
                    content
                )
        return Place(
            socket.gethostname(), os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), shared
        )

    def begin(self, job: Job) -> None:
        self._asked, self._current, self._begun = None, job.name, time.monotonic()
        self._jobs.put(job)

    def stop(self, name: str, save: bool) -> None:
        """End job `name` at its next step: saved, to go on later, or dropped. Nothing if it has ended."""
        if self._current == name:
            self._asked = "save" if save else "drop"

    def leave(self) -> None:
        """Save what runs, then go."""
        self._leaving = True
        self._asked = self._asked or "save"
        if self._current is None:
            self._events.put(None)

    def events(self) -> list[Event | None]:
        """What happened since the last call; waits until something has. None comes last: the worker wants to go."""
        found = [self._events.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found

    # The jobs' own thread: always the same one, or each would start a pool of OpenMP threads of its own.

    def _work(self) -> None:
        if self._threads is not None and self._train is None:
            with without_collecting():
                import torch

                # A warm worker: what the first job needs is imported before it comes.
                import kdsweep.core.trial  # noqa: F401

            torch.set_num_threads(self._threads)
        while True:
            self._do(self._jobs.get())
            if self._leaving:
                self._events.put(None)

    def _do(self, job: Job) -> None:
        def on_step(step: int, total_steps: int) -> bool:
            return self._on_step(job.name, step, total_steps)

        def say(line: str) -> None:
            self._events.put(Said(job.name, line))

        waited = time.monotonic() - self._begun  # the first job, until everything is imported
        for event in perform(job, on_step, say, self._train):
            if isinstance(event, Ended):
                self._current = None
                event = replace(event, spent=event.spent | {"start": event.spent["start"] + waited})
            self._events.put(event)

    def _on_step(self, name: str, step: int, total_steps: int) -> bool:
        if self._asked == "drop":
            raise Dropped
        if time.monotonic() - self._told > SECONDS_BETWEEN_STEPS_TOLD:
            self._told = time.monotonic()
            self._events.put(Step(name, step, total_steps))
        return self._asked == "save" or self._leaving

    def _wait_for_signal(self) -> None:
        signal.sigwait(LEAVE_SIGNALS)
        self.leave()
