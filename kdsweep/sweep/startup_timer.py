"""The way to a sweep's first training step: what keeps it short, and the line that says where the time went."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path


class StartupTimer:
    """Seconds by part, from `started` (time.monotonic; now without it) to the first step of the first job that takes one."""

    def __init__(self, started: float | None = None) -> None:
        self._started = self._since = time.monotonic() if started is None else started
        self._part: str | None = "imports"
        self._parts: dict[str, float] = {}

    def enter(self, part: str) -> None:
        """What passes from now on belongs to `part`. Parts may be entered again; nothing counts any more after the first step."""
        if self._part is not None:
            self._count()
            self._part = part

    def first_step(self) -> str | None:
        """Where the time went, in a line, if this is the first step: `first step after 5.3 s: imports 3.1 s, data 0.4 s, ...`."""
        if self._part is None:
            return None
        self._count()
        self._part = None
        parts = [
            f"{part} {seconds:.1f} s" for part, seconds in self._parts.items() if seconds >= 0.05
        ]
        return f"first step after {self._since - self._started:.1f} s: {', '.join(parts)}"

    def _count(self) -> None:
        assert self._part is not None
        now = time.monotonic()
        self._parts[self._part] = self._parts.get(self._part, 0.0) + now - self._since
        self._since = now


def process_started() -> float:
    """When this process was started, as time.monotonic counts; now, where the system doesn't tell."""
    try:
        ticks = int(
            Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        )  # proc(5): the 22nd field, since the machine's start
        return time.monotonic() - (
            time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        )
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic()


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Look for no garbage while large packages are imported: a million objects come, all of them stay, and Python would walk through
    them again and again, for a fifth of the time. Afterwards they are set apart, so that it never does.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()  # what is garbage now must not be set apart too
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
