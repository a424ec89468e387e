"""Which student is the cheapest that is good enough, and which trials are judged for that."""

from __future__ import annotations

import math

import pytest

from kdsweep.compare.cheapest import (
    SEEDS,
    Bar,
    candidates,
    cheapest_first,
    judge_cheapest,
    lower_end,
)
from kdsweep.compare.finalists import Judged
from kdsweep.config.sweep import Cheapest

TEACHER = Cheapest(least="size", within=0.01, of="teacher")
BEST = Cheapest(least="size", within=0.01, of="best")
# Trial -> metric and cost. 0, 1 and 4 are good enough for a teacher of 0.90.
VALUES = {0: 0.92, 1: 0.895, 2: 0.88, 3: 0.70, 4: 0.90}
COSTS = {0: 9.0, 1: 4.0, 2: 2.0, 3: 1.0, 4: 4.0}


def judged(
    rule: Cheapest, reached: dict[int, list[float | None]], *, teacher: float | None = 0.90
) -> Judged:
    ended = {(trial, i): one for trial, values in reached.items() for i, one in enumerate(values)}
    return judge_cheapest(rule, teacher, VALUES, COSTS, 3, ended)


def test_a_metric_that_is_exactly_within_the_margin_is_good_enough() -> None:
    assert Bar(0.9, 0.01).short(0.89) <= 0 < Bar(0.9, 0.01).short(0.8899)
    assert Bar(0.9, 0.0).short(0.9) <= 0


def test_the_cheapest_that_is_good_enough_comes_first_then_the_nearest() -> None:
    # Of two that cost the same, the better one.
    assert cheapest_first(VALUES, COSTS, Bar(0.90, 0.01)) == [4, 1, 0, 2, 3]
    # Without a bar nothing is known to be too bad.
    assert cheapest_first(VALUES, COSTS, None) == [3, 2, 4, 1, 0]


def test_candidates_have_different_costs_and_with_of_best_the_best_is_one_of_them() -> None:
    bar = Bar(0.90, 0.01)
    assert candidates(VALUES, COSTS, bar, 3, "teacher") == [4, 0, 2]
    assert candidates(VALUES, COSTS, bar, 5, "teacher") == [4, 0, 2, 3, 1]
    assert candidates(VALUES, COSTS, bar, 1, "best") == [0]
    assert candidates({}, {}, None, 3, "best") == []


def test_the_lower_end_is_that_of_the_one_sided_80_percent_interval() -> None:
    # t(0.8, 2) = 1.0607; the deviation of these is 0.01.
    low = 0.90 - 1.0607 * 0.01 / math.sqrt(3)
    assert lower_end([0.89, 0.90, 0.91]) == pytest.approx(low, abs=1e-6)
    assert lower_end([0.9]) == lower_end([0.9, 0.9, None]) == -math.inf


def test_every_candidate_gets_the_same_seeds_and_none_is_chosen_before_all_have_ended() -> None:
    so_far = judged(TEACHER, {4: [0.9, 0.9, 0.9], 0: [0.9, 0.9, 0.9], 2: [0.9, 0.9]})
    assert so_far.asked == tuple((trial, i) for i in range(SEEDS) for trial in (4, 0, 2))
    assert so_far.chosen is None


def test_the_cheapest_whose_interval_is_inside_is_chosen() -> None:
    good = [0.905, 0.90, 0.91]
    assert judged(TEACHER, {4: good, 0: good, 2: good}).chosen == 2
    # 2's mean is high enough, and its seeds spread too far.
    assert judged(TEACHER, {4: good, 0: good, 2: [0.85, 0.95, 0.92]}).chosen == 4
    assert judged(TEACHER, {4: [0.9, None, 0.9], 0: good, 2: [0.8, 0.8, 0.8]}).chosen == 0


def test_where_none_is_inside_the_nearest_is_chosen() -> None:
    low: list[float | None] = [0.80, 0.80, 0.80]
    found = judged(TEACHER, {4: [0.85, 0.85, 0.85], 0: low, 2: low})
    assert found.chosen == 4 and found.order[0] == 4


def test_of_best_means_the_best_finalists_mean() -> None:
    reached: dict[int, list[float | None]] = {
        0: [0.95, 0.95, 0.95],
        4: [0.94, 0.94, 0.94],
        2: [0.93, 0.93, 0.93],
    }
    # In the search 0.92 was the best: only 0 was good enough.
    assert judged(BEST, reached, teacher=None).chosen == 4
