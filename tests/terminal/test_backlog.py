"""Output that nobody reads holds up no work."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsweep.terminal.backlog import Backlog, is_behind
from kdsweep.terminal.progress import observing

# A command as `kdsweep run` prints: many lines, a file once that is done, and the rest.
WORK = """
import sys, time
from pathlib import Path
from kdsweep.cli.output import flush_output, go_on_without_output, open_output
from kdsweep.terminal import backlog
from kdsweep.terminal.progress import observing

backlog.SECONDS_AT_THE_END = {patience}
open_output()
go_on_without_output()
with observing() as observer:
    for number in range({lines}):
        observer.say("line-%d-" % number + "x" * 90)
    Path({done!r}).touch()
    while Path({waits!r}).exists():
        time.sleep(0.01)
print("the result")
flush_output()
"""
LINES = 14_000


def work(folder: Path, output: int, patience: float = 60.0) -> subprocess.Popen[bytes]:
    code = WORK.format(
        lines=LINES,
        done=str(folder / "done"),
        waits=str(folder / "waits"),
        patience=patience,
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=output, stderr=subprocess.DEVNULL)


def everything(descriptor: int) -> Iterator[bytes]:
    try:
        while part := os.read(descriptor, 65536):
            yield part
    except OSError:
        # A terminal that nobody has open any more.
        return


def wait_for(file: Path) -> None:
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_work_goes_on_while_nobody_reads_and_what_is_dropped_is_counted(
    kind: str, tmp_path: Path
) -> None:
    reading, writing = os.pipe() if kind == "pipe" else os.openpty()
    (tmp_path / "waits").touch()
    process = work(tmp_path, writing)
    if kind == "terminal":
        # As Ctrl-S does.
        termios.tcflow(writing, termios.TCOOFF)
    wait_for(tmp_path / "done")
    if kind == "terminal":
        termios.tcflow(writing, termios.TCOON)
    os.close(writing)
    (tmp_path / "waits").unlink()
    shown = b"".join(everything(reading)).decode()
    os.close(reading)
    assert process.wait() == 0
    numbers = [int(one) for one in re.findall(r"line-(\d+)-x{90}\r?\n", shown)]
    (dropped,) = re.findall(r"\((\d+) lines were dropped here, because nobody read them\)", shown)
    assert numbers == sorted(set(numbers)) and numbers[-1] == LINES - 1
    assert len(numbers) + int(dropped) == LINES
    assert shown.rstrip().endswith("the result")


def test_a_command_ends_although_nobody_reads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = work(tmp_path, writing, patience=0.2)
    os.close(writing)
    wait_for(tmp_path / "done")
    assert process.wait(60) == 0
    os.close(reading)


def test_a_slow_reader_gets_everything_at_the_end() -> None:
    reading, writing = os.pipe()
    backlog = Backlog(writing)
    backlog.keeps_all = True
    data = bytes(3_000_000)
    backlog.put(data)
    assert backlog.is_stuck
    found = 0
    while found < len(data) - 65536:
        assert select.select([reading], [], [], 60)[0]
        found += len(os.read(reading, 65536))
    assert backlog.end()
    os.close(reading)
    os.close(writing)


def test_an_ordinary_stream_is_never_behind() -> None:
    assert not is_behind(sys.stdout)
    with observing() as observer:
        observer.say("a line")
