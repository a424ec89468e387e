"""A sweep that starts from earlier ones."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import others_slow
from simulated_sweep import Simulated
from sweep_processes import INLINE, Sweep, runs_of
from untrained_sweeps import die_while_opening, end, searched

from kdsweep.config import Plan, load
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import DamagedFile, KdsweepError, SpaceError
from kdsweep.housekeeping.listing import Counts, list_sweeps
from kdsweep.report.sentences import as_markdown
from kdsweep.sweep import run
from kdsweep.sweep.earlier_sweeps import what_to_start_from
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.results import open_studies
from kdsweep.sweep.start_from import FROM, StartedFrom
from kdsweep.sweep.status import status
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId

TWO = ("strategies.combined=", "trials=12", "confirm={seeds: 0}", "pruner={type: none}")
VALUES = {"finetune": [0.5, 0.9, 0.7, 0.8], "distill": [0.6, None, 0.8]}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def planned(space: Path, name: str, *assignments: str) -> Plan:
    return load(space, assignments=(*TWO, *assignments), name=name)


def start(home: Home, plan: Plan) -> Studies:
    """The studies of a sweep that starts now, as `run` opens them."""
    what_to_start_from(plan, home).write(home.sweep(plan.name))
    return open_studies(plan, home, runs=True)


def in_optuna(home: Home, name: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=name, storage=home.storage_url("sqlite")).trials


def test_trials_of_the_same_objective_are_known_and_the_three_best_are_tried_first(
    home: Home, tiny_space: Path
) -> None:
    first = searched(home, planned(tiny_space, "first"), VALUES)
    earlier = open_studies(first, home)
    drawn = [one.params for one in earlier.finished_trials("finetune")]
    plan = planned(tiny_space, "second", "start_from=first")
    studies = start(home, plan)
    assert studies.trials_left("finetune") == 12
    for strategy in VALUES:
        assert studies.progress(strategy).best is None
    tried = [studies.ask("finetune").params for _ in range(4)]
    assert tried[:3] == [drawn[1], drawn[3], drawn[2]]
    # Then `start_with`, which was the first trial of the earlier sweep.
    assert tried[3] == drawn[0] == {"learning_rate": 1e-3}
    studies.write()
    there = in_optuna(home, "second/finetune")
    assert [one.user_attrs.get(FROM) for one in there] == [
        *(f"first finetune-{number}" for number in range(4)),
        *[None] * 4,
    ]
    assert [one.value for one in there[:4]] == VALUES["finetune"]
    assert [one.state.name for one in in_optuna(home, "second/distill")] == [
        "COMPLETE",
        "PRUNED",
        "COMPLETE",
    ]
    assert studies.trials_left("finetune") == 8


def test_the_sampler_knows_them_from_the_start(home: Home, tiny_space: Path) -> None:
    values: list[float | None] = [0.5 + 0.01 * one for one in range(12)]
    searched(home, planned(tiny_space, "first"), {"finetune": values, "distill": values})
    plan = planned(tiny_space, "second", "start_from=first")
    found = {}
    for name, one in {"with": plan, "without": planned(tiny_space, "third")}.items():
        studies = start(home, one)
        for value in (0.6, 0.7, 0.8, 0.6):
            end(home, one, studies, "distill", value)
        found[name] = studies.ask("distill").params
        shown = studies._opened("distill").memory.imported
        assert len(shown) == (12 if name == "with" else 0)
    assert found["with"] != found["without"]


@pytest.mark.parametrize("sampler", others_slow(["tpe", "gp", "random"]))
def test_the_same_trials_on_any_number_of_slots_killed_or_not(
    home: Home, tiny_space: Path, tmp_path: Path, sampler: str
) -> None:
    searched(home, planned(tiny_space, "first"), VALUES)
    rules = f"sampler={{type: {sampler}, lag: 3}}"
    if sampler != "random":
        rules = f"sampler={{type: {sampler}, lag: 3, startup_trials: 5}}"
    plan = planned(tiny_space, "second", "start_from=first", "trials=7", rules)
    kept = what_to_start_from(plan, home)
    runs = {}
    for name, slots, kills in (("alone", 1, 0.0), ("many", 5, 0.0), ("killed", 3, 0.05)):
        root = tmp_path / name
        folder = Home(root).sweep(plan.name)
        folder.root.mkdir(parents=True)
        kept.write(folder)
        chance = random.Random(name)
        runs[name] = Simulated(plan, root / "optuna.db", slots, chance, kills).run()
    assert runs["many"] == runs["killed"] == runs["alone"]
    assert [len(trials) for trials in runs["alone"].values()] == [7, 7]


def test_a_driver_that_dies_while_they_enter_brings_each_once(
    home: Home, tiny_space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(home, planned(tiny_space, "first"), VALUES)
    plan = planned(tiny_space, "second", "start_from=first")
    studies = start(home, plan)
    die_while_opening(studies, "finetune", monkeypatch)
    assert len(in_optuna(home, "second/finetune")) == 2
    again = open_studies(plan, home, runs=True)
    again.ask("finetune")
    again.write()
    there = in_optuna(home, "second/finetune")
    assert [FROM in one.user_attrs for one in there] == [True] * 4 + [False]


def test_they_outlive_the_earlier_sweep_and_the_database(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space, "first"), VALUES)
    plan = planned(tiny_space, "second", "start_from=first")
    studies = start(home, plan)
    for value in (0.6, 0.7):
        end(home, plan, studies, "finetune", value)
    before = in_optuna(home, "second/finetune")
    storage: Any = studies.storage
    storage.scoped_session.remove()
    storage.engine.dispose()
    shutil.rmtree(home.sweep("first").root)
    for file in home.root.glob("optuna.db*"):
        file.unlink()
    again = open_studies(plan, home, runs=True)
    assert again.progress("finetune").order == [1, 0]
    after = in_optuna(home, "second/finetune")
    assert [(one.params, one.value, one.state) for one in after] == [
        (one.params, one.value, one.state) for one in before
    ]
    assert again.ask("finetune").id.number == 2


CHANGES: list[tuple[tuple[str, ...], str]] = [
    (("task.limit={train: 100}",), "other rows: train"),
    (("task.metric=f1_macro",), "objective.metric: accuracy -> f1_macro"),
    (("training.epochs=3",), "training.epochs: 2 -> 3"),
    (("task.truncation=tail",), "task.truncation: head -> tail"),
    (("student.layers=2",), "student.layers: 1 -> 2"),
    (("strategies.finetune.learning_rate={low: 5.0e-4, high: 3.0e-3, log: true}",), "low: 0.0002"),
    (("objective=[accuracy, size]",), "objective.and: None -> [size]"),
]


@pytest.mark.parametrize(("changes", "why"), CHANGES)
def test_trials_of_another_objective_are_only_tried(
    home: Home, tiny_space: Path, changes: tuple[str, ...], why: str
) -> None:
    searched(home, planned(tiny_space, "first"), VALUES)
    sets = (*changes, "start_from=first")
    found = what_to_start_from(planned(tiny_space, "second", *sets), home)
    assert not found.known.get("finetune")
    assert 1 <= len(found.first["finetune"]) <= 3
    assert any("finetune: no trial is known from the start" in one for one in found.lines)
    assert any(why in line for line in found.lines), found.lines


def test_another_model_under_the_same_name_is_seen(
    home: Home, tiny_space: Path, tiny: Callable[..., str], tmp_path: Path
) -> None:
    own = tmp_path / "student"
    shutil.copytree(tiny("bert", layers=2), own)
    student = (f"student.model={own}",)
    searched(home, planned(tiny_space, "first", *student), VALUES)
    plan = planned(tiny_space, "second", "start_from=first", *student)
    assert what_to_start_from(plan, home).known["finetune"]
    # The same files elsewhere are the same model.
    moved = tmp_path / "moved"
    shutil.copytree(own, moved)
    elsewhere = planned(tiny_space, "second", "start_from=first", f"student.model={moved}")
    assert what_to_start_from(elsewhere, home).known["finetune"]
    (own / "config.json").write_text((own / "config.json").read_text() + " ")
    assert not what_to_start_from(plan, home).known


def test_values_that_do_not_fit_are_left_to_the_sampler(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space, "first"), {"distill": [0.9, 0.8]})
    narrow = "strategies.distill.alpha={low: 0.4, high: 0.6}"
    hot = "strategies.distill.temperature={choices: [1.0, 2.0]}"
    fine = ("strategies.finetune=", "strategies.distill.start_with=[]")
    plan = planned(tiny_space, "second", "start_from=first", narrow, hot, *fine)
    found = what_to_start_from(plan, home)
    # It was drawn at 0.5, 4.0, 1e-3.
    best = found.first["distill"][0]
    assert best.params == {"alpha": 0.5, "learning_rate": 1e-3}
    settled = start(home, plan).ask("distill").params
    assert (settled["alpha"], settled["learning_rate"]) == (0.5, 1e-3)
    assert settled["temperature"] in (1.0, 2.0)


def test_several_sweeps_give_three_in_all(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space, "same"), VALUES)
    searched(
        home,
        planned(tiny_space, "other", "training.epochs=3", "sampler={type: tpe, seed: 1}"),
        VALUES,
    )
    plan = planned(tiny_space, "third", "start_from=[other, same]")
    found = what_to_start_from(plan, home)
    assert [one.of for one in found.first["finetune"]] == [
        f"same finetune-{number}" for number in (1, 3, 2)
    ]
    # distill has two complete trials there; the first of them was that of `start_with`.
    assert [one.of for one in found.first["distill"]] == [
        "same distill-2",
        "same distill-0",
        "other distill-2",
    ]


def test_of_a_search_for_the_cheapest_the_cheapest_good_ones_are_tried(
    home: Home, tiny_space: Path
) -> None:
    cheapest = "objective={least: size, within: 0.05, of: best}"
    searched(home, planned(tiny_space, "first", cheapest), {"finetune": [0.88, 0.9, 0.7, 0.89]})
    plan = planned(tiny_space, "second", cheapest, "start_from=first")
    found = what_to_start_from(plan, home)
    assert [one.of for one in found.first["finetune"]] == [
        f"first finetune-{number}" for number in (3, 1, 0)
    ]
    assert [one.values for one in found.known["finetune"]] == [
        (0.88, 100.0),
        (0.9, 99.0),
        (0.7, 98.0),
        (0.89, 97.0),
    ]
    studies = start(home, plan)
    for _ in range(4):
        end(home, plan, studies, "finetune", 0.8)
    assert len(in_optuna(home, "second/finetune")) == 8


def test_a_sweep_that_cannot_be_used_is_one_clear_line(home: Home, tiny_space: Path) -> None:
    def refused(*assignments: str) -> str:
        with pytest.raises(KdsweepError) as error:
            what_to_start_from(planned(tiny_space, "second", *assignments), home)
        return str(error.value)

    first = searched(home, planned(tiny_space, "first"), VALUES)
    assert "start_from: no sweep 'frist'" in refused("start_from=frist")
    assert "did you mean 'first'" in refused("start_from=frist")
    with home.sweep("first").locked():
        assert "start_from: sweep 'first' is being used by process" in refused("start_from=first")
    whole = home.sweep("first").facts.read_text(encoding="utf-8")
    home.sweep("first").facts.write_text(whole[:40], encoding="utf-8")
    line = refused("start_from=first")
    assert line.startswith("start_from: ") and "sweep.json can't be read" in line
    assert line.endswith("; restore it from a copy, or leave 'first' out")
    home.sweep("first").facts.write_text(whole, encoding="utf-8")
    searched(home, replace(first, name="empty"), {})
    line = refused("start_from=[first, empty]")
    assert "sweep 'empty' has no trial that this sweep can start from" in line
    assert "finetune: no trial has finished" in line
    for assignment, reason in (
        ("start_from=second", "'second' is this sweep itself"),
        ("start_from=[first, first]", "'first' is named twice"),
        ("start_from=../first", "a name is 1 to 100 letters"),
    ):
        with pytest.raises(SpaceError, match=reason):
            planned(tiny_space, "second", assignment)
    with pytest.raises(SpaceError, match="a grid tries every point"):
        grid = "{choices: [1.0e-3, 2.0e-3]}"
        planned(
            tiny_space,
            "second",
            "start_from=first",
            "sampler={type: grid}",
            "strategies.distill=",
            f"strategies.finetune.learning_rate={grid}",
        )


def test_it_is_part_of_the_identity(tiny_space: Path) -> None:
    plain = planned(tiny_space, "second")
    assert "start_from" not in plain.identity
    assert "start_from" not in plain.sweep.model_dump(mode="json")
    assert planned(tiny_space, "second", "start_from=a").identity["start_from"] == ["a"]


def test_a_sweep_that_has_started_keeps_what_it_started_from(home: Home, tiny_space: Path) -> None:
    searched(home, planned(tiny_space, "first"), VALUES)
    plan = planned(tiny_space, "second", "start_from=first")
    kept = what_to_start_from(plan, home)
    searched(home, plan, {})
    with pytest.raises(DamagedFile, match="start_from.json is missing"):
        what_to_start_from(plan, home)
    kept.write(home.sweep("second"))
    shutil.rmtree(home.sweep("first").root)
    assert what_to_start_from(plan, home) == StartedFrom.read(home.sweep("second")) == kept
    assert status(home, "second").start_from == kept.lines


def test_what_a_run_left_that_died_before_its_sweep_started_is_not_taken(
    home: Home, tiny_space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to start from an earlier sweep, and the next run of that name isn't."""
    searched(home, planned(tiny_space, "first"), VALUES)

    def die(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SweepFolder, "write_facts", die)
    for start_from, taken in (("start_from=first", VALUES.keys()), ("start_from=[]", set())):
        with pytest.raises(KeyboardInterrupt):
            run(tiny_space, home=home.root, name="second", assignments=(*TWO, start_from, INLINE))
        assert StartedFrom.read(home.sweep("second")).known.keys() == taken


def test_neither_what_is_drawn_nor_the_seeds_of_trials_are_repeated(
    home: Home, tiny_space: Path
) -> None:
    """Both sweeps have the same seed."""
    unlearning = "sampler={type: random}"
    first = searched(home, planned(tiny_space, "first", unlearning), VALUES)
    earlier = open_studies(first, home)
    studies = start(home, planned(tiny_space, "second", "start_from=first", unlearning))
    before = {earlier.params(trial)["learning_rate"] for trial in trials_of(home, "first")}
    seeds = {settings_of(home, "first", one).seed for one in trials_of(home, "first")}
    asked = [studies.ask("finetune") for _ in range(6)]
    said = what_to_start_from(planned(tiny_space, "third", "start_from=first", unlearning), home)
    assert said.lines[0] == (
        "from first: finetune: no trial is known from the start (the sampler learns from none); "
        "the best 3 to be tried first"
    )
    # The three best, then `start_with`, which the earlier sweep tried too.
    assert not before & {one.params["learning_rate"] for one in asked[4:]}
    assert not seeds & {one.settings.seed for one in asked}
    assert [studies.ask("distill").settings.seed for _ in range(2)] == [
        one.settings.seed for one in asked[:2]
    ]


def trials_of(home: Home, sweep: str) -> list[TrialId]:
    return home.sweep(sweep).started_trials()


def settings_of(home: Home, sweep: str, trial: TrialId) -> TrialSettings:
    return home.sweep(sweep).trial(trial).read_settings()


@pytest.mark.slow
def test_a_killed_sweep_ends_with_trials_of_its_own_alone(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    home = Home(tmp_path / "home")
    alone = ("strategies.distill=", "training.epochs=1", "trials=3", INLINE)
    searched(home, planned(space, "first", *alone), {"finetune": [0.99, 0.98, 0.97]})
    sets = (*TWO, *alone, "start_from=first")
    killed = sweep(home.root, *sets)
    assert killed.wait_for(lambda: killed.evaluations() >= 2)
    killed.kill()
    shutil.rmtree(home.sweep("first").root)
    report = run(space, home=home.root, assignments=sets)
    found = report.strategies["finetune"]
    assert (found.trials.complete, found.trials.total) == (3, 3)
    words = "first (finetune: 3 trials known from the start, the best 3 tried first); no number"
    assert f"Started from: {words}" in as_markdown(report)
    assert words in home.sweep("tiny").page.read_text(encoding="utf-8")
    there = in_optuna(home, "tiny/finetune")
    assert [one.user_attrs.get(FROM, "own").split()[0] for one in there] == [
        *["first"] * 3,
        *["own"] * 3,
    ]
    # Its best one is its own, however good the earlier ones were.
    assert found.best is not None
    assert found.best.validation == max(one.value or 0 for one in there[3:])
    searches = [one for one in runs_of(home) if one.data.tags["kdsweep.phase"] == "search"]
    assert sorted(one.data.tags["kdsweep.trial"] for one in searches) == ["0", "1", "2"]
    listed = next(one for one in list_sweeps(home) if one.name == "tiny")
    assert (listed.counts, status(home, "tiny").state) == (Counts(3, 3), "done")
