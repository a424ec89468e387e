"""Where a trial's time goes, in seconds by purpose."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Literal, TypeVar, get_args

# labelling: a teacher runs over rows before the first step.
Purpose = Literal["start", "labelling", "training", "evaluating", "saving"]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopwatch:
    """Seconds by purpose. Each second counts for one purpose, or for none if the watch is stopped.

    It starts stopped. One thread switches it; any thread may read it.
    """

    def __init__(self) -> None:
        # Sums, purpose, and since when. Replaced as a whole, so that no other thread reads a part.
        self._state: tuple[dict[str, float], Purpose | None, float] = (
            dict.fromkeys(get_args(Purpose), 0.0),
            None,
            0.0,
        )

    @property
    def seconds(self) -> dict[str, float]:
        """What was counted so far, for all purposes."""
        sums, purpose, since = self._state
        return sums | (
            {} if purpose is None else {purpose: sums[purpose] + time.monotonic() - since}
        )

    def switch(self, purpose: Purpose | None) -> None:
        """Count for `purpose` from now on; None stops the watch."""
        self._state = (self.seconds, purpose, time.monotonic())

    @contextmanager
    def __call__(self, purpose: Purpose | None) -> Iterator[None]:
        """Count for `purpose` inside, and then for the previous one again."""
        before = self._state[1]
        self.switch(purpose)
        try:
            yield
        finally:
            self.switch(before)

    def timing(self, work: Generator[Item, None, Result]) -> Generator[Item, None, Result]:
        """Count while `work` runs, for "start" until it switches.

        The time between a yield and the next resumption is the caller's and is not counted.
        """
        with self("start"), closing(work):
            while True:
                try:
                    item = next(work)
                except StopIteration as end:
                    return end.value
                with self(None):
                    yield item
