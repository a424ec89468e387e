"""Relative paths in a space start from the folder of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kdsweep.config import load, load_space

SPACE = """\
name: small
task: {dataset: d, text: t, label: l}
teacher: {model: big}
student: {model: little}
training: {epochs: 3, learning_rate: 1.0e-5}
strategies:
  distill:
    alpha: 0.5
    temperature: {low: 1.0, high: 10.0}
  both:
    alpha:
      any_of:
        - 0.5
        - {low: 0.2, high: 0.4}
embedded:
  task:
    dataset: package://p/d.csv
    text: words
    label: l
  strategies.distill.alpha: 0.25
"""


def write(folder: Path, text: str, name: str = "space.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_relative_path_starts_from_the_folder_of_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my spaces 'é'"
    path = write(
        folder,
        SPACE.replace("dataset: d", "dataset: data/rows.csv").replace(
            "model: little", "model: ../models/little"
        ),
    )
    (folder / "data").mkdir()
    (folder / "data" / "rows.csv").touch()
    (tmp_path / "models" / "little").mkdir(parents=True)
    monkeypatch.chdir("/")
    space = load_space(path)
    assert space.task.dataset == str((folder / "data" / "rows.csv").resolve())
    assert space.student.model == str((tmp_path / "models" / "little").resolve())
    # There is no such folder, so it is a name on the Hub.
    assert space.teacher is not None and space.teacher.model == "big"


def test_a_path_of_set_starts_from_the_folder_of_the_space_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "spaces", SPACE)
    (tmp_path / "spaces" / "rows.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert load(path, assignments=("task.dataset=rows.csv",)).space.task.dataset == str(
        (tmp_path / "spaces" / "rows.csv").resolve()
    )


def test_files_of_splits_and_choices_of_models_are_anchored_too(tmp_path: Path) -> None:
    text = SPACE.replace("dataset: d", "dataset: {train: a.csv, test: b.csv}").replace(
        "model: little", "model: {choices: [small, teacher, hub/name]}"
    )
    path = write(tmp_path, text)
    for name in ("a.csv", "small", "teacher"):
        (tmp_path / name).mkdir()
    space = load_space(path)
    assert space.task.dataset == {"train": str((tmp_path / "a.csv").resolve()), "test": "b.csv"}
    assert space.student.model.choices == (
        str((tmp_path / "small").resolve()),
        "teacher",
        "hub/name",
    )


def test_neither_a_package_nor_the_word_teacher_is_a_path(tmp_path: Path) -> None:
    path = write(tmp_path, SPACE.replace("model: little", "model: teacher"))
    (tmp_path / "teacher").mkdir()
    space = load_space(path, embedded=True)
    assert (space.student.model, space.task.dataset) == ("teacher", "package://p/d.csv")


def test_the_resolved_space_loads_to_the_same_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    first = load(
        write(tmp_path, SPACE), embedded=True, assignments=("training.epochs=2", "task.dataset=d")
    )
    other = tmp_path / "elsewhere" / "space.yaml"
    other.parent.mkdir()
    YAML(typ="safe").dump(first.resolved, other)
    second = load(other)
    assert second.resolved == first.resolved
    for strategy in first.space.strategies:
        assert second.space.parameters(strategy) == first.space.parameters(strategy)
        lowest = {
            parameter.name: parameter.points()[0] if parameter.points() else parameter.domain.low
            for parameter in first.space.parameters(strategy)
        }
        trials = [
            plan.space.settle(strategy, lambda parameter, at=lowest: at[parameter.name], seed=0)
            for plan in (first, second)
        ]
        assert trials[0] == trials[1]
