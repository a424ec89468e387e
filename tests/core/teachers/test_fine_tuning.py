"""A teacher is fine-tuned once, resumed after an interruption, and kept after each epoch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import file_times
from fine_tuned_teacher import QUICK_TRAINING, FineTuned, no_step

from kdsweep.core import TrialSettings, train
from kdsweep.core.models.loading import load_classifier
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.teachers.selection import cached_teacher, prepare_teacher
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted


def test_a_teacher_is_fine_tuned_once_and_then_comes_from_the_cache(fine_tuned: FineTuned) -> None:
    teacher, task, settings, cache = fine_tuned
    assert teacher.validation["accuracy"] > 0.9
    written, said = file_times(cache / "teachers"), []
    assert prepare_teacher(task, settings, cache, say=said.append) == teacher
    assert cached_teacher(task, settings, cache) == teacher
    assert not any("fine-tuning" in line for line in said)
    assert file_times(cache / "teachers") == written


def test_an_interrupted_fine_tuning_resumes(fine_tuned: FineTuned, tmp_path: Path) -> None:
    _, task, settings, _ = fine_tuned
    with pytest.raises(Interrupted):
        prepare_teacher(task, settings, tmp_path, on_step=lambda step, total: step == 20)
    seen: list[int] = []
    again = prepare_teacher(
        task, settings, tmp_path, on_step=lambda step, total: bool(seen.append(step))
    )
    assert seen[0] == 21
    assert again.validation == fine_tuned.teacher.validation


def test_teachers_of_several_epochs_come_from_one_run(
    review_task: TaskSettings,
    quick_teacher: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    """The run stops when the first teacher is ready and resumes for a later one."""
    steps: list[int] = []
    second = prepare_teacher(
        review_task,
        quick_teacher(epoch=2),
        tmp_path,
        on_step=lambda step, total: bool(steps.append(step)),
    )
    last = prepare_teacher(
        review_task,
        quick_teacher(epoch=3),
        tmp_path,
        on_step=lambda step, total: bool(steps.append(step)),
    )
    # No step is taken twice.
    assert len(steps) == len(set(steps)) and steps == sorted(steps)
    assert second.training_folder == last.training_folder is not None
    told = [
        one.metrics["validation/accuracy"]
        for one in TrialFolder(last.training_folder).read_evaluations()
    ]
    assert [second.validation["accuracy"], last.validation["accuracy"]] == pytest.approx(
        told[1:], abs=1e-6
    )
    assert second.seconds < last.seconds

    # The first epoch's weights were kept by the same run, which is not taken up again for them.
    no_more = [quick_teacher(epoch=2), quick_teacher(epoch=3)]
    again = [prepare_teacher(review_task, one, tmp_path, on_step=no_step) for one in no_more]
    assert again == [second, last]
    first = prepare_teacher(review_task, quick_teacher(epoch=1), tmp_path, on_step=no_step)
    assert first.validation["accuracy"] == pytest.approx(told[0], abs=1e-6)
    weights = [
        load_classifier(str(one.folder), ("neg", "pos")).state_dict()["classifier.weight"]
        for one in (first, second, last)
    ]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


def test_a_teacher_of_an_epoch_that_was_removed_is_made_again(
    review_task: TaskSettings, quick_teacher: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    prepare_teacher(review_task, quick_teacher(epoch=2), tmp_path)
    first = prepare_teacher(review_task, quick_teacher(epoch=1), tmp_path)
    weights = (first.folder / "model.safetensors").read_bytes()
    shutil.rmtree(first.folder)
    again = prepare_teacher(review_task, quick_teacher(epoch=1), tmp_path)
    assert (again.folder / "model.safetensors").read_bytes() == weights


def test_an_interrupted_run_resumes_to_the_same_epoch(
    review_task: TaskSettings, quick_teacher: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    whole = prepare_teacher(review_task, quick_teacher(epoch=2), tmp_path / "whole")
    for stop in (3, 30):
        with pytest.raises(Interrupted):
            prepare_teacher(
                review_task,
                quick_teacher(epoch=2),
                tmp_path / "parts",
                on_step=lambda step, total, stop=stop: step == stop,
            )
    parts = prepare_teacher(review_task, quick_teacher(epoch=2), tmp_path / "parts")
    assert (parts.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()


def test_a_student_can_teach_the_next_student(
    review_task: TaskSettings, tiny: Callable[..., str], tmp_path: Path
) -> None:
    """Furlanello et al. 2018: a trial's student, as it was kept, teaches one of the same shape."""
    training = {name: value for name, value in QUICK_TRAINING.items() if name != "learning_rate"}
    plain: dict[str, Any] = {
        "task": review_task,
        "student": {"model": tiny("bert", layers=1)},
        "training": training,
        "learning_rate": 4e-3,
    }
    list(
        train(
            TrialSettings.model_validate(plain | {"alpha": 1.0}), tmp_path / "first", cache=tmp_path
        )
    )
    student = tmp_path / "first" / "student"
    teacher = TeacherSettings(checkpoint=str(student), training={"max_length": 24})
    born = TrialSettings.model_validate(
        plain | {"teacher": teacher, "alpha": 0.0, "temperature": 2.0}
    )
    list(train(born, tmp_path / "second", cache=tmp_path))
    made = prepare_teacher(review_task, teacher, tmp_path)
    first, second = (TrialFolder(tmp_path / name).read_result() for name in ("first", "second"))
    assert first is not None and first.best is not None
    assert second is not None and second.best is not None
    assert made.validation["accuracy"] == pytest.approx(
        first.best.metrics["validation/accuracy"], abs=1e-6
    )
    assert second.best.metrics["validation/accuracy"] > 0.75
    assert second.best.metrics["validation/agreement"] > 0.75
