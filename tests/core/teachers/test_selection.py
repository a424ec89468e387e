"""Which teacher it is: as it was after an epoch, the best of several seeds, folds that label what they haven't seen, a student's own earlier generation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import file_times, sentences, write_csv

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.evaluation.metrics import judge
from kdsweep.core.files import fingerprint
from kdsweep.core.models.describing import model_fingerprint
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.classification import Classification
from kdsweep.core.teachers.artifact import find_teacher, frozen_teacher, teacher_key
from kdsweep.core.teachers.checks import check_frozen
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import cached_teacher, prepare_teacher
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted, TeacherError

TRAINING = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 4e-3,
    "warmup": 0.0,
    "max_length": 24,
    "evaluations_per_epoch": 1,
}
QUICK = {"epochs": 2, "learning_rate": 2e-3}  # not yet at its best: seeds differ
LIKE_THE_TEACHER = {name: value for name, value in TRAINING.items() if name != "learning_rate"}


@pytest.fixture(scope="module")
def task(review_csv: Path) -> TaskSettings:
    return TaskSettings(dataset=str(review_csv), text="text", label="label", holdout=0.2)


@pytest.fixture
def settings(tiny: Callable[..., str]) -> Callable[..., TeacherSettings]:
    def build(*, training: dict[str, Any] | None = None, **keys: Any) -> TeacherSettings:
        return TeacherSettings(model=tiny("bert"), training=TRAINING | (training or {}), **keys)

    return build


def no_step(step: int, total_steps: int) -> bool:
    """As `on_step`: fails the test at the first step that is taken."""
    pytest.fail("a teacher was trained again")


# --- what a teacher is known by --------------------------------------------------------------------------------------


def test_a_teacher_of_earlier_versions_keeps_its_key_and_a_weight_is_no_part_of_it(
    task: TaskSettings, settings: Callable[..., TeacherSettings]
) -> None:
    data, plain = load_task(task), settings()
    how = {
        **TRAINING,
        "accumulation_steps": 1,
        "weight_decay": 0.01,
        "scheduler": "linear",
        "gradient_clip": 1.0,
        "precision": "auto",
        "seed": 0,
    }
    before = fingerprint(
        "teacher 1",
        model_fingerprint(plain.source),
        data.train.key,
        data.validation.key,
        data.label_names,
        "accuracy",
        how,
    )
    assert teacher_key(task, plain, data) == teacher_key(task, settings(weight=2.0), data) == before
    others = [
        settings(epoch=1),
        settings(epoch=3),
        settings(seeds=2),
        settings(folds=2),
        settings(folds=3),
        settings(seeds=2, epoch=1),
    ]
    assert len({before, *(teacher_key(task, other, data) for other in others)}) == 7
    assert settings().model_dump().keys() == {
        "model",
        "checkpoint",
        "labels",
        "trust_remote_code",
        "training",
    }


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
def test_what_does_not_go_together_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TeacherSettings(**keys)


# --- as it was after an epoch ----------------------------------------------------------------------------------------


def test_teachers_of_several_epochs_come_from_one_run(
    task: TaskSettings,
    settings: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    """The run stops where the first teacher is ready, and goes on from there for a later one: 3 epochs in all."""
    steps: list[int] = []
    second = prepare_teacher(
        task, settings(epoch=2), tmp_path, on_step=lambda step, total: bool(steps.append(step))
    )
    last = prepare_teacher(
        task, settings(epoch=3), tmp_path, on_step=lambda step, total: bool(steps.append(step))
    )
    assert len(steps) == len(set(steps)) and steps == sorted(steps)  # no step is taken twice
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
    no_more = [settings(epoch=2), settings(epoch=3)]
    again = [prepare_teacher(task, one, tmp_path, on_step=no_step) for one in no_more]
    assert again == [second, last]
    first = prepare_teacher(task, settings(epoch=1), tmp_path, on_step=no_step)
    assert first.validation["accuracy"] == pytest.approx(told[0], abs=1e-6)
    weights = [
        load_classifier(str(one.folder), ("neg", "pos")).state_dict()["classifier.weight"]
        for one in (first, second, last)
    ]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


def test_a_teacher_of_an_epoch_that_was_removed_is_made_again(
    task: TaskSettings, settings: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    prepare_teacher(task, settings(epoch=2), tmp_path)
    first = prepare_teacher(task, settings(epoch=1), tmp_path)
    weights = (first.folder / "model.safetensors").read_bytes()
    shutil.rmtree(first.folder)
    again = prepare_teacher(task, settings(epoch=1), tmp_path)
    assert (again.folder / "model.safetensors").read_bytes() == weights


def test_an_interrupted_run_goes_on_to_the_same_epoch(
    task: TaskSettings, settings: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    whole = prepare_teacher(task, settings(epoch=2), tmp_path / "whole")
    for stop in (3, 30):
        with pytest.raises(Interrupted):
            prepare_teacher(
                task,
                settings(epoch=2),
                tmp_path / "parts",
                on_step=lambda step, total, stop=stop: step == stop,
            )
    parts = prepare_teacher(task, settings(epoch=2), tmp_path / "parts")
    assert (parts.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()


# --- the best of several seeds ---------------------------------------------------------------------------------------


def test_the_best_of_several_seeds_is_one_of_the_teachers_and_says_what_all_reached(
    task: TaskSettings,
    settings: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    seeded = settings(seeds=3, training={"seed": 4} | QUICK)
    stops = iter([False] * 60 + [True])
    with pytest.raises(Interrupted):  # in the second seed's run: the first is kept
        prepare_teacher(task, seeded, tmp_path, on_step=lambda step, total: next(stops))
    assert cached_teacher(task, seeded, tmp_path) is None
    found = prepare_teacher(task, seeded, tmp_path)
    alone = [
        prepare_teacher(task, settings(training={"seed": seed} | QUICK), tmp_path, on_step=no_step)
        for seed in (4, 5, 6)
    ]
    scores = [one.validation["accuracy"] for one in alone]
    assert found.selected == dict(zip((4, 5, 6), scores, strict=True))
    assert replace(found, selected=None) == alone[int(np.argmax(scores))]
    assert len(set(scores)) > 1  # or the choice would be no choice
    written = file_times(tmp_path / "teachers")
    assert prepare_teacher(task, seeded, tmp_path, on_step=no_step) == found
    assert cached_teacher(task, seeded, tmp_path) == found
    assert file_times(tmp_path / "teachers") == written


def test_a_seed_that_learned_nothing_is_passed_over_and_only_all_of_them_are_an_error(
    task: TaskSettings,
    settings: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    said: list[str] = []
    first_step = iter([True])

    def refuse_the_first_seed(step: int, total_steps: int) -> bool:
        if next(first_step, False):
            raise TeacherError("teacher: it has nothing to teach")
        return False

    found = prepare_teacher(
        task, settings(seeds=2), tmp_path, say=said.append, on_step=refuse_the_first_seed
    )
    assert (
        found.selected is not None
        and found.selected[0] is None
        and found.selected[1] == found.validation["accuracy"]
    )
    assert "teacher: seed 0 is skipped: teacher: it has nothing to teach" in said
    with pytest.raises(TeacherError, match="doesn't clearly beat the majority"):
        prepare_teacher(
            task, settings(seeds=2, training={"learning_rate": 1e-9, "epochs": 1}), tmp_path
        )


# --- out of fold -----------------------------------------------------------------------------------------------------


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
    numbers = fold_numbers(data.train.texts, 5)
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
    task: TaskSettings,
    settings: Callable[..., TeacherSettings],
    tmp_path: Path,
) -> None:
    folded = settings(folds=2)
    stops = iter([False] * 75 + [True])
    with pytest.raises(Interrupted):  # the whole teacher and a part of the first fold's are made
        prepare_teacher(task, folded, tmp_path, on_step=lambda step, total: next(stops))
    again: list[int] = []
    made = prepare_teacher(
        task, folded, tmp_path, on_step=lambda step, total: bool(again.append(step))
    )
    assert again[0] > 1
    data = load_task(task, tmp_path)
    numbers = fold_numbers(data.train.texts, 2)
    logits = teacher_logits(made, data, cache=tmp_path)
    for fold in (0, 1):
        left_out = TaskSettings.model_validate(
            task.model_dump() | {"left_out": {"fold": fold, "of": 2}}
        )
        without = prepare_teacher(left_out, settings(), tmp_path, on_step=no_step)
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

    # Validation and test are labelled by the teacher of all rows.
    whole = prepare_teacher(task, settings(), tmp_path, on_step=no_step)
    assert made.key == whole.key and made.folder == whole.folder
    for split in ("validation", "test"):
        np.testing.assert_array_equal(
            teacher_logits(made, data, cache=tmp_path, split=split),
            teacher_logits(whole, data, cache=tmp_path, split=split),
        )
    assert not np.array_equal(teacher_logits(whole, data, cache=tmp_path), logits)
    assert made.margin != whole.margin
    written = file_times(tmp_path / "teachers", tmp_path / "logits")
    assert prepare_teacher(task, folded, tmp_path, on_step=no_step) == made
    assert file_times(tmp_path / "teachers", tmp_path / "logits") == written


def test_a_teacher_that_memorises_is_sure_of_what_it_has_seen_and_right_by_chance_out_of_fold(
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
        training=TRAINING | {"epochs": 40, "learning_rate": 3e-3, "evaluations_per_epoch": 1},
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
    assert judge("accuracy", data.train.labels, seen, data.kind)["accuracy"] > 0.9
    assert data.kind.probabilities(seen)[right].mean() > 0.85
    chance = 0.5 + 3 * 0.5 / np.sqrt(len(data.train))  # three standard errors
    assert judge("accuracy", data.train.labels, unseen, data.kind)["accuracy"] < chance


def test_folds_that_can_not_be_are_refused(
    settings: Callable[..., TeacherSettings], task: TaskSettings, tmp_path: Path
) -> None:
    with pytest.raises(
        TeacherError, match=r"teacher.folds: with 900 folds of 1\d\d rows, \d+ have no row"
    ):
        prepare_teacher(task, settings(folds=900), tmp_path)
    left_out = TaskSettings.model_validate(task.model_dump() | {"left_out": {"fold": 0, "of": 2}})
    with pytest.raises(TeacherError, match="the task leaves out a fold itself"):
        prepare_teacher(left_out, settings(folds=2), tmp_path)
    with pytest.raises(ValueError, match=r"fold \(2\) counts from 0 and must be below of \(2\)"):
        TaskSettings.model_validate(task.model_dump() | {"left_out": {"fold": 2, "of": 2}})


# --- born again ------------------------------------------------------------------------------------------------------


def test_a_student_is_the_next_ones_teacher(
    task: TaskSettings, tiny: Callable[..., str], tmp_path: Path
) -> None:
    """Furlanello et al. 2018: the folder of a trial's student, as it was kept, teaches a student of the same shape."""
    plain: dict[str, Any] = {
        "task": task,
        "student": {"model": tiny("bert", layers=1)},
        "training": LIKE_THE_TEACHER,
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
    made = prepare_teacher(task, teacher, tmp_path)
    first, second = (TrialFolder(tmp_path / name).read_result() for name in ("first", "second"))
    assert (
        first is not None
        and first.best is not None
        and second is not None
        and second.best is not None
    )
    assert made.validation["accuracy"] == pytest.approx(
        first.best.metrics["validation/accuracy"], abs=1e-6
    )
    assert second.best.metrics["validation/accuracy"] > 0.75
    assert second.best.metrics["validation/agreement"] > 0.75


# --- what stops a run before it begins -------------------------------------------------------------------------------


def test_logits_that_were_changed_since_they_were_written_are_refused(
    task: TaskSettings, settings: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    made, data = prepare_teacher(task, settings(), tmp_path), load_task(task, tmp_path)
    [file] = (tmp_path / "logits").iterdir()
    whole = np.load(file)
    np.save(file, whole[::-1])  # as many, as finite, of other rows
    with pytest.raises(TeacherError, match="its hash differs; remove the file and run again"):
        teacher_logits(made, data, cache=tmp_path)
    file.unlink()
    np.testing.assert_allclose(teacher_logits(made, data, cache=tmp_path), whole, atol=1e-5)
    [check] = (tmp_path / "logits-hashes").iterdir()
    check.unlink()  # as an earlier version left them
    np.testing.assert_allclose(teacher_logits(made, data, cache=tmp_path), whole, atol=1e-5)


def test_a_teacher_in_training_mode_or_with_gradients_is_refused(
    task: TaskSettings, settings: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    made = prepare_teacher(task, settings(), tmp_path)
    model = frozen_teacher(made, ("neg", "pos"), DEFAULT_KIND)
    check_frozen(model)
    model.bert.encoder.layer[1].train()
    with pytest.raises(TeacherError, match=r"bert\.encoder\.layer\.1 is in training mode"):
        check_frozen(model)
    model.train()
    with pytest.raises(TeacherError, match="the model is in training mode"):
        check_frozen(model)
    model.eval()
    model.classifier.bias.requires_grad_(True)
    with pytest.raises(TeacherError, match=r"classifier\.bias takes gradients"):
        check_frozen(model)
    assert find_teacher(made.folder) == made
