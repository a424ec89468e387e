"""Optuna's samplers and pruners, as a sweep's settings ask for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import numpy as np
import optuna
from optuna.trial import TrialState
from scipy.stats import norm

from kdsweep.config import SearchSpace, SweepConfig
from kdsweep.config.extremes import numbers_in
from kdsweep.core.settings import TrainingSettings
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.paired_pruner import Curves, NoiseAwarePruner
from kdsweep.sweep.seeds import derived_seed
from kdsweep.sweep.shown_trials import ShownTrials

MADE_UP_STUDIES = 12
MOST_MADE_UP_TRIALS = 60
ROUNDED_TO = 0.3
MADE_UP_ERROR = 0.9


class _GridSampler(optuna.samplers.BruteForceSampler):
    """Every point once.

    Optuna's own GridSampler needs a product of lists; this one also walks conditional spaces.
    """

    def after_trial(self, *arguments: object) -> None:
        """Do nothing, where Optuna would stop `optimize`: `Studies.trials_for` counts trials."""


def make_sampler(config: SweepConfig, number: int) -> optuna.samplers.BaseSampler:
    """The sampler for trial `number`; the same whenever the sweep was started or resumed."""
    sampler = config.sampler
    seed = derived_seed("sampler", sampler.seed, number, config.start_from)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match sampler.type:
            case "tpe":
                return optuna.samplers.TPESampler(
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                    n_startup_trials=sampler.startup_trials,
                    seed=seed,
                )
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "grid":
                return _GridSampler(seed=seed)
            case "gp":
                return optuna.samplers.GPSampler(n_startup_trials=sampler.startup_trials, seed=seed)


def make_pruner(config: SweepConfig, evaluations: int, curves: Curves) -> optuna.pruners.BasePruner:
    """A strategy's pruner. evaluations: of its longest trial. curves: of its trials."""
    pruner = config.pruner
    match pruner.type:
        case "none":
            return optuna.pruners.NopPruner()
        case "paired":
            return NoiseAwarePruner(pruner, curves)
        case "median":
            # Optuna prunes from this step on, and evaluations count from 1.
            first_step = pruner.warmup_evaluations + 1
            return optuna.pruners.MedianPruner(
                n_startup_trials=pruner.startup_trials, n_warmup_steps=first_step
            )
        case "hyperband":
            made = optuna.pruners.HyperbandPruner(
                min_resource=pruner.min_evaluations,
                max_resource=max(evaluations, pruner.min_evaluations),
                reduction_factor=pruner.reduction_factor,
            )
            if Knowledge.of(config).is_by_order:
                # Otherwise it makes its brackets when it is asked first, which may be after a
                # trial was asked for, or before: the sampler learns from one bracket.
                made._try_initialization(optuna.create_study())
            return made
        case "asha":
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=pruner.min_evaluations, reduction_factor=pruner.reduction_factor
            )


def most_evaluations(space: SearchSpace, strategy: str) -> int:
    """How often the longest trial of the strategy is evaluated."""
    values = space.values(strategy)

    def largest(name: str) -> int:
        numbers = numbers_in(values[name]) if name in values else []
        return round(max(numbers, default=getattr(TrainingSettings(), name)))

    return largest("epochs") * largest("evaluations_per_epoch")


# --- what a pruner will do ---


@dataclass(frozen=True, eq=False)
class MadeUpCurves:
    """Curves of trials that never ran. values: [trials, evaluations].

    The error of a difference is such that as many trials complete as on recorded curves of four
    tasks.
    """

    values: np.ndarray

    def evaluations(self, number: int) -> int:
        return self.values.shape[1]

    def settled(self, number: int) -> float:
        return TrainingSettings().warmup

    def p_worse(self, trial: tuple[int, int], leader: tuple[int, int]) -> float:
        own, best = (self.values[number, at - 1] for number, at in (trial, leader))
        return float(norm.sf((best - own) / MADE_UP_ERROR))


def complete_share(
    config: SweepConfig, space: SearchSpace, strategy: str, *, trials: int, slots: int
) -> float:
    """The share of a strategy's trials that its pruner is expected to let run to their end.

    The pruner runs on made-up trials. Half of the variance of each evaluation is the trial's own,
    and half is chance. Values are rounded, as those of some hundred rows are, because asha keeps
    ties. If the sampler learns, the trials improve by one standard deviation in all: later ones
    then survive more often.

    slots: for sweeps of an earlier version, where what the pruner knows depends on them.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    evaluations = most_evaluations(space, strategy)
    count = min(trials, MOST_MADE_UP_TRIALS)
    draw = np.random.default_rng(0)
    complete = 0
    knowledge = Knowledge.of(config)
    at_once = 1 if knowledge.is_by_order else slots
    for number in range(MADE_UP_STUDIES):
        curves = draw.normal(size=(count, 1)) + draw.normal(size=(count, evaluations))
        if config.sampler.type in ("tpe", "gp"):
            curves += np.linspace(0, 1, count)[:, None]
        curves = np.round(curves / ROUNDED_TO) * ROUNDED_TO
        memory = ShownTrials()
        study = optuna.create_study(
            storage=memory,
            # Hyperband draws from the name, which is random without one.
            study_name=f"made up {number}",
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
            pruner=make_pruner(config, evaluations, MadeUpCurves(curves)),
        )
        showing = partial(memory.to_pruner, knowledge)
        complete += _run_made_up_trials(study, curves, at_once, showing)
    return complete / (MADE_UP_STUDIES * count)


def _run_made_up_trials(
    study: optuna.Study,
    curves: np.ndarray,
    slots: int,
    showing: Callable[[int], AbstractContextManager[None]],
) -> int:
    """How many trials complete. curves: [trials, evaluations]; all slots are equally fast.

    showing: the pruner what it may know about a trial of this number.
    """
    waiting = list(curves)
    running: list[tuple[optuna.Trial, np.ndarray, int]] = []
    complete = 0
    while waiting or running:
        while waiting and len(running) < slots:
            running.append((study.ask(), waiting.pop(0), 1))
        unpruned = []
        for trial, curve, evaluation in running:
            trial.report(float(curve[evaluation - 1]), evaluation)
            if evaluation == len(curve):
                study.tell(trial, float(curve.max()))
                complete += 1
                continue
            with showing(trial.number):
                is_pruned = trial.should_prune()
            if is_pruned:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                unpruned.append((trial, curve, evaluation + 1))
        running = unpruned
    return complete
