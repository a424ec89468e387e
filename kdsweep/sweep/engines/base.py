"""What an engine is: slots, and what happens on them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from kdsweep.sweep.engines.worker import Event, Job

Hear = Callable[[Event], None]


class Engine(Protocol):
    """Slots. Used as a context manager: leaving it ends every process that it began, at once."""

    gpus_per_slot: float

    @property
    def slots(self) -> int:
        """How many there are now."""

    @property
    def free(self) -> int:
        """How many slots wait for a job."""

    def begin(self, job: Job) -> None:
        """Give the job to a free slot."""

    def stop(self, name: str, *, save: bool) -> None:
        """Let job `name` end at its next step: saved, to go on later, or dropped. Its `Ended` tells when it has."""

    def wait(self, timeout: float | None) -> None:
        """Until something happens, or `timeout` seconds. Raises KdsweepError for a machine that can't be used; others go on."""

    def want(self, jobs: int) -> None:
        """So many slots are of use from now on."""

    def leave(self, *, coming_back: bool) -> None:
        """The sweep is over, or `coming_back`: machines that joined it should wait."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...
