"""Finalists: judged on validation with fresh seeds, before the best one is confirmed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from made_up_seed_runs import Searched, end_run, make_sweep
from sweep_processes import INLINE, Sweep, runs_of

from kdsweep.config import Plan, load
from kdsweep.errors import SettingsConflict
from kdsweep.sweep import run
from kdsweep.sweep.confirm import SeedQueue
from kdsweep.sweep.confirm_rules import check_confirm_rules, with_kept_rules
from kdsweep.sweep.expected_seed_runs import expected_seed_runs
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.progress import SeedRunCounts
from kdsweep.sweep.seed_runs import SeedRun
from kdsweep.sweep.status import status
from kdsweep.trial_id import TrialId

STRATEGIES = ("finetune", "distill")


def searched(**values: dict[int, float]) -> Searched:
    return Searched({name: values.get(name, {}) for name in STRATEGIES})


@pytest.fixture
def plan(tiny_space: Path) -> Plan:
    sets = ("strategies.combined=", "confirm={seeds: 2}")
    return load(tiny_space, assignments=sets)


@pytest.fixture
def folder(plan: Plan, tmp_path: Path) -> SweepFolder:
    """A sweep with four trials of each strategy."""
    return make_sweep(plan, tmp_path / "home", trials=4)


def queue_of(plan: Plan, folder: SweepFolder, trials: Searched) -> SeedQueue:
    return SeedQueue(plan, folder, trials.studies)


FOUR = {0: 0.7, 1: 0.9, 2: 0.8, 3: 0.6}


def train_all(queue: SeedQueue, values: Callable[[TrialId], float | None]) -> list[SeedRun]:
    """Every run, one after the other."""
    runs: list[SeedRun] = []
    while (one := queue.next(teacher=True)) is not None:
        runs.append(one)
        end_run(queue, one, values(one.id))
        assert queue.left() == queue.counts().planned - queue.counts().ended
    return runs


def test_the_best_mean_on_validation_is_confirmed_with_seeds_that_judged_no_finalist(
    plan: Plan, folder: SweepFolder
) -> None:
    queue = queue_of(plan, folder, searched(finetune=FOUR, distill=FOUR))
    assert queue.left() == 2 * (5 + 2)
    runs = train_all(queue, lambda one: 0.9 if one.number == 0 else 0.5)
    assert queue.counts() == SeedRunCounts(10, 10, 4, 4, 4)
    names = [one.id.name for one in runs if one.id.strategy == "distill"]
    assert names == [
        *(f"distill-{number}-finalist-0" for number in (1, 2, 0)),
        *(f"distill-{number}-finalist-1" for number in (0, 1)),
        *(f"distill-0-seed-{i}" for i in range(2)),
    ]
    # Every finalist is judged before anything reads the test split.
    assert [one.id.phase for one in runs] == ["finalist"] * 10 + ["confirm"] * 4
    assert [one.settings.judge_test for one in runs] == [False] * 10 + [True] * 4
    seeds = {
        phase: {
            strategy: {one.settings.seed for one in runs if one.id.phase == phase}
            for strategy in STRATEGIES
        }
        for phase in ("finalist", "confirm")
    }
    assert seeds["finalist"]["distill"] == seeds["finalist"]["finetune"]
    assert not seeds["finalist"]["distill"] & seeds["confirm"]["distill"]
    kept = folder.read_facts().confirm
    assert kept is not None
    assert (kept.finalists, kept.margin) == (3, 0.01)


def test_a_new_driver_chooses_and_trains_as_the_one_that_was_killed(
    plan: Plan, folder: SweepFolder
) -> None:
    trials = searched(finetune=FOUR, distill=FOUR)
    trained: list[TrialId] = []
    while True:
        # Each driver trains one run, starts another, and dies.
        queue = queue_of(plan, folder, trials)
        one, lost = queue.next(teacher=True), queue.next(teacher=True)
        if one is None:
            break
        end_run(queue, one, 0.9 if one.id.number == 2 else 0.5)
        trained.append(one.id)
        assert lost is None or not folder.trial(lost.id).is_over
    assert len(trained) == len(set(trained)) == 2 * (5 + 2)
    confirmed = {one.number for one in trained if one.phase == "confirm"}
    assert confirmed == {2}


def test_failed_runs_end_a_round_too_and_fewer_trials_are_fewer_finalists(
    plan: Plan, folder: SweepFolder
) -> None:
    queue = queue_of(plan, folder, searched(finetune={3: 0.5}, distill={1: 0.9, 2: 0.8}))
    runs = train_all(queue, lambda one: None if one.number == 1 else 0.5)
    finalists = [one.id.name for one in runs if one.id.phase == "finalist"]
    assert sorted(finalists) == [f"distill-{n}-finalist-{i}" for n in (1, 2) for i in range(2)]
    confirmed = {(one.id.strategy, one.id.number) for one in runs if one.id.phase == "confirm"}
    assert confirmed == {("finetune", 3), ("distill", 2)}


def test_a_strategy_without_a_complete_trial_has_no_runs(plan: Plan, folder: SweepFolder) -> None:
    queue = queue_of(plan, folder, searched(distill=FOUR))
    assert queue.left() == 5 + 2
    runs = train_all(queue, lambda one: 0.5)
    assert {one.id.strategy for one in runs} == {"distill"}


def test_a_sweep_of_an_earlier_version_has_one_finalist(plan: Plan, folder: SweepFolder) -> None:
    facts = folder.read_facts()
    old = replace(facts, sweep={**facts.sweep, "confirm": {"seeds": 2, "margin": 0.01}})
    assert old.config("tiny", {}).confirm.finalists == 1
    kept = with_kept_rules(plan.sweep, old)
    assert (kept.confirm.seeds, kept.confirm.finalists) == (2, 1)
    assert with_kept_rules(plan.sweep, facts).confirm.finalists == 3
    assert expected_seed_runs(replace(plan, sweep=kept)).words == "4 confirm runs"
    assert expected_seed_runs(plan).words == "10 runs of finalists and 4 confirm runs"


def test_other_rules_are_refused_once_a_finalist_was_trained(
    plan: Plan, folder: SweepFolder
) -> None:
    def changed(**rules: object) -> Plan:
        confirm = plan.sweep.confirm.model_copy(update=rules)
        return replace(plan, sweep=plan.sweep.model_copy(update={"confirm": confirm}))

    check_confirm_rules(changed(finalists=5), folder)
    queue_of(plan, folder, searched(distill=FOUR)).next(teacher=True)
    check_confirm_rules(changed(seeds=9), folder)
    for rules, said in (
        ({"finalists": 5}, "confirm.finalists: 3 -> 5"),
        ({"margin": 0.02}, "confirm.margin: 0.01 -> 0.02"),
    ):
        with pytest.raises(SettingsConflict, match=said) as refused:
            check_confirm_rules(changed(**rules), folder)
        assert "\n" not in str(refused.value)
    # What the sweep file leaves out is as it was.
    facts = folder.read_facts()
    stored = replace(facts, confirm=replace(facts.confirm, margin=0.03))
    assert with_kept_rules(plan.sweep, stored).confirm.margin == 0.03


@pytest.mark.slow
def test_kill_9_among_finalists_changes_no_choice_and_trains_nothing_twice(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    sets = (
        "sampler={type: random}",
        "pruner={type: none}",
        "trials=3",
        "confirm={seeds: 1}",
        "strategies.combined=",
        "strategies.distill=",
        "training.epochs=1",
        INLINE,
    )
    one = sweep(tmp_path / "killed", *sets)
    folder = one.home.sweep("tiny")
    assert one.wait_for(lambda: len(list(folder.finalists.glob("*/result.json"))) >= 2)
    one.kill()
    done = {file: file.stat().st_mtime_ns for file in folder.finalists.glob("*/result.json")}
    shutil.copytree(tmp_path / "killed" / "cache", tmp_path / "undisturbed" / "cache")
    report = run(space, home=one.home.root, assignments=sets)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    undisturbed = run(space, home=tmp_path / "undisturbed", assignments=sets)
    assert report.strategies["finetune"].finalists == undisturbed.strategies["finetune"].finalists
    assert trained(folder) == trained(Home(tmp_path / "undisturbed").sweep("tiny"))
    finalists = report.strategies["finetune"].finalists
    assert sum(one.seeds for one in finalists) == 5
    assert [one.chosen for one in finalists] == [True, False, False]
    best = report.strategies["finetune"].best
    assert best is not None
    assert best.trial == finalists[0].trial
    # Nothing of them is on the test split, and no student of theirs is kept.
    assert not list(folder.finalists.glob("*/test_logits.npy"))
    assert not list(folder.finalists.glob("*/student"))
    runs = [run for run in runs_of(one.home) if run.data.tags["kdsweep.phase"] == "finalist"]
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not any("test/accuracy" in run.data.metrics for run in runs)
    study = optuna.load_study(study_name="tiny/finetune", storage=one.home.storage_url("sqlite"))
    assert study.user_attrs["kdsweep.finalists"][0]["trial"] == best.trial
    found = status(one.home, "tiny").strategies["finetune"]
    assert (found.finalists_ended, found.finalists_left, found.to_confirm) == (5, 0, 0)
    assert run(space, home=one.home.root, assignments=sets).state == "done"
    with pytest.raises(SettingsConflict, match=r"confirm.finalists: 3 -> 2"):
        run(space, home=one.home.root, assignments=(*sets, "confirm.finalists=2"))


def trained(folder: SweepFolder) -> dict[str, list[dict[str, float]]]:
    """What every evaluation of every run measured."""
    files = folder.root.glob("*/*/metrics.jsonl")
    return {
        str(file.relative_to(folder.root)): [
            json.loads(line)["metrics"] for line in file.read_text().splitlines()
        ]
        for file in files
    }
