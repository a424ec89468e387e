"""Signals: the first one saves and stops the sweep, a second Ctrl-C stops it at once.

`kdsweep stop` asks for the same by a file (`stop_file`).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether a signal, or another process, asked the sweep to stop.

    resuming: after SIGTERM or SIGUSR1 a cluster is taking its machine back, and the sweep is
    expected to resume soon, so workers wait for it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.requested = False
        self.resuming = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in this block. Only a process's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def ask(self, by: str) -> None:
        """Stop as Ctrl-C does, because `by` asks for it. Called from any thread."""
        if not self.requested:
            self.say(f"stopping, as {by} asks: what runs is saved at its next step")
        self.requested = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.say(
                "stopping: what runs is saved at its next step (press Ctrl-C again to stop at once)"
            )
        self.requested = True
        self.resuming = number != signal.SIGINT
