"""What an engine is: slots, each of which runs one job at a time.

An engine reports everything that happens on its slots to the function `on_event` that it was
opened with, and only while `wait` runs or a job starts. So its caller needs no locks.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.places import Place


class Engine(Protocol):
    """Slots. Used as a context manager; leaving it ends every process that it started, at once."""

    gpus_per_slot: float

    @property
    def slots(self) -> int:
        """How many slots there are now."""

    @property
    def free_places(self) -> tuple[Place, ...]:
        """Where the slots are that have no job, one for each slot."""

    def start(self, job: Job, place: Place) -> None:
        """Start the job on a free slot there."""

    def stop(self, name: str, *, save: bool) -> None:
        """Stop job `name` at its next step, with a checkpoint or without.

        Returns at once. The job's `Ended` event says when it has stopped.
        """

    def wait(self, timeout: float | None) -> None:
        """Wait until something happens, or for `timeout` seconds.

        Raises KdsweepError for a machine that can't be used; the other slots keep running.
        """

    def request_slots(self, count: int) -> None:
        """Grow or shrink to this many slots, as far as there is room."""

    def announce_end(self, *, resuming: bool) -> None:
        """Tell machines that joined whether to wait for this sweep (`resuming`) or to leave."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
