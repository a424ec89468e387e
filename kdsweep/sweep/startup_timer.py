"""The time until a sweep's first training step: what keeps it short, and a line that shows it."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path


class StartupTimer:
    """Seconds by part, from the start to the first step of the first job.

    started: as time.monotonic() counts; now, if it isn't given.
    """

    def __init__(self, started: float | None = None) -> None:
        self._started = time.monotonic() if started is None else started
        self._since = self._started
        self._part: str | None = "imports"
        self._parts: dict[str, float] = {}

    def enter(self, part: str) -> None:
        """Time from now on belongs to `part`; nothing is counted after the first step.

        A part may be entered again.
        """
        if self._part is not None:
            self._count()
            self._part = part

    def first_step(self) -> str | None:
        """`first step after 5.3 s: imports 3.1 s, data 0.4 s`; None if it isn't the first step."""
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
    """When this process was started, as time.monotonic() counts; now, if the system can't tell."""
    try:
        # proc(5): the 22nd field, in ticks since the machine started.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic()


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Collect no garbage while large packages are imported.

    They create a million objects that all stay. Python would walk through them again and again,
    which takes a fifth of the time. Afterwards they are set apart, so that it never does.
    """
    if not gc.isenabled():
        yield
        return
    # What is garbage now must not be set apart too.
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
