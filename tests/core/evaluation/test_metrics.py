"""Metrics match their formulas, and logits come in the order of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sentences

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Split
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation import latency as latency_module
from kdsweep.core.evaluation.fidelity import fidelity, sureness
from kdsweep.core.evaluation.latency import latency
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.evaluation.metrics import calibration_error, score_logits
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.loading import load_classifier, load_tokenizer
from kdsweep.core.tasks import CLASSIFICATION

LABELS = np.array([0, 0, 0, 1, 1, 1, 1, 1])
# Class 1: 4 right, 1 too many, 1 missed. Class 0: 2 right.
PREDICTED = np.array([0, 1, 0, 1, 1, 0, 1, 1])


def score(metric: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    return metric_named(metric).score(labels, predicted)


def test_each_metric_matches_its_formula() -> None:
    assert score("accuracy", LABELS, PREDICTED) == 6 / 8
    assert score("f1", LABELS, PREDICTED) == pytest.approx(2 * 4 / (2 * 4 + 1 + 1))
    assert score("f1_macro", LABELS, PREDICTED) == pytest.approx(
        (8 / 10 + 2 * 2 / (2 * 2 + 1 + 1)) / 2
    )
    assert score("matthews", LABELS, PREDICTED) == pytest.approx(
        (4 * 2 - 1 * 1) / math.sqrt(5 * 5 * 3 * 3)
    )


def test_f1_and_matthews_are_0_if_all_predictions_are_the_same() -> None:
    assert score("f1", LABELS, np.zeros(8, dtype=int)) == 0.0
    assert score("matthews", LABELS, np.ones(8, dtype=int)) == 0.0


def test_the_loss_is_the_mean_cross_entropy_and_finite_for_extreme_logits() -> None:
    logits = np.array([[0.0, math.log(3)], [math.log(3), 0.0], [20.0, 0.0]], dtype=np.float32)
    judged = score_logits("matthews", np.array([1, 1, 0]), logits, CLASSIFICATION)
    assert judged["loss"] == pytest.approx(
        (-math.log(3 / 4) - math.log(1 / 4) + math.log1p(math.exp(-20))) / 3, rel=1e-6
    )
    assert judged["accuracy"] == pytest.approx(2 / 3)
    assert set(judged) == {"loss", "accuracy", "matthews", "ece"}
    assert math.isfinite(
        score_logits(
            "accuracy", np.array([0]), np.array([[-1e4, 1e4]], dtype=np.float32), CLASSIFICATION
        )["loss"]
    )


def test_a_class_without_validation_rows_does_not_lower_f1_macro() -> None:
    assert (
        score_logits(
            "f1_macro",
            np.array([0, 1]),
            np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]),
            CLASSIFICATION,
        )["f1_macro"]
        == 1.0
    )


def test_logits_come_in_the_order_of_the_rows_and_the_model_is_unchanged(
    tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small enough for many batches.
    tokens_a_batch = {"cpu": 64, "cuda": 64}
    monkeypatch.setattr("kdsweep.core.evaluation.predict.TOKENS_A_BATCH", tokens_a_batch)
    model, tokenizer = load_classifier(tiny("bert"), ("a", "b", "c")), load_tokenizer(tiny("bert"))
    texts = [text for text, _ in sentences(40)]
    tokens = tokenize_split(
        Split("x", (texts,), np.zeros(40, dtype=np.int64), "x"),
        tokenizer,
        InputFormat(24, token_types=False),
        cache=tmp_path,
    )
    model.train()
    before = torch.get_rng_state()
    logits = predict(model, tokens, torch.float32)
    measured = latency(model, tokens)
    assert 0 < measured["latency_ms"] <= measured["latency_p95_ms"]
    assert model.training and torch.equal(before, torch.get_rng_state())
    model.eval()
    with torch.no_grad():
        one_by_one = torch.cat(
            [model(**tokenizer(text, return_tensors="pt")).logits for text in texts]
        ).numpy()
    assert logits.dtype == np.float32 and logits.shape == (40, 3)
    np.testing.assert_allclose(logits, one_by_one, atol=1e-5)


def test_latency_takes_20_runs_of_a_slow_model_and_60_of_a_fast_one(
    monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., str], tmp_path: Path
) -> None:
    model, tokenizer = load_classifier(tiny("bert"), ("a", "b")), load_tokenizer(tiny("bert"))
    tokens = tokenize_split(
        Split("x", (["fine film"] * 3,), np.zeros(3, dtype=np.int64), "x"),
        tokenizer,
        InputFormat(24, token_types=False),
        cache=tmp_path,
    )
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(latency_module, "LATENCY_SECONDS", 60.0)
    latency(model, tokens)
    assert len(calls) == 3 + 60
    calls.clear()
    monkeypatch.setattr(latency_module, "LATENCY_SECONDS", 0.0)
    latency(model, tokens)
    assert len(calls) == 3 + 20


# --- calibration, fidelity and confidence ---


def test_the_calibration_error_is_the_mean_gap_of_the_bins_weighted_by_rows() -> None:
    # Bins are 1/15 wide. Confidence 0.70, 0.72: bin (10/15, 11/15], 1 of 2 right, gap |0.5 - 0.71|.
    # 0.95, 0.98, 1.0: bin (14/15, 1], 2 of 3 right, gap |2/3 - 2.93/3|.
    # 0.52: bin (7/15, 8/15], right, gap 0.48.
    confidence = np.array([0.70, 0.72, 0.95, 0.98, 1.0, 0.52])
    right = np.array([1, 0, 1, 1, 0, 1])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    expected = (2 * abs(1 / 2 - 1.42 / 2) + 3 * abs(2 / 3 - 2.93 / 3) + 1 * abs(1 - 0.52)) / 6
    assert calibration_error(1 - right, probabilities) == pytest.approx(expected, abs=1e-12)


def test_a_bin_includes_its_upper_edge() -> None:
    # 9/15 is the upper edge of its bin, so these rows are in two bins, with gaps 0.4 and 0.62. In
    # one bin the gaps would cancel.
    probabilities = np.array([[9 / 15, 6 / 15], [0.62, 0.38]])
    assert calibration_error(np.array([0, 1]), probabilities) == pytest.approx(
        (0.4 + 0.62) / 2, abs=1e-12
    )


def test_confident_predictions_are_calibrated_if_right_and_not_if_wrong() -> None:
    sure = np.array([[30.0, -30.0], [-30.0, 30.0]])
    assert score_logits("accuracy", np.array([0, 1]), sure, CLASSIFICATION)["ece"] == pytest.approx(
        0, abs=1e-12
    )
    assert score_logits("accuracy", np.array([1, 0]), sure, CLASSIFICATION)["ece"] == pytest.approx(
        1, abs=1e-12
    )
    # Confidence is one third, and one third is right.
    undecided = score_logits("accuracy", np.array([1, 0, 2]), np.zeros((3, 3)), CLASSIFICATION)
    assert undecided["ece"] == pytest.approx(0, abs=1e-12)


def test_fidelity_is_the_agreement_and_the_mean_divergence_from_the_teacher() -> None:
    # Probabilities of the teacher: (3/4, 1/4) and (1/2, 1/2). Of the student: (1/2, 1/2) and
    # (1/4, 3/4). A tie predicts the first class.
    teacher, student = np.log([[3.0, 1.0], [1.0, 1.0]]), np.log([[1.0, 1.0], [1.0, 3.0]])
    found = fidelity(teacher.astype(np.float32), student.astype(np.float32), CLASSIFICATION)
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    second = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found == {"agreement": 0.5, "teacher_kl": pytest.approx((first + second) / 2, abs=1e-7)}
    # Only the differences between logits count.
    assert fidelity(teacher, teacher + 5.0, CLASSIFICATION) == {
        "agreement": 1.0,
        "teacher_kl": pytest.approx(0, abs=1e-12),
    }
    assert math.isfinite(
        fidelity(np.array([[1e4, -1e4]]), np.array([[-1e4, 1e4]]), CLASSIFICATION)["teacher_kl"]
    )


def test_sureness_is_the_mean_margin_and_the_mean_entropy() -> None:
    # Probabilities: (4/8, 1/8, 3/8), and one third each.
    found = sureness(np.log([[4.0, 1.0, 3.0], [1.0, 1.0, 1.0]]), CLASSIFICATION)
    entropy = -(4 / 8 * math.log(4 / 8) + 3 / 8 * math.log(3 / 8) + 1 / 8 * math.log(1 / 8))
    assert found == pytest.approx(
        {"margin": (1 / 8 + 0) / 2, "entropy": (entropy + math.log(3)) / 2}, abs=1e-12
    )
    assert sureness(np.array([[1e4, -1e4]], dtype=np.float32), CLASSIFICATION) == pytest.approx(
        {"margin": 1.0, "entropy": 0.0}, abs=1e-12
    )
