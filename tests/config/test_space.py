"""The search space: the parameters of a strategy, its trials, and rules between keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from suggested import lowest

from kdsweep.config import SearchSpace, SpaceError, load_space

SPACE = """\
name: small
task: {dataset: d, text: t, label: l}
teacher: {model: big, training: {epochs: 1}}
student: {model: little}
training: {epochs: 3, learning_rate: 1.0e-5}
strategies:
  plain:
    alpha: 1.0
  distill:
    alpha: {low: 0, high: 1}
    temperature:
      any_of: [{low: 1.0, high: 10.0}, {shape: linear, start: {low: 4.0, high: 10.0}, end: 1.0}]
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    batch_size: {choices: [16, 32]}
    epochs: {low: 1, high: 4}
    start_with: [{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}]
"""


def made(folder: Path, *changes: tuple[str, str], assignments: tuple[str, ...] = ()) -> SearchSpace:
    text = SPACE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return load_space(path, assignments=assignments)


@pytest.mark.parametrize(
    "weight", ["0.5", "{low: 0.1, high: 2.0}", "{shape: step, values: [1.0, 0.0], at: 0.5}"]
)
def test_a_weight_is_the_short_form_of_a_term_of_the_loss(weight: str, tmp_path: Path) -> None:
    names = ("hidden", "attention", "cosine")
    short = ", ".join(f"{name}: {weight}" for name in names)
    whole = ", ".join(f"{name}: {{weight: {weight}}}" for name in names)
    from_short, from_whole = (
        made(tmp_path, assignments=(f"strategies.distill.distill={{{terms}}}",))
        for terms in (short, whole)
    )
    assert from_short.strategies == from_whole.strategies
    with pytest.raises(
        SpaceError,
        match=r"distill.hidden.weight: must be a number, a range or a schedule, not 'much'",
    ):
        made(tmp_path, assignments=("strategies.distill.distill.hidden=much",))


def test_the_parameters_of_a_strategy_are_named_after_their_keys_and_in_order(
    tmp_path: Path,
) -> None:
    space = made(tmp_path, ("model: little", "model: little, layers: {low: 1, high: 3}"))
    assert [parameter.name for parameter in space.parameters("distill")] == [
        "alpha",
        "temperature.any_of",
        "temperature",
        "temperature.start",
        "learning_rate",
        "student.layers",
        "epochs",
        "batch_size",
    ]
    assert [parameter.name for parameter in space.parameters("plain")] == ["student.layers"]


def test_a_range_of_a_whole_setting_asks_for_whole_numbers(tmp_path: Path) -> None:
    space = made(tmp_path, ("model: little", "model: little, layers: {low: 1, high: 3}"))
    whole = [one.name for one in space.parameters("distill") if one.whole]
    assert whole == ["student.layers", "epochs", "batch_size"]
    trial = space.settle("distill", lowest, seed=0)
    assert (type(trial.training.epochs), type(trial.student.layers)) == (int, int)


def test_whole_ends_of_alpha_give_floats(tmp_path: Path) -> None:
    alpha = made(tmp_path).parameters("distill")[0]
    assert not isinstance(alpha.domain, tuple)
    assert (alpha.domain.low, alpha.domain.high, alpha.whole, alpha.points()) == (
        0.0,
        1.0,
        False,
        None,
    )
    assert type(made(tmp_path).settle("distill", lowest, seed=0).alpha.at(0.0, 0)) is float


def test_a_trial_has_the_values_of_its_strategy_and_of_training(tmp_path: Path) -> None:
    trial = made(tmp_path).settle("distill", lowest, seed=7)
    assert trial.seed == 7
    assert (trial.training.epochs, trial.training.batch_size, trial.training.warmup) == (1, 16, 0.1)
    assert (trial.alpha.at(0, 0), trial.temperature.at(0, 0), trial.learning_rate.at(0, 0)) == (
        0.0,
        1.0,
        1e-5,
    )
    assert trial.teacher is not None
    assert type(trial).model_validate_json(trial.model_dump_json()) == trial


def test_a_strategy_without_a_teacher_gets_none(tmp_path: Path) -> None:
    trial = made(tmp_path).settle("plain", lowest, seed=0)
    assert trial.teacher is None
    assert trial.training.epochs == 3
    assert trial.temperature.at(0, 0) == 1.0


def test_a_student_of_the_teacher_needs_it_at_any_alpha(tmp_path: Path) -> None:
    assert (
        made(tmp_path, ("model: little", "model: teacher")).settle("plain", lowest, seed=0).teacher
        is not None
    )


@pytest.mark.parametrize(
    "number", ["1", "1.0", "{shape: constant, value: 1.0}", "{choices: [1.0]}"]
)
def test_a_space_needs_no_teacher_if_alpha_is_always_one(tmp_path: Path, number: str) -> None:
    changes = (
        ("teacher: {model: big, training: {epochs: 1}}\n", ""),
        ("alpha: {low: 0, high: 1}", f"alpha: {number}"),
        ("alpha: 0.5, ", ""),
    )
    assert not made(tmp_path, *changes).needs_teacher


@pytest.mark.parametrize(
    "alpha",
    [
        "0.99",
        "{low: 0.5, high: 1.0}",
        "{choices: [1.0, 0.5]}",
        "{shape: linear, start: 1.0, end: 0.5}",
        "{any_of: [1.0, 0.9]}",
    ],
)
def test_an_alpha_that_can_be_below_one_needs_a_teacher(tmp_path: Path, alpha: str) -> None:
    with pytest.raises(SpaceError, match="teacher is missing: an alpha below 1"):
        made(
            tmp_path,
            ("teacher: {model: big, training: {epochs: 1}}\n", ""),
            ("{low: 0, high: 1}", alpha),
            ("alpha: 0.5, ", ""),
        )


def test_a_learning_rate_must_be_given_somewhere(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"strategies\.plain: learning_rate is missing") as caught:
        made(tmp_path, ("epochs: 3, learning_rate: 1.0e-5", "epochs: 3"))
    assert caught.value.line == 7


# --- start_with ---


def test_start_with_gives_the_parameters_of_its_options(tmp_path: Path) -> None:
    expected = {
        "alpha": 0.5,
        "temperature.any_of": "range",
        "temperature": 4.0,
        "learning_rate": 5e-5,
    }
    assert made(tmp_path).first_trials("distill") == [expected]
    assert made(tmp_path).first_trials("plain") == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            "{temperature: {shape: linear, start: 6.0, end: 1.0}}",
            {"temperature.any_of": "linear_falling", "temperature.start": 6.0},
        ),
        (
            "{temperature.start: 6.0, temperature.any_of: linear_falling}",
            {"temperature.any_of": "linear_falling", "temperature.start": 6.0},
        ),
        ("{alpha: 1}", {"alpha": 1.0}),
        ("{epochs: 4, batch_size: 32}", {"epochs": 4, "batch_size": 32}),
        ("{student.model: little}", {}),
        ("{}", {}),
    ],
)
def test_start_with_takes_settled_values_and_parameters(
    tmp_path: Path, entry: str, expected: dict[str, Any]
) -> None:
    space = made(tmp_path, ("{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}", entry))
    assert space.first_trials("distill") == [expected]


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("{epochs: 2.5}", "epochs: 2.5 is not a whole number"),
        ("{epochs: 5}", "epochs: 5 is not between 1 and 4"),
        ("{batch_size: 24}", "batch_size: 24 is none of 16, 32"),
        ("{temperature: 20.0}", "no option of any_of gives it"),
        ("{temperature.start: 2.0}", "2.0 is not between 4 and 10"),
        ("{student.model: other}", "'other' is not 'little'"),
        ("{warmup: 0.1}", "unknown key 'warmup'"),
    ],
)
def test_start_with_outside_the_space_is_refused(tmp_path: Path, entry: str, rule: str) -> None:
    with pytest.raises(SpaceError) as caught:
        made(tmp_path, ("{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}", entry))
    assert rule in caught.value.rule
    assert caught.value.rule.startswith("strategies.distill.start_with: ")
    assert caught.value.line == 16


# --- counting, bounds, the teacher's length ---


def test_the_points_of_a_strategy_are_the_product_of_its_values(tmp_path: Path) -> None:
    assert made(tmp_path).count_points("plain") == 1
    assert made(tmp_path).count_points("distill") is None
    gridded = (
        "strategies.distill.alpha={low: 0, high: 1, step: 0.5}",
        "strategies.distill.temperature={any_of: [{choices: [2.0, 4.0]}, "
        "{shape: linear, start: {choices: [8.0]}, end: 1.0}]}",
        "strategies.distill.learning_rate={choices: [1.0e-5, 5.0e-5]}",
        "strategies.distill.start_with=null",
    )
    assert made(tmp_path, assignments=gridded).count_points("distill") == 3 * 3 * 2 * 2 * 4


@pytest.mark.parametrize("key", ["epochs", "batch_size", "warmup", "scheduler", "precision"])
@pytest.mark.parametrize("value", ["{shape: constant, value: VALUE}", "[VALUE]"])
def test_a_setting_that_is_fixed_in_training_takes_no_schedule_and_no_list(
    tmp_path: Path, key: str, value: str
) -> None:
    fitting = {
        "epochs": "3",
        "batch_size": "16",
        "warmup": "0.1",
        "scheduler": "cosine",
        "precision": "fp32",
    }[key]
    made(tmp_path, assignments=(f"strategies.plain.{key}={fitting}",))
    with pytest.raises(
        SpaceError, match=f"strategies.plain.{key}: takes one value for the whole training"
    ):
        made(tmp_path, assignments=(f"strategies.plain.{key}={value.replace('VALUE', fitting)}",))


def test_the_teacher_reads_as_much_as_the_student_by_default(tmp_path: Path) -> None:
    def length(*assignments: str) -> int:
        teacher = made(tmp_path, assignments=assignments).teacher
        assert teacher is not None
        return teacher.training.max_length

    assert length() == 128
    assert length("training.max_length=64") == 64
    assert length("training.max_length=64", "teacher.training.max_length=32") == 32
    assert length("training.max_length={choices: [64, 32]}") == 128
    assert length("training.max_length=64", "teacher.training=null") == 64


def test_a_wrong_length_is_reported_at_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(SpaceError) as caught:
        made(tmp_path, ("epochs: 3,", "epochs: 3, max_length: 2,"))
    assert (caught.value.line, caught.value.rule) == (
        5,
        "training.max_length: must be at least 4, not 2",
    )


@pytest.mark.parametrize("name", ["combined", "a-b", "A_1", "1", "v1.0"])
def test_a_strategy_can_have_any_name(tmp_path: Path, name: str) -> None:
    assert name in made(tmp_path, ("  plain:", f"  {name}:")).strategies


@pytest.mark.parametrize(
    "rate",
    ["0.00001", "1e-5", "1.0e-5", "{choices: [1e-5]}", "{shape: linear, start: 1e-5, end: 0}"],
)
def test_every_notation_of_a_number_is_a_learning_rate(tmp_path: Path, rate: str) -> None:
    assert (
        made(tmp_path, ("learning_rate: 1.0e-5", f"learning_rate: {rate}"))
        .settle("plain", lowest, seed=0)
        .learning_rate.at(0.0, 0)
        == 1e-5
    )


def test_a_word_is_no_boolean_and_a_quoted_number_no_number(tmp_path: Path) -> None:
    assert made(tmp_path, ("label: l", "label: no")).task.label == "no"
    assert made(tmp_path, ("label: l", "label: '1'")).task.label == "1"
    with pytest.raises(SpaceError, match=r"task\.label: must be text, not 1"):
        made(tmp_path, ("label: l", "label: 1"))
    with pytest.raises(SpaceError, match="must be true or false, not 'no'"):
        made(tmp_path, ("model: little", "model: little, trust_remote_code: no"))
