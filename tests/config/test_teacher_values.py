"""Teachers in a space: their values, lists of them, and strategies with their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML
from suggested import highest

from kdsweep.config import SearchSpace, SpaceError, load, load_space

SST2 = Path(__file__).parents[2] / "search_spaces" / "sst2.yaml"
SPACE = """\
name: own
task: {dataset: data.csv, text: text, label: label}
teacher: {model: big, training: {epochs: 4, learning_rate: 1e-5}}
student: {model: small}
training: {max_length: 40, learning_rate: 1e-4}
strategies:
  finetune: {alpha: 1.0}
  distill: {alpha: 0.5}
"""


def space(tmp_path: Path, *lines: str, **changes: str) -> SearchSpace:
    text = SPACE
    for name, line in changes.items():
        text = (
            "\n".join(line if old.startswith(f"{name}:") else old for old in text.splitlines())
            + "\n"
        )
    (tmp_path / "own.yaml").write_text(
        text + "".join(f"  {line}\n" for line in lines), encoding="utf-8"
    )
    return load_space(tmp_path / "own.yaml")


def test_a_range_of_epochs_is_a_parameter_of_taught_strategies_and_every_epoch_is_a_teacher(
    tmp_path: Path,
) -> None:
    found = space(
        tmp_path, teacher="teacher: {model: big, training: {epochs: 4}, epoch: {low: 1, high: 3}}"
    )
    assert [parameter.name for parameter in found.parameters("finetune")] == []
    assert [parameter.name for parameter in found.parameters("distill")] == ["teacher.epoch"]
    settled = found.settle("distill", highest, 0).teacher
    assert settled is not None and settled.epoch == 3 and settled.training.max_length == 40
    assert [one.epoch for one in found.teachers()] == [1, 2, 3]
    assert all(one.training == settled.training for one in found.teachers())
    assert found.first_trials("distill") == []


def test_a_trial_can_have_several_teachers_and_their_weights_make_no_more_teachers(
    tmp_path: Path,
) -> None:
    found = space(
        tmp_path,
        teacher=(
            "teacher: [{model: big}, {model: {choices: [other, third]}, "
            "weight: {low: 0.5, high: 2.0, log: true}}]"
        ),
    )
    assert [parameter.name for parameter in found.parameters("distill")] == [
        "teacher.1.model",
        "teacher.1.weight",
    ]
    trial = found.settle("distill", highest, 0)
    assert [(one.model, one.weight, one.training.max_length) for one in trial.teachers] == [
        ("big", 1.0, 40),
        ("third", 2.0, 40),
    ]
    assert [(one.model, one.weight) for one in found.teachers()] == [
        ("big", 1.0),
        ("other", 1.0),
        ("third", 1.0),
    ]
    assert found.settle("finetune", highest, 0).teachers == ()


def test_a_strategy_s_teacher_is_another_one_or_changes_the_space_s(tmp_path: Path) -> None:
    lines = (
        "changed: {alpha: 0.5, teacher: {folds: 5, training: {epochs: 2}}}",
        "other: {alpha: 0.5, teacher: [{model: x}, {checkpoint: y}]}",
    )
    found = space(tmp_path, *lines)
    changed = found.settle("changed", highest, 0).teacher
    assert changed is not None
    assert (
        changed.model,
        changed.folds,
        changed.training.epochs,
        changed.training.learning_rate,
        changed.training.max_length,
    ) == ("big", 5, 2, 1e-5, 40)
    assert [one.source for one in found.settle("other", highest, 0).teachers] == ["x", "y"]
    assert [one.words for one in found.teachers()] == ["big", "big (5 folds)", "x", "y"]


def test_a_resolved_space_loads_to_the_same_teachers(
    tmp_path: Path,
) -> None:
    teacher = (
        "teacher: [{model: big}, {model: small, epoch: {low: 1, high: 3}, "
        "weight: {any_of: [1.0, {low: 2.0, high: 4.0}]}, folds: {choices: [null, 5]}}]"
    )
    found = space(tmp_path, "own: {alpha: 0.5, teacher: {model: z, seeds: 3}}", teacher=teacher)
    plan = load(tmp_path / "own.yaml")
    with (tmp_path / "again.yaml").open("wb") as file:
        YAML().dump(plan.resolved, file)
    again = load(tmp_path / "again.yaml")
    assert again.space.teachers() == found.teachers()
    assert again.identity == plan.identity
    assert again.space.parameters("distill") == found.parameters("distill")
    assert load(SST2).resolved["teacher"].keys() == {"model", "trust_remote_code", "training"}


@pytest.mark.parametrize(
    ("teacher", "words"),
    [
        (
            "teacher: {model: big, epoch: {low: 1, high: 9}}",
            r"own.yaml:3: teacher: epoch 4 is past the end",
        ),
        (
            "teacher: {model: big, epoch: {low: 1, high: 3, log: true}}",
            r"own.yaml:3: teacher.epoch: each of its values is a teacher to be made",
        ),
        ("teacher: {model: big, epoch: 0}", r"own.yaml:3: teacher.epoch: must be at least 1"),
        (
            "teacher: {model: big, folds: {choices: [1, 5]}}",
            r"own.yaml:3: teacher.folds.choices.0: must be at least 2",
        ),
        (
            "teacher: [{model: big}, {model: x, weight: 0.0}]",
            r"own.yaml:3: teacher.1.weight: must be above 0",
        ),
        (
            "teacher: [{model: big}, {epoch: 1}]",
            r"own.yaml:3: teacher.1: a teacher needs either 'model'",
        ),
        (
            "teacher: [{model: big}, {modle: x}]",
            r"own.yaml:3: teacher.1: unknown key 'modle'",
        ),
        ("teacher: {epoch: 1}", r"own.yaml:3: teacher: a teacher needs either 'model'"),
        ("teacher: []", r"own.yaml:3: teacher: must have at least 1"),
        (
            "teacher: {checkpoint: x, folds: 5}",
            r"own.yaml:3: teacher: 'folds' says how a 'model' is fine-tuned",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_file_and_line(
    teacher: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(SpaceError, match=words):
        space(tmp_path, teacher=teacher)


def test_a_change_needs_one_teacher_to_change(tmp_path: Path) -> None:
    with pytest.raises(
        SpaceError,
        match=r"own.yaml:9: strategies.own.teacher: changes the space's teacher, and there is not",
    ):
        space(
            tmp_path,
            "own: {alpha: 0.5, teacher: {epoch: 1}}",
            teacher="teacher: [{model: a}, {model: b}]",
        )


@pytest.mark.parametrize(
    ("strategy", "teacher"),
    [
        ("own: {alpha: 0.5, distill: {hidden: 1.0}}", "teacher: {model: big, folds: 5}"),
        (
            "own: {alpha: 0.5, distill: {cosine: {weight: {low: 0.0, high: 1.0}}}, "
            "teacher: {folds: {choices: [null, 5]}}}",
            "teacher: {model: big}",
        ),
    ],
)
def test_inner_states_of_a_teacher_with_folds_are_refused(
    strategy: str, teacher: str, tmp_path: Path
) -> None:
    term = "hidden" if "hidden" in strategy else "cosine"
    with pytest.raises(
        SpaceError,
        match=rf"own.yaml:9: strategies.own.distill.{term}: terms of inner states run the teacher",
    ):
        space(tmp_path, strategy, teacher=teacher)
    # A sweep of an earlier version can be shown.
    assert load_space(tmp_path / "own.yaml", is_stored=True).strategies


def test_the_first_teacher_alone_gives_inner_states(tmp_path: Path) -> None:
    teachers = "teacher: [{model: a}, {model: b, folds: 2}]"
    assert space(tmp_path, "own: {alpha: 0.5, distill: {hidden: 1.0}}", teacher=teachers)
