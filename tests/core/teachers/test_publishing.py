"""A checkpoint becomes a teacher with its outputs in the task's order, and with facts about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import sentences, write_csv
from fine_tuned_teacher import TRAINING, FineTuned, train_logits
from safetensors.torch import load_file, save_file

from kdsweep.core.data.loading import load_task
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.errors import ModelError, TeacherError


def checkpoint(
    source: Path, folder: Path, *, outputs: tuple[int, ...] = (0, 1), names: list[str] | None = None
) -> Path:
    """A fine-tuned teacher as somebody else's checkpoint: its outputs in this order, named so."""
    shutil.copytree(source, folder)
    (folder / "teacher.json").unlink()
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][list(outputs)].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    name_outputs(folder, names or [f"LABEL_{i}" for i in range(len(outputs))])
    return folder


def name_outputs(folder: Path, names: list[str]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
    (folder / "config.json").write_text(json.dumps(config))


def from_checkpoint(folder: Path, **keys: Any) -> TeacherSettings:
    return TeacherSettings(checkpoint=str(folder), training=TRAINING, **keys)


def three_classes(folder: Path, third: str, names: dict[str, str], **keys: Any) -> TaskSettings:
    """Reviews, every third of them of a third class, with more words so that few texts repeat."""
    rows = []
    for i, (text, label) in enumerate(sentences(240)):
        if i % 3 == 0:
            text, label = "the film was yes", third
        words = [text, *["a"] * (i % 5), *["and"] * (i // 5 % 8)]
        rows.append((" ".join(words), names.get(label, label)))
    file = write_csv(folder / "rows.csv", rows)
    return TaskSettings(dataset=str(file), text="text", label="label", holdout=0.2, **keys)


def test_outputs_named_in_another_order_are_put_into_the_tasks(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    original = fine_tuned.teacher
    folder = checkpoint(
        original.folder, tmp_path / "a checkpoint", outputs=(1, 0), names=["POS", "neg"]
    )
    teacher = prepare_teacher(fine_tuned.task, from_checkpoint(folder), tmp_path)
    assert teacher.validation == pytest.approx(original.validation, abs=1e-5)
    data = load_task(fine_tuned.task)
    logits = teacher_logits(teacher, data, cache=tmp_path)
    np.testing.assert_allclose(logits, train_logits(folder, data)[:, [1, 0]], atol=1e-4)
    np.testing.assert_allclose(logits, train_logits(original.folder, data), atol=1e-4)
    config = json.loads((teacher.folder / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}


def test_three_outputs_in_a_cyclic_order_are_put_into_the_tasks(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    """A swap is its own inverse and can't tell an order from its inverse; a cycle of three can."""
    task, cache = three_classes(tmp_path, "meh", {}), tmp_path / "cache"
    data = load_task(task)
    assert data.label_names == ("meh", "neg", "pos")
    settings = TeacherSettings(model=tiny("bert"), training=TRAINING)
    original = prepare_teacher(task, settings, cache)
    expected = teacher_logits(original, data, cache=cache)
    names = ["pos", "meh", "neg"]
    folder = checkpoint(original.folder, tmp_path / "cycle", outputs=(2, 0, 1), names=names)
    teacher = prepare_teacher(task, from_checkpoint(folder), cache)
    np.testing.assert_allclose(teacher_logits(teacher, data, cache=cache), expected, atol=1e-4)

    # Without names the error gives the order that `labels` needs.
    name_outputs(folder, [f"LABEL_{i}" for i in range(3)])
    with pytest.raises(TeacherError, match=r"as \[pos, meh, neg\]"):
        prepare_teacher(task, from_checkpoint(folder), cache)
    named = prepare_teacher(task, from_checkpoint(folder, labels=names), cache)
    np.testing.assert_allclose(teacher_logits(named, data, cache=cache), expected, atol=1e-4)


def test_wrong_names_are_not_trusted(tiny: Callable[..., str], tmp_path: Path) -> None:
    """As of MNLI checkpoints that were saved with another task's label order.

    They are mapped by name and then judged by accuracy.
    """
    task = three_classes(
        tmp_path,
        "neutral",
        {"neg": "contradiction", "pos": "entailment"},
        labels=["entailment", "neutral", "contradiction"],
    )
    data, cache = load_task(task), tmp_path / "cache"
    settings = TeacherSettings(model=tiny("bert"), training=TRAINING)
    original = prepare_teacher(task, settings, cache)
    right = ["contradiction", "entailment", "neutral"]
    wrong = ["neutral", "entailment", "contradiction"]
    folder = checkpoint(original.folder, tmp_path / "wrong", outputs=(2, 0, 1), names=wrong)
    with pytest.raises(
        TeacherError, match=r"as \[contradiction, entailment, neutral\] accuracy would be"
    ):
        prepare_teacher(task, from_checkpoint(folder), cache)
    corrected = prepare_teacher(task, from_checkpoint(folder, labels=right), cache)
    assert corrected.validation["accuracy"] == pytest.approx(original.validation["accuracy"])
    np.testing.assert_allclose(
        teacher_logits(corrected, data, cache=cache),
        teacher_logits(original, data, cache=cache),
        atol=1e-4,
    )


def test_names_that_say_nothing_are_taken_as_the_tasks_order_when_accuracy_agrees(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    folder = checkpoint(fine_tuned.teacher.folder, tmp_path / "x")
    teacher = prepare_teacher(fine_tuned.task, from_checkpoint(folder), tmp_path)
    assert teacher.validation == pytest.approx(fine_tuned.teacher.validation, abs=1e-5)


def test_swapped_outputs_without_names_are_refused_until_labels_gives_the_order(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    folder = checkpoint(fine_tuned.teacher.folder, tmp_path / "x", outputs=(1, 0))
    match = r"another order: as \[pos, neg\] accuracy would be (0\.9\d\d|1\.000); set teacher"
    with pytest.raises(TeacherError, match=match):
        prepare_teacher(fine_tuned.task, from_checkpoint(folder), tmp_path)
    teacher = prepare_teacher(
        fine_tuned.task, from_checkpoint(folder, labels=["pos", "neg"]), tmp_path
    )
    assert teacher.validation == pytest.approx(fine_tuned.teacher.validation, abs=1e-5)


def test_labels_of_another_task_are_refused(
    fine_tuned: FineTuned, tmp_path: Path, tiny: Callable[..., str]
) -> None:
    folder = checkpoint(fine_tuned.teacher.folder, tmp_path / "x", names=["cat", "dog"])
    match = r"its labels \(cat, dog\) are not the task's \(neg, pos\)"
    with pytest.raises(TeacherError, match=match):
        prepare_teacher(fine_tuned.task, from_checkpoint(folder), tmp_path)
    with pytest.raises(TeacherError, match=r"has 3 labels, the task 2 \(neg, pos\)"):
        prepare_teacher(fine_tuned.task, from_checkpoint(Path(tiny("bert", labels=3))), tmp_path)
    with pytest.raises(TeacherError, match=r"teacher.labels: its labels \(good, bad\) are not"):
        good_and_bad = from_checkpoint(folder, labels=["good", "bad"])
        prepare_teacher(fine_tuned.task, good_and_bad, tmp_path)


def test_rows_longer_than_the_checkpoint_reads_are_refused(
    fine_tuned: FineTuned, tmp_path: Path
) -> None:
    folder = checkpoint(fine_tuned.teacher.folder, tmp_path / "x", names=["neg", "pos"])
    settings = TeacherSettings(checkpoint=str(folder), training={"max_length": 128})
    with pytest.raises(ModelError, match="128 tokens are more than the 64"):
        prepare_teacher(fine_tuned.task, settings, tmp_path)


def test_its_facts_say_how_sure_it_is_on_train_how_calibrated_and_how_quick(
    fine_tuned: FineTuned,
) -> None:
    teacher, data = fine_tuned.teacher, load_task(fine_tuned.task)
    logits = teacher_logits(teacher, data, cache=fine_tuned.cache).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    margin = np.abs(probabilities[:, 0] - probabilities[:, 1]).mean()
    entropy = -(probabilities * np.log(probabilities)).sum(axis=1).mean()
    assert teacher.margin == pytest.approx(margin, abs=1e-9)
    assert teacher.entropy == pytest.approx(entropy, abs=1e-9)
    assert 0 <= teacher.validation["ece"] <= 1
    assert teacher.latency_p95_ms is not None
    assert teacher.latency_p95_ms >= teacher.latency_ms > 0
    facts = json.loads((teacher.folder / "teacher.json").read_text())
    assert (facts["margin"], facts["entropy"]) == (teacher.margin, teacher.entropy)
    assert facts["latency_p95_ms"] == teacher.latency_p95_ms
