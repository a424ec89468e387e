"""The shapes that a space's students may have, listed before any trial is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.config import load
from kdsweep.config.student_shapes import MOST_SHAPES, shapes_of_students


def shapes(space: Path, *assignments: str) -> list[tuple[int | None, int | None, int]]:
    found = shapes_of_students(load(space, assignments=assignments).space)
    return sorted(
        ((one.layers, one.width, one.max_length) for one in found),
        key=lambda one: tuple(value or 0 for value in one),
    )


def test_every_combination_of_choices_is_listed_once_over_all_strategies(tiny_space: Path) -> None:
    assert shapes(
        tiny_space,
        "student.start=scratch",
        "student.layers={choices: [1, 2]}",
        "student.width={any_of: [16, {low: 32, high: 64, step: 32}]}",
    ) == [(layers, width, 24) for layers in (1, 2) for width in (16, 32, 64)]


def test_listed_layers_count_as_their_number(tiny_space: Path) -> None:
    listed = shapes(tiny_space, "student.layers={any_of: [1, [0], [1, 0]]}")
    assert [layers for layers, _, _ in listed] == [1, 2]


def test_a_student_from_the_teacher_has_the_teachers_shape(tiny_space: Path) -> None:
    plan = load(tiny_space, assignments=("student.model=teacher", "student.layers=1"))
    teacher = plan.space.teachers()[0]
    assert {one.model for one in shapes_of_students(plan.space)} == {teacher.source}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # A trial measures its own shape before it starts, where the list has it not.
        ("{low: 1, high: 2, log: true}", [1]),
        (f"{{low: 1, high: {MOST_SHAPES + 1}}}", []),
    ],
)
def test_what_cant_be_listed_is_left_out(
    tiny_space: Path, layers: str, expected: list[int]
) -> None:
    listed = shapes(tiny_space, f"student.layers={layers}")
    assert [one[0] for one in listed] == expected
