"""How much a mean over seeds varies: intervals, p-values, and the seeds that a difference takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
from scipy.optimize import brentq

# scipy.stats' own quantiles, without their checks, which cost fifty times as much.
from scipy.special import chdtri, stdtrit

POWER = 0.8
MOST_SEEDS = 10_000
LEAST_P = 1e-12
# With two seeds, the seeds' quantile has at least this share: two seeds may agree by chance.
SHARE_OF_TWO_SEEDS = 0.5
Shares = TypeVar("Shares", float, np.ndarray)


@dataclass(frozen=True)
class Spread:
    """A mean over `seeds` seeds, and the two parts of its variance.

    between_seeds: the variance of one seed's score; 0 for a model that isn't trained again.
    of_examples: what the choice of `rows` test examples adds to the variance of the mean.
    one_row: how much one more row changes the score, if it is right instead of wrong.
    """

    mean: float
    between_seeds: float
    of_examples: float
    seeds: int
    rows: int
    one_row: float

    @property
    def of_seeds(self) -> float:
        """What the seeds add to the variance of the mean."""
        return self.between_seeds / self.seeds

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.of_seeds + self.of_examples)

    # --- a score ---

    def score_interval(self, tail: float, lowest: float, highest: float) -> tuple[float, float]:
        """The interval of a score between `lowest` and `highest`, which it doesn't leave.

        tail: the chance on each side of it. The part of the rows is Wilson's (1927): its variance
        belongs to the value that is asked about, so that the interval of a perfect score still
        has a lower end. It takes as many rows as explain the variance that was seen.
        """
        span = highest - lowest
        if not math.isfinite(span):
            half = self._quantile(tail) * self.error
            return self.mean - half, self.mean + half
        share, one_row = (self.mean - lowest) / span, self.one_row / span
        quantile = self._quantile(tail)
        inside = min(max(share, one_row), 1 - one_row)
        of_examples = self.of_examples / span**2
        per_row = quantile**2 * of_examples / max(inside * (1 - inside), 1e-12)
        of_seeds = quantile**2 * self.of_seeds / span**2
        # The roots p of (share - p)^2 = of_seeds + per_row p (1 - p).
        middle = 2 * share + per_row
        root = math.sqrt(max(0.0, middle**2 - 4 * (1 + per_row) * (share**2 - of_seeds)))
        low, high = ((middle + sign * root) / (2 * (1 + per_row)) for sign in (-1, 1))
        # Rounding never leaves the score itself out.
        return (
            min(self.mean, lowest + span * max(low, 0.0)),
            max(self.mean, lowest + span * min(high, 1.0)),
        )

    # --- a difference ---

    def difference_interval(self, tail: float) -> tuple[float, float]:
        """The interval of a difference. tail: the chance on each side of it."""
        return -self._largest(-self.mean, tail), self._largest(self.mean, tail)

    def _largest(self, mean: float, tail: float) -> float:
        """The largest d with |d - mean| <= `_reach(d)`."""
        as_seen = self._reach(0.0, tail)
        of_rows = self._of_rows(tail) ** 2
        # With unseen rows, (d - mean)^2 = as_seen^2 + of_rows (one_row d - of_examples): quadratic.
        half = mean + of_rows * self.one_row / 2
        under_root = half**2 - mean**2 + as_seen**2 - of_rows * self.of_examples
        unseen = half + math.sqrt(under_root) if under_root > 0 else -math.inf
        if unseen * self.one_row < self.of_examples:
            return mean + as_seen
        return max(mean + as_seen, unseen)

    def _reach(self, difference: float, tail: float) -> float:
        """How far from a true difference the mean may be. tail: the chance of more, on each side.

        A difference of d takes some rows on which the two differ, whether they are seen or not.
        Their variance is at least d times what one row changes. What of it wasn't seen is known,
        not estimated from few seeds, so it has the rows' quantile. For Cochran and Cox's quantile
        q, between the rows' z and the seeds' t, the square of the reach grows by q (2 z - q) per
        unit of variance by the rows. That is at most z^2, so this is never too narrow.
        """
        seen = self._quantile(tail, least_share(self.seeds)) * self.error
        unseen = max(0.0, abs(difference) * self.one_row - self.of_examples)
        return math.hypot(seen, self._of_rows(tail) * math.sqrt(unseen))

    @property
    def p(self) -> float:
        """Two-sided, for a difference of 0."""
        if self.mean == 0:
            return 1.0
        size = abs(self.mean) / self.error if self.error else math.inf
        least = least_share(self.seeds)
        return min(1.0, 2 * _tail_of(size, lambda tail: self._quantile(tail, least)))

    def p_beyond(self, margin: float) -> float:
        """Of two one-sided tests that the difference is `margin` or more, either way: the larger.

        Schuirmann (1987). Small where the difference is shown to be smaller than the margin.
        """
        room = margin - abs(self.mean)
        # Without any variance nothing is known: a metric that no row can change.
        if room <= 0 or self._reach(margin, LEAST_P / 2) == 0:
            return 1.0
        return _tail_of(room, lambda tail: self._reach(margin, tail))

    def seeds_can_show(self, margin: float, level: float) -> bool:
        """Whether any number of seeds could show a difference, or one below the margin.

        Judged as if the seeds' variance were gone and the rows' variance stayed, for all true
        differences in the 80% interval. level: at which it would be judged.
        """
        low, high = self.difference_interval(0.1)
        farthest = max(abs(low), abs(high))
        nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        of_examples = max(self.of_examples, self.one_row**2)
        certain = replace(self, between_seeds=0.0, of_examples=of_examples, seeds=MOST_SEEDS)
        return (
            replace(certain, mean=farthest).p < level
            or replace(certain, mean=nearest).p_beyond(margin) < level
        )

    def _quantile(self, tail: float, least: float = 0.0) -> float:
        """See `quantile`. least: the smallest weight of the seeds' one."""
        if self.seeds < 2:
            return self._of_rows(tail)
        total = self.of_seeds + self.of_examples
        share = max(least, self.of_seeds / total if total else 0.0)
        return float(quantile(share, tail, self.seeds, self.rows))

    def _of_rows(self, tail: float) -> float:
        """The quantile of what is known from the rows alone."""
        return float(-stdtrit(max(self.rows - 1, 1), tail))


def least_share(seeds: int) -> float:
    """Of the seeds' quantile, in that of a difference."""
    return SHARE_OF_TWO_SEEDS if seeds == 2 else 0.0


def quantile(share: Shares, tail: float, seeds: int, rows: int) -> Shares:
    """Of Student's t, with one variance known from few seeds and one from many examples.

    Cochran and Cox (1957): the mean of both quantiles, weighted by the parts of the variance.
    share: the seeds' part. Satterthwaite's degrees of freedom would cover 92% with three seeds and
    88% with two.
    """
    of_seeds, of_rows = -stdtrit(seeds - 1, tail), -stdtrit(max(rows - 1, 1), tail)
    return share * of_seeds + (1 - share) * of_rows


def _tail_of(size: float, quantile: Callable[[float], float]) -> float:
    """The tail whose quantile is `size`, at least LEAST_P / 2."""
    if size >= quantile(LEAST_P / 2):
        return LEAST_P / 2
    if size <= 0:
        return 0.5
    log_tail = brentq(
        lambda log: quantile(math.exp(log)) - size, math.log(LEAST_P / 2), math.log(0.5), xtol=1e-6
    )
    return math.exp(log_tail)


def spread_of(exact: np.ndarray, drawn: np.ndarray, rows: int, one_row: float) -> Spread:
    """exact: scores [seeds]; drawn: the same scores on resampled examples [seeds, draws]."""
    seeds = len(exact)
    of_mean = float(drawn.mean(axis=0).var(ddof=1))
    between_seeds = 0.0
    shared = of_mean
    if seeds > 1:
        between_seeds = float(exact.var(ddof=1))
        of_one = float(drawn.var(axis=1, ddof=1).mean())
        # What is particular to one seed on one example already varies between the seeds. The
        # variance of one seed's draws has all of it, that of the mean's draws a k-th.
        shared = of_mean - max(0.0, of_one - of_mean) / (seeds - 1)
    # If all seeds agree on a few examples, one more example could still be different.
    least = one_row**2 - between_seeds / seeds
    of_examples = max(shared, least, 0.0)
    return Spread(float(exact.mean()), between_seeds, of_examples, seeds, rows, one_row)


# --- how many seeds it takes ---------------------------------------------------------------------


@dataclass(frozen=True)
class SeedsNeeded:
    """How many seeds show a difference with a power of 80%; None where no number would.

    low, high: between these it lies with 80%, since few seeds tell their variance only roughly.
    """

    seeds: int | None
    low: int | None
    high: int | None


def seeds_needed(spread: Spread, difference: float, tail: float) -> SeedsNeeded:
    """How many seeds show such a difference. tail: on each side, at which it will be judged."""
    freedom = spread.seeds - 1
    # The 90% and the 10% point of the variance, given the one that was seen.
    low, high = (freedom / float(chdtri(freedom, chance)) for chance in (0.1, 0.9))
    return SeedsNeeded(
        _seeds_for(spread, spread.between_seeds, difference, tail),
        _seeds_for(spread, low * spread.between_seeds, difference, tail),
        _seeds_for(spread, high * spread.between_seeds, difference, tail),
    )


def _seeds_for(spread: Spread, between: float, difference: float, tail: float) -> int | None:
    numbers, of_level, of_power = _quantiles_by_seeds(tail)
    of_rows = -stdtrit(max(spread.rows - 1, 1), np.array([tail, 1 - POWER]))
    of_examples = max(spread.of_examples, difference * spread.one_row)
    parts = between / numbers
    total = np.maximum(parts + of_examples, 1e-300)
    share = np.maximum(parts / total, np.where(numbers == 2, SHARE_OF_TWO_SEEDS, 0.0))
    errors = share * (of_level + of_power) + (1 - share) * of_rows.sum()
    enough = errors * np.sqrt(total) <= difference
    return int(numbers[enough.argmax()]) if enough.any() else None


def most_variance(spread: Spread, difference: float, tail: float) -> float:
    """Up to which variance by the rows such a difference can be shown, with any number of seeds."""
    of_rows = -stdtrit(max(spread.rows - 1, 1), np.array([tail, 1 - POWER]))
    return float((difference / of_rows.sum()) ** 2)


@cache
def _quantiles_by_seeds(tail: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(numbers of seeds, Student's quantile for the tail with each, and for the power)"""
    # Each number up to about 60, then steps of 2%.
    numbers = np.unique(np.geomspace(2, MOST_SEEDS, 440).round().astype(int))
    return numbers, -stdtrit(numbers - 1, tail), stdtrit(numbers - 1, POWER)
