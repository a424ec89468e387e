"""What a terminal shows of a sweep whose number of confirm runs isn't known yet."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_status import STATUS, STRATEGY

from kdsweep.sweep.progress import Progress, SeedRunCounts, SweepProgress
from kdsweep.terminal.console import open_console
from kdsweep.terminal.progress import _LiveView
from kdsweep.terminal.status import show_status


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
    assert "2 of 3" in shown
    assert " to " not in shown
    assert "about 10 s left" in shown


def test_live_progress_says_between_how_many_runs() -> None:
    view = _LiveView(open_console())
    progress = Progress()
    progress.end(0, "complete", 0.9)
    for most, shown_runs, shown_left in (
        (16, "5 of 6 to 16 runs", "1 to 11 runs left"),
        (6, "5 of 6 runs", "1 run left"),
    ):
        counts = SeedRunCounts(0, 0, 5, 6, most)
        view.progress(SweepProgress({"distill": progress}, {"distill": 1}, counts, 60.0))
        shown = "\n".join(row.plain for row in view.render())
        assert shown_runs in shown
        assert f"spent, {shown_left}" in shown
