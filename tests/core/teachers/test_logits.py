"""A teacher's logits: its own, computed once, and refused if they changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import file_times
from fine_tuned_teacher import FineTuned, logits_of_texts, train_logits

from kdsweep.core.augment_settings import AugmentSettings
from kdsweep.core.augmentation.views import cached_view
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.teachers.logits import drop_fold_logits, teacher_logits, teacher_test
from kdsweep.core.teachers.selection import prepare_teacher


def test_logits_are_the_teachers_own_and_computed_once(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    data, said = load_task(fine_tuned.task), []
    logits = teacher_logits(fine_tuned.teacher, data, cache=tmp_path, say=said.append)
    assert isinstance(logits, np.memmap) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, train_logits(fine_tuned.teacher.folder, data), atol=1e-4)
    written = file_times(tmp_path / "logits")
    assert len(written) == 1
    np.testing.assert_array_equal(
        teacher_logits(fine_tuned.teacher, data, cache=tmp_path, say=said.append), logits
    )
    assert file_times(tmp_path / "logits") == written
    assert sum("teacher's logits: computing" in line for line in said) == 1


def test_other_logits_are_computed_again(fine_tuned: FineTuned, tmp_path: Path) -> None:
    data = load_task(fine_tuned.task)
    first = np.array(teacher_logits(fine_tuned.teacher, data, cache=tmp_path))
    [file] = (tmp_path / "logits").iterdir()
    for wrong in (
        np.zeros((3, 2), dtype=np.float32),
        np.full((len(data.train), 2), np.nan, dtype=np.float32),
    ):
        np.save(file, wrong)
        said: list[str] = []
        again = teacher_logits(fine_tuned.teacher, data, cache=tmp_path, say=said.append)
        np.testing.assert_array_equal(again, first)
        assert [line for line in said if line.startswith("cache: ")] == [
            f"cache: {file} holds logits of shape {wrong.shape}, not finite ones of "
            f"{first.shape}; it is made again"
        ]


def test_logits_of_validation_and_test_are_kept_apart_and_judged(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    data = load_task(fine_tuned.task)
    assert teacher_test(fine_tuned.teacher, data, "accuracy", cache=tmp_path) is None
    validation = teacher_logits(fine_tuned.teacher, data, cache=tmp_path, split="validation")
    # Logits of another split say nothing about test.
    assert teacher_test(fine_tuned.teacher, data, "accuracy", cache=tmp_path) is None
    test = teacher_logits(fine_tuned.teacher, data, cache=tmp_path, split="test")
    assert (len(validation), len(test)) == (len(data.validation), len(data.test))
    assert score_logits(
        "accuracy", data.validation.labels, np.asarray(validation), data.kind
    ) == pytest.approx(fine_tuned.teacher.validation, abs=1e-5)
    written = file_times(tmp_path / "logits")
    assert len(written) == 2
    assert teacher_test(fine_tuned.teacher, data, "accuracy", cache=tmp_path) == score_logits(
        "accuracy", data.test.labels, np.asarray(test), data.kind
    )
    assert file_times(tmp_path / "logits") == written


def test_making_a_teacher_leaves_its_logits_for_train_in_the_cache(fine_tuned: FineTuned) -> None:
    data, said = load_task(fine_tuned.task), []
    logits = teacher_logits(fine_tuned.teacher, data, cache=fine_tuned.cache, say=said.append)
    assert said == []  # nothing was computed
    np.testing.assert_allclose(logits, train_logits(fine_tuned.teacher.folder, data), atol=1e-4)


def test_a_teacher_that_is_made_again_does_not_keep_the_logits_of_the_one_that_was_removed(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(fine_tuned.cache, cache)
    data = load_task(fine_tuned.task)
    for split in ("validation", "test"):
        teacher_logits(fine_tuned.teacher, data, cache=cache, split=split)
    for file in (cache / "logits").iterdir():
        np.save(file, np.full_like(np.load(file), 7.0))
    shutil.rmtree(cache / "teachers")
    again = prepare_teacher(fine_tuned.task, fine_tuned.settings, cache)
    for split in ("train", "validation", "test"):
        assert not np.any(np.asarray(teacher_logits(again, data, cache=cache, split=split)) == 7.0)


def test_a_view_is_labelled_by_the_teacher_that_was_trained_without_its_row(
    review_task: TaskSettings, quick_teacher: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    folded = quick_teacher(folds=2, training={"seed": 3})
    made = prepare_teacher(review_task, folded, tmp_path)
    data = load_task(review_task, tmp_path)
    edits = AugmentSettings(views=1, swap=0.5)
    view = cached_view(data.train, edits, 0, "", tmp_path, lambda line: None)
    logits = teacher_logits(made, data.with_splits(view), cache=tmp_path, split=view.name)
    numbers = fold_numbers(data.train, 2, data.kind, data.split_rule)
    for fold, key in enumerate(made.folds):
        held = np.flatnonzero(numbers == fold)
        texts = [view.texts[0][i] for i in held]
        expected = logits_of_texts(tmp_path / "teachers" / key, texts)
        np.testing.assert_allclose(logits[held], expected, atol=1e-4)
    seen = logits_of_texts(made.folder, list(view.texts[0]))
    assert not np.allclose(logits, seen, atol=1e-2)

    # Fold teachers that are made again label the views again.
    stored = tmp_path / "logits"
    files = list(stored.glob("*/*.npy"))
    assert len(files) == 1
    drop_fold_logits(made, data, tmp_path)
    assert not list(stored.glob("*/*.npy"))


def test_logits_that_were_changed_since_they_were_written_are_computed_again(
    review_task: TaskSettings, quick_teacher: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    made = prepare_teacher(review_task, quick_teacher(), tmp_path)
    data = load_task(review_task, tmp_path)
    [file] = (tmp_path / "logits").iterdir()
    whole = np.load(file)
    np.save(file, whole[::-1])  # as many, as finite, of other rows
    said: list[str] = []
    again = teacher_logits(made, data, cache=tmp_path, say=said.append)
    assert any(line.endswith("its hash differs; it is made again") for line in said)
    np.testing.assert_allclose(again, whole, atol=1e-5)
    file.unlink()
    np.testing.assert_allclose(teacher_logits(made, data, cache=tmp_path), whole, atol=1e-5)
    [check] = (tmp_path / "logits-hashes").iterdir()
    check.unlink()  # as an earlier version left them
    np.testing.assert_allclose(teacher_logits(made, data, cache=tmp_path), whole, atol=1e-5)
