"""Gradient share, agreement, divergence and calibration that a trial logs.

They match their formulas for any number of accumulation steps, and after an interruption.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.batches import batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.metrics import calibration_error
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.models.student import load_student
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.training.loop import STEPS_PER_SAMPLE
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted

TRAINING = {"epochs": 2, "batch_size": 16, "max_length": 24, "evaluations_per_epoch": 1}


@pytest.fixture(scope="module")
def make(plain_trial: dict[str, Any], without_dropout: str) -> Callable[..., TrialSettings]:
    models = {
        "teacher": plain_trial["teacher"] | {"model": without_dropout},
        "student": {"model": without_dropout, "layers": 1},
    }

    def build(**changes: Any) -> TrialSettings:
        alpha = {"shape": "linear", "start": 0.1, "end": 0.9}
        return TrialSettings.model_validate(
            plain_trial | models | {"training": TRAINING, "alpha": alpha} | changes
        )

    return build


def metrics(settings: TrialSettings, folder: Path, cache: Path) -> list[dict[str, float]]:
    return [evaluation.metrics for evaluation in train(settings, folder, cache=cache)]


def softmax(row: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    powers = np.exp(row.astype(np.float64) / temperature)
    return powers / powers.sum()


def test_the_gradient_share_is_the_mean_over_every_eighth_step_and_the_last(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    """At learning rate 0 the student never changes, so the test can compute every step."""
    settings = make(
        learning_rate={"shape": "constant", "value": 0.0},
        alpha={"shape": "per_epoch", "values": [0.2, 0.6]},
    )
    found = metrics(settings, tmp_path, cache)
    assert settings.teacher is not None
    data = load_task(settings.task)
    teacher = prepare_teacher(settings.task, settings.teacher, cache)
    torch.manual_seed(settings.seed)
    model, tokenizer = load_student(settings.student, data.label_names, teacher.folder)
    tokens = tokenize_split(data.train, tokenizer, InputFormat(24, token_types=True), cache=cache)
    student_logits = predict(model, tokens, torch.float32)
    logits_of_teacher = teacher_logits(teacher, data, cache=cache)
    steps = math.ceil(len(tokens) / 16)
    for epoch, alpha in enumerate([0.2, 0.6]):
        shares = []
        for position, rows in enumerate(batches(tokens.lengths, 16, settings.seed, epoch)):
            if (epoch * steps + position) % STEPS_PER_SAMPLE and position + 1 < steps:
                continue
            task = distill = 0.0
            for row in rows:
                onehot = np.eye(2)[data.train.labels[row]]
                task += np.square(alpha * (softmax(student_logits[row]) - onehot)).sum()
                distill += np.square(
                    (1 - alpha)
                    * 3.0
                    * (softmax(student_logits[row], 3.0) - softmax(logits_of_teacher[row], 3.0))
                ).sum()
            shares.append(math.sqrt(distill) / (math.sqrt(task) + math.sqrt(distill)))
        assert 1 < len(shares) < steps
        assert found[epoch]["train/gradient_share"] == pytest.approx(np.mean(shares), rel=1e-4)


@pytest.mark.parametrize("alpha", [{"shape": "linear", "start": 0.1, "end": 0.9}, 0.0])
def test_accumulation_steps_do_not_change_the_metrics(
    alpha: Any, make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    found = [
        metrics(
            make(alpha=alpha, training=TRAINING | {"accumulation_steps": steps}),
            tmp_path / str(steps),
            cache,
        )
        for steps in (1, 4, 8)
    ]
    for other in found[1:]:
        for expected, got in zip(found[0], other, strict=True):
            for name in (
                "train/gradient_share",
                "validation/agreement",
                "validation/teacher_kl",
                "validation/ece",
            ):
                assert got[name] == pytest.approx(
                    expected[name], abs=2e-3 if name == "validation/ece" else 5e-4
                ), name


def test_the_gradient_share_is_1_at_alpha_0_and_0_at_alpha_1(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    found = metrics(make(alpha={"shape": "step", "values": [0.0, 1.0], "at": 0.5}), tmp_path, cache)
    assert [one["train/gradient_share"] for one in found] == [1.0, 0.0]
    assert all(
        0 <= one["validation/agreement"] <= 1 and one["validation/teacher_kl"] > 0 for one in found
    )


def test_fine_tuning_logs_gradient_share_0_and_calibration_but_no_agreement(
    make: Callable[..., TrialSettings], tmp_path: Path
) -> None:
    evaluations = metrics(make(alpha=1.0), tmp_path / "trial", tmp_path / "cache")
    assert not (tmp_path / "cache" / "teachers").exists()
    assert not (tmp_path / "cache" / "logits").exists()
    for found in evaluations:
        assert found["train/gradient_share"] == 0.0
        assert 0 <= found["validation/ece"] <= 1
        assert not {"validation/agreement", "validation/teacher_kl"} & found.keys()


def test_the_best_evaluation_logs_agreement_divergence_and_calibration_of_the_kept_student(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make(alpha=0.3)
    metrics(settings, tmp_path, cache)
    result, data = TrialFolder(tmp_path).read_result(), load_task(settings.task)
    assert result is not None and result.best is not None and settings.teacher is not None
    model = load_classifier(str(tmp_path / "student"), data.label_names)
    tokenizer = load_tokenizer(str(tmp_path / "student"))
    tokens = tokenize_split(
        data.validation, tokenizer, InputFormat(24, token_types=True), cache=cache
    )
    student_logits = predict(model, tokens, torch.float32)
    logits_of_teacher = teacher_logits(
        prepare_teacher(settings.task, settings.teacher, cache),
        data,
        cache=cache,
        split="validation",
    )
    divergences = []
    for row in range(len(student_logits)):
        p, q = softmax(logits_of_teacher[row]), softmax(student_logits[row])
        divergences.append((p * np.log(p / q)).sum())
    found = result.best.metrics
    assert found["validation/agreement"] == np.mean(
        logits_of_teacher.argmax(axis=1) == student_logits.argmax(axis=1)
    )
    assert found["validation/teacher_kl"] == pytest.approx(np.mean(divergences), rel=1e-5)
    assert found["validation/ece"] == pytest.approx(
        calibration_error(
            data.validation.labels, np.stack([softmax(row) for row in student_logits])
        ),
        abs=1e-6,
    )


def test_a_checkpoint_of_a_version_that_logged_fewer_metrics_resumes(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path
) -> None:
    settings = make()
    folder = TrialFolder(tmp_path / "parts")
    whole = metrics(settings, tmp_path / "whole", cache)
    with pytest.raises(Interrupted):
        list(train(settings, folder.root, cache=cache, on_step=lambda step, total: step == 3))
    state = folder.load_state()
    assert state is not None
    folder.save_state(state | {"sums": state["sums"][:3].clone()})
    found = metrics(settings, folder.root, cache)
    assert found[1:] == whole[1:]
    assert {name: value for name, value in found[0].items() if name != "train/gradient_share"} == {
        name: value for name, value in whole[0].items() if name != "train/gradient_share"
    }
    assert 0 < found[0]["train/gradient_share"] < 1
