"""The recommended strategy: test data excludes or equates, and ranks nothing."""

from __future__ import annotations

import pytest

from kdsweep.compare.findings import Pair, PairState
from kdsweep.compare.recommendation import Running, recommend

SMALL, LARGE = Running(10.0, 2.0, 100.0), Running(20.0, 2.0, 100.0)


def pair(a: str, b: str, state: PairState, difference: float = 0.02) -> Pair:
    return Pair(a, b, difference, (0.0, 0.0), 0.01, 5, None, "", state)


def test_the_highest_mean_on_validation_is_recommended_whatever_test_says_of_undecided_pairs() -> (
    None
):
    chosen = recommend(
        {"a": 0.90, "b": 0.92}, [pair("a", "b", "undecided", 0.03)], {"a": SMALL, "b": LARGE}
    )
    assert chosen is not None
    assert (chosen.strategy, chosen.candidates) == ("b", ("a", "b"))


def test_a_strategy_that_is_beaten_on_test_is_no_candidate() -> None:
    chosen = recommend(
        {"a": 0.90, "b": 0.92}, [pair("a", "b", "better", 0.03)], {"a": LARGE, "b": SMALL}
    )
    assert chosen is not None
    assert (chosen.strategy, chosen.candidates) == ("a", ("a",))


def test_the_cheapest_of_the_first_choice_and_its_equivalents_is_recommended() -> None:
    costs = {"a": SMALL, "b": LARGE, "c": Running(1.0, 1.0, 1.0)}
    validation = {"a": 0.90, "b": 0.92, "c": 0.91}
    pairs = [
        pair("a", "b", "equivalent"),
        # It is equivalent to another candidate, which isn't enough.
        pair("a", "c", "equivalent"),
        pair("b", "c", "undecided"),
    ]
    chosen = recommend(validation, pairs, costs)
    assert chosen is not None
    assert (chosen.strategy, chosen.first_choice, chosen.equivalent) == ("a", "b", ("a",))


def test_an_equivalent_strategy_that_another_one_beats_is_not_recommended() -> None:
    costs = {"a": SMALL, "b": LARGE, "c": LARGE}
    pairs = [pair("a", "b", "equivalent"), pair("c", "a", "better"), pair("b", "c", "undecided")]
    chosen = recommend({"a": 0.90, "b": 0.92, "c": 0.91}, pairs, costs)
    assert chosen is not None
    assert chosen.strategy == "b"


@pytest.mark.parametrize(
    ("cheap", "dear"),
    [
        (Running(10.0, 9.0, 9.0), Running(20.0, 1.0, 1.0)),
        (Running(10.0, 1.0, 9.0), Running(10.0, 2.0, 1.0)),
        (Running(10.0, 1.0, 1.0), Running(10.001, 1.0, 2.0)),
        (Running(10.0, 1.0, 1.0), Running(None, None, None)),
    ],
    ids=["size first", "then latency", "then training, sizes being equal", "unknown last"],
)
def test_costs_are_compared_by_size_then_latency_then_training(
    cheap: Running, dear: Running
) -> None:
    pairs = [pair("a", "b", "equivalent")]
    for order in (("a", "b"), ("b", "a")):
        validation = {order[0]: 0.92, order[1]: 0.90}
        chosen = recommend(validation, pairs, {"a": cheap, "b": dear})
        assert chosen is not None
        assert chosen.strategy == "a"


def test_without_a_student_nothing_is_recommended_and_a_circle_excludes_nobody() -> None:
    assert recommend({}, [], {}) is None
    circle = [pair("a", "b", "better"), pair("b", "c", "better"), pair("c", "a", "better")]
    chosen = recommend({"a": 0.90, "b": 0.92, "c": 0.91}, circle, dict.fromkeys("abc", SMALL))
    assert chosen is not None
    assert chosen.strategy == "b"
