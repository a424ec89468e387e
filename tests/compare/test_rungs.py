"""How well the metric on the way tells the metric at the end."""

from __future__ import annotations

import pytest

from kdsweep.compare.rungs import Rung, rungs, rungs_in_words


def test_a_rung_in_the_order_of_the_end_has_1_and_one_in_the_opposite_order_has_minus_1() -> None:
    curves = [[-value, value, value / 2, value] for value in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert rungs(curves) == (
        Rung(0.25, pytest.approx(-1), 5),
        Rung(0.5, pytest.approx(1), 5),
        Rung(0.75, pytest.approx(1), 5),
    )
    assert rungs_in_words(rungs(curves)) == "after 25%: -1.00, after 50%: 1.00, after 75%: 1.00"


def test_trials_of_another_length_are_left_out_and_few_trials_tell_nothing() -> None:
    curves = [[0.1 * i, 0.2 * i] for i in range(5)]
    assert rungs([*curves, [0.9, 0.1, 0.1], [0.8, 0.1, 0.1]])[0].trials == 5
    assert rungs(curves[:4]) == rungs([]) == ()


def test_a_rung_where_all_are_level_has_no_correlation() -> None:
    curves = [[0.5, 0.1 * i, 0.2 * i] for i in range(6)]
    assert rungs(curves)[0] == Rung(pytest.approx(1 / 3), None, 6)
    assert rungs_in_words(rungs(curves)) == "after 67%: 1.00"
