"""Terminals that close, and output that nobody reads any more, while a sweep runs."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest
from sweep_processes import INLINE, ON_RAY, PLAIN, processes_of, runs_of
from terminals import Terminal

from kdsweep.sweep.folders import Home
from kdsweep.sweep.sweep_lock import holder_of

EPOCHS = 16
LONG = (
    *PLAIN,
    "trials=1",
    "strategies.combined=",
    f"training.epochs={EPOCHS}",
    "training.evaluations_per_epoch=4",
)
EVALUATIONS = 4 * EPOCHS
# A shell that lives to write the command's status, in one that ends with its terminal.
RUN = "(trap : HUP; {command}; echo $? > status)"
ALONE, IN_A_PIPE, BOTH_IN_A_PIPE = f"{RUN}; :", f"{RUN} | cat; :", f"{RUN} 2>&1 | tee log; :"


def evaluations(home: Home) -> dict[str, int]:
    files = home.sweep("tiny").trials.glob("*/metrics.jsonl")
    return {file.parent.name: len(file.read_text().splitlines()) for file in files}


def wait_for_more(terminal: Terminal, home: Home, before: int) -> None:
    enough = min(before + 3, 2 * EVALUATIONS)
    terminal.wait_for(lambda: sum(evaluations(home).values()) >= enough)


def in_a_terminal(shell: str, space: Path, home: Home, *assignments: str) -> Terminal:
    sets = [part for one in assignments for part in ("--set", one)]
    command = [sys.executable, "-m", "kdsweep", "run", str(space), "--home", str(home.root), *sets]
    line = shell.format(command=shlex.join(command))
    return Terminal(["bash", "-c", f"cd {shlex.quote(str(home.root))}; {line}"])


def status_of(home: Home, seconds: float = 120) -> int:
    """The status of the command, once it has ended and left no process."""
    until = time.monotonic() + seconds
    file = home.root / "status"
    while not file.exists() or not file.read_text() or processes_of(home.root):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert holder_of(home.sweep("tiny").lock_file) is None
    status = int(file.read_text())
    file.unlink()
    return status


@pytest.mark.slow
def test_a_terminal_that_closes_saves_and_stops_a_sweep_and_nohup_lets_it_go_on(
    space: Path, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    before = 0
    for shell, engine in ((IN_A_PIPE, INLINE), (BOTH_IN_A_PIPE, ON_RAY)):
        terminal = in_a_terminal(shell, space, home, *LONG, engine)
        wait_for_more(terminal, home, before)
        terminal.close()
        assert status_of(home) == 130
        terminal.end()
        assert "RUNNING" not in {one.info.status for one in runs_of(home)}
        # A short trial may have ended before the signal came.
        begun = {name for name, count in evaluations(home).items() if count < EVALUATIONS}
        trials = home.sweep("tiny").trials
        assert begun <= {file.parts[-3] for file in trials.glob("*/checkpoint/state.pt")}
        before = sum(evaluations(home).values())
    terminal = in_a_terminal(ALONE.replace("{", "nohup {"), space, home, *LONG, ON_RAY)
    wait_for_more(terminal, home, before)
    terminal.close()
    assert status_of(home) == 0
    terminal.end()
    assert evaluations(home) == {"distill-0": EVALUATIONS, "finetune-0": EVALUATIONS}
    assert not list(home.sweep("tiny").trials.glob("*/lost.json"))
