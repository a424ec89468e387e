"""The pruner that stops a trial only where it is worse than the leader by more than noise.

The leader is the best trial that ran to its end. A trial is compared with what the leader had
reached at the same rung: whichever trial led at that rung was often just lucky. Both predicted the
same validation rows, so their difference is known better than either metric: what it would be on
other rows like these is drawn by resampling rows, the same for both. A metric such as F1 can hang
on a handful of rows of a rare class, which resampling tells too little of. So the trial must also
be worse row by row, as in Optuna's WilcoxonPruner. docs/performance.md has the recorded trials by
which the rule was chosen.

A rung is a share of the training, not a number of steps: with other epochs, the learning rate has
decayed differently after the same number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel
from scipy.stats import norm

from kdsweep.compare.statistics import resampled_scores, scores
from kdsweep.compare.verdicts import sign_test
from kdsweep.config.sweep import PairedPruner
from kdsweep.core.schedules import Step
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.sweep.restored_trials import STATE

DRAWS = 200
MOST_CURVES_AT_ONCE = 64


class Curves(Protocol):
    """What the pruner asks about the trials of one strategy, by number. Evaluations count from 1.

    evaluations: how many a trial has when it is trained to its end; None if its folder is gone.
    settled: the share of the
    training after which it may be judged, 0 to 1. p_worse: how likely a difference as large as
    theirs would be if the first were as good as the second, on other rows like these; None if that
    isn't known.
    """

    def evaluations(self, number: int) -> int | None: ...

    def settled(self, number: int) -> float: ...

    def p_worse(self, trial: tuple[int, int], leader: tuple[int, int]) -> float | None:
        """trial, leader: number and evaluation of each."""


class NoiseAwarePruner(optuna.pruners.BasePruner):
    """See above. It is deterministic, and knows the trials that the study shows it."""

    def __init__(self, rules: PairedPruner, curves: Curves) -> None:
        self._rules = rules
        self._curves = curves

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        evaluation = trial.last_step
        total = self._curves.evaluations(trial.number)
        if evaluation is None or total is None or evaluation >= total:
            return False
        if evaluation / total <= self._curves.settled(trial.number):
            return False
        others = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        reached = list(self._at_rung(others, evaluation / total))
        ended = [
            (one.value, -one.number, at)
            for one, at in reached
            if one.state == TrialState.COMPLETE and one.value is not None
        ]
        if len(reached) < self._rules.min_trials or not ended:
            return False
        _, negative, at = max(ended)
        p = self._curves.p_worse((trial.number, evaluation), (-negative, at))
        return p is not None and p < self._rules.level

    def _at_rung(
        self, trials: list[FrozenTrial], share: float
    ) -> Iterator[tuple[FrozenTrial, int]]:
        """Trials that were evaluated after this share of their training, and at which evaluation.

        One that failed or diverged later says nothing about where a good trial is there.
        """
        for one in trials:
            if one.state == TrialState.FAIL or one.user_attrs.get(STATE) == "diverged":
                continue
            total = self._curves.evaluations(one.number)
            if total is None:
                continue
            at = share * total
            if math.isclose(at, round(at)) and round(at) in one.intermediate_values:
                yield one, round(at)


class KeptCurves:
    """Curves as the trials' folders keep them.

    metric: the task's. files: the folder of trial `number`.
    """

    def __init__(self, metric: str, files: Callable[[int], TrialFolder]) -> None:
        self._metric = metric
        self._files = files
        # Neither changes once it is there. That a file isn't there is no answer to keep: on a
        # shared disk it may be late.
        self._evaluations: dict[int, int] = {}
        self._predicted = lru_cache(MOST_CURVES_AT_ONCE)(self._read_predicted)

    def evaluations(self, number: int) -> int | None:
        if number not in self._evaluations:
            files = self._files(number)
            if not files.settings.exists():
                return None
            self._evaluations[number] = _evaluations(files.read_settings())
        return self._evaluations[number]

    def settled(self, number: int) -> float:
        """The end of warm-up, of frozen layers, and of the last step in any schedule.

        After such a step, what changed has one evaluation's time to show.
        """
        settings = self._files(number).read_settings()
        training = settings.training
        time = 1 / _evaluations(settings)
        switched = (switch + time for switch in _switches(settings))
        return max([training.warmup, training.frozen_until, *switched])

    def p_worse(self, trial: tuple[int, int], leader: tuple[int, int]) -> float | None:
        try:
            (labels, own), (others, best) = self._predicted(*trial), self._predicted(*leader)
        except LookupError:
            return None
        if not np.array_equal(labels, others):
            return None
        return p_worse(self._metric, labels, own, best)

    def _read_predicted(self, number: int, evaluation: int) -> tuple[np.ndarray, np.ndarray]:
        """The labels, and what this evaluation predicted. Raises LookupError if that isn't kept."""
        found = self._files(number).read_evaluation_predictions()
        if found is None or len(found[1]) < evaluation:
            raise LookupError(f"trial {number} kept no predictions of evaluation {evaluation}")
        return found[0], found[1][evaluation - 1]


def _evaluations(settings: TrialSettings) -> int:
    return settings.training.epochs * settings.training.evaluations_per_epoch


def p_worse(metric: str, labels: np.ndarray, trial: np.ndarray, leader: np.ndarray) -> float:
    """How likely so large a lead would be on rows like these, if the trial were as good.

    labels, and what the two predict: [rows, ...]. One-sided; 1 where the trial isn't worse. The
    greater one of two: by the metric, whose standard error is that of resampled rows, the same for
    both; and by the mean difference of single rows (see `_rows_right`). It is no smaller than a
    sign test allows on the rows where the two differ.
    """
    behind, ahead = scores(metric, labels, [trial, leader])
    lead = _rows_right(labels, leader) - _rows_right(labels, trial)
    if behind >= ahead or lead.mean() <= 0:
        return 1.0
    drawn = resampled_scores(metric, labels, [trial, leader], draws=DRAWS, seed=0)
    by_metric = _p_of(ahead - behind, float((drawn[1] - drawn[0]).std(ddof=1)))
    by_rows = _p_of(float(lead.mean()), float(lead.std(ddof=1)) / math.sqrt(len(lead)))
    apart = int((trial != leader).reshape(len(labels), -1).any(axis=1).sum())
    return max(by_metric, by_rows, sign_test(apart) / 2)


def _rows_right(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """How right each row is [rows]: the share of its labels, or less the larger the error of a
    number is."""
    if labels.dtype.kind == "f":
        return -((predicted - labels) ** 2).reshape(len(labels), -1).mean(axis=1)
    return np.asarray((predicted == labels).reshape(len(labels), -1).mean(axis=1))


def _p_of(lead: float, error: float) -> float:
    return float(norm.sf(lead / error)) if error > 0 else 0.0


def _switches(value: object) -> Iterator[float]:
    """Where the step schedules in these settings change for the last time."""
    if isinstance(value, Step):
        yield value.boundaries[-1]
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _switches(getattr(value, name))
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _switches(one)
