"""Output that a reader who doesn't read holds up no work: a stopped terminal (Ctrl-S), a pager that
isn't scrolled, a program behind a pipe that was stopped.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from collections import deque
from typing import IO

# How much waits for a reader, in bytes, before the oldest of it is dropped.
MOST_BYTES = 1_000_000
# A reader that reads takes far less. Without this short wait, lines of standard output and of
# standard error on one terminal would change places.
SECONDS_TO_WAIT = 0.2
# At the end, for a reader that takes nothing meanwhile.
SECONDS_AT_THE_END = 5.0
# What the live view writes starts with this, at the start of the empty row above its picture, and
# moves the cursor up to that row after the picture.
ERASE_PICTURE = "\r\x1b[J"
ROWS_UP = re.compile(rb"\x1b\[(\d+)A")


class Backlog:
    """What is to be written to a file descriptor. A thread of its own writes it."""

    def __init__(self, descriptor: int) -> None:
        self.keeps_all = False
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._dropped_lines = 0
        self._is_writing = False
        self._is_stuck = False
        self._written = 0
        threading.Thread(target=self._write_all, name="output", daemon=True).start()

    @property
    def is_stuck(self) -> bool:
        """Whether the reader doesn't read at present."""
        return self._is_stuck

    def put(self, data: bytes) -> None:
        """Write `data`, or keep it for later while nobody reads."""
        with self._changed:
            self._chunks.append(data)
            self._bytes += len(data)
            while self._bytes > MOST_BYTES and len(self._chunks) > 1 and not self.keeps_all:
                self._drop_oldest()
            self._changed.notify_all()
            if not self._is_stuck:
                self._is_stuck = not self._changed.wait_for(self._is_done, SECONDS_TO_WAIT)

    def end(self) -> bool:
        """Wait until all is written, or nothing more is read. Returns whether all is."""
        with self._changed:
            before = -1
            while not self._is_done() and before != self._written:
                before = self._written
                until = time.monotonic() + SECONDS_AT_THE_END
                while not self._is_done() and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
            return self._is_done()

    def _is_done(self) -> bool:
        return self.error is not None or not (self._is_writing or self._chunks)

    def _drop_oldest(self) -> None:
        dropped = self._chunks.popleft()
        self._bytes -= len(dropped)
        rows = sum(int(found) for found in ROWS_UP.findall(dropped))
        self._dropped_lines += dropped.count(b"\n") - rows

    def _write_all(self) -> None:
        try:
            while True:
                self._write(self._next())
        except OSError as error:
            with self._changed:
                self.error = error
                self._changed.notify_all()

    def _next(self) -> bytes:
        with self._changed:
            self._is_writing = False
            if self._is_done():
                self._is_stuck = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: bool(self._chunks))
            self._is_writing = True
            chunk = self._chunks.popleft()
            self._bytes -= len(chunk)
            if self._dropped_lines > 0:
                chunk = _after_dropped(self._dropped_lines, chunk)
                self._dropped_lines = 0
            return chunk

    def _write(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            written = write_some(self._descriptor, left)
            left = left[written:]
            with self._changed:
                self._written += written
                self._changed.notify_all()


def _after_dropped(lines: int, chunk: bytes) -> bytes:
    """The chunk with a line that says how many are missing before it."""
    words = f"({lines} lines were dropped here, because nobody read them)\n".encode()
    erase = ERASE_PICTURE.encode()
    return erase + words + chunk if chunk.startswith(erase) else words + chunk


def write_some(descriptor: int, data: memoryview) -> int:
    """How many bytes of `data` were written: at least one. Waits until that is possible."""
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            # Another program that has the same pipe or terminal doesn't want to wait.
            select.select([], [descriptor], [])


def is_behind(stream: IO[str]) -> bool:
    """Whether nobody reads at present what is printed to `stream`."""
    backlog = getattr(stream, "backlog", None)
    return isinstance(backlog, Backlog) and backlog.is_stuck
