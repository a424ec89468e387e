"""What a comparison of two strategies means, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from kdsweep.compare.findings import Pair
from kdsweep.compare.spread import LEVEL, MOST_SEEDS, Spread, most_variance, seeds_needed


@dataclass(frozen=True)
class Compared:
    """Two strategies on the same seeds and rows.

    differences: of their scores [common seeds]. rows_apart: on how many rows their predictions
    differ with any seed. spread: from two seeds on.
    """

    differences: np.ndarray
    rows_apart: int
    spread: Spread | None

    @property
    def least_p(self) -> float:
        """A sign test: if the two were equal, each row that differs could be either's."""
        return min(1.0, 2.0 ** (1 - self.rows_apart))

    @property
    def p(self) -> float:
        return max(self.spread.p if self.spread else 1.0, self.least_p)


def judge(a: str, b: str, found: Compared, p: float | None, difference: float, span: float) -> Pair:
    """The pair with its verdict.

    p: corrected for all pairs. difference: the one to show, in the metric's own unit. span: from
    the metric's lowest to its highest value.
    """
    if len(found.differences) == 0:
        verdict = f"{a} and {b} have no finished seed in common, so they can't be compared"
        return Pair(a, b, None, None, None, 0, None, verdict)
    if found.spread is None or p is None:
        one = float(found.differences[0])
        verdict = (
            f"one seed can't tell (it has {_level(a, b, one)}); set confirm.seeds to 5 or more"
        )
        return Pair(a, b, one, None, None, 1, None, verdict)
    spread = found.spread
    low = max(spread.mean - spread.half_width, -span)
    high = min(spread.mean + spread.half_width, span)
    needed = seeds_needed(spread, difference)
    pair = Pair(a, b, spread.mean, (low, high), p, spread.seeds, needed, "")
    if p < 1 - LEVEL:
        return replace(pair, verdict=_beats(a, b, spread.mean, low, high))
    why, takes = _why_not(found, low, high), _what_it_takes(spread, needed, difference)
    return replace(pair, verdict=f"no difference shown{why}; {takes}")


def _level(a: str, b: str, difference: float) -> str:
    if not difference:
        return f"{a} and {b} level"
    side = "above" if difference > 0 else "below"
    return f"{a} {_points(difference)} points {side} {b}"


def _beats(a: str, b: str, difference: float, low: float, high: float) -> str:
    better, worse, least, most = (a, b, low, high) if difference > 0 else (b, a, -high, -low)
    interval = f"{100 * least:.1f} to {100 * most:.1f}"
    return f"{better} beats {worse} by {_points(difference)} points ({interval})"


def _why_not(found: Compared, low: float, high: float) -> str:
    """The reason, where the interval alone would suggest a difference."""
    if found.spread is None or found.rows_apart == 0:
        return " (the predictions are the same)"
    if found.least_p >= 1 - LEVEL:
        return (
            f" (predictions differ on only {found.rows_apart} of {found.spread.rows:,} test rows)"
        )
    if low <= 0 <= high:
        return ""
    if found.spread.seeds == 2:
        return " (two seeds may agree by chance)"
    return " (this pair alone would show one, but among many pairs one in twenty does so by chance)"


def _what_it_takes(spread: Spread, needed: int | None, difference: float) -> str:
    goal = f"to show a difference of {100 * difference:g} points"
    if needed is not None and needed <= spread.seeds:
        return f"{spread.seeds} seeds are enough {goal}, so the true one is likely smaller"
    if needed is not None:
        return f"about {needed:,} seeds would be needed {goal}"
    allowed = most_variance(difference)
    if spread.of_examples < allowed:
        return f"more than {MOST_SEEDS:,} seeds would be needed {goal}"
    # As many rows as use up half of the variance that is allowed, and leave half to the seeds.
    rows = _rounded(2 * spread.of_examples / allowed * spread.rows)
    with_more_rows = replace(spread, of_examples=spread.of_examples * spread.rows / rows)
    then = seeds_needed(with_more_rows, difference)
    seeds = "" if then is None else f" and {then:,} seeds"
    return (
        f"no number of seeds would be enough {goal} on {spread.rows:,} test rows: it takes about "
        f"{rows:,} rows{seeds}"
    )


def _points(value: float) -> str:
    return f"{abs(100 * value):.1f}"


def _rounded(rows: float) -> int:
    """Up to two digits: it is only an estimate."""
    unit = 10 ** max(0, len(str(int(rows))) - 2)
    return math.ceil(rows / unit) * unit
