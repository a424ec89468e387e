"""What the sampler's lag costs: slots that wait, and what the search finds.

`lag` makes what a trial knows a function of the trials' order. So a slot may have to wait for a
trial that still runs, and the sampler and the pruner know less.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
from measuring import Row
from optuna.trial import TrialState
from recorded_curves import RECORDED, Recorded, follow, settled
from recorded_surfaces import Student, Surface, suggest

from kdsweep.config import SweepConfig
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.paired_pruner import p_worse
from kdsweep.sweep.progress import Progress
from kdsweep.sweep.samplers_and_pruners import make_pruner, make_sampler
from kdsweep.sweep.shown_trials import ShownTrials

STRATEGIES, TRIALS = 4, 20
PLACES = ((2, 4), (4, 1), (4, 4), (8, 2), (8, 3), (8, 4), (16, 4), (16, 8), (16, 12))
# Less than this is to be lost where strategies x lag is twice the number of slots.
MOST_IDLE = 3.0
LAGS = (2, 4, 8)
PRUNERS = ("none", "paired", "asha")


def lag(
    folder: Path, sweeps: int = 200, seeds: int = 40, pruners: Sequence[str] = PRUNERS
) -> list[Row]:
    rows = []
    for slots, lag in PLACES:
        config = SweepConfig.model_validate({"sampler": {"type": "tpe", "lag": lag}})
        knowledge = Knowledge.of(config)
        for pruned in (False, True):
            shares = [100 * idle_share(slots, knowledge, pruned, seed) for seed in range(sweeps)]
            ratio = STRATEGIES * lag / slots
            what = f"{slots} slots, lag {lag} (strategies x lag / slots {ratio:g})"
            what += ", half of the trials pruned" if pruned else ""
            target = MOST_IDLE if ratio >= 2 and not pruned else None
            rows.append(Row(f"{what}: idle", statistics.mean(shares), "%", target))
    return rows + quality(seeds, pruners)


# --- slots that wait ---


def idle_share(slots: int, knowledge: Knowledge, pruned: bool, seed: int) -> float:
    """The share of slot time, until the last trial starts, in which a slot waits for a trial that
    the next one must know of.

    A trial takes 1 to 6 units of time. pruned: half of them end after 1/8, 1/4 or 1/2 of that.
    """
    draw = random.Random(seed)
    progress = [Progress() for _ in range(STRATEGIES)]
    running: list[tuple[float, int, int]] = []
    now = idle = 0.0
    while any(one.started < TRIALS for one in progress):
        while len(running) < slots:
            ready = [one for one in progress if knowledge.room(one, TRIALS)]
            if not ready:
                break
            strategy = min(ready, key=lambda one: one.started)
            takes = draw.uniform(1, 6)
            if pruned and draw.random() < 0.5:
                takes *= draw.choice((1 / 8, 1 / 4, 1 / 2))
            heapq.heappush(running, (now + takes, progress.index(strategy), strategy.started))
            strategy.running.add(strategy.started)
        until, index, number = heapq.heappop(running)
        if any(one.started < TRIALS for one in progress):
            idle += (until - now) * (slots - len(running) - 1)
        now = until
        progress[index].end(number, "failed", None)
    return idle / (slots * now)


# --- what the search finds ---


@dataclass
class Searched:
    """The pruner's view of a made-up search. students: by number."""

    surface: Surface
    students: list[Student] = field(default_factory=list)
    settled_at: list[float] = field(default_factory=list)

    def evaluations(self, number: int) -> int:
        return len(self.students[number].values)

    def settled(self, number: int) -> float:
        return self.settled_at[number]

    def p_worse(self, trial: tuple[int, int], leader: tuple[int, int]) -> float:
        (one, one_at), (other, other_at) = trial, leader
        return p_worse(
            self.surface.recorded.metric,
            self.surface.recorded.labels,
            self.students[one].predictions[one_at - 1],
            self.students[other].predictions[other_at - 1],
        )


def _rules(lag: int, pruner: str) -> SweepConfig:
    rules = {"sampler": {"type": "tpe", "lag": lag}, "pruner": {"type": pruner}}
    return SweepConfig.model_validate(rules)


def search(surface: Surface, config: SweepConfig, seed: int) -> tuple[float, int]:
    """What the best trial of TRIALS is truly worth, and how many evaluations the search took."""
    knowledge, progress = Knowledge.of(config), Progress()
    draw, memory, searched = np.random.default_rng(seed), ShownTrials(), Searched(surface)
    pruner = make_pruner(config, surface.recorded.values.shape[1], searched)
    study = optuna.create_study(storage=memory, direction="maximize", pruner=pruner)
    evaluations = 0
    for number in range(TRIALS):
        with memory.to_sampler(knowledge, number, progress, None):
            study.sampler = make_sampler(config, number)
            trial = study.ask()
            params = suggest(trial)
        student = surface.student(params, draw)
        searched.students.append(student)
        searched.settled_at.append(settled(params, len(student.values)))
        progress.running.add(number)
        curve = student.values.tolist()
        evaluations += follow(study, trial, curve, knowledge)
        complete = study.trials[number].state == TrialState.COMPLETE
        progress.end(number, "complete" if complete else "pruned", max(curve))
    return searched.students[progress.order[0]].truth, evaluations


def quality(seeds: int, pruners: Sequence[str]) -> list[Row]:
    """What is found against lag 1, with the same seeds; positive is better."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surfaces = [Surface(Recorded(file)) for file in sorted(RECORDED.glob("*.npz"))]
    rows = []
    for pruner in pruners:
        found = {
            lag: np.array(
                [
                    search(surface, _rules(lag, pruner), seed)
                    for surface in surfaces
                    for seed in range(seeds)
                ]
            )
            for lag in (1, *LAGS)
        }
        for lag in LAGS:
            better = 100 * (found[lag][:, 0] - found[1][:, 0])
            error = float(better.std(ddof=1)) / len(better) ** 0.5
            steps = float(found[lag][:, 1].sum() / found[1][:, 1].sum())
            what = f"{pruner}, lag {lag}: found, against lag 1 (standard error {error:.2f}"
            rows.append(Row(f"{what}, {steps:.2f} x the steps)", float(better.mean()), "points"))
    return rows
