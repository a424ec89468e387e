"""The grammar: what is read as which kind of value."""

from __future__ import annotations

from typing import Any

import pytest
from grammar_values import EVERY_KIND, HEAT, STEPS, read
from pydantic import ValidationError

from kdsweep.config.parameters import settle
from kdsweep.config.values import AnyOf, Choices, Range, ScheduleValue


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (EVERY_KIND["range"], Range),
        (EVERY_KIND["choices"], Choices),
        (HEAT, AnyOf),
        (STEPS, ScheduleValue),
        (5.0, float),
        (5, int),
        ("x", str),
        (True, bool),
    ],
)
def test_a_value_is_read_by_its_keys(value: Any, kind: type) -> None:
    assert type(read(value)) is kind


def test_whole_numbers_as_ends_of_a_range_are_floats() -> None:
    found = read({"low": 0, "high": 1})
    assert (found.low, found.high) == (0.0, 1.0)
    assert type(found.low) is type(found.high) is float
    assert type(settle(found, "alpha", lambda parameter: parameter.domain.low)) is float


@pytest.mark.parametrize("value", [{}, {"lo": 1, "hi": 2}, {"value": 3}, {"any_off": [1, 2]}])
def test_a_mapping_that_is_no_value_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="a value is a constant"):
        read(value)
