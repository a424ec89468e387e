"""What `start_from` gains: trials until a search finds what one of 20 trials finds without it.

Students are made up (`recorded_surfaces`); what a trial reaches is what its settings are worth,
plus a seed's luck. The earlier sweep has 20 trials of the same task with other seeds, which the
sampler then knows, or of another task, of which only the three best settings are tried first.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from measuring import Row
from optuna.trial import FrozenTrial
from recorded_curves import RECORDED, Recorded
from recorded_surfaces import SEED_LUCK, Params, Surface, suggest

from kdsweep.config import SweepConfig
from kdsweep.sweep.earlier_sweeps import FIRST_TRIALS
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.progress import Progress
from kdsweep.sweep.samplers_and_pruners import make_sampler
from kdsweep.sweep.shown_trials import ShownTrials
from kdsweep.sweep.start_from import ImportedTrial, StartedFrom

TRIALS = 20
# A search that hasn't found it by then counts as if the next trial did.
MOST_TRIALS = 40
STRATEGY = "made up"


@dataclass(frozen=True)
class Search:
    """truths: what the settings of each trial are worth. trials: as Optuna has them."""

    truths: list[float]
    trials: list[FrozenTrial]

    def best(self, trials: int) -> list[int]:
        """The best ones by what they reached, of the first `trials`."""
        return sorted(range(trials), key=lambda one: -(self.trials[one].value or 0))

    def chosen(self, trials: int) -> float:
        """What the best one by what it reached is worth."""
        return self.truths[self.best(trials)[0]]

    def trials_until(self, worth: float) -> int:
        found = (number for number, truth in enumerate(self.truths, start=1) if truth >= worth)
        return next(found, MOST_TRIALS + 1)


def search(
    surface: Surface, seed: int, trials: int, earlier: Search | None = None, *, same: bool = False
) -> Search:
    """earlier: a sweep to start from. same: whether it is of the same task."""
    rules: dict[str, object] = {"sampler": {"type": "tpe", "seed": seed}}
    config = SweepConfig.model_validate(rules | ({"start_from": ["earlier"]} if earlier else {}))
    knowledge, progress, draw = Knowledge.of(config), Progress(), np.random.default_rng(seed)
    memory, truths = ShownTrials(), []
    study = optuna.create_study(storage=memory, direction="maximize")
    if earlier is not None:
        for number in earlier.best(TRIALS)[:FIRST_TRIALS]:
            study.enqueue_trial(earlier.trials[number].params)
        if same:
            known = [ImportedTrial.of_trial("earlier", one) for one in earlier.trials]
            memory.imported = StartedFrom({STRATEGY: known}).shown_to(config, STRATEGY)
    for number in range(trials):
        with memory.to_sampler(knowledge, number, progress, None):
            study.sampler = make_sampler(config, number)
            trial = study.ask()
            params: Params = suggest(trial)
        truth = float(surface.curve(params).max())
        truths.append(truth)
        study.tell(trial, truth + draw.normal(0, SEED_LUCK))
        progress.running.add(number)
        progress.end(number, "complete", study.trials[number].value)
    return Search(truths, study.trials)


def transfer(folder: Path, seeds: int = 60, most: int = MOST_TRIALS) -> list[Row]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surfaces = {file.stem: Surface(Recorded(file)) for file in sorted(RECORDED.glob("*.npz"))}
    earlier = {
        name: [search(surface, 1000 + seed, TRIALS) for seed in range(seeds)]
        for name, surface in surfaces.items()
    }
    rows = []
    for name, surface in surfaces.items():
        without = [search(surface, seed, most) for seed in range(seeds)]
        worth = float(np.median([one.chosen(TRIALS) for one in without]))
        rows += _rows(f"{name}: without", without, without, worth)
        for source, sweeps in earlier.items():
            same = source == name
            found = [
                search(surface, seed, most, sweep, same=same) for seed, sweep in enumerate(sweeps)
            ]
            what = f"{name}: from {'its own earlier sweep' if same else source}"
            rows += _rows(what, found, without, worth)
    return rows


def _rows(what: str, found: list[Search], without: list[Search], worth: float) -> list[Row]:
    until = np.array([one.trials_until(worth) for one in found])
    error = until.std(ddof=1) / len(until) ** 0.5
    within = 100 * float((until <= TRIALS).mean())
    shown = f"{what}: trials until the median best of {TRIALS} is found (standard error {error:.1f}"
    rows = [Row(f"{shown}; within {TRIALS} in {within:.0f}%)", float(until.mean()), "trials")]
    for trials in (5, TRIALS):
        pairs = zip(found, without, strict=True)
        better = 100 * np.array([one.chosen(trials) - other.chosen(trials) for one, other in pairs])
        if found is not without:
            error = better.std(ddof=1) / len(better) ** 0.5
            against = f"{what}: the chosen one of {trials} trials, against without"
            mean = float(better.mean())
            rows.append(Row(f"{against} (standard error {error:.2f})", mean, "points"))
    return rows
