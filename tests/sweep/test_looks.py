"""`confirm.seeds: auto`: which seeds a sweep trains, look after look."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import others_slow
from made_up_seed_runs import Searched, end_run, make_sweep
from simulated_students import Variation, ability_for, simulate
from sweep_processes import INLINE, Sweep, runs_of

from kdsweep.compare.looks import LookRules, compare_in_looks
from kdsweep.config import Plan, load
from kdsweep.core.files import write_array
from kdsweep.errors import SettingsConflict
from kdsweep.sweep import run
from kdsweep.sweep.confirm import SeedQueue
from kdsweep.sweep.confirm_rules import (
    check_confirm_rules,
    look_of,
    rules_at_start,
    starts_looks,
    with_kept_rules,
)
from kdsweep.sweep.expected_seed_runs import expected_seed_runs
from kdsweep.sweep.facts import ConfirmRules, LookedAt, SweepFacts
from kdsweep.sweep.folders import Home
from kdsweep.sweep.seed_runs import SeedRun, SeedRuns
from kdsweep.sweep.status import status

SPACE = """\
name: made-up
task: {dataset: reviews.csv, text: text, label: label, metric: accuracy}
student: {model: small}
strategies:
  good: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-4}}
  alike: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-4}}
  bad: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-4}}
"""
SCORES = {"good": 0.9, "alike": 0.9, "bad": 0.75}
ROWS = 500
VARIATION = Variation(0.05, 1.0, 0.1)
AUTO = "confirm={seeds: auto, finalists: 1, most: 8}"
SEARCHED = {"good": {0: 0.9}, "alike": {0: 0.91}, "bad": {0: 0.8}}


@pytest.fixture(scope="module")
def students() -> tuple[np.ndarray, Mapping[str, Mapping[int, np.ndarray]]]:
    """Labels, and 20 students of each strategy: the third one is clearly worse."""
    abilities = {
        name: (ability_for("accuracy", score, VARIATION), VARIATION)
        for name, score in SCORES.items()
    }
    return simulate(np.random.default_rng(0), abilities, 20, ROWS)


Students = tuple[np.ndarray, Mapping[str, Mapping[int, np.ndarray]]]


class Made:
    """A sweep of made-up students, its search over."""

    def __init__(self, root: Path, students: Students, *sets: str) -> None:
        root.mkdir(exist_ok=True)
        file = root / "space.yaml"
        file.write_text(SPACE)
        self.file = file
        self.labels, self.students = students
        self.plan = self.planned(*(sets or (AUTO,)))
        self.folder = make_sweep(self.plan, root / "home", trials=2)
        write_array(self.folder.test_labels, self.labels)
        self.searched = Searched(SEARCHED)
        self.said: list[str] = []

    def planned(self, *sets: str) -> Plan:
        """The sweep as it is now, with what it keeps."""
        plan = load(self.file, assignments=sets)
        if not hasattr(self, "folder"):
            return plan
        return replace(plan, sweep=with_kept_rules(plan.sweep, self.folder.read_facts()))

    def queue(self) -> SeedQueue:
        return SeedQueue(self.plan, self.folder, self.searched.studies, self.said.append)

    def end(self, queue: SeedQueue, run: SeedRun, failed: Collection[str] = ()) -> None:
        assert run.id.seed_index is not None
        predicted = self.students[run.id.strategy][run.id.seed_index]
        value = None if run.id.name in failed else 0.5
        end_run(queue, run, value, predicted, self.labels)

    def train_all(self, failed: Collection[str] = ()) -> list[str]:
        """Every run, one after the other."""
        queue = self.queue()
        trained = []
        while (run := queue.next(teacher=True)) is not None:
            self.end(queue, run, failed)
            trained.append(run.id.name)
            assert queue.left() == queue.counts().planned - queue.counts().ended
        return trained

    @property
    def facts(self) -> SweepFacts:
        return self.folder.read_facts()

    def seeds(self) -> dict[str, int]:
        """How many runs of confirm each strategy has."""
        return {name: len(self.folder.ended_runs("confirm", name)) for name in SCORES}


@pytest.fixture
def made(tmp_path: Path, students: Students) -> Made:
    return Made(tmp_path / "one", students)


def test_strategies_in_question_get_the_same_seeds_and_a_beaten_one_no_more(made: Made) -> None:
    trained = made.train_all()
    assert len(trained) == len(set(trained))
    wanted = compare_in_looks(
        "accuracy",
        made.labels,
        {name: {i: made.students[name][i] for i in range(8)} for name in SCORES},
        rules=LookRules(most=8, favorite="alike"),
    )
    assert made.seeds() == wanted.seeds_wanted == wanted.seeds_judged
    assert made.seeds()["bad"] == 3 < made.seeds()["good"] == made.seeds()["alike"]
    # A look begins when all runs of the one before have ended.
    assert sorted(trained[:9]) == sorted(f"{name}-0-seed-{i}" for name in SCORES for i in range(3))
    first = "look after 3 seeds: good and alike get seeds up to 5, bad gets no more"
    assert made.said[0] == first
    assert made.said[-1].endswith("no strategy gets more")
    assert made.facts.confirm == ConfirmRules(1, 0.01, most=8, favorite="alike")
    # Nothing is left to train or to judge, also for a new driver.
    assert made.train_all() == []
    assert made.facts.looked == LookedAt(dict.fromkeys(SCORES, 0), made.seeds(), made.seeds())


def test_looks_go_on_with_the_same_rules_where_a_strategy_comes_or_goes(made: Made) -> None:
    made.plan = made.planned(AUTO, "strategies.bad=")
    made.train_all()
    assert made.seeds() == {"good": 8, "alike": 8, "bad": 0}
    made.plan = made.planned(AUTO)
    # The others have their seeds already.
    assert made.train_all() == [f"bad-0-seed-{i}" for i in range(3)]
    assert made.facts.looked is not None
    assert made.facts.looked.judged == {"good": 8, "alike": 8, "bad": 3}
    made.plan = made.planned(AUTO, "strategies.alike=")
    assert made.train_all() == []
    assert made.facts.looked.trials == {"good": 0, "bad": 0}
    assert made.facts.confirm == ConfirmRules(1, 0.01, most=8, favorite="alike")


@pytest.mark.parametrize("case", others_slow(range(8)))
def test_any_order_of_ends_and_any_number_of_kills_give_the_same_seeds(
    tmp_path: Path, students: Students, made: Made, case: int
) -> None:
    made.train_all(failed=["alike-0-seed-1"])
    draw = random.Random(case)
    other = Made(tmp_path / "other", students)
    slots = draw.choice([2, 3, 8])
    queue, running = other.queue(), list[SeedRun]()
    while True:
        while len(running) < slots and (run := queue.next(teacher=True)) is not None:
            running.append(run)
        if not running:
            break
        other.end(queue, running.pop(draw.randrange(len(running))), ["alike-0-seed-1"])
        if draw.random() < 0.3:
            # A killed driver: what ran is asked for again.
            queue, running = other.queue(), []
    assert other.seeds() == made.seeds()
    assert other.facts.looked == made.facts.looked
    assert other.facts.confirm == made.facts.confirm


def test_what_a_killed_driver_did_not_store_is_judged_again(made: Made) -> None:
    queue = made.queue()
    runs = [queue.next(teacher=True) for _ in range(9)]
    assert queue.next(teacher=True) is None
    for one in runs:
        assert one is not None
        made.end(queue, one)
    looked = made.facts.looked
    assert looked is not None
    made.folder.write_facts(replace(made.facts, looked=None))
    assert SeedRuns(made.plan, made.folder, made.searched.studies).looked == looked
    assert made.queue().left() == 4
    assert made.facts.looked == looked


def test_a_strategy_whose_search_finds_nothing_is_not_waited_for(made: Made) -> None:
    made.searched = Searched({**SEARCHED, "bad": {}})
    made.searched.left["bad"] = 1
    queue = made.queue()
    runs = []
    while (run := queue.next(teacher=True)) is not None:
        made.end(queue, run)
        runs.append(run.id.strategy)
    # The first look compares all strategies, so it waits for the search of the third one.
    assert (runs.count("good"), runs.count("alike")) == (3, 3)
    assert made.facts.looked is None
    made.searched.left["bad"] = 0
    assert queue.next(teacher=True) is not None
    assert made.facts.looked is not None
    assert set(made.facts.looked.trials) == {"good", "alike"}


def test_a_strategy_alone_has_the_first_look_and_no_more(made: Made) -> None:
    made.plan = made.planned(AUTO, "strategies.alike=", "strategies.bad=")
    assert expected_seed_runs(made.plan).words == "3 confirm runs"
    assert made.train_all() == [f"good-0-seed-{i}" for i in range(3)]


def test_another_best_trial_is_compared_anew_and_the_favorite_stays(made: Made) -> None:
    made.train_all()
    # More trials were asked for, and one of them is better.
    made.searched = Searched({**SEARCHED, "good": {0: 0.9, 1: 0.95}})
    trained = made.train_all()
    assert trained[:3] == [f"good-1-seed-{i}" for i in range(3)]
    assert made.facts.looked is not None
    assert made.facts.looked.trials == {"good": 1, "alike": 0, "bad": 0}
    assert made.facts.confirm is not None
    assert made.facts.confirm.favorite == "alike"


def test_seeds_of_a_plain_number_are_the_first_look(made: Made) -> None:
    made.plan = made.planned("confirm={seeds: 4, finalists: 1}")
    assert len(made.train_all()) == 12
    made.plan = made.planned(AUTO)
    check_confirm_rules(made.plan, made.folder)
    assert starts_looks(made.plan, made.facts)
    rules = rules_at_start(made.plan, made.folder, made.facts)
    assert rules == ConfirmRules(1, 0.01, most=8, first=4)
    made.folder.write_facts(replace(made.facts, confirm=rules))
    trained = made.train_all()
    assert made.said[0].startswith("look after 4 seeds: ")
    assert not [name for name in trained if name[-1] in "0123"]
    assert made.facts.confirm == ConfirmRules(1, 0.01, most=8, first=4, favorite="alike")
    assert [look_of(made.facts.confirm, i) for i in (0, 3, 4, 7, 8)] == [4, 4, 5, 8, None]
    # Another run of the sweep changes none of that.
    assert not starts_looks(made.plan, made.facts)
    assert rules_at_start(made.plan, made.folder, made.facts) == made.facts.confirm


def test_a_change_of_what_looks_rest_on_is_refused_in_one_line(made: Made) -> None:
    check_confirm_rules(made.planned("confirm={seeds: 5, finalists: 2}"), made.folder)
    made.queue().next(teacher=True)
    # What the sweep file leaves out is as it was.
    kept = made.planned().sweep.confirm
    assert (kept.seeds, kept.most, kept.finalists) == ("auto", 8, 1)
    check_confirm_rules(made.planned(), made.folder)
    for sets, said in (
        ("confirm={seeds: auto, most: 12}", r"confirm\.most: 8 -> 12\); .*--set confirm\.most=8"),
        ("confirm.seeds=5", r"confirm\.seeds: auto -> 5\); .*--set confirm\.seeds=auto"),
        ("confirm.margin=0.02", r"confirm\.margin: 0\.01 -> 0\.02"),
        ("confirm.finalists=3", r"confirm\.finalists: 1 -> 3"),
    ):
        with pytest.raises(SettingsConflict, match=said) as refused:
            check_confirm_rules(made.planned(sets), made.folder)
        assert "\n" not in str(refused.value)


def test_a_plan_says_between_how_many_runs_a_sweep_has(made: Made) -> None:
    assert expected_seed_runs(made.plan).words == "9 to 24 confirm runs"
    counts = made.queue().counts()
    assert (counts.to_confirm, counts.to_confirm_at_most) == (9, 24)
    made.train_all()
    counts = made.queue().counts()
    assert counts.to_confirm == counts.to_confirm_at_most == sum(made.seeds().values())


def test_rules_and_looks_are_read_as_they_were_stored(folder_facts: SweepFacts) -> None:
    assert SweepFacts.from_json(_json(folder_facts), "x") == folder_facts
    plain = replace(folder_facts, confirm=ConfirmRules(3, 0.01), looked=None)
    stored = _json(plain)
    assert stored["confirm"] == {"finalists": 3, "margin": 0.01}
    assert SweepFacts.from_json(stored, "x") == plain


@pytest.fixture
def folder_facts(made: Made) -> SweepFacts:
    rules = ConfirmRules(3, 0.02, most=12, first=5, favorite="good")
    looked = LookedAt({"good": 1}, {"good": 5}, {"good": 8})
    return replace(made.facts, confirm=rules, looked=looked)


@pytest.mark.slow
def test_plain_seeds_then_looks_killed_among_them_equal_looks_that_nothing_disturbed(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    # With such a rate, seeds differ so much that three of them decide nothing.
    other = "{alpha: 1.0, learning_rate: 1.0e-2}"
    sets = (
        "sampler={type: random}",
        "pruner={type: none}",
        "trials=1",
        "training.epochs=1",
        "strategies.combined=",
        "strategies.distill=",
        f"strategies.other={other}",
        INLINE,
    )
    auto = (*sets, "confirm={seeds: auto, finalists: 1, margin: 0.1, most: 5}")
    plain = (*sets, "confirm={seeds: 3, finalists: 1, margin: 0.1}")
    home = Home(tmp_path / "killed")
    folder = home.sweep("tiny")
    assert run(space, home=home.root, assignments=plain).state == "done"
    one = sweep(home.root, *auto)
    assert one.wait_for(lambda: len(list(folder.confirm.glob("*/result.json"))) >= 7)
    one.kill()
    done = {file: file.stat().st_mtime_ns for file in folder.confirm.glob("*/result.json")}
    resumed = run(space, home=home.root, assignments=auto)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    undisturbed = run(space, home=tmp_path / "undisturbed", assignments=auto)
    assert resumed.pairs == undisturbed.pairs
    assert [look.seeds for look in resumed.pairs[0].looks] == [3, 5]
    assert resumed.verdict == undisturbed.verdict
    for name, found in resumed.strategies.items():
        assert found.confirm == undisturbed.strategies[name].confirm
    other_folder = Home(tmp_path / "undisturbed").sweep("tiny")
    assert folder.read_facts().looked == other_folder.read_facts().looked
    # Looks can be filtered in MLflow and in Optuna, also those that a plain number trained.
    runs = [run for run in runs_of(home) if run.data.tags["kdsweep.phase"] == "confirm"]
    assert Counter(run.data.tags["kdsweep.look"] for run in runs) == {"3": 6, "5": 4}
    study = optuna.load_study(study_name="tiny/other", storage=home.storage_url("sqlite"))
    looks = study.user_attrs["kdsweep.looks"]
    assert [(one["against"], one["seeds"]) for one in looks] == [("finetune", 3), ("finetune", 5)]
    found = status(home, "tiny")
    assert found.state == "done"
    assert {one.to_confirm_at_most for one in found.strategies.values()} == {0}
    assert run(space, home=home.root, assignments=sets).state == "done"
    with pytest.raises(SettingsConflict, match=r"confirm\.most: 5 -> 8"):
        run(space, home=home.root, assignments=(*auto, "confirm.most=8"))


def _json(facts: SweepFacts) -> dict[str, object]:
    found: dict[str, object] = json.loads(json.dumps(facts.to_json()))
    return found
