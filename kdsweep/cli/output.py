"""Standard output and errors that a full disk, a closed pipe or a letter doesn't stop, and that
are there.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import IO, TYPE_CHECKING

from kdsweep.terminal.backlog import Backlog, write_some

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """A file descriptor that may drop what can't be written, and keep what nobody reads yet."""

    goes_on = False
    has_failed = False
    backlog: Backlog | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self.has_failed and self.goes_on:
            return size
        try:
            return self._written(memoryview(data))
        except OSError:
            self.has_failed = True
            if not self.goes_on:
                raise
            return size

    def _written(self, data: memoryview) -> int:
        if self.backlog is None:
            # Less than all of it may be written.
            return write_some(self.fileno(), data)
        self.backlog.put(bytes(data))
        if self.backlog.error is not None:
            raise self.backlog.error
        return data.nbytes

    def end(self) -> None:
        """Write what is left, as far as it is read, and print directly from now on."""
        if self.backlog is None:
            return
        if not self.backlog.end() or self.backlog.error is not None:
            self.has_failed = True
        self.backlog = None


class _Output(io.TextIOWrapper):
    """Shows `?` for what the terminal's encoding doesn't have, instead of an error."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.descriptor = _Descriptor(stream.fileno(), "w", closefd=False)
        super().__init__(
            io.BufferedWriter(self.descriptor),
            encoding=stream.encoding,
            errors="replace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    @property
    def backlog(self) -> Backlog | None:
        return self.descriptor.backlog


def open_output() -> None:
    """Let this process print through `_Output`. Errors that can't be shown stop nothing."""
    _replace_closed()
    sys.stdout, sys.stderr = _opened(sys.stdout), _opened(sys.stderr)
    if isinstance(sys.stderr, _Output):
        sys.stderr.descriptor.goes_on = True


def _replace_closed() -> None:
    """After `>&-`, `2>&-` or `<&-` there is no stream, and the next file that is opened, such as a
    database, would get its number: what a library prints would be written into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. What this process starts has it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def go_on_without_output() -> None:
    """From now on, drop what can't be printed, and wait for nobody who doesn't read: the work is
    worth more.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, _Output):
            stream.descriptor.goes_on = True
            stream.flush()
            stream.descriptor.backlog = stream.descriptor.backlog or Backlog(stream.fileno())


def keep_all_output() -> None:
    """What is printed from now on is of no use in part."""
    if isinstance(sys.stdout, _Output) and sys.stdout.backlog is not None:
        sys.stdout.backlog.keeps_all = True


def flush_output() -> str | None:
    """Print what is left. Returns why that can't be done, unless that has been said already."""
    if isinstance(sys.stdout, _Output) and sys.stdout.descriptor.has_failed:
        # Python tries once more at its end.
        sys.stdout.descriptor.goes_on = True
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
            if isinstance(stream, _Output):
                stream.descriptor.end()
    except OSError as error:
        if isinstance(sys.stdout, _Output):
            sys.stdout.descriptor.goes_on = True
        # Who closes a pipe wants no more of it.
        return "" if error.errno == errno.EPIPE else f"output: {error.strerror or error}"
    return None


def _opened(stream: IO[str]) -> IO[str]:
    # Tests and notebooks have streams of their own.
    if type(stream) is not io.TextIOWrapper:
        return stream
    stream.flush()
    return _Output(stream)
