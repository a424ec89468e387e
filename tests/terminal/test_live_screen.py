"""What is on a terminal's screen after a fast sweep: each line once, in order, and no stale bar."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte
import pytest

# 500 trials start, step and end at once. Longer lines than the terminal is wide are among them, and
# what libraries print. The picture's height changes with each.
SWEEP = """
import sys, time
from pathlib import Path
from kdsweep.cli.output import flush_output, go_on_without_output, open_output
from kdsweep.sweep.progress import Progress, SeedRunCounts, SweepProgress
from kdsweep.terminal import live_screen
from kdsweep.terminal.progress import observing

live_screen.SECONDS_BETWEEN_PICTURES = 0.004
open_output()
go_on_without_output()
resized = Path(sys.argv[1])
print("before the sweep")
with observing() as observer:
    for number in range(500):
        for slot in range(number % 7):
            observer.step(f"running-{number + slot}", slot, 7)
        progress = Progress()
        progress.end(0, "complete", 0.5)
        trials = {f"strategy-{one}": 500 for one in range(1 + number % 5)}
        searched = dict.fromkeys(trials, progress)
        runs = SeedRunCounts(number % 3, 3, 0, 5, 5)
        observer.progress(SweepProgress(searched, trials, runs, 1.0))
        if number % 50 == 7:
            print(f"line {number}: printed by a library")
        elif number % 50 == 8:
            print(f"line {number}: an error", file=sys.stderr)
        elif number % 5 == 4:
            observer.say(f"line {number}: " + "long " * 60)
        else:
            observer.say(f"line {number}: complete")
        for slot in range(number % 7):
            observer.over(f"running-{number + slot}")
        if number == 250:
            print("line 250b: half of it", flush=True)
            while resized.exists():
                time.sleep(0.001)
print("the result")
flush_output()
"""


NUMBERS = [*range(251), 250, *range(251, 500)]


class Clipping:
    """A terminal whose lines stay where they are when its width changes."""

    def __init__(self, columns: int) -> None:
        self.screen = pyte.HistoryScreen(columns, 24, history=100_000)
        self.stream = pyte.Stream(self.screen)

    def feed(self, text: str) -> None:
        self.stream.feed(text)

    def resize(self, columns: int) -> None:
        self.screen.resize(columns=columns)

    @property
    def lines(self) -> list[str]:
        rows = [*self.screen.history.top, *map(self.screen.buffer.__getitem__, range(24))]
        return ["".join(row[x].data for x in range(max(row, default=-1) + 1)) for row in rows]


class Reflowing:
    """A terminal that wraps its lines anew when its width changes, as most do today. `lines` have
    any length; the cursor is between characters of one of them."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.wraps = columns, [""], True
        self.line, self.at, self.row_start = 0, 0, 0
        self.half = ""

    def resize(self, columns: int) -> None:
        self.columns = columns
        self.row_start = self.at // columns * columns

    def feed(self, text: str) -> None:
        text = self.half + text
        self.half = text[text.rindex("\x1b") :] if re.search(r"\x1b\[?[?\d;]*$", text) else ""
        whole = text.removesuffix(self.half)
        for code, letter, other in re.findall(r"\x1b\[([?\d;]*)([A-Za-z])|([^\x1b])", whole):
            if other:
                self.put(other)
            elif letter == "A":
                for _ in range(int(code or 1)):
                    self.up()
            elif letter == "J":
                self.lines = [*self.lines[: self.line], self.lines[self.line][: self.at]]
            elif code == "?7":
                self.wraps = letter == "h"

    def put(self, one: str) -> None:
        if one == "\r":
            self.at = self.row_start
        elif one == "\n":
            self.down()
        else:
            if self.at - self.row_start == self.columns and self.wraps:
                self.row_start = self.at
            elif self.at - self.row_start == self.columns:
                self.at -= 1
            line = self.lines[self.line]
            self.lines[self.line] = line[: self.at] + one + line[self.at + 1 :]
            self.at += 1

    def up(self) -> None:
        if self.row_start == 0:
            self.line -= 1
            self.row_start = max(0, len(self.lines[self.line]) - 1) // self.columns * self.columns
        else:
            self.row_start -= self.columns
        self.at = self.row_start

    def down(self) -> None:
        if self.row_start + self.columns < len(self.lines[self.line]):
            self.row_start += self.columns
        else:
            self.line, self.row_start = self.line + 1, 0
            self.lines += [""] * (self.line == len(self.lines))
        self.at = self.row_start


def set_width(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


WIDTHS = [(60, 60), (200, 200), (200, 60), (60, 200)]
# It reads slowly.
CLIPPING = [pytest.param(Clipping, *widths, marks=pytest.mark.slow) for widths in WIDTHS]


@pytest.mark.parametrize(
    ("kind", "columns", "later"), [*CLIPPING, *((Reflowing, *widths) for widths in WIDTHS)]
)
def test_every_line_is_there_once_and_no_bar_stays(
    kind: type[Clipping] | type[Reflowing], columns: int, later: int, tmp_path: Path
) -> None:
    terminal, resized = kind(columns), tmp_path / "not resized yet"
    resized.touch()
    master, slave = pty.openpty()
    set_width(slave, columns)
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(resized)], stdin=slave, stdout=slave, stderr=slave
    )
    decoder, shown = codecs.getincrementaldecoder("utf-8")(), ""
    while process.poll() is None or select.select([master], [], [], 0)[0]:
        if not select.select([master], [], [], 0.05)[0]:
            continue
        shown += (part := decoder.decode(os.read(master, 65536)))
        terminal.feed(part)
        if resized.exists() and "half of it" in shown:
            terminal.resize(later)
            set_width(slave, later)
            resized.unlink()
    os.close(master)
    os.close(slave)
    lines = [line.rstrip() for line in terminal.lines if line.strip()]
    assert process.returncode == 0, lines
    assert lines[0] == "before the sweep"
    assert lines[-1] == "the result"
    numbers = [int(found[1]) for line in lines if (found := re.match(r"line (\d+)b?:", line))]
    assert numbers == NUMBERS
    assert not [line for line in lines if re.search("━|strategy-|running-|confirm|spent", line)]
    if kind is Reflowing or columns == later:
        assert "".join(lines).replace(" ", "").count("long") == 100 * 60
