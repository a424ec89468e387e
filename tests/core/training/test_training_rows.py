"""Training on more rows than train: text without labels, and views that the teacher labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import UNLABELLED_ROWS, write_csv
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.batches import batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import joined_tokens, tokenize_split
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.tasks.base import UNLABELLED
from kdsweep.core.teachers.artifact import teacher_key
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.training import prepare as preparing
from kdsweep.core.training.training_rows import training_rows
from kdsweep.core.training.trial_inputs import TrialInputs
from kdsweep.errors import Interrupted, SettingsConflict


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any]) -> Callable[..., TrialSettings]:
    def build(
        *,
        task: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
        **changes: Any,
    ) -> TrialSettings:
        sections = {
            "task": plain_trial["task"] | (task or {}),
            "training": plain_trial["training"] | (training or {}),
        }
        return TrialSettings.model_validate(
            plain_trial | {"alpha": 0.3, "temperature": 2.0} | sections | changes
        )

    return build


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


def metrics(settings: TrialSettings, folder: Path, cache: Path) -> list[dict[str, float]]:
    return [one.metrics for one in train(settings, folder, cache=cache)]


def fine_tuned(settings: TrialSettings) -> TrialSettings:
    return TrialSettings.model_validate(
        json.loads(settings.model_dump_json()) | {"alpha": 1.0, "teacher": None}
    )


def plain_logits(folder: Path, texts: list[str]) -> np.ndarray:
    """What the model in the folder gives for all texts in one batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.numpy()


# --- text without labels ---


def test_unlabelled_text_is_no_part_of_the_keys_of_task_and_teacher(
    make: Callable[..., TrialSettings], unlabelled_csv: Path, cache: Path
) -> None:
    plain, richer = make(), make(task={"unlabelled": str(unlabelled_csv)})
    assert plain.task.model_dump() == {
        name: value for name, value in richer.task.model_dump().items() if name != "unlabelled"
    }
    data = load_task(plain.task, cache)
    assert load_task(richer.task, cache) is data
    assert plain.teacher is not None
    assert teacher_key(plain.task, plain.teacher, data) == teacher_key(
        richer.task, plain.teacher, data
    )
    assert prepare_teacher(plain.task, plain.teacher, cache) == prepare_teacher(
        richer.task, plain.teacher, cache
    )


def test_joined_tokens_are_those_of_one_split_with_all_rows(
    make: Callable[..., TrialSettings],
    unlabelled_csv: Path,
    tiny: Callable[..., str],
    tmp_path: Path,
) -> None:
    task = make(task={"unlabelled": str(unlabelled_csv)}).task
    data = load_task(task)
    parts = [data.train, load_unlabelled(task, data)[0], data.validation]
    texts = [text for part in parts for text in part.texts[0]]
    whole = Split("whole", (texts,), np.zeros(len(texts), dtype=np.int64), "whole")
    tokenizer = load_tokenizer(tiny("bert", layers=2))
    input_format = InputFormat(12, token_types=True)
    one = tokenize_split(whole, tokenizer, input_format, cache=tmp_path)
    together = joined_tokens(
        [tokenize_split(part, tokenizer, input_format, cache=tmp_path) for part in parts]
    )
    assert len(together) == len(one)
    assert together.lengths.tolist() == one.lengths.tolist()
    for rows in batches(one.lengths, 16, 0, 0):
        expected, found = one.batch(rows), together.batch(rows)
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_a_distilled_student_trains_on_unlabelled_text_and_a_fine_tuned_one_does_not(
    make: Callable[..., TrialSettings],
    unlabelled_csv: Path,
    cache: Path,
    tmp_path: Path,
) -> None:
    plain, richer = make(), make(task={"unlabelled": str(unlabelled_csv)})
    steps: dict[str, int] = {}
    for name, settings in (("plain", plain), ("richer", richer)):
        list(
            train(
                settings,
                tmp_path / name,
                cache=cache,
                on_step=lambda step, total, name=name: steps.update({name: total}) is not None,
            )
        )
    rows = len(load_task(plain.task, cache).train)
    # An epoch goes over all rows.
    assert steps == {"plain": 2 * -(-rows // 16), "richer": 2 * -(-(rows + 90) // 16)}
    # A file that doesn't exist shows that fine-tuning reads no unlabeled text.
    missing = make(task={"unlabelled": str(tmp_path / "missing.csv")})
    both = [
        metrics(fine_tuned(settings), tmp_path / name, cache)
        for name, settings in (("a", plain), ("b", missing))
    ]
    assert both[0] == both[1]


def test_the_teachers_logits_for_unlabelled_text_are_right_and_cached(
    make: Callable[..., TrialSettings],
    unlabelled_csv: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make(task={"unlabelled": str(unlabelled_csv)})
    assert settings.teacher is not None
    teacher = prepare_teacher(settings.task, settings.teacher, cache)
    data = load_task(settings.task, cache)
    seen: list[np.ndarray] = []
    original = preparing.Objective

    def spy(
        settings: TrialSettings,
        model: Any,
        labels: np.ndarray,
        logits: list[np.ndarray],
        *rest: Any,
    ) -> Any:
        seen.extend([labels, *logits])
        return original(settings, model, labels, logits, *rest)

    monkeypatch.setattr(preparing, "Objective", spy)
    metrics(settings, tmp_path / "trial", cache)
    labels, logits = seen
    assert labels.tolist() == [*data.train.labels, *[UNLABELLED] * 90]
    np.testing.assert_array_equal(
        logits[: len(data.train)], teacher_logits(teacher, data, cache=cache)
    )
    expected = plain_logits(teacher.folder, [text for text, _ in UNLABELLED_ROWS])
    np.testing.assert_allclose(logits[len(data.train) :], expected, atol=1e-4)
    (file,) = (cache / "logits" / teacher.key).glob("*.npy")
    before = file.stat().st_mtime_ns
    metrics(settings, tmp_path / "another", cache)
    assert file.stat().st_mtime_ns == before


def test_logits_of_a_removed_teacher_are_computed_again(
    make: Callable[..., TrialSettings], unlabelled_csv: Path, tmp_path: Path
) -> None:
    settings = make(task={"unlabelled": str(unlabelled_csv)}, augment={"views": 1, "swap": 0.2})
    assert settings.teacher is not None
    teacher = prepare_teacher(settings.task, settings.teacher, tmp_path)
    data = load_task(settings.task, tmp_path)
    unlabelled, _ = load_unlabelled(settings.task, data, tmp_path)
    inputs = TrialInputs(data, (teacher,), unlabelled)

    def logits() -> list[np.ndarray]:
        (splits,) = training_rows(settings, inputs, tmp_path, silent).teachers
        with_all = data.with_splits(*splits)
        return [
            np.array(teacher_logits(teacher, with_all, cache=tmp_path, split=split.name))
            for split in splits
        ]

    before = logits()
    files = list((tmp_path / "logits" / teacher.key).glob("*.npy"))
    assert len(files) == 2
    for file in files:
        np.save(file, np.full_like(np.load(file), 7.0))
    shutil.rmtree(teacher.folder)
    prepare_teacher(settings.task, settings.teacher, tmp_path)
    for one, other in zip(before, logits(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_an_interruption_changes_nothing_and_other_text_is_a_conflict(
    make: Callable[..., TrialSettings], unlabelled_csv: Path, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "more.csv"
    file.write_bytes(unlabelled_csv.read_bytes())
    settings = make(task={"unlabelled": str(file)}, augment={"views": 2, "mask": 0.2, "swap": 0.1})
    whole = metrics(settings, tmp_path / "whole", cache)
    for stop in (3, 60):
        with pytest.raises(Interrupted):
            list(
                train(
                    settings,
                    tmp_path / f"parts {stop}",
                    cache=cache,
                    on_step=lambda step, total, stop=stop: step == stop,
                )
            )
    assert metrics(settings, tmp_path / "parts 3", cache) == whole
    assert all(
        torch.equal(weight, weights(tmp_path / "parts 3")[name])
        for name, weight in weights(tmp_path / "whole").items()
    )
    write_csv(file, UNLABELLED_ROWS[:50])
    with pytest.raises(SettingsConflict, match="other rows: unlabelled changed since"):
        metrics(settings, tmp_path / "parts 60", cache)


# --- views ---


def test_views_are_labelled_by_the_teacher_alone_and_in_fine_tuning_by_their_row(
    make: Callable[..., TrialSettings], cache: Path
) -> None:
    augment = {"views": 2, "ngram": 0.5}
    taught = make(augment=augment)
    data = load_task(taught.task, cache)
    inputs = TrialInputs(data)
    rows = training_rows(taught, inputs, cache, silent)
    splits = rows.student
    assert [split.name for split in splits] == ["train", "view 1", "view 2"]
    assert all(
        set(split.labels.tolist()) == {UNLABELLED} and len(split) == len(data.train)
        for split in splits[1:]
    )
    assert list(splits[1].texts[0]) != list(splits[2].texts[0])

    alone = {"alpha": 1.0, "teacher": None}
    only_train = training_rows(make(**alone, augment=augment), inputs, cache, silent)
    assert only_train.student == (data.train,)
    assert only_train.labels is data.train.labels
    in_finetuning = augment | {"in_finetuning": True}
    with_views = training_rows(make(**alone, augment=in_finetuning), inputs, cache, silent)
    assert [split.labels.tolist() for split in with_views.student] == [
        data.train.labels.tolist()
    ] * 3
    # The texts are the same.
    assert with_views.keys == rows.keys
    still = training_rows(make(augment=in_finetuning), inputs, cache, silent)
    assert set(still.student[1].labels.tolist()) == {UNLABELLED}


def test_every_teacher_and_the_student_have_their_own_masks_in_the_same_places(
    make: Callable[..., TrialSettings], tiny: Callable[..., str], cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "another mask"
    shutil.copytree(tiny("bert", layers=2), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"mask_token": "[UNK]"})
    tokenizer.save_pretrained(folder)
    first = make().teacher
    assert first is not None
    second = first.model_dump() | {"model": str(folder), "weight": 1.0}
    settings = make(
        student={"model": str(folder), "layers": 1},
        further_teachers=[second],
        augment={"views": 1, "mask": 0.5},
    )
    teachers = tuple(prepare_teacher(settings.task, one, cache) for one in settings.teachers)
    data = load_task(settings.task, cache)
    rows = training_rows(settings, TrialInputs(data, teachers), cache, silent)
    assert [splits[0] for splits in rows.teachers] == [data.train] * 2
    mine = list(rows.student[1].texts[0])
    theirs, others = (list(splits[1].texts[0]) for splits in rows.teachers)
    assert mine == others == [text.replace("[MASK]", "[UNK]") for text in theirs]
    assert any("[UNK]" in text for text in mine) and mine != theirs

    for number, (teacher, texts) in enumerate(zip(teachers, (theirs, others), strict=True)):
        logits = teacher_logits(
            teacher, data.with_splits(*rows.teachers[number]), cache=cache, split="view 1"
        )
        np.testing.assert_allclose(logits, plain_logits(teacher.folder, texts), atol=1e-4)
    assert metrics(settings, tmp_path / "trial", cache)


def test_labels_weigh_only_on_rows_that_have_them(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    """The views here equal their rows. While only labels count, they must weigh nothing."""
    settings = make(
        augment={"views": 1, "swap": 0.0},
        alpha={"shape": "step", "values": [1.0, 0.0], "at": 0.5},
        training={"evaluations_per_epoch": 1},
    )
    found = metrics(settings, tmp_path / "views", cache)
    rows = load_task(settings.task, cache).train
    labelled = metrics(
        make(alpha=1.0, training={"evaluations_per_epoch": 1}), tmp_path / "plain", cache
    )
    # Half the rows of a batch have no label, so they add nothing to its mean.
    assert found[0]["train/task_loss"] < 0.75 * labelled[0]["train/task_loss"]
    assert found[1]["train/distill_loss"] > 0
    assert len(rows) > 100


def test_inner_states_are_matched_on_all_rows(
    make: Callable[..., TrialSettings], unlabelled_csv: Path, cache: Path, tmp_path: Path
) -> None:
    settings = make(
        task={"unlabelled": str(unlabelled_csv)},
        augment={"views": 1, "swap": 0.2},
        distill={"hidden": {"weight": 1.0}},
        alpha=1.0,
    )
    assert settings.is_taught
    assert not settings.needs_logits
    found = metrics(settings, tmp_path, cache)
    assert found[-1]["train/hidden_loss"] < found[0]["train/hidden_loss"]


def test_settings_without_augment_or_unlabelled_are_stored_without_them(
    make: Callable[..., TrialSettings],
) -> None:
    text = make().model_dump_json()
    assert "augment" not in text
    assert "unlabelled" not in text
    settings = make(augment={"views": 1, "masked_lm": "some/model"})
    assert settings.augment is not None
    assert settings.augment.masked_lm is not None
    assert (settings.augment.masked_lm.share, settings.augment.masked_lm.candidates) == (0.4, 15)
    assert TrialSettings.model_validate_json(settings.model_dump_json()) == settings
