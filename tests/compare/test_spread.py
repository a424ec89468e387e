"""How far a mean over few seeds may be from the truth, at values that are known by hand."""

from __future__ import annotations

import math

import pytest
from scipy.stats import norm, t

from kdsweep.compare.spread import Spread

TAIL = 0.025
ONE_ROW = 1 / 1000


def spread(mean: float = 0.0, between: float = 0.0, of_examples: float = 0.0) -> Spread:
    return Spread(mean, between, of_examples, seeds=3, rows=10**9, one_row=ONE_ROW)


def test_what_rows_alone_could_hide_has_the_quantile_of_rows_even_with_three_seeds() -> None:
    """As if the seeds' variance were known: |d| <= z sqrt(one_row d), so d <= z^2 one_row."""
    alike = spread(between=1e-12, of_examples=0.0)
    low, high = alike.difference_interval(TAIL)
    assert high == pytest.approx(norm.isf(TAIL) ** 2 * ONE_ROW, rel=0.01)
    assert low == pytest.approx(-high)


def test_where_only_seeds_vary_the_interval_is_students() -> None:
    seeds = Spread(0.01, 0.03**2, 0.0, seeds=3, rows=10**9, one_row=1e-12)
    half = t.isf(TAIL, 2) * 0.03 / math.sqrt(3)
    assert seeds.difference_interval(TAIL) == pytest.approx((0.01 - half, 0.01 + half))


def test_seen_rows_that_explain_any_difference_add_nothing_unseen() -> None:
    rows = spread(0.001, between=0.0, of_examples=0.0004)
    half = norm.isf(TAIL) * 0.02
    assert rows.difference_interval(TAIL) == pytest.approx((0.001 - half, 0.001 + half))


def test_both_parts_lie_between_their_own_intervals_and_the_sum_of_their_squares() -> None:
    """By hand: (d - mean)^2 = t^2 seeds + z^2 one_row d, where no row differs that was seen."""
    between, mean = 0.002**2, 0.003
    of_seeds, of_rows = t.isf(TAIL, 2) ** 2 * between / 3, norm.isf(TAIL) ** 2 * ONE_ROW
    half = mean + of_rows / 2
    high = half + math.sqrt(half**2 - mean**2 + of_seeds)
    assert spread(mean, between).difference_interval(TAIL)[1] == pytest.approx(high)


@pytest.mark.parametrize("mean", [-0.004, 0.0, 0.002, 0.006])
@pytest.mark.parametrize("between", [0.0, 1e-6, 1e-5])
@pytest.mark.parametrize("of_examples", [0.0, 2e-6, 3e-5])
def test_a_pair_is_equivalent_exactly_where_its_interval_lies_within_the_margin(
    mean: float, between: float, of_examples: float
) -> None:
    found = spread(mean, between, of_examples)
    for margin in (0.005, 0.01, 0.02, 0.04):
        low, high = found.difference_interval(0.05)
        inside = -margin < low and high < margin
        assert (found.p_beyond(margin) < 0.05) == inside


def test_without_any_variance_nothing_is_shown_to_be_equivalent() -> None:
    assert Spread(0.0, 0.0, 0.0, seeds=3, rows=100, one_row=0.0).p_beyond(0.01) == 1.0
