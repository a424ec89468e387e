"""Lines for steps that may take long, so that nobody takes them for a hang."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from time import monotonic

from kdsweep.formatting import duration

# Other lines may come before and after. No more than 15 seconds are to pass without one.
SECONDS_BETWEEN_LINES = 10.0


class StartNotice:
    """A line every ten seconds for as long as the same thing starts. For a thread with a loop."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._what: str | None = None
        self._since = 0.0
        self._last_line = 0.0

    def look(self, what: str | None) -> None:
        """Call it often. what: what starts now, as the start of a line; None if nothing does."""
        now = monotonic()
        if what != self._what:
            self._what, self._since, self._last_line = what, now, now
        elif what is not None and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._say(_so_far(what, now - self._since))


@contextlib.contextmanager
def saying_how_long(
    say: Callable[[str], None], doing: str, every: float = SECONDS_BETWEEN_LINES
) -> Iterator[None]:
    """Say every few seconds what this block does and since when: with tens of thousands of trials
    it takes minutes. `say` is called in another thread."""
    started = monotonic()
    is_over = threading.Event()

    def speak() -> None:
        while not is_over.wait(every):
            say(_so_far(doing, monotonic() - started))

    speaker = threading.Thread(target=speak, name="how long", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_over.set()
        speaker.join()


def _so_far(what: str, seconds: float) -> str:
    return f"{what}: {duration(seconds)} so far"
