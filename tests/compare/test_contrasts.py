"""Intervals of differences and of fitted curves hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from kdsweep.compare.contrasts import cost_of_a_factor_of_2, difference


def test_a_difference_has_welchs_interval() -> None:
    found = difference([0.80, 0.82, 0.84, 0.86], [0.79, 0.80, 0.81, 0.82], 0.05)
    # By hand: s^2 are 0.000667 and 0.000167, so the error is 0.014434 with 4.41 degrees of freedom.
    assert found.effect == pytest.approx(0.025)
    assert (found.low, found.high) == pytest.approx((-0.01365, 0.06365), abs=1e-4)


def test_an_interval_that_a_permutation_test_does_not_confirm_reaches_to_0() -> None:
    # Four values each: 2 of the 70 arrangements are as clear as this one, which is 2.9%.
    high, low = [0.9, 0.91, 0.92, 0.93], [0.1, 0.11, 0.12, 0.13]
    assert difference(high, low, 0.05).low > 0.7
    assert difference(high, low, 0.01).low == 0
    assert difference(low, high, 0.01).high == 0


def test_equal_values_have_an_interval_without_width() -> None:
    assert difference([0.9] * 5, [0.9] * 6, 0.05).low == 0
    assert difference([0.9] * 5, [0.8] * 6, 0.05).low == pytest.approx(0.1)


def test_the_interval_of_a_curve_is_wider_where_values_vary_more_at_its_ends() -> None:
    octaves = np.linspace(-2, 2, 9)
    signs = np.array([1, -1, 1, -1, 1, -1, 1, -1, 1])
    alike = 0.9 - 0.02 * octaves**2 + 0.01 * signs
    unlike = 0.9 - 0.02 * octaves**2 + 0.01 * signs * octaves**2 / 2
    widths = []
    for values in (alike, unlike):
        found = cost_of_a_factor_of_2(octaves, values, 0.05)[1]
        residual = values - np.polyval(np.polyfit(octaves, values, 2), octaves)
        widths.append((found.high - found.low) / residual.std())
    assert widths[1] > 1.3 * widths[0]


def test_intervals_of_differences_and_of_curves_hold_the_truth_in_95_of_100_cases() -> None:
    draw, covered = np.random.default_rng(0), np.zeros(3)
    octaves = np.linspace(0, 3.3, 12)
    for _ in range(400):
        groups = difference(
            draw.normal(0.82, 0.01, 6).tolist(), draw.normal(0.80, 0.02, 15).tolist(), 0.05
        )
        parabola = draw.normal(0.9 - 0.02 * (octaves - 1.6) ** 2, 0.01)
        inside = cost_of_a_factor_of_2(octaves, parabola, 0.05)[1]
        line = draw.normal(0.8 + 0.02 * octaves, 0.005)
        end = cost_of_a_factor_of_2(octaves, line, 0.05)[1]
        covered += [
            groups.low <= 0.02 <= groups.high,
            inside.low <= 0.02 <= inside.high,
            end.low <= 0.02 <= end.high,
        ]
    # 95%, and three standard errors of such a share.
    assert (covered / 400 >= 0.95 - 3 * (0.05 * 0.95 / 400) ** 0.5).all(), covered
