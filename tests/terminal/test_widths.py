"""What commands show at 60 to 200 columns and piped: no name is cut, no word is broken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_status import STATUS, STRATEGY
from made_up_sweeps import TEACHER, report_of, settings_of, trial
from rich.cells import cell_len

from kdsweep.compare.ranks import Ranks
from kdsweep.report.model import Report
from kdsweep.sweep.plan_facts import ModelFacts, SplitFacts, TaskFacts
from kdsweep.sweep.status import BestSoFar, SweepStatus
from kdsweep.terminal.console import open_console, say_lines
from kdsweep.terminal.plan import _show_models, _show_task
from kdsweep.terminal.report import show_report, show_reports
from kdsweep.terminal.status import show_status

LONG = "distill_from_two_teachers_then_finetune"
STRATEGIES = ("finetune", "distill", "combined", "distill_then_finetune", LONG, "wärmer")
WIDTHS = (60, 80, 120, 200, None)
Show = Callable[[Callable[[], None]], str]


@pytest.fixture(params=WIDTHS, ids=str)
def shown(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Show:
    """What a function prints, at one width (None: piped)."""
    width: int | None = request.param
    if width is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))

    def show(printing: Callable[[], None]) -> str:
        printing()
        text = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
        assert "…" not in text
        for line in text.splitlines():
            is_whole = re.match(r"\s*(kdsweep |\S+$)", line)
            assert width is None or is_whole or cell_len(line) <= width, line
        return text

    return show


def made_up(sweep: str = "reviews") -> Report:
    """Six strategies; alpha moves, and the student's shape is searched."""
    alpha = {"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2}
    settings = settings_of(alpha, {"shape": "linear", "start": 9.6, "end": 1.0}, layers=3)
    records = [
        trial(name, number, 0.8 + number / 100, settings, seed_index=seed)
        for name in STRATEGIES
        for number in range(3)
        for seed in (None, 0, 1)
        if seed is None or number == 2
    ]
    return report_of(records, STRATEGIES, teacher=TEACHER, sweep=sweep)


@pytest.mark.parametrize("shows_all", [False, True])
def test_a_report_fits_and_keeps_its_names_whole(shown: Show, shows_all: bool) -> None:
    report = made_up()
    text = shown(lambda: show_report(report, Path("runs"), shows_all=shows_all))
    for name in STRATEGIES:
        assert re.search(rf"(?m)^{name}\b", text)
    first = text.split("\n\n")[0]
    assert first.split() == report.verdict.split()
    assert LONG in text
    assert text.index("report.html") < text.index("kdsweep export") < text.index("kdsweep ui")
    assert ("does lowering the temperature" in " ".join(text.split())) == shows_all
    for strategy in report.strategies.values():
        assert strategy.confirm is not None
        assert f"{strategy.confirm.mean:.4f}" in text


def test_several_sweeps_fit(shown: Show) -> None:
    reports = [made_up("sst2"), made_up("a-second-sweep-with-a-long-name-embedded-quick")]
    ranks = Ranks(dict.fromkeys(STRATEGIES, 1.5), "no difference")
    text = shown(lambda: show_reports(reports, ranks))
    for name in (*STRATEGIES, *(report.sweep for report in reports)):
        assert name in text


def test_a_status_fits(shown: Show) -> None:
    one = replace(STRATEGY, pruned=3, running=2, best=BestSoFar(17, 0.8123))
    status: SweepStatus = replace(STATUS, strategies=dict.fromkeys(STRATEGIES, one))
    text = shown(lambda: show_status(status))
    for name in STRATEGIES:
        assert re.search(rf"(?m)^{name}\b", text)
    assert text.count("0.8123 (trial 17)") == len(STRATEGIES)


def test_a_plan_fits(shown: Show) -> None:
    labels = {f"a label of some length {i}": 10 + i for i in range(12)}
    model = "/data/models of the group/sentence-transformers+paraphrase-multilingual-mpnet-base-v2"
    task = TaskFacts(list(labels), "accuracy", {"train": SplitFacts(186, labels=labels)}, 0, [])
    models = [ModelFacts("teacher", model, 12, 109_000_000, 437.0, "not downloaded yet", {})]

    def show() -> None:
        _show_task(open_console(), task)
        _show_models(open_console(), models)

    assert " ".join(shown(show).split()).count("paraphrase-multilingual-mpnet-base-v2") == 1


def test_prose_wraps_at_words_and_commands_stay_whole(shown: Show) -> None:
    command = "  kdsweep run 'a space with a long name.yaml' --sweep sweeps/quick.yaml --embedded"
    prose = "a: " + "unbelievable words " * 20
    lines = shown(lambda: say_lines(f"{prose}\n{command}")).splitlines()
    assert lines[-1] == command
    assert "\n".join(lines[:-1]).split() == prose.split()
