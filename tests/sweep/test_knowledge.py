"""A sweep gives the same trials on any number of slots, in any order of ends, killed or not."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import others_slow
from sweep_processes import ON_RAY, metrics_of, trials_of

from kdsweep.config import Plan, load
from kdsweep.sweep.folders import Home
from kdsweep.sweep.idle_slots import idle_slots
from kdsweep.sweep.results import report
from kdsweep.sweep.studies import SearchTrial, Studies
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
EVALUATIONS = 6
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


@dataclass
class OnSlot:
    """A trial on a simulated slot, and how often it was evaluated."""

    trial: SearchTrial
    evaluations: int = 0


@dataclass
class Simulated:
    """A sweep on slots that are as fast as chance has it. Its driver dies now and then."""

    plan: Plan
    file: Path
    slots: int
    chance: random.Random
    kills: float = 0.0
    most_at_once: int = 0

    def run(self) -> dict[str, list[Any]]:
        while not self._until_killed():
            pass
        studies = self._open()
        return {
            strategy: [
                (one.params, one.state, one.values, one.intermediate_values)
                for one in studies._opened(strategy).study.get_trials()
            ]
            for strategy in self.plan.space.strategies
        }

    def _open(self) -> Studies:
        database = StudyStorage(f"sqlite:///{self.file}")
        folder = Home(self.file.parent).sweep(self.plan.name)
        return Studies(database, self.plan.name, self.plan.space, self.plan.sweep, folder)

    def _until_killed(self) -> bool:
        """Whether the sweep is done."""
        studies = self._open()
        waiting = [
            studies.resume(trial)
            for strategy in self.plan.space.strategies
            for trial in studies.open_trials(strategy)
        ]
        running: list[OnSlot] = []
        while True:
            while len(running) < self.slots and (trial := self._next(studies, waiting)):
                running.append(OnSlot(trial))
            studies.write()
            self.most_at_once = max(self.most_at_once, len(running))
            if not running:
                return True
            if self.chance.random() < self.kills:
                return False
            one = self.chance.choice(running)
            if self.chance.random() < self.kills:
                # Its worker died.
                running.remove(one)
                waiting.append(one.trial)
            elif self._advance(studies, one):
                running.remove(one)
            if self.chance.random() < 0.5:
                studies.write()

    def _next(self, studies: Studies, waiting: list[SearchTrial]) -> SearchTrial | None:
        if waiting:
            return waiting.pop()
        strategies = [
            one
            for one in self.plan.space.strategies
            if studies.trials_left(one) and studies.may_ask(one)
        ]
        return studies.ask(self.chance.choice(strategies)) if strategies else None

    def _advance(self, studies: Studies, one: OnSlot) -> bool:
        """Evaluate the trial once more; whether it has ended."""
        one.evaluations += 1
        draw = random.Random(f"{one.trial.id.name} {sorted(one.trial.params.items())}")
        curve = [round(draw.random(), 2) for _ in range(EVALUATIONS)]
        prune = studies.report(one.trial, one.evaluations, curve[one.evaluations - 1])
        if one.evaluations == EVALUATIONS:
            studies.tell(one.trial, "complete", max(curve))
        elif curve[one.evaluations - 1] < 0.02:
            studies.tell(one.trial, "diverged", reason="too high")
        elif prune:
            studies.tell(one.trial, "pruned")
        else:
            return False
        return True


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
    assert idle_slots(plan, 6) is idle_slots(plan, None) is None
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
