"""What a comparison of two strategies means, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kdsweep.compare.families import Family
from kdsweep.compare.findings import Pair
from kdsweep.compare.spread import (
    MOST_SEEDS,
    Spread,
    most_variance,
    seeds_needed,
)
from kdsweep.formatting import joined

# What an undecided pair has too little of. It may have as many seeds as it should take, take more,
# take more than anybody tries, or only more test rows would help.
Limit = Literal["none", "seeds", "many seeds", "rows"]


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
        return sign_test(self.rows_apart)

    @property
    def p(self) -> float:
        return max(self.spread.p if self.spread else 1.0, self.least_p)


def sign_test(rows_apart: int) -> float:
    """The least p: if the two were equal, each row that differs could be either's."""
    return min(1.0, 2.0 ** (1 - rows_apart))


@dataclass(frozen=True)
class PairRules:
    """How pairs are judged.

    family: at whose level the pair is judged now; in a fixed design, all pairs. A pair is one
    statement: "better" is false where the two are equal, "equivalent" where they differ by the
    margin or more, so only one of the two can be false.
    Holm's steps don't hold for both together: a pair that is shown to differ could still be called
    equivalent, and keeps its share. span: from the metric's lowest to its highest value. later: at
    whose level more seeds would be judged, if that differs from `family`.
    """

    family: Family
    margin: float
    span: float
    later: Family | None = None

    @property
    def of_more_seeds(self) -> Family:
        return self.later or self.family


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
    needed = seeds_needed(spread, margin, rules.of_more_seeds.tail)
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
        spread.rows,
        found.rows_apart,
    )
    if found.p < family.level:
        verdict = _beats(a, b, spread.mean, interval, margin)
        return replace(pair, state="better", verdict=verdict)
    if spread.p_beyond(margin) < family.level:
        tested = within(spread.difference_interval(family.level), rules.span)
        return replace(pair, state="equivalent", verdict=_equivalent(a, b, margin, *tested))
    pair = _with_more_rows(pair, spread, rules)
    if not spread.seeds_can_show(margin, rules.of_more_seeds.level):
        pair = replace(pair, state="out_of_reach")
    return replace(pair, verdict=_undecided(pair, rules))


def not_yet(a: str, b: str, found: Compared, first_look: int) -> Pair:
    """The pair before its first look. Nothing is said about it."""
    difference = float(found.differences.mean()) if len(found.differences) else None
    verdict = f"not judged yet: the first look is at {first_look} seeds of both"
    return Pair(a, b, difference, None, None, len(found.differences), None, verdict, "undecided")


def within(interval: tuple[float, float], span: float) -> tuple[float, float]:
    """The interval of a difference, no wider than differences can be."""
    return max(interval[0], -span), min(interval[1], span)


def _level(a: str, b: str, difference: float) -> str:
    if not difference:
        return f"{a} and {b} level"
    side = "above" if difference > 0 else "below"
    return f"{a} {_size(difference)} points {side} {b}"


def at_least(interval: tuple[float, float], difference: float) -> float:
    """The lower end of how much better one of the two is."""
    return interval[0] if difference > 0 else -interval[1]


def _beats(a: str, b: str, difference: float, interval: tuple[float, float], margin: float) -> str:
    better, worse = (a, b) if difference > 0 else (b, a)
    least, most = sorted(end if difference > 0 else -end for end in interval)
    words = f"{better} beats {worse} by {_size(difference)} points ({points_range(least, most)})"
    if least >= margin:
        return f"{words}, by at least {in_points(margin)}"
    return f"{words}, by less than {in_points(margin)}" if most < margin else words


def _equivalent(a: str, b: str, margin: float, low: float, high: float) -> str:
    return (
        f"{a} and {b} are equivalent within {in_points(margin)} "
        f"(difference {points_range(low, high)})"
    )


def _with_more_rows(pair: Pair, spread: Spread, rules: PairRules) -> Pair:
    """With the rows that it would take, if no number of seeds is enough on these."""
    allowed = most_variance(spread, rules.margin, rules.of_more_seeds.tail)
    of_examples = max(spread.of_examples, rules.margin * spread.one_row)
    if pair.seeds_needed is not None or of_examples < allowed:
        return pair
    # As many rows as use up half of the variance that is allowed, and leave half to the seeds.
    rows = _rounded(2 * of_examples / allowed * spread.rows)
    on_them = replace(
        spread,
        of_examples=of_examples * spread.rows / rows,
        one_row=spread.one_row * spread.rows / rows,
        rows=rows,
    )
    seeds = seeds_needed(on_them, rules.margin, rules.of_more_seeds.tail).seeds
    return replace(pair, rows_needed=rows, seeds_on_them=seeds)


# --- pairs that nothing is shown about -----------------------------------------------------------


def what_it_takes(pairs: Sequence[Pair], strategy: str, margin: float, family: Family) -> str:
    """Sentences about the pairs of a strategy that nothing is shown about.

    What holds for all of them is said once. family: all pairs that could be judged.
    """
    judged = [pair for pair in pairs if pair.rows is not None]
    said = [
        f"For {pair.other(strategy)}, {reason}"
        for pair in judged
        if (reason := _why_not(pair, family))
    ]
    groups: dict[Limit, list[Pair]] = {}
    for pair in judged:
        groups.setdefault(_limit(pair), []).append(pair)
    for limit, group in groups.items():
        words = _what_it_takes(limit, group, margin)
        if len(groups) > 1:
            said.append(f"For {_others(group, strategy)}, {words}")
        else:
            said.append(words[0].upper() + words[1:])
    if of_one_seed := [pair for pair in pairs if pair.seeds == 1]:
        others = _others(of_one_seed, strategy)
        said.append(f"One seed can't separate {strategy} from {others}")
        said.append("Set confirm.seeds to 5 or more")
    said += [pair.verdict for pair in pairs if pair.seeds == 0]
    return " ".join(f"{one}." for one in said)


def _others(pairs: Sequence[Pair], strategy: str) -> str:
    return joined([pair.other(strategy) or "" for pair in pairs])


def _why_not(pair: Pair, family: Family) -> str:
    """The reason, where the numbers alone would suggest a difference."""
    if pair.rows_apart == 0:
        return "the predictions are the same"
    if pair.rows_apart is not None and sign_test(pair.rows_apart) >= family.level:
        return f"the predictions differ on only {pair.rows_apart:,} of {pair.rows or 0:,} test rows"
    return ""


def _limit(pair: Pair) -> Limit:
    if pair.seeds_needed is not None:
        return "none" if pair.seeds_needed <= pair.seeds else "seeds"
    return "many seeds" if pair.rows_needed is None else "rows"


def _what_it_takes(limit: Limit, pairs: Sequence[Pair], margin: float) -> str:
    """To show a difference of the margin, of pairs with one limit."""
    goal = f"show a difference of {in_points(margin)}"
    match limit:
        case "none":
            seeds = min(pair.seeds for pair in pairs)
            return f"{seeds} seeds would {goal} four times in five. Here they didn't"
        case "seeds":
            return f"it would take {_seeds_range(pairs)} seeds to {goal} four times in five"
        case "many seeds":
            return f"it would take more than {MOST_SEEDS:,} seeds to {goal}"
    return (
        f"no number of seeds would be enough to {goal} on {pairs[0].rows or 0:,} test rows. It "
        f"would take about {_rows_and_seeds(pairs)}"
    )


def _rows_and_seeds(pairs: Sequence[Pair]) -> str:
    """`2,500 to 11,000 test rows and 20 to 99 seeds`"""
    rows = _between([pair.rows_needed for pair in pairs if pair.rows_needed is not None])
    seeds = [pair.seeds_on_them for pair in pairs if pair.seeds_on_them is not None]
    return f"{rows} test rows and {_between(seeds)} seeds" if seeds else f"{rows} test rows"


def _between(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _seeds_range(pairs: Sequence[Pair]) -> str:
    """`9 to 47`, from the lowest end of the pairs' ranges to the highest one."""
    ranges = [pair.seeds_needed_range or (None, None) for pair in pairs]
    low = min(low for low, _ in ranges if low is not None)
    highs = [high for _, high in ranges if high is not None]
    return f"{low:,} to {max(highs):,}" if len(highs) == len(ranges) else f"{low:,} or more"


def _undecided(pair: Pair, rules: PairRules) -> str:
    """In a table of pairs, whose words say what the numbers mean."""
    reason = _why_not(pair, rules.family)
    because = f" ({reason})" if reason else ""
    if pair.state == "out_of_reach":
        takes = f"{pair.rows or 0:,} test rows can't separate them{because}, whatever the seeds"
        if pair.rows_needed is None:
            return takes
        return f"{takes}; it would take about {_rows_and_seeds([pair])}"
    match _limit(pair):
        case "none":
            takes = f"{pair.seeds} seeds would show {in_points(rules.margin)} four times in five"
        case "seeds":
            takes = f"it would take {_seeds_range([pair])} seeds"
        case "many seeds":
            takes = f"it would take more than {MOST_SEEDS:,} seeds"
        case _:
            takes = f"it would take about {_rows_and_seeds([pair])}"
    return f"no difference shown{because}, nor equivalence; {takes}"


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
