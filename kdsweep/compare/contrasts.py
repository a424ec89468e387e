"""What the questions are answered with: a difference of two groups, and the cost of a wrong rate.

Trials of a search are no clean samples: groups vary differently, values have long tails, and a
sampler tries more where it was lucky. `make bench NAMES=questions` simulates how often a statement
is false nevertheless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# scipy.stats' own quantile of Student's t, without its checks, which cost fifty times as much.
from scipy.special import stdtrit

ARRANGEMENTS = 9999
# The curve has three parts that could be reported; each is wrong on one side only.
LEVEL_OF_A_CURVE = 2 / 3


@dataclass(frozen=True)
class Interval:
    """An effect with its interval, in the metric's own unit."""

    effect: float
    low: float
    high: float


def difference(a: Sequence[float], b: Sequence[float], level: float) -> Interval:
    """Mean of a minus mean of b, with Welch's interval (1947).

    level: how often the interval may be wrong, such as 0.05. Few values with a long tail can seem
    to vary little. So an interval without 0 must be confirmed by a permutation test of Welch's t
    (Janssen 1997), which is exact if both groups are alike; else it is widened to 0.
    """
    parts = np.array([np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)])
    # Means of equal values differ after the 12th digit.
    effect = round(float(np.mean(a) - np.mean(b)), 12)
    variance = float(parts.sum())
    if variance < 1e-18:
        low = high = effect
    else:
        freedom = variance**2 / float(parts**2 @ np.array([1 / (len(a) - 1), 1 / (len(b) - 1)]))
        half = -float(stdtrit(freedom, level / 2)) * math.sqrt(variance)
        low, high = effect - half, effect + half
    if low <= 0 <= high or _permuted_p(a, b) < level:
        return Interval(effect, low, high)
    return Interval(effect, min(low, 0.0), max(high, 0.0))


def _permuted_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided, from the arrangement that was seen and random ones."""
    values = np.concatenate([a, b])
    seen = np.arange(len(values))[None]
    generator = np.random.default_rng(0)
    arranged = generator.permuted(np.repeat(seen, ARRANGEMENTS, axis=0), axis=1)
    sizes = np.abs(_welch_t((values - values.mean())[np.concatenate([seen, arranged])], len(a)))
    # Equal arrangements differ after the 12th digit.
    return float(np.mean(sizes >= sizes[0] * (1 - 1e-9)))


def _welch_t(values: np.ndarray, first: int) -> np.ndarray:
    """Of the `first` values against the others [arrangements, values]; great without a variance."""
    a, b = values[:, :first], values[:, first:]
    variance = a.var(axis=1, ddof=1) / a.shape[1] + b.var(axis=1, ddof=1) / b.shape[1]
    effect: np.ndarray = a.mean(axis=1) - b.mean(axis=1)
    return effect / np.sqrt(np.maximum(variance, 1e-18))


def cost_of_a_factor_of_2(
    octaves: np.ndarray, values: np.ndarray, level: float
) -> tuple[float, Interval]:
    """(the best log2 learning rate, the cost of one octave away from it) of a fitted parabola.

    octaves: log2 of the rates [trials]; values: the metric [trials]; level: how often the interval
    may be wrong. If the parabola's top lies among the rates, the cost is its curvature, whatever
    the top; at an end of the rates it is the drop to one octave inside. Both are linear in the
    coefficients, so the interval is Student's. Its standard error is the larger one of least
    squares and of HC3 (MacKinnon, White 1985), which holds where values vary more at some rates.
    """
    center = octaves.mean()
    terms = np.vander(octaves - center, 3)  # columns: square, rate, 1
    # Divided by their lengths, so that squares of a narrow and of a wide range fit equally well.
    lengths = np.linalg.norm(terms, axis=0)
    orthogonal, upper = np.linalg.qr(terms / lengths)
    coefficients = np.linalg.solve(upper, orthogonal.T @ values) / lengths
    best, asked = _best_and_cost(coefficients, octaves)
    freedom = len(values) - 3
    residual = values - terms @ coefficients
    # The effect is the sum of the values with these weights.
    weights = orthogonal @ np.linalg.solve(upper.T, asked / lengths)
    leverage = (orthogonal**2).sum(axis=1)
    alike = math.sqrt(residual @ residual / freedom) * float(np.linalg.norm(weights))
    unlike = float(np.linalg.norm(weights * residual / np.maximum(1 - leverage, 1e-3)))
    half = -float(stdtrit(freedom, level * LEVEL_OF_A_CURVE / 2)) * max(alike, unlike)
    effect = float(asked @ coefficients)
    return best, Interval(effect, effect - half, effect + half)


def _best_and_cost(coefficients: np.ndarray, octaves: np.ndarray) -> tuple[float, np.ndarray]:
    """(the best octave, the cost of one octave away as a linear function of the coefficients)"""
    square, slope, _ = coefficients
    center = octaves.mean()
    lowest, highest = octaves.min() - center, octaves.max() - center
    if square < 0 and lowest < (top := -slope / (2 * square)) < highest:
        return float(top + center), np.array([-1.0, 0.0, 0.0])
    end, inside = max(
        ((lowest, lowest + 1), (highest, highest - 1)),
        key=lambda pair: square * pair[0] ** 2 + slope * pair[0],
    )
    best = float(octaves.min() if end == lowest else octaves.max())
    return best, np.array([end**2 - inside**2, end - inside, 0.0])
