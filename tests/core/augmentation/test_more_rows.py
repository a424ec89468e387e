"""Rows beside those of train: text without labels, and views that the teacher labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model, sentences, write_csv
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.core import TrialSettings, train
from kdsweep.core.augmentation.views import cached_view, mask_token
from kdsweep.core.data.batches import batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, without_labels
from kdsweep.core.data.tokenize import joined_tokens, tokenize_split
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.objective.distillation_loss import UNLABELLED
from kdsweep.core.settings import AugmentSettings, TaskSettings
from kdsweep.core.teachers.artifact import teacher_key
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.training import prepare as preparing
from kdsweep.core.training.training_rows import training_rows
from kdsweep.errors import DataError, Interrupted, ModelError, SettingsConflict

UNLABELLED_ROWS = [(f"{text} film", "") for text, _ in sentences(90, seed=7)]


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory, review_csv: Path) -> Path:
    """60 other texts, 30 of another source, and 10 of the task's own: with other white space, in capitals."""
    own = [(f" {text.upper()} ", "") for text, _ in sentences(10)]
    rows = [(*row, "here" if i < 60 else "there") for i, row in enumerate(UNLABELLED_ROWS)] + [
        (*row, "here") for row in own
    ]
    return write_csv(
        tmp_path_factory.mktemp("more") / "more.csv", rows, ("text", "label", "source")
    )


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


# --- text without labels ---------------------------------------------------------------------------------------------


def test_text_of_the_task_itself_is_dropped_and_counted(
    review_csv: Path, more: Path, tmp_path: Path
) -> None:
    task = TaskSettings.model_validate(
        {
            "dataset": str(review_csv),
            "text": "text",
            "label": "label",
            "unlabelled": {"dataset": str(more), "where": {"source": "here"}},
        }
    )
    data = load_task(task)
    for found, notes in (
        load_unlabelled(task, data),
        load_unlabelled(task, data, tmp_path),
        load_unlabelled(task, data, tmp_path),
    ):
        assert list(found.texts[0]) == [text for text, _ in UNLABELLED_ROWS[:60]]
        assert found.labels.tolist() == [UNLABELLED] * 60
        assert notes == ("unlabelled: 10 rows dropped: their text is in a split of the task too",)
    assert len({load_unlabelled(task, data, where)[0].key for where in (None, tmp_path)}) == 1
    limited = task.model_copy(
        update={"unlabelled": task.unlabelled.model_copy(update={"limit": 20})}
    )  # type: ignore[union-attr]
    few = list(load_unlabelled(limited, data)[0].texts[0])
    assert len(few) == 20
    assert set(few) < {text for text, _ in UNLABELLED_ROWS[:60]}


def test_rows_that_a_limit_left_out_of_train_may_be_read_as_text(review_csv: Path) -> None:
    plain: dict[str, Any] = {
        "dataset": str(review_csv),
        "text": "text",
        "label": "label",
        "limit": {"train": 50, "validation": 10, "test": 10},
    }
    task = TaskSettings.model_validate(plain | {"unlabelled": str(review_csv)})
    data = load_task(task)
    known = {text for split in data.splits.values() for text in split.texts[0]}
    found = set(load_unlabelled(task, data)[0].texts[0])
    assert found == {text for text, _ in sentences(300)} - known
    assert len(found) > 150


def test_it_is_no_part_of_the_task_of_its_teacher_or_of_its_other_caches(
    make: Callable[..., TrialSettings], more: Path, cache: Path
) -> None:
    plain, richer = make(), make(task={"unlabelled": str(more)})
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


def test_what_cannot_be_read_is_said_of_the_right_key(
    review_csv: Path, more: Path, tmp_path: Path
) -> None:
    def error(**unlabelled: Any) -> str:
        task = TaskSettings.model_validate(
            {
                "dataset": str(review_csv),
                "text": "text",
                "label": "label",
                "unlabelled": {"dataset": str(more)} | unlabelled,
            }
        )
        with pytest.raises(DataError) as raised:
            load_unlabelled(task, load_task(task), tmp_path)
        return str(raised.value)

    assert error(text="txet").startswith(f"task.unlabelled.text: {more} has no column 'txet'")
    assert error(where={"source": "nowhere"}).startswith("task.unlabelled.where: no row of")
    assert (
        error(dataset="/not/there.csv")
        == "task.unlabelled.dataset: there is no file or folder '/not/there.csv'"
    )
    assert (
        error(split="test")
        == f"task.unlabelled.split: {more} is one file, so it has no splits to name; use 'where' to take some of its rows"
    )
    assert "it teaches nothing new" in error(dataset=str(review_csv))
    assert error(dataset=str(more.parent), split="les").startswith(
        f"task.unlabelled.split: {more.parent} has no split 'les', only more"
    )
    with pytest.raises(ValueError, match=r"unlabelled.text names 2 and text 1 columns"):
        make_task = {
            "dataset": str(review_csv),
            "text": "text",
            "label": "label",
            "unlabelled": {"dataset": str(more), "text": ["a", "b"]},
        }
        TaskSettings.model_validate(make_task)


def test_labels_that_are_not_there_are_of_the_kind_of_those_that_are() -> None:
    assert without_labels(np.array([0, 1]), 3).tolist() == [UNLABELLED] * 3
    several = without_labels(np.zeros((5, 2), dtype=np.float32), 3)
    assert several.shape == (3, 2)
    assert several.dtype == np.float32
    assert np.isnan(several).all()
    assert np.isnan(without_labels(np.zeros(5, dtype=np.float32), 3)).all()


def test_joined_tokens_are_those_of_one_split_with_all_rows(
    make: Callable[..., TrialSettings], more: Path, tiny: Callable[..., str], tmp_path: Path
) -> None:
    task = make(task={"unlabelled": str(more)}).task
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


def test_a_distilled_student_reads_them_and_a_fine_tuned_one_does_not(
    make: Callable[..., TrialSettings],
    more: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, richer = make(), make(task={"unlabelled": str(more)})
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
    assert steps == {
        "plain": 2 * -(-rows // 16),
        "richer": 2 * -(-(rows + 90) // 16),
    }  # an epoch goes over all rows
    monkeypatch.setattr(
        "kdsweep.core.training.training_rows.load_unlabelled", None
    )  # to call it would fail
    both = [
        metrics(replace_alpha(settings), tmp_path / name, cache)
        for name, settings in (("a", plain), ("b", richer))
    ]
    assert both[0] == both[1]


def replace_alpha(settings: TrialSettings) -> TrialSettings:
    return TrialSettings.model_validate(
        json.loads(settings.model_dump_json()) | {"alpha": 1.0, "teacher": None}
    )


def test_the_teachers_logits_for_them_are_right_and_cached(
    make: Callable[..., TrialSettings],
    more: Path,
    tiny: Callable[..., str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make(task={"unlabelled": str(more)})
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
    from transformers import AutoModelForSequenceClassification

    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(teacher.folder).eval(),
        AutoTokenizer.from_pretrained(teacher.folder),
    )
    with torch.no_grad():
        expected = model(
            **tokenizer(
                [text for text, _ in UNLABELLED_ROWS],
                padding=True,
                truncation=True,
                max_length=24,
                return_tensors="pt",
            )
        ).logits.numpy()
    np.testing.assert_allclose(logits[len(data.train) :], expected, atol=1e-4)
    (file,) = (cache / "logits" / teacher.key).glob("*.npy")
    changed = file.stat().st_mtime_ns
    metrics(settings, tmp_path / "another", cache)
    assert file.stat().st_mtime_ns == changed


def test_logits_of_a_teacher_that_was_removed_are_forgotten(
    make: Callable[..., TrialSettings], more: Path, tmp_path: Path
) -> None:
    settings = make(task={"unlabelled": str(more)}, augment={"views": 1, "swap": 0.2})
    assert settings.teacher is not None
    teacher = prepare_teacher(settings.task, settings.teacher, tmp_path)
    data = load_task(settings.task, tmp_path)

    def logits() -> list[np.ndarray]:
        (splits,) = training_rows(settings, data, [teacher], tmp_path, silent).teachers
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
    make: Callable[..., TrialSettings], more: Path, cache: Path, tmp_path: Path
) -> None:
    file = tmp_path / "more.csv"
    file.write_bytes(more.read_bytes())
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


# --- views -----------------------------------------------------------------------------------------------------------


def test_views_are_labelled_by_the_teacher_alone_and_in_fine_tuning_by_their_row(
    make: Callable[..., TrialSettings], cache: Path
) -> None:
    augment = {"views": 2, "ngram": 0.5}
    taught = make(augment=augment)
    data = load_task(taught.task, cache)
    rows = training_rows(taught, data, [], cache, silent)
    splits = rows.student
    assert [split.name for split in splits] == ["train", "view 1", "view 2"]
    assert all(
        set(split.labels.tolist()) == {UNLABELLED} and len(split) == len(data.train)
        for split in splits[1:]
    )
    assert list(splits[1].texts[0]) != list(splits[2].texts[0])

    alone = {"alpha": 1.0, "teacher": None}
    only_train = training_rows(make(**alone, augment=augment), data, [], cache, silent)
    assert only_train.student == (data.train,)
    assert only_train.labels is data.train.labels
    in_finetuning = augment | {"in_finetuning": True}
    asked = training_rows(make(**alone, augment=in_finetuning), data, [], cache, silent)
    assert [split.labels.tolist() for split in asked.student] == [data.train.labels.tolist()] * 3
    assert asked.keys == rows.keys  # the same texts
    still = training_rows(make(augment=in_finetuning), data, [], cache, silent)
    assert set(still.student[1].labels.tolist()) == {UNLABELLED}


def test_a_view_is_made_once_and_is_another_with_another_share_seed_or_number(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    train_rows = load_task(make().task, cache).train
    said: list[str] = []

    def key(number: int = 0, **changes: Any) -> str:
        settings = AugmentSettings.model_validate({"views": 3, "swap": 0.3} | changes)
        return cached_view(train_rows, settings, number, "", tmp_path, said.append).key

    first = key()
    assert [key(), key(views=8), key(in_finetuning=True)] == [first] * 3
    assert said == [f"view 1: making it from {len(train_rows):,} rows"]
    others = [key(1), key(swap=0.31), key(seed=1), key(ngram=0.2)]
    assert len({first, *others}) == 5
    assert (
        cached_view(
            train_rows, AugmentSettings(views=1, swap=0.3), 0, "", tmp_path / "elsewhere", silent
        ).key
        == first
    )  # by content


def test_one_sentence_of_a_pair_is_changed_each_as_often(tmp_path: Path) -> None:
    columns = tuple(
        [f"{text} {i}" for i, (text, _) in enumerate(sentences(400, seed=seed))] for seed in (1, 2)
    )
    pairs = Split("train", columns, np.zeros(400, dtype=np.int64), "pairs")
    made = cached_view(pairs, AugmentSettings(views=1, mask=1.0), 0, "[MASK]", tmp_path, silent)
    changed = [
        tuple(now != before for now, before in zip(row[:2], row[2:], strict=True))
        for row in zip(*made.texts, *columns, strict=True)
    ]
    assert set(changed) == {(True, False), (False, True)}
    assert sum(first for first, _ in changed) / 400 == pytest.approx(0.5, abs=0.08)


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
    teachers = [prepare_teacher(settings.task, one, cache) for one in settings.teachers]
    data = load_task(settings.task, cache)
    rows = training_rows(settings, data, teachers, cache, silent)
    assert [splits[0] for splits in rows.teachers] == [data.train] * 2
    mine = list(rows.student[1].texts[0])
    theirs, others = (list(splits[1].texts[0]) for splits in rows.teachers)
    assert mine == others == [text.replace("[MASK]", "[UNK]") for text in theirs]
    assert any("[UNK]" in text for text in mine) and mine != theirs

    for number, (teacher, texts) in enumerate(zip(teachers, (theirs, others), strict=True)):
        logits = teacher_logits(
            teacher, data.with_splits(*rows.teachers[number]), cache=cache, split="view 1"
        )
        model, reads = (
            AutoModelForSequenceClassification.from_pretrained(teacher.folder).eval(),
            AutoTokenizer.from_pretrained(teacher.folder),
        )
        with torch.no_grad():
            expected = model(
                **reads(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
            ).logits.numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert metrics(settings, tmp_path / "trial", cache)


def test_words_of_a_masked_language_model_stand_in_one_of_two_texts(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "body", "bert", layers=1)
    AutoModelForMaskedLM.from_pretrained(folder).save_pretrained(folder)
    words = AugmentSettings.model_validate(
        {"views": 1, "masked_lm": {"model": str(folder), "share": 1.0, "candidates": 3}}
    )
    texts = [text for text, _ in sentences(70)]
    made = cached_view(
        Split("train", (texts,), np.zeros(70, dtype=np.int64), "one"),
        words,
        0,
        "",
        tmp_path,
        silent,
    ).texts[0]
    assert all(
        len(one.split()) == len(other.split()) for one, other in zip(made, texts, strict=True)
    )
    assert sum(one != other for one, other in zip(made, texts, strict=True)) > 60
    assert not any("[" in text or "#" in text for text in made)
    pairs = Split("train", (texts, texts[::-1]), np.zeros(70, dtype=np.int64), "two")
    left, right = cached_view(pairs, words, 0, "", tmp_path, silent).texts
    assert all(
        (one == other) or (two == another)
        for one, two, other, another in zip(left, right, *pairs.texts, strict=True)
    )


def test_a_mask_needs_a_mask_token(tiny: Callable[..., str]) -> None:
    tokenizer = load_tokenizer(tiny("bert", layers=2))
    assert mask_token(tokenizer, "it") == "[MASK]"
    tokenizer.mask_token = None
    with pytest.raises(
        ModelError,
        match=r"augment.mask: the tokenizer of it has no mask token; use ngram, swap or masked_lm",
    ):
        mask_token(tokenizer, "it")


def test_gold_labels_pull_at_rows_that_have_them_and_the_teacher_at_all(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    """Views that are the rows themselves: with the labels alone (a step schedule's first half) they must weigh nothing."""
    settings = make(
        augment={"views": 1, "swap": 0.0},
        alpha={"shape": "step", "values": [1.0, 0.0], "at": 0.5},
        training={"evaluations_per_epoch": 1},
    )
    told = metrics(settings, tmp_path / "views", cache)
    rows = load_task(settings.task, cache).train
    labelled = metrics(
        make(alpha=1.0, training={"evaluations_per_epoch": 1}), tmp_path / "plain", cache
    )
    assert (
        told[0]["train/task_loss"] < 0.75 * labelled[0]["train/task_loss"]
    )  # half the rows of a batch have no such term
    assert told[1]["train/distill_loss"] > 0
    assert len(rows) > 100


def test_inner_states_are_matched_on_all_rows(
    make: Callable[..., TrialSettings], more: Path, cache: Path, tmp_path: Path
) -> None:
    settings = make(
        task={"unlabelled": str(more)},
        augment={"views": 1, "swap": 0.2},
        distill={"hidden": {"weight": 1.0}},
        alpha=1.0,
    )
    assert settings.is_taught
    assert not settings.needs_logits
    told = metrics(settings, tmp_path, cache)
    assert told[-1]["train/hidden_loss"] < told[0]["train/hidden_loss"]


def test_saved_settings_without_either_are_as_they_were(make: Callable[..., TrialSettings]) -> None:
    text = make().model_dump_json()
    assert "augment" not in text
    assert "unlabelled" not in text
    settings = make(augment={"views": 1, "masked_lm": "some/model"})
    assert settings.augment is not None
    assert settings.augment.masked_lm is not None
    assert (settings.augment.masked_lm.share, settings.augment.masked_lm.candidates) == (0.4, 15)
    assert TrialSettings.model_validate_json(settings.model_dump_json()) == settings
