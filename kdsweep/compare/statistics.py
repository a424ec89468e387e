"""How sure a comparison on the test split is: intervals over seeds and test examples, and a verdict for every pair of strategies.

A student's score varies with its seed and with the examples that it happens to be judged on; both count, as in the multi-bootstrap
(Sellam et al. 2022, https://arxiv.org/abs/2106.16163). With the three to ten seeds that people can afford, percentiles of joint draws
are too narrow (few seeds) or too wide (what belongs to one seed and one example is drawn twice). So the draws give variances, and each
part is counted once:

    variance of a mean over k seeds = s^2 / k + V

s^2 is the variance between seeds: drawing k - 1 of k seeds again and again would give s^2 / k exactly, so they needn't be drawn.
V is what resampled examples, the same for all seeds, add for all seeds alike. The interval is Student's.
`tests/compare/test_statistics.py` checks by simulation what it covers; docs/statistics.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

import numpy as np
from scipy.optimize import brentq
from scipy.special import (
    stdtrit,
)  # Student's t: scipy.stats' own, without its checks, which cost fifty times as much

from kdsweep.compare.findings import Estimate, Pair
from kdsweep.core.evaluation.metric_table import metric_named

LEVEL, POWER = 0.95, 0.8
WEIGHTS_AT_ONCE = 400_000  # rows x draws: they stay in the processor's cache
MOST_SEEDS = 10_000
LEAST_P = 1e-12  # below that nobody asks
# A seed's index -> what the student of that seed predicted (`TaskKind.predictions`).
Predicted = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class _Spread:
    """A mean over `seeds` seeds, and the two parts of its variance: between seeds, and of the examples."""

    mean: float
    between_seeds: float
    of_examples: float
    seeds: int
    rows: int

    @property
    def error(self) -> float:
        return math.sqrt(self.between_seeds / self.seeds + self.of_examples)

    @property
    def half_width(self) -> float:
        return self._quantile((1 - LEVEL) / 2) * self.error

    @property
    def p(self) -> float:
        """Two-sided: below 5% where the 95% interval leaves 0 out, and so for every other level; with two seeds it takes more.

        Two seeds of several pairs too often agree exactly by chance, and would then seem to vary no more than the examples do.
        """
        if self.mean == 0:
            return 1.0
        size, share = abs(self.mean) / self.error, 0.5 if self.seeds == 2 else 0.0
        if size >= self._quantile(LEAST_P / 2, share):
            return LEAST_P
        return math.exp(
            brentq(
                lambda log: self._quantile(math.exp(log) / 2, share) - size,
                math.log(LEAST_P),
                0.0,
                xtol=1e-6,
            )
        )

    def _quantile(self, tail: float, least_share: float = 0.0) -> float:
        """Of Student's t, where one part of the variance is known from few seeds and one from many examples: Cochran and Cox's mean
        of both quantiles (1957), weighted by the parts; that of the seeds has `least_share` of the weight at least.

        Satterthwaite's degrees of freedom cover 92% with three seeds, 88% with two.
        """
        seeds_part = self.between_seeds / self.seeds
        share = max(least_share, seeds_part / (seeds_part + self.of_examples))
        of_seeds, of_examples = -stdtrit([self.seeds - 1, max(self.rows - 1, 1)], tail)
        return float(share * of_seeds + (1 - share) * of_examples)


def mean_score(
    metric: str, labels: np.ndarray, predicted: Predicted, *, draws: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of the metric over seeds with its 95% interval. labels: those of the test split; at least one seed."""
    exact = scores(metric, labels, list(predicted.values()))
    if len(exact) < 2:
        return Estimate(float(exact.mean()), None, None)
    spread = _spread(
        exact,
        resampled_scores(metric, labels, list(predicted.values()), draws=draws, seed=seed),
        len(labels),
    )
    low, high = spread.mean - spread.half_width, spread.mean + spread.half_width
    judged = metric_named(metric)
    return Estimate(spread.mean, max(low, judged.lowest), min(high, judged.highest))


def compare_pairs(
    metric: str,
    labels: np.ndarray,
    predicted: Mapping[str, Predicted],
    *,
    difference: float = 0.005,
    draws: int = 1000,
    seed: int = 0,
) -> list[Pair]:
    """Every pair of strategies, each on the seeds that both have.

    difference: what a reader would want to be told apart, in the metric's own unit. Strategies without a seed are left out.
    """
    names = [name for name in predicted if predicted[name]]
    if len(names) < 2:
        return []
    keys = [(name, index) for name in names for index in sorted(predicted[name])]
    everything = [predicted[name][index] for name, index in keys]
    exact = dict(zip(keys, scores(metric, labels, everything), strict=True))
    drawn = dict(
        zip(keys, resampled_scores(metric, labels, everything, draws=draws, seed=seed), strict=True)
    )
    compared: dict[tuple[str, str], _Compared] = {}
    for a, b in combinations(names, 2):
        common = sorted(predicted[a].keys() & predicted[b].keys())
        differences = np.array([exact[a, index] - exact[b, index] for index in common])
        spread = None
        if len(common) > 1:
            spread = _spread(
                differences,
                np.array([drawn[a, index] - drawn[b, index] for index in common]),
                len(labels),
            )
        apart = np.zeros(len(labels), dtype=bool)
        for index in common:
            apart |= (
                (predicted[a][index] != predicted[b][index]).reshape(len(labels), -1).any(axis=1)
            )
        compared[a, b] = _Compared(differences, int(apart.sum()), spread)
    tested = {pair: found.p for pair, found in compared.items() if found.spread is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    judged = metric_named(metric)
    span = judged.highest - judged.lowest
    return [
        _judge(a, b, found, corrected.get((a, b)), difference, span)
        for (a, b), found in compared.items()
    ]


@dataclass(frozen=True)
class _Compared:
    """Two strategies' differences [common seeds], on how many examples they differ with any seed, and, from two seeds on, their spread."""

    differences: np.ndarray
    rows_apart: int
    spread: _Spread | None

    @property
    def least_p(self) -> float:
        """If the two were alike, each example on which they differ could as well have been the other way round (a sign test)."""
        return min(1.0, 2.0 ** (1 - self.rows_apart))

    @property
    def p(self) -> float:
        return max(self.spread.p if self.spread else 1.0, self.least_p)


# --- in words --------------------------------------------------------------------------------------------------------


def _judge(
    a: str, b: str, found: _Compared, p: float | None, difference: float, span: float
) -> Pair:
    spread, seeds = found.spread, len(found.differences)
    if seeds == 0:
        return Pair(
            a,
            b,
            None,
            None,
            None,
            0,
            None,
            f"{a} and {b} have no seed in common that finished: nothing can be compared",
        )
    if spread is None or p is None:
        one = float(found.differences[0])
        level = (
            f"{a} {_points(one)} points {'above' if one > 0 else 'below'} {b}"
            if one
            else f"{a} and {b} level"
        )
        return Pair(
            a,
            b,
            one,
            None,
            None,
            1,
            None,
            f"one seed can't tell (it has {level}); set confirm.seeds to 5 or more",
        )
    low, high = (
        max(spread.mean - spread.half_width, -span),
        min(spread.mean + spread.half_width, span),
    )
    needed = seeds_needed(spread, difference)
    pair = Pair(a, b, spread.mean, (low, high), p, seeds, needed, "")
    if p < 1 - LEVEL:
        better, worse = (a, b) if spread.mean > 0 else (b, a)
        ends = (low, high) if spread.mean > 0 else (-high, -low)
        return replace(
            pair,
            verdict=f"{better} beats {worse} by {_points(spread.mean)} points ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})",
        )
    return replace(
        pair,
        verdict=f"no difference shown{_why_not(found, low, high)}; {_what_it_takes(spread, needed, difference)}",
    )


def _why_not(found: _Compared, low: float, high: float) -> str:
    """Where a reader of the interval might wonder."""
    if found.spread is None or found.rows_apart == 0:
        return " (the answers are the same)"
    if found.least_p >= 1 - LEVEL:
        return f" (only {found.rows_apart} of {found.spread.rows:,} test rows are answered differently)"
    if found.spread.seeds == 2 and (low > 0 or high < 0):
        return " (two seeds may agree by chance)"
    return (
        " (this pair alone would show one, but with so many pairs one in twenty may do so by chance)"
        if low > 0 or high < 0
        else ""
    )


def _what_it_takes(spread: _Spread, needed: int | None, difference: float) -> str:
    apart = f"to tell {100 * difference:g} points apart"
    if needed is None:
        allowed = (difference / _planned()[1][-1]) ** 2
        if spread.of_examples < allowed:
            return f"more than {MOST_SEEDS:,} seeds would be needed {apart}"
        # So many rows that they use up half of what is allowed, and leave the other half to the seeds.
        rows = _rounded(2 * spread.of_examples / allowed * spread.rows)
        then = seeds_needed(
            replace(spread, of_examples=spread.of_examples * spread.rows / rows), difference
        )
        seeds = "" if then is None else f" and {then:,} seeds"
        return f"no number of seeds would be enough {apart} on {spread.rows:,} test rows: it takes about {rows:,} rows{seeds}"
    if needed <= spread.seeds:
        return f"{spread.seeds} seeds are enough {apart}, so the difference is likely smaller than that"
    return f"about {needed:,} seeds would be needed {apart}"


def _points(value: float) -> str:
    return f"{abs(100 * value):.1f}"


def _rounded(rows: float) -> int:
    """Up to two digits: it is no more than an estimate."""
    unit = 10 ** max(0, len(str(int(rows))) - 2)
    return math.ceil(rows / unit) * unit


def seeds_needed(spread: _Spread, difference: float) -> int | None:
    """How many seeds show such a difference with a power of 80%; None where the examples alone vary too much for it."""
    found, quantiles = _planned()
    enough = quantiles * np.sqrt(spread.between_seeds / found + spread.of_examples) <= difference
    return int(found[enough.argmax()]) if enough.any() else None


@cache
def _planned() -> tuple[np.ndarray, np.ndarray]:
    """Numbers of seeds, and by how many standard errors a difference must exceed 0 to be shown with each."""
    seeds = np.arange(2, MOST_SEEDS + 1)
    return seeds, stdtrit(seeds - 1, (1 + LEVEL) / 2) + stdtrit(seeds - 1, POWER)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979): the chance of any false claim stays below the level, however many pairs there are."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    raised = (
        np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors))
        if len(p_values)
        else np.empty(0)
    )
    corrected = np.empty(len(p_values))
    corrected[order] = raised
    return corrected.tolist()


def _spread(exact: np.ndarray, drawn: np.ndarray, rows: int) -> _Spread:
    """exact: scores [seeds]; drawn: the same scores on resampled examples [seeds, draws]."""
    seeds, between_seeds = len(exact), float(exact.var(ddof=1))
    of_mean, of_one = float(drawn.mean(axis=0).var(ddof=1)), float(drawn.var(axis=1, ddof=1).mean())
    # What is particular to one seed on one example shows between the seeds already: the variance of one seed's draws has all
    # of it, that of the mean's a k-th.
    shared = of_mean - max(0.0, of_one - of_mean) / (seeds - 1)
    # A few examples on which all seeds agree don't mean that the next ones would be like them: one of them could be another.
    least = 1 / (rows + 1) ** 2 - between_seeds / seeds
    return _Spread(float(exact.mean()), between_seeds, max(shared, least, 0.0), seeds, rows)


# --- scores of many students, on the rows as they are and as they are drawn ---------------------


def scores(metric: str, labels: np.ndarray, predicted: Sequence[np.ndarray]) -> np.ndarray:
    """The metric of each student [students]."""
    weighted = metric_named(metric).of_students(labels, predicted)
    return weighted(np.ones((1, len(labels))))[:, 0]


def resampled_scores(
    metric: str, labels: np.ndarray, predicted: Sequence[np.ndarray], *, draws: int, seed: int
) -> np.ndarray:
    """The metric of each student on `draws` resamplings of the rows [students, draws].

    All students are judged on the same resamplings.
    """
    generator = np.random.default_rng(seed)
    rows = len(labels)
    weighted = metric_named(metric).of_students(labels, predicted)
    at_once = max(1, WEIGHTS_AT_ONCE // rows)
    parts = []
    for begin in range(0, draws, at_once):
        count = min(at_once, draws - begin)
        drawn = generator.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        parts.append(weighted(times.astype(np.float64)))
    return np.concatenate(parts, axis=1)
