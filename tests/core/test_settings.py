"""TrialSettings: plain, frozen, and the same after a way through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdsweep.core import TrialSettings
from kdsweep.core.settings import TaskSettings

TASK: dict[str, Any] = {"dataset": "rows.csv", "text": "text", "label": "label"}
STUDENT = {"model": "some/model"}
TEACHER = {"model": "some/teacher"}
SHAPES = [
    0.5,
    {"shape": "constant", "value": 0.5},
    {"shape": "linear", "start": 0.0, "end": 1.0},
    {"shape": "cosine", "start": 1.0, "end": 0.1},
    {"shape": "step", "values": [0.0, 1.0], "at": 0.6},
    {"shape": "step", "values": [0.0, 0.5, 1.0], "at": [0.3, 0.6]},
    {"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2},
    {"shape": "per_epoch", "values": [0.7]},
]


def settings(**changes: Any) -> TrialSettings:
    return TrialSettings(
        **(
            {
                "task": TASK,
                "teacher": TEACHER,
                "student": STUDENT,
                "alpha": 0.5,
                "learning_rate": 1e-4,
            }
            | changes
        )
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["alpha", "temperature", "learning_rate"])
def test_json_there_and_back_changes_nothing(name: str, shape: object) -> None:
    if name == "temperature" and isinstance(shape, dict):
        shape = json.loads(json.dumps(shape).replace("0.0", "0.5"))  # a temperature of 0 is refused
    mine = settings(**{name: shape})
    text = mine.model_dump_json()
    again = TrialSettings.model_validate_json(text)
    assert again == mine
    assert again.model_dump_json() == text
    assert TrialSettings.model_validate(json.loads(text)) == mine
    assert TrialSettings.model_validate(mine.model_dump()) == mine


def test_json_keeps_every_part_of_a_task() -> None:
    task = TASK | {
        "dataset": {"train": 'träin "1".csv', "test": "test.csv"},
        "text": ["premise", "hypothesis"],
        "labels": ["no", "yes"],
        "where": {"source": "x", "fold": 1, "share": 0.5, "clean": True},
        "limit": {"train": 10},
        "metric": "f1_macro",
    }
    teacher = {"checkpoint": "folder", "labels": ["yes", "no"], "training": {"max_length": 64}}
    mine = settings(task=task, teacher=teacher, training={"gradient_clip": None})
    again = TrialSettings.model_validate_json(mine.model_dump_json())
    assert again == mine
    assert [type(value) for value in again.task.where.values()] == [str, int, float, bool]


def test_the_keys_of_a_step_are_written_as_they_are_read() -> None:
    written = json.loads(settings(alpha=SHAPES[4]).model_dump_json())["alpha"]
    assert written == {"shape": "step", "values": [0.0, 1.0], "at": [0.6]}


def test_settings_are_frozen_at_every_level() -> None:
    mine = settings()
    for part, name in (
        (mine, "seed"),
        (mine.task, "label"),
        (mine.training, "epochs"),
        (mine.alpha, "value"),
    ):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, name, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temprature": 2.0}, "did you mean 'temperature'"),
        ({"training": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"task": TASK | {"lable": "x"}}, "did you mean 'label'"),
        ({"student": STUDENT | {"layer": 3}}, "did you mean 'layers'"),
        ({"task": TASK | {"zzz": 1}}, "known here: dataset"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"epochs": "3"}},
        {"training": {"epochs": 0}},
        {"training": {"batch_size": 2.5}},
        {"training": {"warmup": 1.0}},
        {"training": {"weight_decay": float("nan")}},
        {"training": {"precision": "fp8"}},
        {"task": TASK | {"metric": "bleu"}},
        {"task": TASK | {"text": []}},
        {"task": TASK | {"text": ["a", "b", "c"]}},
        {"task": TASK | {"holdout": 0.5}},
        {"task": TASK | {"dataset": {"dev": "x.csv"}}},
        {"student": STUDENT | {"layers": 0}},
        {"teacher": {}},
        {"teacher": {"model": "a", "checkpoint": "b"}},
        {"teacher": {"model": "a", "labels": ["x", "y"]}},
        {"seed": -1},
    ],
    ids=str,
)
def test_a_value_outside_its_rule_is_refused(changes: dict) -> None:
    with pytest.raises(ValueError):
        settings(**changes)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("alpha", 1.1, "between 0 and 1, not 1.1"),
        ("alpha", {"shape": "linear", "start": -0.1, "end": 1.0}, "between 0 and 1, not -0.1"),
        ("alpha", {"shape": "per_epoch", "values": [0.5], "after": 2.0}, "between 0 and 1, not 2"),
        ("temperature", 0.0, "above 0, not 0"),
        ("temperature", {"shape": "step", "values": [4.0, 0.0], "at": 0.5}, "above 0, not 0"),
        ("learning_rate", -1e-5, "not be below 0"),
    ],
)
def test_a_schedule_may_not_leave_its_bounds(name: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        settings(**{name: value})


@pytest.mark.parametrize(
    "alpha",
    [
        0.0,
        0.99,
        {"shape": "step", "values": [0.0, 1.0], "at": 0.5},
        {"shape": "per_epoch", "values": [1.0], "after": 0.5},
    ],
)
def test_an_alpha_below_1_anywhere_needs_a_teacher(alpha: object) -> None:
    assert settings(alpha=alpha).needs_logits
    with pytest.raises(ValueError, match="needs a teacher"):
        settings(teacher=None, alpha=alpha)


def test_an_alpha_of_1_needs_no_teacher_unless_the_student_comes_from_it() -> None:
    mine = settings(teacher=None, alpha=1.0)
    assert not mine.needs_logits and not mine.needs_teacher
    constant = settings(alpha={"shape": "linear", "start": 1.0, "end": 1.0})
    assert not constant.needs_teacher
    with pytest.raises(ValueError, match="needs a teacher"):
        settings(teacher=None, alpha=1.0, student={"model": "teacher"})
    assert settings(alpha=1.0, student={"model": "teacher"}).needs_teacher


def test_a_trial_that_is_not_judged_on_test_is_written_as_ever() -> None:
    assert "judge_test" not in settings().model_dump(mode="json")
    assert "judge_test" not in json.loads(settings(judge_test=False).model_dump_json())
    mine = settings(judge_test=True)
    assert mine.model_dump(mode="json")["judge_test"] is True
    assert TrialSettings.model_validate_json(mine.model_dump_json()) == mine != settings()


def test_a_text_column_alone_is_a_tuple_of_one() -> None:
    assert TaskSettings(dataset="rows.csv", text="text", label="label").text == ("text",)
