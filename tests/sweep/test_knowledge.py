"""A sweep gives the same trials on any number of slots, in any order of ends, killed or not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conftest import others_slow
from simulated_sweep import Simulated
from sweep_processes import ON_RAY, metrics_of, trials_of

from kdsweep.config import Plan, load
from kdsweep.sweep.folders import Home
from kdsweep.sweep.idle_slots import idle_slots
from kdsweep.sweep.results import report
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import StudyStorage

SPACE = """\
name: ordered
task: {dataset: rows.csv, text: text, label: label}
student: {model: none}
training: {epochs: 2, evaluations_per_epoch: 3}
strategies:
  one:
    alpha: 1.0
    learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}
    warmup: {any_of: [0.0, {low: 0.1, high: 0.5}]}
    start_with: [{learning_rate: 2.0e-5}]
  two: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}
"""
GRID = SPACE.replace("{low: 1.0e-5, high: 1.0e-3, log: true}", "{choices: [1.0, 2.0, 3.0, 4.0]}")
RULES = [
    ("sampler={type: tpe, startup_trials: 3, lag: 3}", "pruner={type: asha}"),
    ("sampler={type: tpe, startup_trials: 3, lag: 1}", "pruner={type: median, startup_trials: 2}"),
    ("sampler={type: tpe, startup_trials: 3, lag: 4}", "pruner={type: hyperband}"),
    ("sampler={type: gp, startup_trials: 3, lag: 2}", "pruner={type: none}"),
    ("sampler={type: random, lag: 2}", "pruner={type: asha}", "budget.patience=4"),
    ("sampler={type: tpe, startup_trials: 3}", "pruner={type: none}", "budget.patience=3"),
]


def planned(folder: Path, *assignments: str, space: str = SPACE) -> Plan:
    (folder / "space.yaml").write_text(space, encoding="utf-8")
    return load(folder / "space.yaml", assignments=("trials=12", *assignments))


@pytest.mark.parametrize("rules", others_slow(RULES))
def test_any_order_of_ends_and_any_kills_give_the_same_trials(
    tmp_path: Path, rules: tuple[str, ...]
) -> None:
    plan = planned(tmp_path, *rules)
    alone = Simulated(plan, tmp_path / "alone.db", 1, random.Random(0)).run()
    assert sum(map(len, alone.values())) >= 10
    for seed, (slots, kills) in enumerate([(3, 0.0), (8, 0.02), (2, 0.05)]):
        one = Simulated(plan, tmp_path / f"{seed}.db", slots, random.Random(seed), kills)
        assert one.run() == alone
        assert one.most_at_once <= min(slots, 2 * plan.sweep.sampler.lag)


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_what_learns_nothing_waits_for_nothing(tmp_path: Path, sampler: str) -> None:
    text = GRID if sampler == "grid" else SPACE
    if sampler == "grid":
        text = text.replace("{any_of: [0.0, {low: 0.1, high: 0.5}]}", "{choices: [0.0, 0.1, 0.2]}")
        text = text.replace("    start_with: [{learning_rate: 2.0e-5}]\n", "")
    plan = planned(tmp_path, f"sampler={{type: {sampler}}}", "pruner={type: none}", space=text)
    alone = Simulated(plan, tmp_path / "alone.db", 1, random.Random(0)).run()
    many = Simulated(plan, tmp_path / "many.db", 16, random.Random(1), 0.01)
    assert many.run() == alone
    assert many.most_at_once == 16


def test_a_trial_knows_of_the_ended_ones_up_to_its_lag(tmp_path: Path) -> None:
    plan = planned(tmp_path, "sampler={type: tpe, lag: 2}")
    database = StudyStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    folder = Home(tmp_path).sweep(plan.name)
    studies = Studies(database, plan.name, plan.space, plan.sweep, folder)
    first, second = studies.ask("one"), studies.ask("one")
    assert not studies.may_ask("one")
    assert studies.may_ask("two")
    studies.tell(second, "complete", 0.5)
    assert not studies.may_ask("one")
    studies.tell(first, "complete", 0.6)
    third = studies.ask("one").id.number
    ended = studies.progress("one").ended
    known = studies.knowledge.known
    assert (known(third, ended), known(third + 1, ended)) == ([0], [0, 1])
    assert not known(second.id.number, ended)


def test_idle_slots_are_told_with_the_lag_that_keeps_them_busy(tmp_path: Path) -> None:
    plan = planned(tmp_path, "sampler={type: tpe, lag: 3}")
    assert idle_slots(plan, 3) is idle_slots(plan, None) is None
    at_times = idle_slots(plan, 6)
    assert at_times is not None
    assert at_times.startswith("some of 6 slots wait during the search: at most 3 trials")
    assert "sampler.lag 6" in at_times
    line = idle_slots(plan, 9)
    assert line is not None
    assert line.startswith("3 of 9 slots will idle during the search: at most 3 trials")
    assert "sampler.lag 9" in line
    unlearning = planned(tmp_path, "sampler={type: random}", "pruner={type: none}")
    assert idle_slots(unlearning, 100) is None


# Ray's slots have one thread.
REAL = (
    "trials=4",
    "sampler={type: tpe, startup_trials: 1, lag: 2}",
    "pruner={type: asha}",
    "confirm={seeds: 1, finalists: 1}",
)


@pytest.mark.slow
def test_one_slot_two_on_ray_and_a_killed_sweep_give_the_same_bits(
    tmp_path: Path, sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    homes = {name: tmp_path / name for name in ("inline", "ray", "killed")}
    inline = sweep(homes["inline"], *REAL, "engine={type: inline}")
    assert inline.end()[0] == 0
    on_ray = sweep(homes["ray"], *REAL, ON_RAY)
    assert on_ray.end()[0] == 0
    killed = sweep(homes["killed"], *REAL, ON_RAY)
    killed.wait_for(lambda: killed.evaluations() >= 6)
    killed.kill()
    assert sweep(homes["killed"], *REAL, ON_RAY).end()[0] == 0
    first, *others = [Home(home) for home in homes.values()]
    for other in others:
        assert trials_of(other) == trials_of(first)
        assert metrics_of(other).keys() == metrics_of(first).keys()
        assert report(other, "tiny").verdict == report(first, "tiny").verdict
