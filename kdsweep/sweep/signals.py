"""Signals: the first one saves and stops the sweep, a second Ctrl-C stops it at once.

`kdsweep stop` asks for the same by a file (`stop_file`).
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType

# A scheduler sends the first two, and a terminal that closes sends SIGHUP to all that it started.
LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


class StopRequest:
    """Whether a signal, or another process, asked the sweep to stop.

    resuming: after SIGTERM, SIGUSR1 or SIGHUP nobody said that the sweep is over. It is expected to
    resume soon, so workers wait for it.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.requested = False
        self.resuming = False
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals in this block. Only a process's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A signal may come while this thread prints, and then it can't print in between.
        speaker = threading.Thread(target=self._speak, name="signals", daemon=True)
        speaker.start()
        try:
            with handling(self._receive):
                yield
        finally:
            self._lines.put(None)
            speaker.join()

    def ask(self, by: str) -> None:
        """Stop as Ctrl-C does, because `by` asks for it. Called from any thread."""
        if not self.requested:
            self.say(f"stopping, as {by} asks: what runs is saved at its next step")
        self.requested = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self._lines.put(
                "stopping: what runs is saved at its next step (press Ctrl-C again to stop at once)"
            )
        self.requested = True
        self.resuming = number != signal.SIGINT

    def _speak(self) -> None:
        while (line := self._lines.get()) is not None:
            self.say(line)


@contextlib.contextmanager
def handling(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """In this block, Ctrl-C and the signals that ask a process to leave call `receive`."""
    numbers = (signal.SIGINT, *heeded(LEAVE_SIGNALS))
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def heeded(numbers: Iterable[signal.Signals]) -> tuple[signal.Signals, ...]:
    """These signals, without SIGHUP where `nohup` has this process ignore it."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return tuple(one for one in numbers if one != signal.SIGHUP or not ignored)
