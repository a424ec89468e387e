"""The search for the cheapest student: what the sampler is shown, and a sweep to its answer."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from kdsweep.config import SpaceError, load
from kdsweep.config.sweep import Cheapest
from kdsweep.report.model import Report
from kdsweep.report.sentences import as_markdown
from kdsweep.sweep import run
from kdsweep.sweep.best_first import best_first
from kdsweep.sweep.cheapest_search import Constrained
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report as read_report
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import StudyStorage

RULE = "objective={least: parameters, within: 0.02, of: best}"
LAYERS = "student.layers={choices: [1, 2]}"


def opened(tmp_path: Path, space: Path, *assignments: str) -> Studies:
    plan = load(space, assignments=assignments)
    storage = StudyStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    return Studies(storage, plan.name, plan.space, plan.sweep, Home(tmp_path).sweep(plan.name))


@pytest.mark.parametrize(
    ("assignments", "rule"),
    [
        (
            ("objective={least: speed}",),
            "objective.least: must be 'latency', 'size' or 'parameters', not 'speed'",
        ),
        (("objective={within: 0.01}",), "objective.least is missing"),
        (
            ("objective={least: size, within: -0.1}",),
            "objective.within: must be at least 0, not -0.1",
        ),
        (
            ("objective={least: size, witin: 0.1}",),
            "objective: unknown key 'witin'; did you mean 'within'?",
        ),
        (
            (RULE, "pruner={type: asha}"),
            "pruner: nothing is pruned in a search for the cheapest student, so asha can't be "
            "used; leave 'pruner' out, or set it to {type: none}",
        ),
        (
            (RULE, "budget.patience=3"),
            "budget.patience: waits for a better metric, and this sweep looks for a cheaper "
            "student; leave it out",
        ),
        (
            (RULE, "confirm={seeds: auto}"),
            "confirm.seeds: auto adds seeds until it is certain which strategy has the better "
            "metric, and this sweep looks for a cheaper student; set a number of seeds",
        ),
        (
            (RULE, "confirm={finalists: 1}"),
            "confirm.finalists: with 'of: best' the best student and a cheaper one are judged, so "
            "at least 2 are needed",
        ),
        (
            ("objective={least: size}", "strategies={plain: {alpha: 1.0, learning_rate: 1.0e-3}}"),
            "objective.of: no strategy of this space needs a teacher, so there is none to compare "
            "with; set 'of: best'",
        ),
    ],
)
def test_what_is_not_possible_is_one_line(
    tiny_space: Path, assignments: tuple[str, ...], rule: str
) -> None:
    with pytest.raises(SpaceError) as raised:
        load(tiny_space, assignments=assignments)
    assert raised.value.rule == rule


def test_it_is_in_the_identity_and_nothing_is_pruned(tiny_space: Path) -> None:
    plan = load(tiny_space, assignments=(RULE,))
    assert plan.identity["objective"] == {
        "metric": "accuracy",
        "direction": "maximize",
        "least": "parameters",
        "within": 0.02,
        "of": "best",
    }
    assert (plan.sweep.pruner.type, plan.sweep.costs) == ("none", ("parameters",))


def finished(number: int, values: list[float] | None) -> optuna.trial.FrozenTrial:
    state = optuna.trial.TrialState.PRUNED if values is None else optuna.trial.TrialState.COMPLETE
    trial = optuna.trial.create_trial(state=state, values=values)
    trial.number = number
    return trial


def test_the_sampler_sees_the_cost_alone_and_the_metric_as_a_constraint() -> None:
    trials = [finished(0, [0.90, 8.0]), finished(1, [0.88, 4.0]), finished(2, None)]
    show = Constrained(Cheapest(least="size", within=0.01, of="best"), lambda: None)
    shown = show(trials)
    assert [one.values[0] for one in shown[:2]] == pytest.approx([8.0, 4.0], rel=1e-5)
    limits = [one.constraints["0"] for one in shown]
    assert limits == pytest.approx([-0.01, 0.01, 1.0], abs=1e-6)
    # What a trial may not know of isn't shown, and so it isn't the best one either.
    assert show(trials[1:])[0].constraints["0"] == pytest.approx(-0.01, abs=1e-6)
    taught = Constrained(Cheapest(least="size", within=0.01, of="teacher"), lambda: 0.85)
    assert taught(trials)[1].constraints["0"] == pytest.approx(-0.04, abs=1e-6)
    # The trials themselves are as they were.
    assert trials[0].values == [0.90, 8.0] and not trials[0].constraints


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_the_database_keeps_metric_and_cost_and_a_resumed_sweep_asks_for_the_same(
    tmp_path: Path, tiny_space: Path, sampler: str
) -> None:
    startup = "" if sampler == "random" else ", startup_trials: 2"
    sets = (RULE, LAYERS, f"sampler={{type: {sampler}{startup}, lag: 1}}")
    ends = [(0.90, 20.0), None, (0.95, 20.0), (0.935, 10.0), (0.5, 10.0), (0.94, 20.0)]

    def play(folder: Path, *, resumed: bool) -> tuple[list[dict[str, object]], Studies]:
        folder.mkdir()
        studies = opened(folder, tiny_space, *sets)
        drawn = []
        for end in ends:
            trial = studies.ask("distill")
            drawn.append(dict(trial.params))
            assert not studies.report(trial, 1, 0.5)
            if end is None:
                studies.tell(trial, "diverged")
            else:
                studies.tell(trial, "complete", end[0], costs=[end[1]])
            studies.write()
            studies = opened(folder, tiny_space, *sets) if resumed else studies
        return drawn, studies

    at_once, studies = play(tmp_path / "a", resumed=False)
    assert play(tmp_path / "b", resumed=True)[0] == at_once
    url = f"sqlite:///{tmp_path / 'a' / 'optuna.db'}"
    study = optuna.load_study(study_name="tiny/distill", storage=url)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.values for trial in study.trials if trial.values] == [
        list(end) for end in ends if end
    ]
    # 0.93 is enough: trial 3 is the cheapest, and of the others the better one comes first.
    assert best_first(studies.config, studies, "distill") == [3, 2, 5, 0, 4]
    assert studies.progress("distill").best == (2, 0.95)


def test_tpe_goes_for_cheap_students_that_are_good_enough(tmp_path: Path, tiny_space: Path) -> None:
    choices = "student.layers={low: 1, high: 12}"
    fixed = "strategies.finetune={alpha: 1.0, learning_rate: 1.0e-3}"
    tpe = "sampler={type: tpe, startup_trials: 8, lag: 1}"
    rule = "objective={least: size, within: 0.01, of: best}"
    studies = opened(tmp_path, tiny_space, rule, choices, fixed, tpe, "trials=40")
    drawn = []
    for _ in range(40):
        trial = studies.ask("finetune")
        layers = trial.settings.student.layers
        assert isinstance(layers, int)
        drawn.append(layers)
        # From four layers on they are all as good.
        studies.tell(trial, "complete", 0.9 - 0.03 * max(0, 4 - layers), costs=[float(layers)])
        studies.write()
    assert sum(3 <= one <= 5 for one in drawn[20:]) > 10
    assert best_first(studies.config, studies, "finetune")[0] == drawn.index(4)


@pytest.mark.slow
def test_a_sweep_answers_with_the_cheapest_student_that_is_good_enough(
    tmp_path: Path, tiny_space: Path
) -> None:
    space = tmp_path / "two.yaml"
    space.write_text(tiny_space.read_text(encoding="utf-8").split("  combined:")[0])
    sets = (
        "objective={least: parameters, within: 0.3, of: teacher}",
        LAYERS,
        "trials=2",
        "sampler={type: grid}",
        "confirm={seeds: 2, finalists: 2}",
        "engine={type: inline}",
        "keep={students: 1}",
        "strategies={distill: {alpha: 0.5, temperature: 2.0, learning_rate: 3.0e-3}}",
    )
    report = run(space, home=tmp_path / "home", assignments=sets)
    found = report.cheapest
    assert found is not None and report.teacher is not None
    finalists = report.strategies["distill"].finalists
    assert [one.seeds for one in finalists] == [3, 3]
    assert found.reference == report.teacher.validation
    assert found.teachers_cost == report.teacher.parameters
    assert (found.strategy, found.trial) == ("distill", finalists[0].trial)
    assert found.loss == pytest.approx(found.reference - (finalists[0].mean or 0.0))
    assert found.good_enough == (found.most_loss is not None and found.most_loss <= 0.3 + 1e-9)
    assert report.winner is not None and report.winner.number == found.trial
    assert report.winner.seed_index is not None
    says = "is the student found with the fewest parameters that is within 30 points of the teacher"
    assert says in report.verdict or "No student is shown to be within 30 points" in report.verdict
    assert report.rests_on is not None and "on test its loss is" in report.rests_on
    assert report.verdict in as_markdown(report)
    assert report.pareto is not None
    best = report.strategies["distill"].best
    assert best is not None
    page = Home(tmp_path / "home").sweep("tiny").page.read_text(encoding="utf-8")
    assert f"trial {found.trial}{best.settings.student.shape}</small>" in page
    assert "highest validation value" not in as_markdown(report)
    again = read_report(Home(tmp_path / "home"), "tiny")
    assert again.cheapest == found == Report.from_json(report.to_json()).cheapest
    assert again.state == "done"
