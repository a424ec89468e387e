"""Schedules at points worked out by hand."""

from __future__ import annotations

import math

import pytest

from kdsweep.core import parse_schedule


def test_per_epoch_takes_each_value_in_its_epoch_and_after_past_the_end() -> None:
    schedule = parse_schedule({"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2})
    assert [schedule.at(progress=epoch / 5, epoch=epoch) for epoch in range(5)] == [
        0.7,
        0.5,
        0.3,
        0.2,
        0.2,
    ]


def test_per_epoch_without_after_stays_at_its_last_value() -> None:
    schedule = parse_schedule({"shape": "per_epoch", "values": [0.7, 0.5]})
    assert [schedule.at(progress=0.0, epoch=epoch) for epoch in range(4)] == [0.7, 0.5, 0.5, 0.5]


def test_per_epoch_after_may_be_0() -> None:
    assert (
        parse_schedule({"shape": "per_epoch", "values": [0.7], "after": 0}).at(
            progress=0.9, epoch=1
        )
        == 0
    )


@pytest.mark.parametrize(
    ("progress", "value"), [(0.0, 8.0), (0.25, 6.5), (0.5, 5.0), (0.75, 3.5), (1.0, 2.0)]
)
def test_linear_is_a_straight_line(progress: float, value: float) -> None:
    assert parse_schedule({"shape": "linear", "start": 8, "end": 2}).at(
        progress, 0
    ) == pytest.approx(value)


@pytest.mark.parametrize(
    ("progress", "value"),
    [
        (0.0, 1.0),
        (1 / 4, (2 + math.sqrt(2)) / 4),
        (1 / 3, 0.75),
        (0.5, 0.5),
        (2 / 3, 0.25),
        (1.0, 0.0),
    ],
)
def test_cosine_is_half_a_cosine(progress: float, value: float) -> None:
    assert parse_schedule({"shape": "cosine", "start": 1.0, "end": 0.0}).at(
        progress, 0
    ) == pytest.approx(value)
    assert parse_schedule({"shape": "cosine", "start": 0.0, "end": 1.0}).at(
        progress, 0
    ) == pytest.approx(1 - value)


@pytest.mark.parametrize(("progress", "value"), [(0.0, 0.0), (0.59, 0.0), (0.6, 1.0), (0.99, 1.0)])
def test_step_with_one_boundary_changes_at_it(progress: float, value: float) -> None:
    assert (
        parse_schedule({"shape": "step", "values": [0.0, 1.0], "at": 0.6}).at(progress, 0) == value
    )
    assert (
        parse_schedule({"shape": "step", "values": [0.0, 1.0], "at": [0.6]}).at(progress, 0)
        == value
    )


@pytest.mark.parametrize(
    ("progress", "value"),
    [(0.0, 5.0), (0.24, 5.0), (0.25, 3.0), (0.74, 3.0), (0.75, 1.0), (1.0, 1.0)],
)
def test_step_with_two_boundaries_has_three_values(progress: float, value: float) -> None:
    assert (
        parse_schedule({"shape": "step", "values": [5, 3, 1], "at": [0.25, 0.75]}).at(progress, 0)
        == value
    )


def test_a_number_and_a_schedule_are_schedules() -> None:
    schedule = parse_schedule(2)
    assert [schedule.at(progress, 0) for progress in (0.0, 0.5, 1.0)] == [2, 2, 2]
    assert (
        parse_schedule(schedule) == schedule == parse_schedule({"shape": "constant", "value": 2.0})
    )


def test_values_taken_hold_the_least_and_the_greatest() -> None:
    shapes = [
        {"shape": "linear", "start": 0.1, "end": 0.9},
        {"shape": "cosine", "start": 0.9, "end": 0.1},
        {"shape": "step", "values": [0.5, 0.1, 0.9], "at": [0.2, 0.4]},
        {"shape": "per_epoch", "values": [0.5, 0.9], "after": 0.1},
    ]
    for shape in shapes:
        schedule = parse_schedule(shape)
        curve = [schedule.at(i / 100, i * 4 // 100) for i in range(101)]
        assert min(schedule.values_taken()) == 0.1 and max(schedule.values_taken()) == 0.9
        assert min(curve) >= 0.1 - 1e-12 and max(curve) <= 0.9 + 1e-12


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        "0.5",
        [],
        {},
        {"shape": "line", "start": 0, "end": 1},
        {"start": 0, "end": 1},
        {"shape": "linear", "start": 0},
        {"shape": "linear", "start": 0, "end": 1, "middle": 2},
        {"shape": "linear", "start": "0", "end": 1},
        {"shape": "linear", "start": float("nan"), "end": 1},
        {"shape": "constant", "value": float("inf")},
        {"shape": "constant", "value": True},
        {"shape": "step", "values": [1], "at": []},
        {"shape": "step", "values": [0, 1], "at": 0},
        {"shape": "step", "values": [0, 1], "at": 1},
        {"shape": "step", "values": [0, 1], "at": [0.2, 0.4]},
        {"shape": "step", "values": [0, 1, 2], "at": 0.5},
        {"shape": "step", "values": [0, 1, 2], "at": [0.5, 0.5]},
        {"shape": "step", "values": [0, 1, 2], "at": [0.5, 0.4]},
        {"shape": "per_epoch", "values": []},
        {"shape": "per_epoch", "values": [0.5, "0.3"]},
    ],
)
def test_what_is_no_schedule_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_schedule(value)


def test_a_schedule_is_frozen() -> None:
    with pytest.raises(ValueError):
        parse_schedule(0.5).value = 0.6
