"""The search for the cheapest student, as Optuna sees it.

A study keeps the metric and the cost of each trial. The sampler is shown the cost alone, and how
far the metric is below what is asked as Optuna's constraint. That bar may depend on what a trial
knows, so the constraint is computed each time and stored nowhere.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Self

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from kdsweep.compare.cheapest import Bar, bar_of
from kdsweep.config.sweep import Cheapest, SweepConfig
from kdsweep.sweep.folders import SweepFolder

# Where Optuna keeps how far a trial violates what is asked; 0 or less: it doesn't.
CONSTRAINTS = "constraints"
# A trial without a student violates it by more than any metric between 0 and 1 can.
NO_STUDENT = 1.0
# Of equally cheap students the better one comes first: their costs differ by less than this share.
TIE = 1e-6


def teachers_metric(folder: SweepFolder, metric: str) -> float | None:
    """What the teacher reaches on validation; None before it is ready."""
    teachers = folder.read_facts().teachers
    return teachers[0].validation[metric] if teachers else None


class Constrained:
    """How the sampler is shown the trials that it may know of.

    teacher: says what it reaches on validation; None before it is ready.
    """

    def __init__(self, rule: Cheapest, teacher: Callable[[], float | None]) -> None:
        self._rule = rule
        self._teacher = teacher
        self._known: float | None = None

    @classmethod
    def of(cls, config: SweepConfig, folder: SweepFolder, metric: str) -> Self | None:
        """None where the sweep doesn't look for the cheapest student."""
        if config.cheapest is None:
            return None
        return cls(config.cheapest, lambda: teachers_metric(folder, metric))

    def __call__(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        if self._known is None and self._rule.of == "teacher":
            self._known = self._teacher()
        complete = [one for one in trials if one.state == TrialState.COMPLETE]
        bar = bar_of(self._rule, self._known, [one.values[0] for one in complete])
        ranked = sorted(complete, key=lambda one: (-one.values[0], one.number))
        place = {one.number: i / len(ranked) for i, one in enumerate(ranked)}
        return [_constrained(one, bar, place) for one in trials]


def _constrained(trial: FrozenTrial, bar: Bar | None, place: dict[int, float]) -> FrozenTrial:
    if not trial.state.is_finished():
        return trial
    shown = copy.copy(trial)
    violated = NO_STUDENT
    if trial.state == TrialState.COMPLETE:
        metric, cost = trial.values
        violated = 0.0 if bar is None else bar.short(metric)
        shown.values = [cost * (1 + TIE * place[trial.number])]
    shown.system_attrs = trial.system_attrs | {CONSTRAINTS: [violated]}
    return shown


@contextlib.contextmanager
def as_one_objective(study: optuna.Study, cheapest: Constrained | None) -> Iterator[None]:
    """While the sampler is shown the cost alone, the study minimizes one value."""
    before = study._directions
    if cheapest is not None:
        study._directions = [StudyDirection.MINIMIZE]
    try:
        yield
    finally:
        study._directions = before
