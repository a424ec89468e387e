"""What a terminal shows of a sweep whose number of confirm runs isn't known yet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdsweep.config.sweep import Budget
from kdsweep.sweep.progress import Progress, SeedRunCounts
from kdsweep.sweep.status import StrategyStatus, SweepStatus
from kdsweep.terminal.console import open_console
from kdsweep.terminal.progress import _LiveView
from kdsweep.terminal.status import show_status

STRATEGY = StrategyStatus(
    complete=2,
    pruned=0,
    failed=0,
    running=0,
    left=0,
    finalists_ended=4,
    finalists_left=0,
    confirmed=2,
    to_confirm=1,
    to_confirm_at_most=6,
    best=None,
)
STATUS = SweepStatus(
    sweep="tiny",
    metric="accuracy",
    state="stopped",
    strategies={"distill": STRATEGY},
    seconds_spent=60.0,
    gpu_hours_spent=0.0,
    seconds_left=10.0,
    seconds_left_at_most=60.0,
    budget=Budget(),
    slots=None,
    precision=None,
    start_from=(),
    earlier_space={},
)


def test_status_says_between_how_many_runs_and_how_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_status(STATUS)
    shown = capsys.readouterr().out
    assert "2 of 3 to 8" in shown
    assert "about 10 s to 1 min 0 s left" in shown
    known = {"distill": replace(STRATEGY, to_confirm_at_most=1)}
    show_status(replace(STATUS, strategies=known, seconds_left_at_most=10.0))
    shown = capsys.readouterr().out
    assert "2 of 3 " in shown
    assert " to " not in shown
    assert "about 10 s left" in shown


def test_live_progress_says_between_how_many_runs() -> None:
    view = _LiveView(open_console())
    progress = Progress()
    progress.end(0, "complete", 0.9)
    for most, shown_runs, shown_left in (
        (16, "5 of 6 to 16 runs", "1 to 11 left"),
        (6, "5 of 6 runs", "1 left"),
    ):
        counts = SeedRunCounts(0, 0, 5, 6, most)
        view.progress({"distill": progress}, {"distill": 1}, counts, 60.0)
        shown = "\n".join(row.plain for row in view.render())
        assert shown_runs in shown
        assert f"spent, {shown_left}" in shown
