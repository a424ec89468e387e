"""Sweeps whose searches are over, and runs with fresh seeds that end as a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from kdsweep.config import Plan
from kdsweep.core.files import write_array
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.sweep.confirm import SeedQueue
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.progress import Progress
from kdsweep.sweep.random_trials import random_settings
from kdsweep.sweep.seed_runs import SeedRun
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId

METRIC = "validation/accuracy"


class Searched:
    """What the queue asks the studies for. left: how many trials a strategy is still to get."""

    def __init__(self, values: Mapping[str, Mapping[int, float]]) -> None:
        self.found = {name: Progress() for name in values}
        self.left = dict.fromkeys(values, 0)
        for name, of in values.items():
            for number, value in of.items():
                self.found[name].end(number, "complete", value)

    def progress(self, strategy: str) -> Progress:
        return self.found[strategy]

    def trials_left(self, strategy: str) -> int:
        return self.left[strategy]

    @property
    def studies(self) -> Studies:
        return cast(Studies, self)


def make_sweep(plan: Plan, home: Path, trials: int) -> SweepFolder:
    """A sweep with so many started trials of each strategy."""
    found = Home(home).sweep(plan.name)
    found.root.mkdir(parents=True)
    sweep = plan.sweep.model_dump(mode="json")
    found.write_facts(SweepFacts("0.2.0", plan.identity, "e", sweep))
    for strategy in plan.space.strategies:
        for number in range(trials):
            trial = found.trial(TrialId(strategy, number))
            trial.root.mkdir(parents=True)
            trial.claim(random_settings(plan, strategy, number))
    return found


def end_run(
    queue: SeedQueue,
    run: SeedRun,
    value: float | None,
    predicted: np.ndarray | None = None,
    labels: Sequence[int] = (),
) -> None:
    """End it with this accuracy on validation; None: it failed. predicted: for the test split."""
    files = queue.folder.trial(run.id)
    files.root.mkdir(parents=True, exist_ok=True)
    files.claim(run.settings)
    result = TrialResult("failed", 0, 0.0, reason="made up")
    if value is not None:
        best = Evaluation(1, 1.0, {METRIC: value}, 1.0, 1)
        test = None
        if predicted is not None:
            write_array(files.test_logits, np.eye(2, dtype=np.float32)[predicted])
            test = {"accuracy": float((predicted == np.asarray(labels)).mean())}
        result = TrialResult("complete", 1, 1.0, best, test=test)
    files.write_result(result)
    queue.count_ended(run.id)
