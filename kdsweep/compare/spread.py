"""How much a mean over seeds varies, and how many seeds it takes to show a difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq

# scipy.stats' own quantile of Student's t, without its checks, which cost fifty times as much.
from scipy.special import stdtrit

LEVEL, POWER = 0.95, 0.8
MOST_SEEDS = 10_000
LEAST_P = 1e-12


@dataclass(frozen=True)
class Spread:
    """A mean over `seeds` seeds, and the two parts of its variance.

    between_seeds: the variance of one seed's score. of_examples: what the choice of `rows` test
    examples adds to the variance of the mean.
    """

    mean: float
    between_seeds: float
    of_examples: float
    seeds: int
    rows: int

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.between_seeds / self.seeds + self.of_examples)

    @property
    def half_width(self) -> float:
        """Half of the 95% interval."""
        return self._quantile((1 - LEVEL) / 2) * self.error

    @property
    def p(self) -> float:
        """Two-sided: below 5% exactly where the 95% interval leaves 0 out, except with two seeds.

        With two seeds it is higher. Among several pairs, two seeds too often agree exactly by
        chance, and would then seem to vary no more than the examples do.
        """
        if self.mean == 0:
            return 1.0
        size, share = abs(self.mean) / self.error, 0.5 if self.seeds == 2 else 0.0
        if size >= self._quantile(LEAST_P / 2, share):
            return LEAST_P
        log_p = brentq(
            lambda log: self._quantile(math.exp(log) / 2, share) - size,
            math.log(LEAST_P),
            0.0,
            xtol=1e-6,
        )
        return math.exp(log_p)

    def _quantile(self, tail: float, least_share: float = 0.0) -> float:
        """Of Student's t, with one variance known from few seeds and one from many examples.

        Cochran and Cox (1957): the mean of both quantiles, weighted by the parts of the variance.
        The seeds' quantile has at least `least_share` of the weight. Satterthwaite's degrees of
        freedom would cover 92% with three seeds and 88% with two.
        """
        seeds_part = self.between_seeds / self.seeds
        share = max(least_share, seeds_part / (seeds_part + self.of_examples))
        of_seeds, of_examples = -stdtrit([self.seeds - 1, max(self.rows - 1, 1)], tail)
        return float(share * of_seeds + (1 - share) * of_examples)


def spread_of(exact: np.ndarray, drawn: np.ndarray, rows: int) -> Spread:
    """exact: scores [seeds]; drawn: the same scores on resampled examples [seeds, draws]."""
    seeds, between_seeds = len(exact), float(exact.var(ddof=1))
    of_mean = float(drawn.mean(axis=0).var(ddof=1))
    of_one = float(drawn.var(axis=1, ddof=1).mean())
    # What is particular to one seed on one example already varies between the seeds. The variance
    # of one seed's draws has all of it, that of the mean's draws a k-th.
    shared = of_mean - max(0.0, of_one - of_mean) / (seeds - 1)
    # If all seeds agree on a few examples, one more example could still be different.
    least = 1 / (rows + 1) ** 2 - between_seeds / seeds
    return Spread(float(exact.mean()), between_seeds, max(shared, least, 0.0), seeds, rows)


def seeds_needed(spread: Spread, difference: float) -> int | None:
    """How many seeds show such a difference with a power of 80%.

    None if no number does, because the examples alone vary too much.
    """
    seeds, errors = _errors_to_show()
    enough = errors * np.sqrt(spread.between_seeds / seeds + spread.of_examples) <= difference
    return int(seeds[enough.argmax()]) if enough.any() else None


def most_variance(difference: float) -> float:
    """Up to which variance of the mean such a difference can be shown, with any number of seeds."""
    return float((difference / _errors_to_show()[1][-1]) ** 2)


@cache
def _errors_to_show() -> tuple[np.ndarray, np.ndarray]:
    """(numbers of seeds, how many standard errors a difference must have to be shown with each)"""
    seeds = np.arange(2, MOST_SEEDS + 1)
    return seeds, stdtrit(seeds - 1, (1 + LEVEL) / 2) + stdtrit(seeds - 1, POWER)
