"""Where a trial's time goes: seconds by purpose."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Literal, TypeVar, get_args

Purpose = Literal["start", "training", "evaluating", "saving"]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopwatch:
    """Seconds by purpose: each second counts for one, and none while the watch stands still, as it does at first.

    One thread switches it, any thread may read it.
    """

    def __init__(self) -> None:
        # Sums, purpose, and since when. Replaced as a whole, so that another thread never reads a part of it.
        self._state: tuple[dict[str, float], Purpose | None, float] = (
            dict.fromkeys(get_args(Purpose), 0.0),
            None,
            0.0,
        )

    @property
    def seconds(self) -> dict[str, float]:
        """What was counted until now, for all four purposes."""
        sums, purpose, since = self._state
        return sums | (
            {} if purpose is None else {purpose: sums[purpose] + time.monotonic() - since}
        )

    def switch(self, purpose: Purpose | None) -> None:
        """Count for `purpose` from now on; for None, stand still."""
        self._state = (self.seconds, purpose, time.monotonic())

    @contextmanager
    def __call__(self, purpose: Purpose | None) -> Iterator[None]:
        """Count for `purpose` inside, and afterwards for what it was before."""
        before = self._state[1]
        self.switch(purpose)
        try:
            yield
        finally:
            self.switch(before)

    def timing(self, work: Generator[Item, None, Result]) -> Generator[Item, None, Result]:
        """Count while `work` runs, for "start" until it switches; what passes while it's suspended at a yield is not its time."""
        with self("start"), closing(work):
            while True:
                try:
                    item = next(work)
                except StopIteration as end:
                    return end.value
                with self(None):
                    yield item
