"""How a sweep ends: without patience for more trials, or without any trial that finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config.sweep import LAG
from kdsweep.errors import KdsweepError
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report as read_report

FINETUNE_ALONE = ("confirm={seeds: 0}", "strategies.combined=", "strategies.distill=")


def test_patience_ends_a_strategy_that_no_longer_improves(tiny_space: Path, tmp_path: Path) -> None:
    more = ("trials=30", "budget={patience: 2}", "training.epochs=1")
    report = run(tiny_space, home=tmp_path / "home", assignments=(*FINETUNE_ALONE, *more))
    found = report.strategies["finetune"]
    assert found.best is not None
    assert found.expected is not None and found.expected.trials == 30
    assert read_report(Home(tmp_path / "home"), report.sweep).strategies["finetune"] == found
    # A trial is counted with what it knows, which is the trials up to `lag` before it.
    assert found.trials.total == found.best.trial + 2 + LAG


def test_no_trial_finished_is_an_error_that_says_where_to_look(
    tiny_space: Path, tmp_path: Path
) -> None:
    more = ("trials=1", "strategies.finetune={alpha: 1.0, learning_rate: 1.0e+30}")
    expected = r"no trial finished: .* \(finetune-0: .*(finite|diverged).*; .*finetune-0\)"
    with pytest.raises(KdsweepError, match=expected):
        run(tiny_space, home=tmp_path / "home", assignments=(*FINETUNE_ALONE, *more))
