"""Sweeps with more than one objective."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import optuna
import pytest

from kdsweep.config import SpaceError, load
from kdsweep.report.model import Report
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.results import report as read_report
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import StudyStorage
from kdsweep.terminal.report import show_report
from kdsweep.trial_id import TrialId

BOTH = "objective=[accuracy, latency]"


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_sweep_looks_for_both_and_shows_the_front(
    tmp_path: Path, tiny_space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observer = Lines()
    sets = (
        BOTH,
        "trials=3",
        "keep={students: 1}",
        "confirm={seeds: 0}",
        "training.epochs=1",
        "student.layers={choices: [1, 2]}",
        "sampler={type: tpe, startup_trials: 3, seed: 0}",
    )
    report = run(tiny_space, home=tmp_path, assignments=sets, observer=observer).to_json()
    assert (
        "objectives: accuracy, latency; nothing is pruned: no pruner handles several"
        in observer.lines
    )
    home = Home(tmp_path)
    study = optuna.load_study(study_name="tiny/distill", storage=home.storage_url("sqlite"))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    for trial in study.trials:
        result = json.loads(
            home.sweep("tiny").trial(TrialId("distill", trial.number)).result.read_text()
        )
        assert trial.values == [
            result["best"]["metrics"]["validation/accuracy"],
            result["student"]["latency_ms"],
        ]
    best = {name: found["best"] for name, found in report["strategies"].items()}
    assert best["distill"]["validation"] == max(
        trial.values[0] for trial in study.trials
    )  # the metric alone chooses the best
    front = report["pareto"]
    # Students of both architectures were drawn.
    assert len({trial.values[1] for trial in study.trials}) == 2
    assert front[0]["validation"] == max(one["validation"] for one in best.values())
    assert all(
        a["validation"] > b["validation"] and a["latency"] > b["latency"]
        for a, b in itertools.pairwise(front)
        if a["latency"] != b["latency"]
    )
    again = read_report(home, "tiny").to_json()
    assert (again["pareto"], again["state"]) == (front, "done")
    show_report(Report.from_json(report), tmp_path)
    assert "Pareto front" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_every_sampler_works_after_trials_of_each_state(
    tmp_path: Path, tiny_space: Path, sampler: str
) -> None:
    startup = "" if sampler == "random" else ", startup_trials: 2"
    plan = load(tiny_space, assignments=(BOTH, f"sampler={{type: {sampler}{startup}}}"))

    def opened() -> Studies:
        return Studies(
            StudyStorage(f"sqlite:///{tmp_path / 'optuna.db'}"),
            plan.name,
            plan.space,
            plan.sweep,
            Home(tmp_path).sweep(plan.name),
        )

    studies = opened()
    for i, state in enumerate(
        ("complete", "diverged", "failed", "complete", "complete", "complete", "complete")
    ):
        trial = studies.ask("distill")
        assert not studies.report(trial, 1, 0.5)
        studies.tell(
            trial,
            state,
            0.5 + i / 100 if state == "complete" else None,
            costs=[10.0 - i] if state == "complete" else [],
        )
        studies.write()
    assert studies.progress("distill").best == (6, 0.56)
    assert opened().progress("distill").order == studies.progress("distill").order
    assert studies.importance("distill") is not None


@pytest.mark.parametrize(
    ("assignments", "rule"),
    [
        (
            ("objective=[latency, accuracy]",),
            "objective: the task's metric comes first: accuracy (or 'metric', which means any "
            "task's), not 'latency'",
        ),
        (
            ("objective=[accuracy, latancy]",),
            "objective: after accuracy, an objective must be a cost, not 'latancy'; "
            "did you mean 'latency'?",
        ),
        (("trials=none",), "trials: must be a whole number, not 'none'"),
        (
            ("objective=[accuracy, size, size]",),
            "objective: names one of them twice: [accuracy, size, size]",
        ),
        (
            (BOTH, "pruner={type: median}"),
            "pruner: median can't weigh several objectives (accuracy, latency); leave 'pruner' "
            "out, or set it to {type: none}",
        ),
    ],
)
def test_an_objective_that_is_not_possible_is_one_line(
    tiny_space: Path, assignments: tuple[str, ...], rule: str
) -> None:
    with pytest.raises(SpaceError) as raised:
        load(tiny_space, assignments=assignments)
    assert raised.value.rule == rule


def test_one_objective_is_as_if_none_was_named(tiny_space: Path) -> None:
    plain, named = load(tiny_space), load(tiny_space, assignments=("objective=[accuracy]",))
    assert plain.identity == named.identity
    assert plain.sweep.pruner.type == "paired"
    several = load(tiny_space, assignments=(BOTH,))
    assert several.identity["objective"] == {
        "metric": "accuracy",
        "direction": "maximize",
        "and": ["latency"],
    }
    assert several.sweep.pruner.type == "none"


@pytest.mark.parametrize("latency", [[], ["latency"]])
def test_a_study_names_its_metrics_as_dashboards_show_them(
    tiny_space: Path, tmp_path: Path, latency: list[str]
) -> None:
    objective = f"objective=[{', '.join(['accuracy', *latency])}]"
    plan = load(tiny_space, assignments=(objective, "pruner={type: none}"))
    database = StudyStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    folder = Home(tmp_path).sweep(plan.name)
    Studies(database, plan.name, plan.space, plan.sweep, folder).ask("finetune")
    study = optuna.load_study(study_name=f"{plan.name}/finetune", storage=database.storage)
    assert study.metric_names == ["accuracy", *latency]
