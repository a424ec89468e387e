"""Standard output and errors that a full disk, a closed pipe or a letter doesn't stop, and that
are there.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """A file descriptor that may drop what can't be written."""

    goes_on = False
    has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self.has_failed and self.goes_on:
            return size
        try:
            # Less than all of it may be written, and nothing of it where another program that has
            # the same pipe or terminal doesn't want to wait.
            while (written := super().write(data)) is None:
                select.select([], [self], [])
            return written
        except OSError:
            self.has_failed = True
            if not self.goes_on:
                raise
            return size


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
    """From now on, drop what can't be printed: the work is worth more."""
    if isinstance(sys.stdout, _Output):
        sys.stdout.descriptor.goes_on = True


def flush_output() -> str | None:
    """Print what is left. Returns why that can't be done, unless that has been said already."""
    if isinstance(sys.stdout, _Output) and sys.stdout.descriptor.has_failed:
        # Python tries once more at its end.
        go_on_without_output()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        go_on_without_output()
        # Who closes a pipe wants no more of it.
        return "" if error.errno == errno.EPIPE else f"output: {error.strerror or error}"
    return None


def _opened(stream: IO[str]) -> IO[str]:
    # Tests and notebooks have streams of their own.
    if type(stream) is not io.TextIOWrapper:
        return stream
    stream.flush()
    return _Output(stream)
