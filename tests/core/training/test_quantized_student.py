"""A student with 8-bit weights trains as any other, and its result is that of the 8-bit weights."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.file_costs import INT8_FILE
from kdsweep.core.evaluation.onnx_format import OnnxModel
from kdsweep.core.evaluation.quantized import quantize_saved
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.settings import Quantize
from kdsweep.core.trial_folder import TrialFolder, TrialResult
from kdsweep.errors import Interrupted
from kdsweep.serving import load, write_settings

pytestmark = pytest.mark.slow

TRAINING = {"epochs": 2, "batch_size": 16, "max_length": 24, "precision": "fp32"}


def settings_for(plain_trial: dict[str, Any], quantize: str) -> TrialSettings:
    student = plain_trial["student"] | {"quantize": quantize}
    changes = {"alpha": 1.0, "training": TRAINING, "student": student, "judge_test": True}
    return TrialSettings.model_validate(plain_trial | changes)


def trained(settings: TrialSettings, folder: Path, cache: Path) -> TrialResult:
    list(train(settings, folder, cache=cache, latency={"latency_ms": 1.0}))
    result = TrialFolder(folder).read_result()
    assert result is not None
    return result


@pytest.fixture(scope="module")
def complete(
    plain_trial: dict[str, Any], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], TrialFolder]:
    """complete(quantize): a trial that is complete and that no test changes."""

    def train_one(quantize: str) -> TrialFolder:
        root = tmp_path_factory.mktemp(quantize) / "trial"
        trained(settings_for(plain_trial, quantize), root, cache)
        return TrialFolder(root)

    return train_one


@pytest.fixture(scope="module")
def folder(complete: Callable[[str], TrialFolder]) -> TrialFolder:
    return complete("int8")


@pytest.fixture(scope="module")
def float_folder(complete: Callable[[str], TrialFolder]) -> TrialFolder:
    return complete("none")


def result_of(folder: TrialFolder) -> TrialResult:
    found = folder.read_result()
    assert found is not None and found.best is not None
    return found


def test_its_learning_curve_is_that_of_the_float_student(
    folder: TrialFolder, float_folder: TrialFolder
) -> None:
    own, other = folder.read_evaluations(), float_folder.read_evaluations()
    assert [one.metrics for one in own] == [one.metrics for one in other]
    first, second = (one.read_evaluation_predictions() for one in (folder, float_folder))
    assert first is not None and second is not None
    np.testing.assert_array_equal(first[1], second[1])


def test_its_result_is_what_the_saved_file_predicts(
    folder: TrialFolder, float_folder: TrialFolder, cache: Path
) -> None:
    result = result_of(folder)
    settings = folder.read_settings()
    file = OnnxModel(folder.student / INT8_FILE)
    data = load_task(settings.task)
    tokenizer = load_tokenizer(str(folder.student))
    logits = {
        name: file.predict(tokenize_split(split, tokenizer, InputFormat(24, True), cache=cache))
        for name, split in (("validation", data.validation), ("test", data.test))
    }
    np.testing.assert_array_equal(folder.read_test_logits(), logits["test"])
    predicted = folder.read_validation_predictions()
    assert predicted is not None
    np.testing.assert_array_equal(predicted.predictions, logits["validation"].argmax(axis=1))
    metric = f"validation/{settings.task.metric}"
    assert result.best is not None and result.student is not None and result.test is not None
    assert result.best.metrics[metric] == np.mean(predicted.predictions == predicted.labels)
    assert result.student["size_mb"] == file.file.stat().st_size / 1e6
    # The loss moves with every weight, where accuracy on some rows may not.
    other = result_of(float_folder)
    assert other.best is not None and other.student is not None
    assert result.best.step == other.best.step
    assert result.best.metrics["validation/loss"] != other.best.metrics["validation/loss"]
    assert result.student["parameters"] == other.student["parameters"]
    card = (folder.student / "README.md").read_text(encoding="utf-8")
    assert f"accuracy: {result.best.metrics[metric]:.4f}" in card and INT8_FILE in card


def test_one_that_was_interrupted_and_died_at_its_end_has_the_same_result(
    folder: TrialFolder, plain_trial: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    settings = settings_for(plain_trial, "int8")
    again = TrialFolder(tmp_path / "trial")
    with pytest.raises(Interrupted):
        list(train(settings, again.root, cache=cache, on_step=lambda step, total: step == 7))
    # What a process leaves that is killed while it quantizes.
    again.student.mkdir()
    again.quantizing.mkdir()
    (again.quantizing / "model_int8.onnx").write_bytes(b"half")
    for file in folder.student.iterdir():
        if file.is_file():
            (again.student / file.name).write_bytes(file.read_bytes())
    result, whole = trained(settings, again.root, cache), result_of(folder)
    assert result.best is not None and whole.best is not None
    assert result.best.metrics == whole.best.metrics
    assert (result.test, result.student) == (whole.test, whole.student)
    files = (sorted(one.rglob("*")) for one in (again.student, folder.student))
    for file, other in zip(*files, strict=True):
        assert file.relative_to(again.student) == other.relative_to(folder.student)
        assert file.is_dir() or file.read_bytes() == other.read_bytes()
    assert not again.quantizing.exists()


def test_a_full_disk_is_no_fault_of_the_model(
    folder: TrialFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What files are on the way to the quantized student is on the student's disk."""
    student, beside = tmp_path / "student", tmp_path / "beside"
    shutil.copytree(folder.student, student)
    (student / INT8_FILE).unlink()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(beside))

    def export(model: object, example: object, file: str, **rest: object) -> None:
        Path(file).write_bytes(b"half")
        assert Path(file).parent == beside
        raise RuntimeError("can't be saved") from full

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(OSError, match="No space left") as raised:
        quantize_saved(student, beside, trust_remote_code=False)
    assert raised.value is full
    assert not beside.exists() and not list((student / "onnx").iterdir())


def test_what_serves_it_uses_the_8_bit_weights(folder: TrialFolder) -> None:
    settings = folder.read_settings()
    text = settings.task.text
    served = {}
    for quantize in get_args(Quantize):
        write_settings(folder.student, text=text, max_length=24, quantize=quantize)
        served[quantize] = load(folder.student).predict(["a fine film"])["score"][0]
    assert served["int8"] != served["none"]
    assert served["int8"] == pytest.approx(served["none"], abs=0.1)
