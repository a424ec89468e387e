"""What the default pruner saves and costs on recorded trials, with what each trial may know.

`recorded/TASK.npz` has 24 random settings of 2-layer students of MiniLM (alpha, temperature, a
switch from teacher to labels, learning rates from 1e-5 to 2e-3), trained to their end in bf16 with
eight evaluations each: what every evaluation predicted for validation, beside the labels.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import optuna
from measuring import Row
from optuna.trial import TrialState

from kdsweep.compare.rungs import rungs
from kdsweep.compare.statistics import scores
from kdsweep.config import SweepConfig
from kdsweep.config.sweep import LAG, PairedPruner
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.paired_pruner import NoiseAwarePruner, p_worse
from kdsweep.sweep.shown_trials import ShownTrials

RECORDED = Path(__file__).parent / "recorded"
WARMUP = 0.1


class Recorded:
    """The trials of one task. values: the metric [trials, evaluations]."""

    def __init__(self, file: Path) -> None:
        with np.load(file) as found:
            self.metric = str(found["metric"])
            self.labels = found["labels"].astype(np.int64)
            self.predictions = found["predictions"].astype(np.int64)
            self.params: list[dict[str, float]] = json.loads(str(found["params"]))
        count, evaluations, rows = self.predictions.shape
        every = list(self.predictions.reshape(-1, rows))
        self.values = scores(self.metric, self.labels, every).reshape(count, evaluations)
        self.p_worse = cache(self._p_worse)

    def _p_worse(self, trial: int, trial_at: int, leader: int, leader_at: int) -> float:
        one, other = self.predictions[trial, trial_at - 1], self.predictions[leader, leader_at - 1]
        return p_worse(self.metric, self.labels, one, other)


@dataclass(frozen=True)
class InOrder:
    """The pruner's view of a sweep whose trial n is the recorded trial order[n]."""

    recorded: Recorded
    order: tuple[int, ...]

    def evaluations(self, number: int) -> int:
        return self.recorded.values.shape[1]

    def settled(self, number: int) -> float:
        return settled(self.recorded.params[self.order[number]], self.evaluations(number))

    def p_worse(self, trial: tuple[int, int], leader: tuple[int, int]) -> float:
        (one, one_at), (other, other_at) = trial, leader
        return self.recorded.p_worse(self.order[one], one_at, self.order[other], other_at)


def settled(params: Mapping[str, object], evaluations: int) -> float:
    """The end of warm-up, or of the evaluation after the switch from teacher to labels."""
    switch = params.get("alpha.at")
    return WARMUP if switch is None else float(str(switch)) + 1 / evaluations


def follow(
    study: optuna.Study, trial: optuna.Trial, curve: Sequence[float], knowledge: Knowledge
) -> int:
    """Report the curve until the pruner stops the trial or it is complete, and tell the study.

    Returns how many evaluations that took. study: in `ShownTrials`.
    """
    memory = study._storage
    assert isinstance(memory, ShownTrials)
    for evaluation, value in enumerate(curve, start=1):
        trial.report(value, evaluation)
        with memory.to_pruner(knowledge, trial.number):
            is_pruned = trial.should_prune()
        if is_pruned:
            study.tell(trial, state=TrialState.PRUNED)
            return evaluation
    study.tell(trial, max(curve))
    return len(curve)


@dataclass(frozen=True)
class Replayed:
    """fewer: times fewer evaluations. lost: points of the best trial. first: whether it is trial 0,
    with and without pruning."""

    fewer: float
    lost: float
    first: tuple[bool, bool]


def replay(recorded: Recorded, order: tuple[int, ...], lag: int) -> Replayed:
    config = SweepConfig.model_validate({"sampler": {"type": "random", "lag": lag}})
    assert isinstance(config.pruner, PairedPruner)
    memory, knowledge = ShownTrials(), Knowledge.of(config)
    pruner = NoiseAwarePruner(config.pruner, InOrder(recorded, order))
    study = optuna.create_study(storage=memory, direction="maximize", pruner=pruner)
    reached, evaluations = {}, 0
    for number, index in enumerate(order):
        curve, trial = recorded.values[index].tolist(), study.ask()
        evaluations += follow(study, trial, curve, knowledge)
        if study.trials[number].state == TrialState.COMPLETE:
            reached[number] = max(curve)
    every = recorded.values[list(order)].max(axis=1)
    best = max(reached, key=lambda one: reached[one])
    return Replayed(
        len(order) * len(curve) / evaluations,
        100 * float(every.max() - reached[best]),
        (best == 0, int(every.argmax()) == 0),
    )


def paired(folder: Path, orders: int = 200) -> list[Row]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    tasks = {file.stem: Recorded(file) for file in sorted(RECORDED.glob("*.npz"))}
    for name, recorded in tasks.items():
        told = ", ".join(f"{one.correlation:.2f}" for one in rungs(recorded.values.tolist()))
        rows.append(Row(f"{name}: rank correlation of each rung with the end", told))
    for lag in (1, LAG, 4):
        for trials in (6, 12, 20):
            draw = np.random.default_rng(0)
            found = {
                name: [
                    replay(one, tuple(draw.permutation(len(one.values))[:trials].tolist()), lag)
                    for _ in range(orders)
                ]
                for name, one in tasks.items()
            }
            rows += _rows(f"{trials} trials, lag {lag}", found)
    return rows


def _rows(what: str, found: dict[str, list[Replayed]]) -> list[Row]:
    every = [one for of_task in found.values() for one in of_task]
    lost = [statistics.mean(one.lost for one in of_task) for of_task in found.values()]
    error = statistics.stdev(one.lost for one in every) / len(every) ** 0.5
    first, without = (100 * statistics.mean(one.first[i] for one in every) for i in (0, 1))
    fewer = [one.fewer for one in every]
    return [
        Row(f"{what}: steps without pruning by those with", statistics.mean(fewer), "x"),
        Row(
            f"{what}: points lost, mean of tasks (standard error {error:.3f})",
            statistics.mean(lost),
            "points",
            0.1,
            None,
            min(lost),
            max(lost),
        ),
        Row(f"{what}: the first trial wins (without pruning {without:.1f}%)", first, "%"),
    ]
