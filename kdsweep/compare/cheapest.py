"""The cheapest student that is good enough (`objective: {least: ..., within: ..., of: ...}`).

One trial says little about how good its settings are, so the candidates are trained again with
fresh seeds. A student is good enough if the lower end of the one-sided 80% interval of its mean
over these seeds, on validation, is at most `within` below the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from kdsweep.compare.finalists import Judged, mean_of
from kdsweep.config.sweep import Cheapest

# Of the one-sided interval, and the seeds of each candidate.
LEVEL, SEEDS = 0.8, 3
# Sums of decimal fractions are off in the last digit: 0.9 - 0.01 isn't 0.89.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Bar:
    """What a student has to reach. reference: the metric that it may be `within` below."""

    reference: float
    within: float

    def short(self, value: float) -> float:
        """By how much a value is too low; 0 or less if it is enough."""
        return self.reference - self.within - value - ROUNDING


def bar_of(rule: Cheapest, teacher: float | None, values: Sequence[float]) -> Bar | None:
    """The bar for students whose metrics are these. None where the reference isn't known yet.

    teacher: its metric on validation.
    """
    reference = teacher if rule.of == "teacher" else max(values, default=None)
    return None if reference is None else Bar(reference, rule.within)


def cheapest_first(
    values: Mapping[int, float], costs: Mapping[int, float], bar: Bar | None
) -> list[int]:
    """The trials that are good enough, the cheapest first; then the others, the nearest first.

    values, costs: of each complete trial. Of equally cheap ones the better one comes first.
    """

    def rank(trial: int) -> tuple[float, ...]:
        short = -math.inf if bar is None else bar.short(values[trial])
        if short <= 0:
            return (0, costs[trial], -values[trial], trial)
        return (1, short, costs[trial], trial)

    return sorted(values, key=rank)


def candidates(
    values: Mapping[int, float], costs: Mapping[int, float], bar: Bar | None, most: int, of: str
) -> list[int]:
    """The trials that are judged with fresh seeds: of each cost the best one, in the order of
    `cheapest_first`; then others. With `of: best`, the best trial is always among them.
    """
    order = cheapest_first(values, costs, bar)
    best_at: dict[float, int] = {}
    for trial in sorted(values, key=lambda one: (-values[one], one)):
        best_at.setdefault(costs[trial], trial)
    chosen = set(best_at.values())
    found = [one for one in order if one in chosen] + [one for one in order if one not in chosen]
    found = found[:most]
    best = min(values, key=lambda one: (-values[one], one), default=None)
    if of == "best" and best is not None and best not in found:
        found[-1] = best
    return found


def lower_end(values: Sequence[float | None]) -> float:
    """The lower end of the mean's one-sided interval; minus infinity with fewer than two runs, or
    where one failed."""
    reached = [value for value in values if value is not None]
    if len(reached) < len(values) or len(reached) < 2:
        return -math.inf
    deviation = float(np.std(reached, ddof=1)) / math.sqrt(len(reached))
    return float(np.mean(reached)) - float(student_t.ppf(LEVEL, len(reached) - 1)) * deviation


def judged_bar(
    rule: Cheapest, teacher: float | None, judged: Sequence[Sequence[float | None]]
) -> Bar | None:
    """The bar once candidates were judged: with `of: best`, the best one's mean is the reference.

    judged: what each reached, by seed.
    """
    means = [mean for values in judged if (mean := mean_of(values)) is not None]
    return bar_of(rule, teacher, means)


def judge_cheapest(
    rule: Cheapest,
    teacher: float | None,
    values: Mapping[int, float],
    costs: Mapping[int, float],
    finalists: int,
    ended: Mapping[tuple[int, int], float | None],
) -> Judged:
    """Which candidate of a strategy is the cheapest that is good enough, or else the nearest.

    values, costs: of the search's complete trials. ended: (trial, index of the seed) -> what the
    run reached; None where it failed.
    """
    bar = bar_of(rule, teacher, list(values.values()))
    found = candidates(values, costs, bar, finalists, rule.of)
    asked = tuple((trial, i) for i in range(SEEDS) for trial in found)
    reached = {
        trial: tuple(ended[trial, i] for i in range(SEEDS) if (trial, i) in ended)
        for trial in found
    }
    if not found or any(run not in ended for run in asked):
        return Judged(asked, tuple(found), reached, None)
    bar = judged_bar(rule, teacher, list(reached.values()))
    lows = {trial: lower_end(of_trial) for trial, of_trial in reached.items()}
    order = cheapest_first(lows, costs, bar)
    return Judged(asked, tuple(order), reached, order[0])
