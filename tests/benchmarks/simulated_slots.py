"""Slots by the thousand on one machine: a process of their own writes what workers would write.

Nothing of Ray is in it. What is left in the driver's process is the driver: the loop, the
databases, the trials' folders and MLflow.
"""

from __future__ import annotations

import heapq
import multiprocessing
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parent))

from null_core import null_metrics, null_result, null_value

from kdsweep.core.evaluation.latency_figures import Device, MeasuredShapes
from kdsweep.core.trial_folder import Evaluation, TrialFolder
from kdsweep.sweep.engines.events import (
    Ended,
    Evaluated,
    Event,
    LatencyMeasured,
    OnEvent,
    StepReached,
)
from kdsweep.sweep.engines.jobs import Job, LatencyJob, TrialJob
from kdsweep.sweep.engines.places import Place

# How long what happens on one slot waits for what happens on others.
SECONDS_BETWEEN_SENDS = 0.05
LONGEST_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Rhythm:
    """Every trial is evaluated `evaluations` times, each `seconds` after the one before, and
    reports a step halfway between."""

    slots: int
    seconds: float
    evaluations: int


@dataclass
class _Trial:
    """A trial on a slot. stopped: `save` or `drop`."""

    job: TrialJob
    started: float
    evaluations: int
    found: list[Evaluation] = field(default_factory=list)
    stopped: str | None = None


class _Slots:
    """What happens on the slots, in order of time. due: (when, trial, what)."""

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._running: dict[str, _Trial] = {}
        self._due: list[tuple[float, str, str]] = []
        self._draw = random.Random(0)
        self._started = 0

    def start(self, job: TrialJob) -> None:
        now, rhythm = time.monotonic(), self._rhythm
        TrialFolder(job.folder).claim(job.settings)
        evaluations, late = rhythm.evaluations, 0.0
        if self._started < rhythm.slots:
            # The first trials start together. They are shorter, so that later ones don't.
            late = rhythm.seconds * self._draw.random()
            evaluations = self._draw.randint(1, rhythm.evaluations)
        self._started += 1
        self._running[job.name] = _Trial(job, now, evaluations)
        heapq.heappush(self._due, (now + late + rhythm.seconds / 2, job.name, "step"))

    def stop(self, name: str, how: str) -> None:
        if name in self._running:
            self._running[name].stopped = how
            heapq.heappush(self._due, (0.0, name, "step"))

    def events(self) -> Iterator[Event]:
        """What has happened until now."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            at, name, what = heapq.heappop(self._due)
            if (trial := self._running.get(name)) is not None:
                yield from self._happens(trial, name, what, at)

    def _happens(self, trial: _Trial, name: str, what: str, at: float) -> Iterator[Event]:
        half = self._rhythm.seconds / 2
        spent = {"start": 0.0, "training": time.monotonic() - trial.started}
        if trial.stopped is not None:
            del self._running[name]
            yield Ended(name, "saved" if trial.stopped == "save" else "dropped", spent=spent)
            return
        done = len(trial.found) + 1
        if what == "step":
            yield StepReached(name, done, trial.evaluations)
            heapq.heappush(self._due, (at + half, name, "evaluation"))
            return
        is_last = done == trial.evaluations
        self._evaluate(trial, done, is_last)
        yield Evaluated(name, trial.found[-1])
        if is_last:
            del self._running[name]
            yield Ended(name, "complete", spent=spent)
        else:
            heapq.heappush(self._due, (at + half, name, "step"))

    def _evaluate(self, trial: _Trial, done: int, is_last: bool) -> None:
        seconds, now = time.monotonic() - trial.started, time.time_ns() // 1_000_000
        reached = null_value(trial.job.settings) if is_last else 0.5
        epoch = trial.job.settings.training.epochs * done / trial.evaluations
        trial.found.append(Evaluation(done, epoch, null_metrics(reached), seconds, now))
        files = TrialFolder(trial.job.folder)
        files.write_evaluations(trial.found)
        if is_last:
            files.write_result(null_result(trial.found))


def run_slots(connection: Connection, rhythm: Rhythm) -> None:
    """The slots' process: receives jobs and stops, sends lists of events, until it gets None."""
    slots = _Slots(rhythm)
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def receive() -> None:
        while (messages := connection.recv()) is not None:
            received.put(messages)
        received.put(None)

    # Neither side waits for the other one to read.
    threading.Thread(target=receive, daemon=True).start()
    connection.send([])
    while True:
        time.sleep(SECONDS_BETWEEN_SENDS)
        while not received.empty():
            if (messages := received.get()) is None:
                return
            for kind, what in messages:
                slots.start(what) if kind == "start" else slots.stop(what, kind)
        if events := list(slots.events()):
            connection.send(events)


class SimulatedSlots:
    """Implements `Engine` with slots that only report. All are on one machine.

    on_wait: called in each turn of the driver's loop.
    """

    gpus_per_slot = 0.0

    def __init__(self, rhythm: Rhythm, on_event: OnEvent, on_wait: Any = lambda: None) -> None:
        self.slots = rhythm.slots
        self._on_event = on_event
        self._on_wait = on_wait
        self._place = Place("simulated", Device(name="simulated", threads=1))
        self._free = rhythm.slots
        self._unsent: list[tuple[str, Any]] = []
        self._measured: list[Event] = []
        self._connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=run_slots, args=(theirs, rhythm), daemon=True)

    @property
    def free_places(self) -> tuple[Place, ...]:
        return (self._place,) * self._free

    def __enter__(self) -> Self:
        self._process.start()
        self._connection.recv()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.send(None)
        self._process.join()

    def start(self, job: Job, place: Place) -> None:
        self._free -= 1
        if isinstance(job, LatencyJob):
            unmeasured = tuple((shape, "these slots are simulated") for shape in job.shapes)
            measured = MeasuredShapes((), unmeasured)
            self._measured = [LatencyMeasured(job.name, measured), Ended(job.name, "complete")]
        else:
            self._unsent.append(("start", job))

    def stop(self, name: str, *, save: bool) -> None:
        self._unsent.append(("save" if save else "drop", name))

    def wait(self, timeout: float | None) -> None:
        self._on_wait()
        events, self._measured = self._measured, []
        if self._unsent:
            self._connection.send(self._unsent)
            self._unsent = []
        seconds = LONGEST_WAIT_SECONDS if timeout is None else min(timeout, LONGEST_WAIT_SECONDS)
        while self._connection.poll(0 if events else seconds):
            events += self._connection.recv()
        for event in events:
            self._free += isinstance(event, Ended)
            self._on_event(event)

    def request_slots(self, count: int) -> None:
        pass

    def announce_end(self, *, resuming: bool) -> None:
        pass
