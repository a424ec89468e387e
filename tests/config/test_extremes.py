"""How far a value can reach: its plain values and its ends."""

from __future__ import annotations

from typing import Any

import pytest
from grammar_values import ALPHA, HEAT, NESTED, STEPS, read

from kdsweep.config.extremes import crossing_boundaries, extremes, plain_values
from kdsweep.config.parameters import parameters
from kdsweep.core.schedules import parse_schedule


def test_every_plain_value_has_its_path_but_boundaries_of_a_step_are_left_out() -> None:
    assert dict(plain_values(read(HEAT))) == {
        ("any_of", 0, "low"): 1.0,
        ("any_of", 0, "high"): 10.0,
        ("any_of", 1, "start", "low"): 4.0,
        ("any_of", 1, "start", "high"): 10.0,
        ("any_of", 1, "end"): 1.0,
    }
    assert [number for _, number in plain_values(read(STEPS))] == [0.0, 0.5, 0.6, 1.0]


def test_extremes_contain_each_end_choice_and_option() -> None:
    assert list(extremes(read(5.0))) == [5.0]
    assert set(extremes(read({"low": 1, "high": 4}), whole=True)) == {1, 4}
    assert set(extremes(read({"choices": [1, 2, 3]}))) == {1, 2, 3}
    assert set(extremes(read(NESTED))) == {0.5, 0.1, 0.2, 0.9}
    found = list(extremes(read(STEPS)))
    assert {settled["values"][1] for settled in found} == {0.5, 0.6}
    assert {settled["at"][0] for settled in found} == {0.2, 0.4}


def test_boundaries_that_could_cross_are_found_at_any_depth() -> None:
    def steps(*at: Any) -> Any:
        return {"shape": "step", "values": [0.0, 0.5, 1.0], "at": list(at)}

    assert (
        crossing_boundaries(read(steps({"low": 0.2, "high": 0.4}, {"low": 0.5, "high": 0.8})))
        is None
    )
    assert "number 1 reaches 0.6, number 2 begins at 0.5" in str(
        crossing_boundaries(read(steps({"low": 0.2, "high": 0.6}, {"low": 0.5, "high": 0.8})))
    )
    assert crossing_boundaries(read({"any_of": [0.5, steps(0.6, 0.6)]})) is not None
    assert crossing_boundaries(read(HEAT)) is None


@pytest.mark.parametrize(
    "value", [2.0, {"low": 0.0, "high": 1.0, "step": 0.5}, HEAT, ALPHA, NESTED, STEPS]
)
def test_a_settled_value_is_a_schedule(value: Any) -> None:
    for settled in extremes(read(value)):
        parse_schedule(settled)


def test_many_options_take_no_time() -> None:
    value = read(
        {"any_of": [{"shape": "linear", "start": i / 1000, "end": 1.0} for i in range(500)]}
    )
    assert len(list(extremes(value))) == 500
    assert len(parameters(value, "alpha")[0].domain) == 500  # type: ignore[arg-type]
