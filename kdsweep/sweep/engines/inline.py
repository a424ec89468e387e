"""This process, one slot."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Literal, Self

from kdsweep.core.device import pick_device
from kdsweep.sweep.engines.base import Hear
from kdsweep.sweep.engines.worker import Dropped, Ended, Evaluated, Job, Said, Step, Train, perform

# --- this process ----------------------------------------------------------------------------------------------------


class Inline:
    """One slot: this thread. What happens is told before the next step is taken, so a sweep is the same each time."""

    def __init__(self, hear: Hear, train: Train | None = None) -> None:
        self.hear, self._train = hear, train
        self.gpus_per_slot = 1.0 if pick_device().type == "cuda" else 0.0
        self._asked: Literal["save", "drop"] | None = None
        self._stream: Generator[Evaluated | Ended, None, None] | None = None

    @property
    def slots(self) -> int:
        return 1

    @property
    def free(self) -> int:
        return int(self._stream is None)

    def begin(self, job: Job) -> None:
        def on_step(step: int, total_steps: int) -> bool:
            self.hear(Step(job.name, step, total_steps))
            return self._asked == "save"

        self._asked = None
        self._stream = perform(
            job, on_step, lambda line: self.hear(Said(job.name, line)), self._train
        )

    def stop(self, name: str, *, save: bool) -> None:
        self._asked = "save" if save else "drop"

    def wait(self, timeout: float | None) -> None:
        assert self._stream is not None
        event = next(self._stream) if self._asked != "drop" else self._stream.throw(Dropped())
        if isinstance(event, Ended):
            self._stream.close()
            self._stream = None
        self.hear(event)

    def want(self, jobs: int) -> None:
        pass

    def leave(self, *, coming_back: bool) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()
