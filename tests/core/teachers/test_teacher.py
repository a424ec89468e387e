"""The teacher: made once, checked, frozen, with its outputs in the task's order."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import file_times, sentences, write_csv
from safetensors.torch import load_file, save_file

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.evaluation.metrics import judge
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.tasks import CLASSIFICATION
from kdsweep.core.teachers.artifact import Teacher, find_teacher, frozen_teacher, teacher_key
from kdsweep.core.teachers.logits import teacher_logits, teacher_test
from kdsweep.core.teachers.selection import cached_teacher, prepare_teacher
from kdsweep.errors import Interrupted, ModelError, TeacherError

TRAINING = {
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "max_length": 24,
    "evaluations_per_epoch": 1,
}
Made = tuple[Teacher, TaskSettings, TeacherSettings, Path]


@pytest.fixture(scope="module")
def made(
    tiny: Callable[..., str], review_csv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """A teacher fine-tuned from a tiny BERT; the label columns are neg, pos."""
    cache = tmp_path_factory.mktemp("cache")
    task = TaskSettings(dataset=str(review_csv), text="text", label="label", holdout=0.2)
    teacher = TeacherSettings(model=tiny("bert"), training=TRAINING)
    return prepare_teacher(task, teacher, cache), task, teacher, cache


def checkpoint(made: Made, folder: Path, *, swap: bool, names: list[str] | None) -> Path:
    """The fine-tuned teacher as somebody else's checkpoint: outputs swapped or not, and named so."""
    shutil.copytree(made[0].folder, folder)
    (folder / "teacher.json").unlink()
    weights = load_file(folder / "model.safetensors")
    if swap:
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = weights[name].flip(0).contiguous()
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    names = names or ["LABEL_0", "LABEL_1"]
    config |= {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def from_checkpoint(folder: Path, **keys: Any) -> TeacherSettings:
    return TeacherSettings(checkpoint=str(folder), training=TRAINING, **keys)


def forward(source: Path, data: TaskData) -> np.ndarray:
    """The model's own logits for train, row by row."""
    model, tokenizer = load_classifier(str(source), ("a", "b")).eval(), load_tokenizer(str(source))
    with torch.no_grad():
        return torch.cat(
            [
                model(**tokenizer(text, truncation=True, max_length=24, return_tensors="pt")).logits
                for text in data.train.texts[0]
            ]
        ).numpy()


# --- made once -------------------------------------------------------------------------------------------------------


def test_a_teacher_is_fine_tuned_once_and_then_comes_from_the_cache(made: Made) -> None:
    teacher, task, settings, cache = made
    assert teacher.validation["accuracy"] > 0.9
    written, said = file_times(cache / "teachers"), []
    assert prepare_teacher(task, settings, cache, say=said.append) == teacher
    assert cached_teacher(task, settings, cache) == teacher
    assert not any("fine-tuning" in line for line in said)
    assert file_times(cache / "teachers") == written


def test_the_cached_folder_is_a_model_that_names_the_classes(made: Made) -> None:
    config = json.loads((made[0].folder / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert (made[0].folder / "model.safetensors").exists()
    assert (
        made[0].training_folder is not None and (made[0].training_folder / "metrics.jsonl").exists()
    )


def test_other_rows_settings_or_weights_are_another_teacher(
    made: Made, tiny: Callable[..., str], tmp_path: Path
) -> None:
    _, task, settings, _ = made
    other_task = task.model_copy(
        update={"dataset": str(write_csv(tmp_path / "other.csv", sentences(200, seed=5)))}
    )
    keys = [
        teacher_key(task, settings, load_task(task)),
        teacher_key(other_task, settings, load_task(other_task)),
        teacher_key(
            task,
            TeacherSettings(model=tiny("bert"), training=TRAINING | {"seed": 1}),
            load_task(task),
        ),
        teacher_key(
            task, TeacherSettings(model=tiny("bert", layers=3), training=TRAINING), load_task(task)
        ),
    ]
    assert len(set(keys)) == 4


def test_an_interrupted_fine_tuning_goes_on(made: Made, tmp_path: Path) -> None:
    _, task, settings, _ = made
    with pytest.raises(Interrupted):
        prepare_teacher(task, settings, tmp_path, on_step=lambda step, total: step == 20)
    seen: list[int] = []
    again = prepare_teacher(
        task, settings, tmp_path, on_step=lambda step, total: bool(seen.append(step))
    )
    assert seen[0] == 21
    assert again.validation == made[0].validation


# --- checked ---------------------------------------------------------------------------------------------------------


def test_a_teacher_that_learned_nothing_is_refused_with_its_accuracy(
    made: Made, tiny: Callable[..., str], tmp_path: Path
) -> None:
    settings = TeacherSettings(
        model=tiny("bert"), training=TRAINING | {"epochs": 1, "learning_rate": 1e-9}
    )
    with pytest.raises(
        TeacherError,
        match=r"accuracy 0\.\d{3} on validation doesn't clearly beat the majority class \(0\.\d{3}; at least 0\.\d{3}",
    ):
        prepare_teacher(made[1], settings, tmp_path)
    assert cached_teacher(made[1], settings, tmp_path) is None


@pytest.mark.parametrize(("right", "trusted"), [(70, False), (79, False), (81, True), (95, True)])
def test_the_floor_is_two_standard_errors_above_the_majority(
    made: Made, right: int, trusted: bool
) -> None:
    """100 rows, 70 of the majority: sqrt(0.7 * 0.3 / 100) = 0.0458, twice that is 0.0917, the floor 0.7917."""
    labels = np.array([0] * 70 + [1] * 30)
    data = load_task(made[1])
    split = type(data.validation)("validation", (["x"] * 100,), labels, "x")
    task = TaskData(
        CLASSIFICATION, ("neg", "pos"), {"train": split, "validation": split, "test": split}, ()
    )
    predicted = (
        np.where(np.arange(100) < right, labels, 1 - labels)
        if right > 70
        else np.zeros(100, dtype=int)
    )
    logits = np.eye(2)[predicted]
    if trusted:
        CLASSIFICATION.check_floor(metric_named("accuracy"), task, logits, order=None)
    else:
        with pytest.raises(
            TeacherError, match=f"accuracy 0.{right}0 .*majority class \\(0.700; at least 0.792"
        ):
            CLASSIFICATION.check_floor(metric_named("accuracy"), task, logits, order=None)


# --- somebody else's checkpoint --------------------------------------------------------------------------------------


def test_outputs_named_in_another_order_are_put_into_the_tasks(made: Made, tmp_path: Path) -> None:
    folder = checkpoint(made, tmp_path / "a checkpoint", swap=True, names=["POS", "neg"])
    teacher = prepare_teacher(made[1], from_checkpoint(folder), tmp_path)
    assert teacher.validation == pytest.approx(made[0].validation, abs=1e-5)
    data = load_task(made[1])
    logits = teacher_logits(teacher, data, cache=tmp_path)
    np.testing.assert_allclose(logits, forward(folder, data)[:, [1, 0]], atol=1e-4)
    np.testing.assert_allclose(logits, forward(made[0].folder, data), atol=1e-4)
    assert json.loads((teacher.folder / "config.json").read_text())["id2label"] == {
        "0": "neg",
        "1": "pos",
    }


def test_three_outputs_in_a_cyclic_order_go_the_right_way_around(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    """A swap is its own inverse and can't tell an order from its inverse; a cycle of three can."""
    rows = [(text, label if i % 3 else "meh") for i, (text, label) in enumerate(sentences(240))]
    rows = [
        ("the film was yes", "meh") if label == "meh" else (text, label) for text, label in rows
    ]
    rows = [
        (f"{text} {' '.join(['a'] * (i % 5))} {' '.join(['and'] * (i // 5 % 8))}", label)
        for i, (text, label) in enumerate(rows)
    ]
    task = TaskSettings(
        dataset=str(write_csv(tmp_path / "rows.csv", rows)), text="text", label="label", holdout=0.2
    )
    data = load_task(task)
    assert data.label_names == ("meh", "neg", "pos")
    original = prepare_teacher(
        task, TeacherSettings(model=tiny("bert"), training=TRAINING), tmp_path / "cache"
    )
    folder = tmp_path / "cycle"
    shutil.copytree(original.folder, folder)
    weights = load_file(folder / "model.safetensors")
    turned = [2, 0, 1]  # output 0 is now pos, 1 meh, 2 neg
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][turned].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(
            config
            | {
                "id2label": {"0": "pos", "1": "meh", "2": "neg"},
                "label2id": {"pos": 0, "meh": 1, "neg": 2},
            }
        )
    )
    teacher = prepare_teacher(task, from_checkpoint(folder), tmp_path / "cache")
    expected = teacher_logits(original, data, cache=tmp_path / "cache")
    np.testing.assert_allclose(
        teacher_logits(teacher, data, cache=tmp_path / "cache"), expected, atol=1e-4
    )

    # Without names the error gives the order that `labels` wants.
    (folder / "config.json").write_text(
        json.dumps(
            config
            | {
                "id2label": {str(i): f"LABEL_{i}" for i in range(3)},
                "label2id": {f"LABEL_{i}": i for i in range(3)},
            }
        )
    )
    with pytest.raises(TeacherError, match=r"as \[pos, meh, neg\]"):
        prepare_teacher(task, from_checkpoint(folder), tmp_path / "cache")
    named = prepare_teacher(
        task, from_checkpoint(folder, labels=["pos", "meh", "neg"]), tmp_path / "cache"
    )
    np.testing.assert_allclose(
        teacher_logits(named, data, cache=tmp_path / "cache"), expected, atol=1e-4
    )


def test_names_that_are_there_but_wrong_are_not_trusted(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    """As with MNLI checkpoints that were saved with another task's label order: mapped by name, then judged by accuracy."""
    rows = [
        (
            f"{text if i % 3 else 'the film was yes'} {' '.join(['a'] * (i % 5))} {' '.join(['and'] * (i // 5 % 8))}",
            i,
            label,
        )
        for i, (text, label) in enumerate(sentences(240))
    ]
    named = [
        (text, {"neg": "contradiction", "pos": "entailment"}[label] if i % 3 else "neutral")
        for text, i, label in rows
    ]
    task = TaskSettings(
        dataset=str(write_csv(tmp_path / "rows.csv", named)),
        text="text",
        label="label",
        labels=["entailment", "neutral", "contradiction"],
        holdout=0.2,
    )
    data = load_task(task)
    original = prepare_teacher(
        task, TeacherSettings(model=tiny("bert"), training=TRAINING), tmp_path / "cache"
    )
    folder = tmp_path / "lying"
    shutil.copytree(original.folder, folder)
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][[2, 0, 1]].contiguous()  # contradiction, entailment, neutral
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    lies = {"0": "neutral", "1": "entailment", "2": "contradiction"}
    (folder / "config.json").write_text(
        json.dumps(
            config | {"id2label": lies, "label2id": {name: int(i) for i, name in lies.items()}}
        )
    )
    with pytest.raises(
        TeacherError, match=r"as \[contradiction, entailment, neutral\] accuracy would be"
    ):
        prepare_teacher(task, from_checkpoint(folder), tmp_path / "cache")
    mended = prepare_teacher(
        task,
        from_checkpoint(folder, labels=["contradiction", "entailment", "neutral"]),
        tmp_path / "cache",
    )
    assert mended.validation["accuracy"] == pytest.approx(original.validation["accuracy"])
    expected = teacher_logits(original, data, cache=tmp_path / "cache")
    np.testing.assert_allclose(
        teacher_logits(mended, data, cache=tmp_path / "cache"), expected, atol=1e-4
    )


def test_names_that_say_nothing_are_taken_as_the_tasks_order_when_accuracy_agrees(
    made: Made, tmp_path: Path
) -> None:
    teacher = prepare_teacher(
        made[1], from_checkpoint(checkpoint(made, tmp_path / "x", swap=False, names=None)), tmp_path
    )
    assert teacher.validation == pytest.approx(made[0].validation, abs=1e-5)


def test_swapped_outputs_without_names_are_refused_with_the_right_order_and_labels_mends_it(
    made: Made, tmp_path: Path
) -> None:
    folder = checkpoint(made, tmp_path / "x", swap=True, names=None)
    with pytest.raises(
        TeacherError,
        match=r"another order: as \[pos, neg\] accuracy would be (0\.9\d\d|1\.000); set teacher.labels",
    ):
        prepare_teacher(made[1], from_checkpoint(folder), tmp_path)
    teacher = prepare_teacher(made[1], from_checkpoint(folder, labels=["pos", "neg"]), tmp_path)
    assert teacher.validation == pytest.approx(made[0].validation, abs=1e-5)


def test_labels_of_another_task_are_refused(
    made: Made, tmp_path: Path, tiny: Callable[..., str]
) -> None:
    with pytest.raises(
        TeacherError, match=r"its labels \(cat, dog\) are not the task's \(neg, pos\)"
    ):
        prepare_teacher(
            made[1],
            from_checkpoint(checkpoint(made, tmp_path / "x", swap=False, names=["cat", "dog"])),
            tmp_path,
        )
    with pytest.raises(TeacherError, match=r"has 3 labels, the task 2 \(neg, pos\)"):
        prepare_teacher(made[1], from_checkpoint(Path(tiny("bert", labels=3))), tmp_path)
    with pytest.raises(TeacherError, match=r"teacher.labels: its labels \(good, bad\) are not"):
        prepare_teacher(made[1], from_checkpoint(tmp_path / "x", labels=["good", "bad"]), tmp_path)


def test_rows_longer_than_the_checkpoint_reads_are_refused(made: Made, tmp_path: Path) -> None:
    settings = TeacherSettings(
        checkpoint=str(checkpoint(made, tmp_path / "x", swap=False, names=["neg", "pos"])),
        training={"max_length": 128},
    )
    with pytest.raises(ModelError, match="128 tokens are more than the 64"):
        prepare_teacher(made[1], settings, tmp_path)


# --- logits ----------------------------------------------------------------------------------------------------------


def test_logits_are_the_teachers_own_and_computed_once(made: Made, tmp_path: Path) -> None:
    data, said = load_task(made[1]), []
    logits = teacher_logits(made[0], data, cache=tmp_path, say=said.append)
    assert isinstance(logits, np.memmap) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, forward(made[0].folder, data), atol=1e-4)
    written = file_times(tmp_path / "logits")
    assert len(written) == 1
    np.testing.assert_array_equal(
        teacher_logits(made[0], data, cache=tmp_path, say=said.append), logits
    )
    assert file_times(tmp_path / "logits") == written
    assert sum("teacher's logits: computing" in line for line in said) == 1


def test_a_file_with_other_logits_is_refused(made: Made, tmp_path: Path) -> None:
    data = load_task(made[1])
    teacher_logits(made[0], data, cache=tmp_path)
    [file] = (tmp_path / "logits").iterdir()
    for wrong in (
        np.zeros((3, 2), dtype=np.float32),
        np.full((len(data.train), 2), np.nan, dtype=np.float32),
    ):
        np.save(file, wrong)
        with pytest.raises(TeacherError, match="remove the file and run again"):
            teacher_logits(made[0], data, cache=tmp_path)


def test_a_frozen_teacher_is_in_eval_mode_without_gradients(made: Made) -> None:
    model = frozen_teacher(made[0], ("neg", "pos"), CLASSIFICATION)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_logits_of_validation_and_test_are_kept_apart_and_judged(
    made: Made, tmp_path: Path
) -> None:
    data = load_task(made[1])
    assert teacher_test(made[0], data, "accuracy", cache=tmp_path) is None
    validation = teacher_logits(made[0], data, cache=tmp_path, split="validation")
    assert (
        teacher_test(made[0], data, "accuracy", cache=tmp_path) is None
    )  # other splits' logits are none of test's
    test = teacher_logits(made[0], data, cache=tmp_path, split="test")
    assert (len(validation), len(test)) == (len(data.validation), len(data.test))
    assert judge(
        "accuracy", data.validation.labels, np.asarray(validation), data.kind
    ) == pytest.approx(made[0].validation, abs=1e-5)
    written = file_times(tmp_path / "logits")
    assert len(written) == 2
    assert teacher_test(made[0], data, "accuracy", cache=tmp_path) == judge(
        "accuracy", data.test.labels, np.asarray(test), data.kind
    )
    assert file_times(tmp_path / "logits") == written


# --- its facts -------------------------------------------------------------------------------------------------------


def test_its_facts_say_how_sure_it_is_on_train_and_how_calibrated_and_quick(made: Made) -> None:
    data = load_task(made[1])
    logits = np.asarray(teacher_logits(made[0], data, cache=made[3]), dtype=np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert made[0].margin == pytest.approx(
        np.abs(probabilities[:, 0] - probabilities[:, 1]).mean(), abs=1e-9
    )
    assert made[0].entropy == pytest.approx(
        -(probabilities * np.log(probabilities)).sum(axis=1).mean(), abs=1e-9
    )
    assert 0 <= made[0].validation["ece"] <= 1
    assert made[0].latency_p95_ms is not None and made[0].latency_p95_ms >= made[0].latency_ms > 0
    facts = json.loads((made[0].folder / "teacher.json").read_text())
    assert {name: facts[name] for name in ("margin", "entropy", "latency_p95_ms")} == {
        "margin": made[0].margin,
        "entropy": made[0].entropy,
        "latency_p95_ms": made[0].latency_p95_ms,
    }


def test_making_a_teacher_leaves_its_logits_for_train_in_the_cache(made: Made) -> None:
    data, said = load_task(made[1]), []
    logits = teacher_logits(made[0], data, cache=made[3], say=said.append)
    assert said == []  # nothing was computed
    np.testing.assert_allclose(logits, forward(made[0].folder, data), atol=1e-4)


def test_a_teacher_of_an_earlier_version_is_still_one(made: Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made[0].folder, tmp_path / "teacher")
    facts = json.loads((folder / "teacher.json").read_text())
    for name in ("margin", "entropy", "latency_p95_ms"):
        del facts[name]
    del facts["validation"]["ece"]
    (folder / "teacher.json").write_text(json.dumps(facts))
    found = find_teacher(folder)
    assert found is not None
    assert (found.margin, found.entropy, found.latency_p95_ms) == (None, None, None)
    assert found.validation["accuracy"] == made[0].validation["accuracy"]


def test_a_teacher_that_is_made_again_does_not_keep_the_logits_of_the_one_that_was_removed(
    made: Made, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(made[3], cache)
    data = load_task(made[1])
    for split in ("validation", "test"):
        teacher_logits(made[0], data, cache=cache, split=split)
    for file in (cache / "logits").iterdir():
        np.save(file, np.full_like(np.load(file), 7.0))
    shutil.rmtree(cache / "teachers")
    again = prepare_teacher(made[1], made[2], cache)
    for split in ("train", "validation", "test"):
        assert not np.any(np.asarray(teacher_logits(again, data, cache=cache, split=split)) == 7.0)
