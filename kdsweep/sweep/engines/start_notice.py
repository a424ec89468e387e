"""Says that Ray, or its first slot, still starts: a busy machine takes most of a minute for it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from kdsweep.formatting import duration

# Other lines may come before and after. No more than 15 seconds are to pass without one.
SECONDS_BETWEEN_LINES = 10.0


class StartNotice:
    """A line every ten seconds for as long as the same thing starts."""

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
            self._say(f"{what}: {duration(now - self._since)} so far")
