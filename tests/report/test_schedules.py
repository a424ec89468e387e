"""Schedules as the charts draw them and as sentences name them."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_sweeps import settings_of

from kdsweep.core.schedules import parse_schedule
from kdsweep.report.schedules import in_words, sample, weighs_teacher

RISING = {"shape": "linear", "start": 0.2, "end": 0.8}
STEP = {"shape": "step", "values": [0.0, 1.0], "at": 0.4}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (0.5, [(0, 0.5), (1, 0.5)]),
        (RISING, [(0, 0.2), (1, 0.8)]),
        (STEP, [(0, 0), (0.4, 0), (0.4, 1), (1, 1)]),
        (
            {"shape": "per_epoch", "values": [0.7], "after": 0.2},
            [(0, 0.7), (0.5, 0.7), (0.5, 0.2), (1, 0.2)],
        ),
        (
            {"shape": "per_epoch", "values": [0.7, 0.5, 0.3]},
            [(0, 0.7), (0.5, 0.7), (0.5, 0.5), (1, 0.5)],
        ),
    ],
)
def test_a_schedule_is_drawn_as_the_trial_followed_it(
    schedule: Any, expected: list[tuple[float, float]]
) -> None:
    progress, values = sample(settings_of(schedule, epochs=2), "alpha")
    drawn = [(round(at, 3), round(one, 3)) for at, one in zip(progress, values, strict=True)]
    assert drawn == expected


def test_a_cosine_is_drawn_with_more_points() -> None:
    progress, _ = sample(settings_of({"shape": "cosine", "start": 1.0, "end": 0.0}), "alpha")
    assert len(progress) == 25


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (0.5, "0.5"),
        (2.35e-5, "2.3e-05"),
        (RISING, "0.2 to 0.8"),
        ({"shape": "cosine", "start": 0.8, "end": 0.1}, "0.8 to 0.1, cosine"),
        ({"shape": "per_epoch", "values": [0.7, 0.5], "after": 0.2}, "0.7, 0.5 by epoch, then 0.2"),
        (STEP, "0, 1 from 40%"),
    ],
)
def test_a_schedule_in_words(schedule: Any, words: str) -> None:
    assert in_words(parse_schedule(schedule)) == words


def test_a_trial_whose_alpha_stays_at_1_in_the_epochs_it_runs_does_not_weigh_the_teacher() -> None:
    alpha = {"shape": "per_epoch", "values": [1.0, 1.0, 0.5]}
    assert not weighs_teacher(settings_of(alpha, epochs=2))
    assert weighs_teacher(settings_of(alpha, epochs=3))
