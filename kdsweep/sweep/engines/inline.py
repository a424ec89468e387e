"""The engine `inline`: this process, one slot."""

from __future__ import annotations

import socket
from collections.abc import Generator
from types import TracebackType
from typing import Literal, Self

from kdsweep.core.device import best_precision, pick_device, this_device
from kdsweep.sweep.engines.events import (
    Ended,
    Evaluated,
    LatencyMeasured,
    Message,
    OnEvent,
    StepReached,
)
from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.perform import Dropped, Train, perform
from kdsweep.sweep.engines.places import Place


class Inline:
    """One slot: the calling thread.

    Each event is handled before the next step is taken, so a sweep runs the same way every time.
    """

    def __init__(self, on_event: OnEvent, train: Train | None = None) -> None:
        self.gpus_per_slot = 1.0 if pick_device().type == "cuda" else 0.0
        self._place = Place(socket.gethostname(), this_device(), best_precision(pick_device()))
        self._on_event = on_event
        self._train = train
        self._requested: Literal["save", "drop"] | None = None
        self._running: Generator[Evaluated | LatencyMeasured | Ended, None, None] | None = None

    @property
    def slots(self) -> int:
        return 1

    @property
    def free_places(self) -> tuple[Place, ...]:
        return (self._place,) if self._running is None else ()

    def start(self, job: Job, place: Place) -> None:
        def on_step(step: int, total_steps: int) -> bool:
            self._on_event(StepReached(job.name, step, total_steps))
            return self._requested == "save"

        def say(line: str) -> None:
            self._on_event(Message(job.name, line))

        self._requested = None
        self._running = perform(job, on_step, say, self._train)

    def stop(self, name: str, *, save: bool) -> None:
        self._requested = "save" if save else "drop"

    def wait(self, timeout: float | None) -> None:
        assert self._running is not None
        dropped = self._requested == "drop"
        event = self._running.throw(Dropped()) if dropped else next(self._running)
        if isinstance(event, Ended):
            self._running.close()
            self._running = None
        self._on_event(event)

    def request_slots(self, count: int) -> None:
        pass

    def announce_end(self, *, resuming: bool) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running is not None:
            self._running.close()
