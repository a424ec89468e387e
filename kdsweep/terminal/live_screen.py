"""A picture at the bottom of a terminal, redrawn while lines are printed above it.

Between two writes the cursor stands at the start of an empty row above the picture. So a write
needs to know nothing of what the last one drew: it erases from the cursor to the end of the screen.
This holds also when the terminal has been resized and wraps its rows elsewhere, when a write was
dropped because nobody read it, and when something else has printed a line at the cursor.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import IO, cast

from rich.console import Console
from rich.text import Text

from kdsweep.terminal.backlog import ERASE_PICTURE, is_behind

SECONDS_BETWEEN_PICTURES = 0.25
# Rows that are wider than the terminal is by now are cut, not wrapped, so that their number is
# certain.
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"


class LiveScreen:
    """Prints lines above a picture. Lines may come from any thread."""

    def __init__(self, console: Console, render: Callable[[], Sequence[Text]]) -> None:
        """render: the rows of the picture, for the console's present size."""
        self._console = console
        # The console's own `file` is what standard output is by then.
        self._file = console.file
        self._render = render
        self._lines: deque[str] = deque()
        self._lock = threading.RLock()
        self._is_writing = False
        self._ended = threading.Event()
        self._rows: list[str] = []
        self._rows_for, self._rows_until = console.size, 0.0

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw the picture in this block, and print what goes to standard output and errors above
        it. At the end the picture is erased."""
        self._console.show_cursor(False)
        drawer = threading.Thread(target=self._draw_again, name="live view", daemon=True)
        drawer.start()
        output, errors = _LinesTo(self.say, sys.stdout), _LinesTo(self.say, sys.stderr)
        try:
            with (
                contextlib.redirect_stdout(cast("IO[str]", output)),
                contextlib.redirect_stderr(cast("IO[str]", errors)),
            ):
                yield
        finally:
            output.end()
            errors.end()
            self._ended.set()
            drawer.join()
            self._write()
            self._console.show_cursor(True)

    def say(self, line: str) -> None:
        """Print the line."""
        self._lines.append(line)
        self._write()

    def _draw_again(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_PICTURES):
            if not is_behind(self._file):
                self._write()

    def _write(self) -> None:
        """Write the lines that wait, and the picture."""
        with self._lock:
            # A handler of a signal may print while this thread does. This call writes its line.
            if self._is_writing:
                return
            self._is_writing = True
            try:
                self._write_once()
                while self._lines:
                    self._write_once()
            finally:
                self._is_writing = False

    def _write_once(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        parts = [ERASE_PICTURE, *(f"{line}\n" for line in lines)]
        # While nobody reads, lines are kept rather than pictures.
        if not self._ended.is_set() and not is_behind(self._file) and (rows := self._picture()):
            parts += [NO_WRAP, *(f"\n{row}" for row in rows), WRAP, f"\r\x1b[{len(rows)}A"]
        self._file.write("".join(parts))
        self._file.flush()

    def _picture(self) -> list[str]:
        """The picture's rows with their colors, as they were a moment ago or as they are now."""
        size = self._console.size
        if size != self._rows_for or time.monotonic() > self._rows_until:
            self._rows = [self._row(row) for row in self._render()]
            self._rows_for = size
            self._rows_until = time.monotonic() + SECONDS_BETWEEN_PICTURES / 2
        # One row stays empty, and the cursor's line may have to scroll.
        return self._rows[: max(0, size.height - 2)]

    def _row(self, row: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(row, end="", soft_wrap=False, no_wrap=True, overflow="crop")
        return captured.get()


class _LinesTo:
    """A stream whose whole lines are printed by `say`. In all else it is like `stream`."""

    def __init__(self, say: Callable[[str], None], stream: IO[str] | None) -> None:
        self._say = say
        self._stream = stream
        self._rest = ""
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(_last_drawn(line))
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """What isn't a whole line yet waits for the rest."""

    def end(self) -> None:
        """Print the rest."""
        if _last_drawn(self._rest):
            self.write("\n")


def _last_drawn(line: str) -> str:
    """What a terminal shows of a line that a progress bar has drawn several times."""
    return next((part for part in reversed(line.split("\r")) if part), "")
