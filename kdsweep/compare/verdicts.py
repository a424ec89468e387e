"""What a comparison of two strategies means, in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from kdsweep.compare.families import Family
from kdsweep.compare.findings import Pair
from kdsweep.compare.spread import (
    MOST_SEEDS,
    SeedsNeeded,
    Spread,
    most_variance,
    seeds_needed,
)


@dataclass(frozen=True)
class Compared:
    """Two models or strategies on the same seeds and rows.

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


@dataclass(frozen=True)
class PairRules:
    """How pairs are judged.

    family: all pairs. A pair is one statement: "better" is false where the two are equal,
    "equivalent" where they differ by the margin or more, so only one of the two can be false.
    Holm's steps don't hold for both together: a pair that is shown to differ could still be called
    equivalent, and keeps its share. span: from the metric's lowest to its highest value.
    """

    family: Family
    margin: float
    span: float


def judge_pair(a: str, b: str, found: Compared, rules: PairRules) -> Pair:
    """The pair with its state and its verdict."""
    if len(found.differences) == 0:
        verdict = f"{a} and {b} have no finished seed in common, so they can't be compared"
        return Pair(a, b, None, None, None, 0, None, verdict, "undecided")
    if found.spread is None:
        one = float(found.differences[0])
        verdict = (
            f"one seed can't tell (it has {_level(a, b, one)}); set confirm.seeds to 5 or more"
        )
        return Pair(a, b, one, None, None, 1, None, verdict, "undecided")
    spread, family, margin = found.spread, rules.family, rules.margin
    interval = within(spread.difference_interval(family.tail), rules.span)
    needed = seeds_needed(spread, margin, family.tail)
    pair = Pair(
        a,
        b,
        spread.mean,
        interval,
        family.corrected(found.p),
        spread.seeds,
        needed.seeds,
        "",
        "undecided",
        (needed.low, needed.high),
    )
    if found.p < family.level:
        return replace(pair, state="better", verdict=_beats(a, b, spread.mean, *interval))
    if spread.p_beyond(margin) < family.level:
        tested = within(spread.difference_interval(family.level), rules.span)
        return replace(pair, state="equivalent", verdict=_equivalent(a, b, margin, *tested))
    takes = _what_it_takes(spread, needed, rules)
    verdict = f"no difference shown{_why_not(found, rules)}, nor equivalence within "
    return replace(pair, verdict=f"{verdict}{in_points(margin)}; {takes}")


def within(interval: tuple[float, float], span: float) -> tuple[float, float]:
    """The interval of a difference, no wider than differences can be."""
    return max(interval[0], -span), min(interval[1], span)


def _level(a: str, b: str, difference: float) -> str:
    if not difference:
        return f"{a} and {b} level"
    side = "above" if difference > 0 else "below"
    return f"{a} {_size(difference)} points {side} {b}"


def _beats(a: str, b: str, difference: float, low: float, high: float) -> str:
    better, worse, least, most = (a, b, low, high) if difference > 0 else (b, a, -high, -low)
    return f"{better} beats {worse} by {_size(difference)} points ({points_range(least, most)})"


def _equivalent(a: str, b: str, margin: float, low: float, high: float) -> str:
    return (
        f"{a} and {b} are equivalent within {in_points(margin)} "
        f"(difference {points_range(low, high)})"
    )


def _why_not(found: Compared, rules: PairRules) -> str:
    """The reason, where the numbers alone would suggest a difference."""
    if found.spread is None or found.rows_apart == 0:
        return " (the predictions are the same)"
    if found.least_p >= rules.family.level:
        return (
            f" (predictions differ on only {found.rows_apart} of {found.spread.rows:,} test rows)"
        )
    return ""


def _what_it_takes(spread: Spread, needed: SeedsNeeded, rules: PairRules) -> str:
    goal = f"a difference of {in_points(rules.margin)}"
    if needed.seeds is not None and needed.seeds <= spread.seeds:
        return f"{spread.seeds} seeds would show {goal} four times in five"
    if needed.seeds is not None:
        return (
            f"about {needed.seeds:,} seeds ({_range(needed)}) would be needed to show {goal} four "
            "times in five"
        )
    allowed = most_variance(spread, rules.margin, rules.family.tail)
    of_examples = max(spread.of_examples, rules.margin * spread.one_row)
    if of_examples < allowed:
        return f"more than {MOST_SEEDS:,} seeds would be needed to show {goal}"
    # As many rows as use up half of the variance that is allowed, and leave half to the seeds.
    rows = _rounded(2 * of_examples / allowed * spread.rows)
    with_more_rows = replace(
        spread,
        of_examples=of_examples * spread.rows / rows,
        one_row=spread.one_row * spread.rows / rows,
        rows=rows,
    )
    then = seeds_needed(with_more_rows, rules.margin, rules.family.tail).seeds
    seeds = "" if then is None else f" and {then:,} seeds"
    return (
        f"no number of seeds would be enough to show {goal} on {spread.rows:,} test rows: it takes "
        f"about {rows:,} rows{seeds}"
    )


def _range(needed: SeedsNeeded) -> str:
    if needed.low is None:
        return "or no number of them"
    return (
        f"{needed.low:,} or more" if needed.high is None else f"{needed.low:,} to {needed.high:,}"
    )


# --- points: hundredths of the metric ------------------------------------------------------------


def in_points(value: float) -> str:
    """`1 point`, `0.5 points`."""
    points = f"{100 * value:g}"
    return f"{points} point" if points == "1" else f"{points} points"


def points_range(low: float, high: float) -> str:
    """`-0.4 to 1.2`; never "-0.0"."""
    low_points, high_points = (round(100 * value, 1) + 0.0 for value in (low, high))
    return f"{low_points:.1f} to {high_points:.1f}"


def _size(value: float) -> str:
    return f"{abs(100 * value):.1f}"


def _rounded(rows: float) -> int:
    """Up to two digits: it is only an estimate."""
    unit = 10 ** max(0, len(str(int(rows))) - 2)
    return math.ceil(rows / unit) * unit
