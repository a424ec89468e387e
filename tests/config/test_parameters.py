"""The parameters of a value, and the way from them to settled values and back."""

from __future__ import annotations

import random
from typing import Any

import pytest
from grammar_values import ALPHA, EVERY_KIND, HEAT, NESTED, STEPS, read

from kdsweep.config.parameters import (
    NotAdmitted,
    Parameter,
    admit,
    count_points,
    options_of,
    parameters,
    settle,
)


def names(value: Any, name: str = "t", **options: Any) -> list[str]:
    return [parameter.name for parameter in parameters(read(value), name, **options)]


def ask(values: dict[str, Any]) -> Any:
    return lambda parameter: values[parameter.name]


def draw(source: random.Random, asked: dict[str, Any]) -> Any:
    def suggest(parameter: Parameter) -> Any:
        assert parameter.name not in asked, f"{parameter.name} is asked for twice"
        if isinstance(parameter.domain, tuple):
            asked[parameter.name] = source.choice(parameter.domain)
        elif (points := parameter.points()) is not None:
            asked[parameter.name] = source.choice(points)
        else:
            asked[parameter.name] = source.uniform(parameter.domain.low, parameter.domain.high)
        return asked[parameter.name]

    return suggest


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5.0, []),
        ({"low": 1.0, "high": 2.0}, ["t"]),
        ({"choices": [1, 2]}, ["t"]),
        ({"shape": "linear", "start": 1.0, "end": 2.0}, []),
        ({"shape": "linear", "start": {"low": 0.0, "high": 1.0}, "end": 2.0}, ["t.start"]),
        (
            {"shape": "cosine", "start": {"choices": [1, 2]}, "end": {"low": 0.0, "high": 1.0}},
            ["t.start", "t.end"],
        ),
        ({"shape": "constant", "value": {"low": 0.0, "high": 1.0}}, ["t.value"]),
        ({"shape": "step", "values": [0.0, 1.0], "at": {"low": 0.4, "high": 0.8}}, ["t.at"]),
        (STEPS, ["t.values.1", "t.at.0"]),
        (
            {
                "shape": "per_epoch",
                "values": [{"low": 0.0, "high": 1.0}, 0.5],
                "after": {"low": 0.0, "high": 1.0},
            },
            ["t.values.0", "t.after"],
        ),
        (HEAT, ["t.any_of", "t", "t.start"]),
        (EVERY_KIND["two ranges"], ["t.any_of", "t.range_1", "t.range_2"]),
        (
            ALPHA,
            [
                "t.any_of",
                "t.linear_rising.start",
                "t.linear_rising.end",
                "t.linear_falling.start",
                "t.linear_falling.end",
            ],
        ),
        (
            EVERY_KIND["two lines"],
            ["t.any_of", "t.linear_rising_1.start", "t.linear_rising_2.start"],
        ),
        (NESTED, ["t.any_of", "t.nested.any_of", "t.nested"]),
        ({"any_of": [1, 2]}, ["t.any_of"]),
    ],
)
def test_parameters_are_named_after_their_keys(value: Any, expected: list[str]) -> None:
    assert names(value) == expected


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        (HEAT, ("range", "linear_falling")),
        (ALPHA, ("per_epoch", "linear_rising", "linear_falling")),
        (NESTED, ("constant", "nested")),
        (EVERY_KIND["constants"], ("constant_1", "constant_2", "choices")),
        ({"any_of": ["a", "b"]}, ("a", "b")),
        (
            {
                "any_of": [
                    {"shape": "linear", "start": 0.5, "end": 0.5},
                    {"shape": "cosine", "start": 0.0, "end": 1.0},
                ]
            },
            ("linear", "cosine_rising"),
        ),
        (
            {"any_of": [{"shape": "linear", "start": {"low": 0.0, "high": 0.6}, "end": 0.5}, 0.5]},
            ("linear", "constant"),
        ),
    ],
)
def test_labels_describe_their_options(value: Any, labels: tuple[str, ...]) -> None:
    assert parameters(read(value), "t")[0].domain == labels


def test_labels_never_collide() -> None:
    found = options_of(read(EVERY_KIND["look-alikes"]), "t")
    assert len(found) == 3
    assert [option for option, _ in found.values()] == ["x_1", "x", "x"]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_no_two_parameters_of_a_value_have_one_name(kind: str) -> None:
    found = names(EVERY_KIND[kind])
    assert len(found) == len(set(found))


def test_the_parameters_of_an_option_depend_on_its_choice() -> None:
    choice, heat, start = parameters(read(HEAT), "temperature")
    assert (choice.name, choice.when) == ("temperature.any_of", ())
    assert (heat.name, heat.when) == ("temperature", (("temperature.any_of", "range"),))
    assert (start.name, start.when) == (
        "temperature.start",
        (("temperature.any_of", "linear_falling"),),
    )
    assert parameters(read(NESTED), "a")[-1].when == (
        ("a.any_of", "nested"),
        ("a.nested.any_of", "range"),
    )


def test_a_parameter_describes_itself() -> None:
    assert (
        parameters(read({"low": 1e-5, "high": 1e-4, "log": True}), "t")[0].describe()
        == "1e-05 to 0.0001, log"
    )
    assert (
        parameters(read({"low": 0, "high": 1, "step": 0.5}), "t")[0].describe()
        == "0 to 1, step 0.5"
    )
    assert parameters(read({"choices": [16, None]}), "t")[0].describe() == "one of 16, None"
    assert parameters(read(HEAT), "t")[2].describe() == "4 to 10 (when t.any_of is linear_falling)"


@pytest.mark.parametrize(
    ("value", "given", "settled"),
    [
        (5.0, {}, 5.0),
        ({"low": 1.0, "high": 10.0}, {"t": 4.5}, 4.5),
        ({"choices": ["a", "b"]}, {"t": "b"}, "b"),
        (HEAT, {"t.any_of": "range", "t": 4.5}, 4.5),
        (
            HEAT,
            {"t.any_of": "linear_falling", "t.start": 6.0},
            {"shape": "linear", "start": 6.0, "end": 1.0},
        ),
        (
            ALPHA,
            {"t.any_of": "per_epoch"},
            {"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2},
        ),
        (
            ALPHA,
            {"t.any_of": "linear_rising", "t.linear_rising.start": 0.1, "t.linear_rising.end": 0.9},
            {"shape": "linear", "start": 0.1, "end": 0.9},
        ),
        (EVERY_KIND["two ranges"], {"t.any_of": "range_2", "t.range_2": 0.9}, 0.9),
        (NESTED, {"t.any_of": "nested", "t.nested.any_of": "range", "t.nested": 0.3}, 0.3),
        (NESTED, {"t.any_of": "nested", "t.nested.any_of": "constant"}, 0.1),
        (NESTED, {"t.any_of": "constant"}, 0.5),
        (
            STEPS,
            {"t.values.1": 0.6, "t.at.0": 0.3},
            {"shape": "step", "values": [0.0, 0.6, 1.0], "at": [0.3, 0.5]},
        ),
    ],
)
def test_a_value_settles_to_plain_data_and_asks_only_for_what_its_options_need(
    value: Any, given: dict[str, Any], settled: Any
) -> None:
    assert settle(read(value), "t", ask(given)) == settled
    assert admit(read(value), settled, "t") == given


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_value_admits_what_it_settles_to_with_the_same_parameters(kind: str) -> None:
    value, source = read(EVERY_KIND[kind]), random.Random(0)
    for _ in range(50):
        asked: dict[str, Any] = {}
        settled = settle(value, "t", draw(source, asked))
        admitted = admit(value, settled, "t")
        assert settle(value, "t", ask(admitted)) == settled
        known = {parameter.name: parameter for parameter in parameters(value, "t")}
        for name in asked:
            assert all(asked.get(choice) == label for choice, label in known[name].when)
        # In these kinds, several choices settle to the same value.
        if kind not in ("two lines", "look-alikes", "deep"):
            assert admitted == asked


@pytest.mark.parametrize(
    ("value", "settled", "reason"),
    [
        (5.0, 4.0, "t: 4.0 is not 5.0"),
        (1, True, "t: True is not 1"),
        (5.0, "5.0", "is not 5.0"),
        ({"low": 1.0, "high": 2.0}, 2.1, "t: 2.1 is not between 1 and 2"),
        ({"low": 1.0, "high": 2.0}, float("nan"), "nan is not between"),
        ({"low": 0.0, "high": 2.0}, True, "True is not between"),
        ({"low": 1.0, "high": 2.0}, "1.5", "'1.5' is not between"),
        ({"low": 1.0, "high": 2.0}, {"shape": "constant", "value": 1.5}, "is not between"),
        (
            {"low": 1.0, "high": 4.0, "step": 1.0},
            2.5,
            "t: 2.5 is not 1 and a multiple of the step 1",
        ),
        ({"choices": [16, 32]}, 24, "t: 24 is none of 16, 32"),
        ({"choices": [16, 32]}, [16], "is none of"),
        (HEAT, 11.0, "t: no option of any_of gives it"),
        (HEAT, {"shape": "linear", "start": 6.0, "end": 2.0}, "t.end: 2.0 is not 1.0"),
        (STEPS, 0.5, "a schedule of shape step is expected"),
        (
            STEPS,
            {"shape": "linear", "start": 0.0, "end": 1.0},
            "a schedule of shape step is expected",
        ),
        (STEPS, {"shape": "step", "values": [0.0, 0.5, 1.0]}, "shape step has here values, at"),
        (
            STEPS,
            {"shape": "step", "values": [0.0, 1.0], "at": [0.3, 0.5]},
            "t.values: a list of 3 is expected",
        ),
        (
            STEPS,
            {"shape": "step", "values": 0.0, "at": [0.3, 0.5]},
            "t.values: a list of 3 is expected",
        ),
    ],
)
def test_what_the_grammar_does_not_give_is_not_admitted(
    value: Any, settled: Any, reason: str
) -> None:
    with pytest.raises(NotAdmitted) as caught:
        admit(read(value), settled, "t")
    assert reason in str(caught.value)


def test_the_ends_of_a_range_and_each_of_its_steps_are_admitted() -> None:
    for number in (0.0, 1.0, 0, 1):
        assert admit(read({"low": 0, "high": 1}), number, "t") == {"t": float(number)}
    value = read({"low": 0.1, "high": 0.9, "step": 0.1})
    for number in (0.1, 0.2, 0.3, 0.7, 0.1 + 2 * 0.1, 0.9):
        assert admit(value, number, "t") == {"t": number}


def test_a_whole_setting_admits_only_whole_numbers_and_keeps_them_whole() -> None:
    value = read({"low": 1, "high": 4})
    found = admit(value, 3, "epochs", whole=True)
    assert found == {"epochs": 3} and type(found["epochs"]) is int
    assert type(admit(value, 3.0, "epochs", whole=True)["epochs"]) is int
    with pytest.raises(NotAdmitted, match=r"2\.5 is not a whole number"):
        admit(value, 2.5, "epochs", whole=True)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (5.0, 1),
        ({"choices": [16, 32, 64]}, 3),
        ({"low": 0.0, "high": 1.0}, None),
        ({"low": 0.0, "high": 1.0, "step": 0.25}, 5),
        ({"low": 0.0, "high": 1.0, "step": 0.1}, 11),
        ({"low": 0.0, "high": 1.0, "step": 0.3}, 4),
        ({"low": 1e-5, "high": 1e-4, "log": True}, None),
        ({"any_of": [1, 2, {"choices": [3, 4]}]}, 4),
        ({"any_of": [1, {"low": 0.0, "high": 1.0}]}, None),
        ({"shape": "linear", "start": {"choices": [1, 2]}, "end": {"choices": [3, 4, 5]}}, 6),
        ({"shape": "per_epoch", "values": [{"choices": [1, 2]}, {"choices": [1, 2]}, 0.5]}, 4),
        ({"shape": "linear", "start": {"low": 0.0, "high": 1.0}, "end": 1.0}, None),
        ({"any_of": [0.5, {"any_of": [0.1, {"low": 0.0, "high": 1.0, "step": 0.5}]}]}, 5),
    ],
)
def test_the_points_of_a_value_are_counted(value: Any, count: int | None) -> None:
    assert count_points(read(value), "t") == count


def test_a_range_of_whole_numbers_is_finite_without_a_step() -> None:
    assert count_points(read({"low": 1, "high": 4}), "epochs", whole=True) == 4
    assert count_points(read({"low": 8, "high": 32, "step": 8}), "batch_size", whole=True) == 4
    (epochs,) = parameters(read({"low": 1, "high": 4}), "epochs", whole=True)
    assert epochs.points() == [1, 2, 3, 4]
    assert all(type(point) is int for point in epochs.points() or [])


@pytest.mark.parametrize(
    "value",
    [
        {"low": 0.0, "high": 1.0, "step": 0.1},
        {"low": 1.0, "high": 8.0, "step": 3.0},
        {"choices": ["a", "b"]},
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_every_counted_point_is_listed(value: Any, whole: bool) -> None:
    if whole and value.get("step") == 0.1:
        pytest.skip("no step of a whole number")
    (parameter,) = parameters(read(value), "t", whole=whole)
    points = parameter.points()
    assert points is not None and len(points) == len(set(points)) == parameter.count()


def test_counting_billions_of_points_lists_none_of_them() -> None:
    assert count_points(read({"low": 1, "high": 10**12}), "epochs", whole=True) == 10**12
    assert count_points(read({"low": 0, "high": 1, "step": 1e-10}), "t") == 10**10 + 1
