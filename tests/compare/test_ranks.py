"""Ranks over several sweeps claim a difference only where chance alone rarely makes one."""

from __future__ import annotations

import numpy as np
import pytest

from kdsweep.compare.ranks import compare_ranks


def test_two_sweeps_can_not_tell_four_strategies_apart() -> None:
    found = compare_ranks([{"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}] * 2)
    assert found.mean == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert found.verdict == "2 sweeps can't tell the ranks of 4 strategies apart"


def test_the_same_order_in_six_sweeps_shows_which_of_two_is_better() -> None:
    # By hand: 2 of the 2^6 orders are as clear, which is 3.1%; with five sweeps 6.3%.
    assert compare_ranks([{"a": 0.9, "b": 0.8}] * 5).verdict.startswith("5 sweeps can't tell")
    assert compare_ranks([{"a": 0.9, "b": 0.8}] * 6).verdict == (
        "a ranks above b by 1.0 (over 6 sweeps it takes a difference of 1.0)"
    )


def test_equal_results_share_a_rank_and_strategies_of_all_sweeps_count() -> None:
    found = compare_ranks([{"a": 0.9, "b": 0.9, "c": 0.1}, {"a": 0.9, "b": 0.9}])
    assert found.mean == {"a": 1.5, "b": 1.5}
    assert compare_ranks([{"a": 0.9}, {"b": 0.9}]).mean == {}


@pytest.mark.parametrize("strategies", [2, 3, 4, 6])
@pytest.mark.parametrize("sweeps", [2, 4, 8])
def test_at_most_5_of_100_comparisons_of_equals_claim_a_rank(strategies: int, sweeps: int) -> None:
    draw, false = np.random.default_rng(1), 0
    for _ in range(200):
        results = [{str(name): draw.normal() for name in range(strategies)} for _ in range(sweeps)]
        false += "ranks above" in compare_ranks(results).verdict
    # Of 200, 5% are 10; 3 standard errors more are 19.
    assert false <= 19
