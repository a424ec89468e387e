"""How often statements about the test split are false, by simulation.

`make bench NAMES=verdicts` has more of them, with more sweeps.
"""

from __future__ import annotations

import pytest
from conftest import others_slow
from simulated_students import Variation
from verdicts import (
    ALIKE,
    BOTH,
    ROWS_MATTER,
    SEEDS_MATTER,
    World,
    covered,
    false_about_teacher,
    false_pairs,
    power_of_needed_seeds,
)

SWEEPS = 200
# 5% of the sweeps, and two standard errors of that share.
AT_MOST = 0.05 + 2 * (0.05 * 0.95 / SWEEPS) ** 0.5


@pytest.mark.parametrize("variation", others_slow([BOTH, ROWS_MATTER, SEEDS_MATTER, ALIKE]))
@pytest.mark.parametrize(
    "gap",
    [
        pytest.param(0.0, id="equal"),
        pytest.param(0.01, id="one margin apart", marks=pytest.mark.slow),
    ],
)
def test_few_sweeps_call_a_pair_falsely_better_or_equivalent(
    gap: float, variation: Variation
) -> None:
    world = World((0.9, 0.9, 0.9 - gap, 0.9 - gap), (variation,), seeds=4, rows=800)
    assert false_pairs(world, SWEEPS) <= AT_MOST


@pytest.mark.parametrize("variation", others_slow([BOTH, ROWS_MATTER, SEEDS_MATTER]))
def test_few_sweeps_put_a_student_falsely_above_or_below_its_equal_teacher(
    variation: Variation,
) -> None:
    world = World((0.9, 0.9, 0.9), (variation,), seeds=3, rows=400)
    above, below = false_about_teacher(world, SWEEPS)
    assert above <= AT_MOST
    assert below <= AT_MOST


@pytest.mark.parametrize(
    ("strategies", "score", "rows", "seeds"),
    [
        (1, 0.97, 150, 3),
        pytest.param(4, 0.9, 400, 3, marks=pytest.mark.slow),
        pytest.param(1, 0.99, 300, 5, marks=pytest.mark.slow),
        pytest.param(1, 0.9, 200, 10, marks=pytest.mark.slow),
    ],
)
def test_the_interval_of_the_best_looking_strategy_covers_its_true_score(
    strategies: int, score: float, rows: int, seeds: int
) -> None:
    world = World((score,) * strategies, (ALIKE,), seeds, rows)
    assert covered(world, SWEEPS) >= 1 - AT_MOST


@pytest.mark.parametrize("metric", others_slow(["matthews", "f1"]))
def test_few_sweeps_call_a_pair_falsely_better_by_another_metric(metric: str) -> None:
    world = World((0.8,) * 3, (BOTH,), seeds=3, rows=300, metric=metric, share=0.3)
    assert false_pairs(world, SWEEPS) <= AT_MOST


@pytest.mark.slow
def test_the_seeds_that_are_said_to_be_needed_show_a_difference_four_times_in_five() -> None:
    world = World((0.9, 0.89, 0.89, 0.89), (Variation(0.08, 0.8, 0.1),), seeds=5, rows=5000)
    _, shown = power_of_needed_seeds(world, 60)
    assert 0.7 <= shown <= 0.92
