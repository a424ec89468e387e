"""Which finalist is chosen, and which runs that takes: a function of what has ended alone."""

from __future__ import annotations

import itertools
import random

import pytest

from kdsweep.compare.finalists import Round, judge, mean_of, rounds, trainings

ORDER = [4, 0, 7, 2]


def test_the_better_half_gets_as_many_seeds_again_until_two_are_left() -> None:
    assert rounds(1) == []
    assert rounds(2) == [Round(2, 1), Round(2, 1)]
    assert rounds(3) == [Round(3, 1), Round(2, 1)]
    assert rounds(6) == [Round(6, 1), Round(3, 1), Round(2, 2)]
    assert [trainings(one) for one in range(1, 7)] == [0, 4, 5, 6, 12, 13]


def test_without_a_choice_the_searchs_best_is_confirmed_at_once() -> None:
    assert judge(ORDER, 1, {}).chosen == 4
    assert judge([4], 3, {}).chosen == 4
    assert judge([], 3, {}).chosen is None
    assert judge(ORDER, 1, {}).asked == ()


def test_the_best_mean_over_fresh_seeds_is_chosen_whatever_the_search_said() -> None:
    ended = {(4, 0): 0.80, (0, 0): 0.82, (7, 0): 0.81, (0, 1): 0.80, (7, 1): 0.83}
    judged = judge(ORDER, 3, ended)
    assert judged.asked == ((4, 0), (0, 0), (7, 0), (0, 1), (7, 1))
    assert (judged.chosen, judged.order) == (7, (7, 0, 4))
    assert judged.values == {7: (0.81, 0.83), 0: (0.82, 0.80), 4: (0.80,)}
    assert mean_of(judged.values[7]) == pytest.approx(0.82)


def test_a_round_that_has_not_ended_asks_for_no_next_one() -> None:
    judged = judge(ORDER, 3, {(4, 0): 0.80, (7, 0): 0.81})
    assert judged.asked == ((4, 0), (0, 0), (7, 0))
    assert judged.chosen is None
    assert judge(ORDER, 3, {(4, 0): 0.8, (0, 0): 0.7, (7, 0): 0.9}).asked[3:] == ((7, 1), (4, 1))


def test_a_failed_run_is_worse_than_all_that_reached_something() -> None:
    first = {(4, 0): None, (0, 0): 0.1, (7, 0): 0.2}
    assert judge(ORDER, 3, first).asked[3:] == ((7, 1), (0, 1))
    assert judge(ORDER, 3, first | {(7, 1): None, (0, 1): 0.1}).chosen == 0
    # All failed: the order of the search is left.
    assert judge(ORDER, 2, {(4, 0): None, (0, 0): None, (4, 1): None, (0, 1): None}).chosen == 4


def test_of_equals_the_order_of_the_search_decides() -> None:
    same = {(trial, seed): 0.5 for trial in ORDER for seed in range(2)}
    assert judge(ORDER, 3, same).chosen == 4
    # In the first round the other one was ahead.
    ended = {(4, 0): 0.4, (0, 0): 0.6, (4, 1): 0.6, (0, 1): 0.4}
    assert judge(ORDER, 2, ended).chosen == 4


def test_any_order_of_ends_leads_to_the_same_trainings_and_choice() -> None:
    draw = random.Random(0)
    for finalists in range(1, 7):
        best_first = list(range(8))
        values = {(t, i): draw.random() for t, i in itertools.product(best_first, range(4))}
        found = set()
        for _ in range(5):
            ended: dict[tuple[int, int], float | None] = {}
            while (judged := judge(best_first, finalists, ended)).chosen is None:
                run = draw.choice([one for one in judged.asked if one not in ended])
                ended[run] = values[run]
            assert len(ended) == trainings(finalists)
            assert set(judged.asked) == ended.keys()
            found.add((judged.chosen, frozenset(ended)))
        assert len(found) == 1
