"""Which teacher it is: the best of several seeds, and folds that label what they haven't seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import file_times, sentences, write_csv
from fine_tuned_teacher import QUICK_TRAINING, no_step

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.tasks.classification import Classification
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import cached_teacher, prepare_teacher
from kdsweep.errors import Interrupted, TeacherError

# Training that is not at its best yet, so that seeds differ.
EARLY = {"epochs": 2, "learning_rate": 2e-3}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"model": "x", "epoch": 4},
            "epoch 4 is past the end: the teacher is fine-tuned for 3 epochs",
        ),
        ({"checkpoint": "x", "epoch": 1}, "'epoch' says how a 'model' is fine-tuned"),
        ({"checkpoint": "x", "seeds": 2}, "'seeds' says how a 'model' is fine-tuned"),
        ({"checkpoint": "x", "folds": 2}, "'folds' says how a 'model' is fine-tuned"),
        ({"model": "x", "folds": 1}, "greater than or equal to 2"),
        ({"model": "x", "weight": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TeacherSettings(**keys)


def test_the_best_of_several_seeds_is_one_of_the_teachers_and_says_what_all_reached(
    review_task: TaskSettings,
    quick_teacher: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    seeded = quick_teacher(seeds=3, training={"seed": 4} | EARLY)
    stops = iter([False] * 60 + [True])
    with pytest.raises(Interrupted):  # in the second seed's run: the first is kept
        prepare_teacher(review_task, seeded, tmp_path, on_step=lambda step, total: next(stops))
    assert cached_teacher(review_task, seeded, tmp_path) is None
    found = prepare_teacher(review_task, seeded, tmp_path)
    alone = [
        prepare_teacher(
            review_task, quick_teacher(training={"seed": seed} | EARLY), tmp_path, on_step=no_step
        )
        for seed in (4, 5, 6)
    ]
    scores = [one.validation["accuracy"] for one in alone]
    assert found.selected == dict(zip((4, 5, 6), scores, strict=True))
    best = alone[int(np.argmax(scores))]
    assert replace(found, selected=None, seconds=best.seconds) == best
    assert found.seconds == pytest.approx(sum(one.seconds for one in alone))
    assert len(set(scores)) > 1  # or the choice would be no choice
    written = file_times(tmp_path / "teachers")
    assert prepare_teacher(review_task, seeded, tmp_path, on_step=no_step) == found
    assert cached_teacher(review_task, seeded, tmp_path) == found
    assert file_times(tmp_path / "teachers") == written


def test_a_seed_that_learned_nothing_is_skipped_and_only_all_of_them_are_an_error(
    review_task: TaskSettings,
    quick_teacher: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    said: list[str] = []
    first_step = iter([True])

    def refuse_the_first_seed(step: int, total_steps: int) -> bool:
        if next(first_step, False):
            raise TeacherError("teacher: it has nothing to teach")
        return False

    found = prepare_teacher(
        review_task,
        quick_teacher(seeds=2),
        tmp_path,
        say=said.append,
        on_step=refuse_the_first_seed,
    )
    assert (
        found.selected is not None
        and found.selected[0] is None
        and found.selected[1] == found.validation["accuracy"]
    )
    assert "teacher: seed 0 is skipped: teacher: it has nothing to teach" in said
    with pytest.raises(TeacherError, match="doesn't clearly beat the majority"):
        prepare_teacher(
            review_task,
            quick_teacher(seeds=2, training={"learning_rate": 1e-9, "epochs": 1}),
            tmp_path,
        )


def test_folds_hold_each_row_once_and_no_text_twice(tmp_path: Path) -> None:
    rows = sentences(200)
    task = TaskSettings(
        dataset=str(
            write_csv(
                tmp_path / "rows.csv", [*rows, *((text.upper(), label) for text, label in rows)]
            )
        ),
        text="text",
        label="label",
    )
    data = load_task(task)
    numbers = fold_numbers(data.train, 5, data.kind, data.split_rule)
    assert np.bincount(numbers, minlength=5).min() > len(data.train) / 10
    by_text: dict[str, set[int]] = {}
    for text, number in zip(data.train.texts[0], numbers.tolist(), strict=True):
        by_text.setdefault(text.casefold(), set()).add(number)
    assert {len(found) for found in by_text.values()} == {1}
    parts = [
        load_task(
            TaskSettings.model_validate(task.model_dump() | {"left_out": {"fold": fold, "of": 5}})
        )
        for fold in range(5)
    ]
    for fold, part in enumerate(parts):
        assert list(part.train.texts[0]) == [
            data.train.texts[0][i] for i in np.flatnonzero(numbers != fold)
        ]
        assert part.train.labels.tolist() == data.train.labels[numbers != fold].tolist()
        assert (part.validation.key, part.test.key, part.label_names) == (
            data.validation.key,
            data.test.key,
            data.label_names,
        )
        assert any(
            f"{(numbers == fold).sum()} rows left out: fold {fold} of 5" in note
            for note in part.notes
        )
    assert len({part.train.key for part in parts} | {data.train.key}) == 6


def test_each_row_is_labelled_by_the_teacher_that_was_trained_without_its_fold(
    review_task: TaskSettings,
    quick_teacher: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    # Not every seed learns from half of these few rows.
    seed = {"seed": 3}
    folded = quick_teacher(folds=2, training=seed)
    stops = iter([False] * 75 + [True])
    with pytest.raises(Interrupted):  # the whole teacher and a part of the first fold's are made
        prepare_teacher(review_task, folded, tmp_path, on_step=lambda step, total: next(stops))
    again: list[int] = []
    made = prepare_teacher(
        review_task, folded, tmp_path, on_step=lambda step, total: bool(again.append(step))
    )
    assert again[0] > 1
    data = load_task(review_task, tmp_path)
    numbers = fold_numbers(data.train, 2, data.kind, data.split_rule)
    logits = teacher_logits(made, data, cache=tmp_path)
    for fold in (0, 1):
        left_out = TaskSettings.model_validate(
            review_task.model_dump() | {"left_out": {"fold": fold, "of": 2}}
        )
        without = prepare_teacher(left_out, quick_teacher(training=seed), tmp_path, on_step=no_step)
        assert made.folds[fold] == without.key
        seen = set(load_task(left_out, tmp_path).train.texts[0])
        model, tokenizer = (
            load_classifier(str(without.folder), ("neg", "pos")).eval(),
            load_tokenizer(str(without.folder)),
        )
        for i in np.flatnonzero(numbers == fold)[:5]:
            text = data.train.texts[0][i]
            assert text not in seen
            with torch.no_grad():
                theirs = model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()
            np.testing.assert_allclose(logits[i], theirs, atol=1e-4)

    # Validation and test are labeled by the teacher of all rows.
    whole = prepare_teacher(review_task, quick_teacher(training=seed), tmp_path, on_step=no_step)
    assert made.key == whole.key and made.folder == whole.folder
    for split in ("validation", "test"):
        np.testing.assert_array_equal(
            teacher_logits(made, data, cache=tmp_path, split=split),
            teacher_logits(whole, data, cache=tmp_path, split=split),
        )
    assert not np.array_equal(teacher_logits(whole, data, cache=tmp_path), logits)
    assert made.margin != whole.margin
    written = file_times(tmp_path / "teachers", tmp_path / "logits")
    assert prepare_teacher(review_task, folded, tmp_path, on_step=no_step) == made
    assert file_times(tmp_path / "teachers", tmp_path / "logits") == written


@pytest.mark.slow
def test_a_teacher_that_memorizes_is_sure_of_what_it_has_seen_and_right_by_chance_out_of_fold(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    rows = [(text, ("neg", "pos")[draw.integers(2)]) for text, _ in sentences(160, seed=3)]
    task = TaskSettings(
        dataset=str(write_csv(tmp_path / "noise.csv", rows)),
        text="text",
        label="label",
        holdout=0.2,
    )
    teacher = TeacherSettings(
        model=tiny("bert"),
        training=QUICK_TRAINING | {"epochs": 40, "learning_rate": 3e-3, "evaluations_per_epoch": 1},
        epoch=40,
    )
    # Nothing can be learned here: that is the point.
    monkeypatch.setattr(Classification, "check_floor", lambda *_: None)
    folded = prepare_teacher(task, teacher.model_copy(update={"folds": 2}), tmp_path)
    whole = prepare_teacher(task, teacher, tmp_path)
    data = load_task(task, tmp_path)
    seen, unseen = (
        np.asarray(teacher_logits(one, data, cache=tmp_path)) for one in (whole, folded)
    )
    right = np.arange(len(data.train)), data.train.labels
    assert score_logits("accuracy", data.train.labels, seen, data.kind)["accuracy"] > 0.9
    assert data.kind.probabilities(seen)[right].mean() > 0.85
    chance = 0.5 + 3 * 0.5 / np.sqrt(len(data.train))  # three standard errors
    assert score_logits("accuracy", data.train.labels, unseen, data.kind)["accuracy"] < chance


def test_impossible_folds_are_refused(
    quick_teacher: Callable[..., TeacherSettings], review_task: TaskSettings, tmp_path: Path
) -> None:
    with pytest.raises(
        TeacherError, match=r"teacher.folds: with 900 folds of 1\d\d rows, \d+ have no row"
    ):
        prepare_teacher(review_task, quick_teacher(folds=900), tmp_path)
    left_out = TaskSettings.model_validate(
        review_task.model_dump() | {"left_out": {"fold": 0, "of": 2}}
    )
    with pytest.raises(TeacherError, match="the task leaves out a fold itself"):
        prepare_teacher(left_out, quick_teacher(folds=2), tmp_path)
    with pytest.raises(ValueError, match=r"fold \(2\) counts from 0 and must be below of \(2\)"):
        TaskSettings.model_validate(review_task.model_dump() | {"left_out": {"fold": 2, "of": 2}})
