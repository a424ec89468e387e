"""Metrics, and what a teacher must beat, in regression and multi-label tasks. Values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdsweep.core.evaluation.fidelity import fidelity, sureness
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import TaskKind
from kdsweep.core.tasks.floor import ValidationLogits
from kdsweep.errors import TeacherError

VALUES = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
SETS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)


def score(metric: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    return metric_named(metric).score(labels, predicted)


def check_floor(
    kind: TaskKind,
    metric: str,
    labels: np.ndarray,
    names: tuple[str, ...],
    logits: np.ndarray,
    *,
    is_checkpoint: bool = False,
) -> None:
    """Validation has the labels of train."""
    found = ValidationLogits(
        logits, labels, labels, names, metric_named(metric), is_checkpoint=is_checkpoint
    )
    kind.check_floor(found)


# --- metrics ---


def test_correlations_match_their_formulas_and_are_0_if_nothing_varies() -> None:
    outputs = np.array([1.0, 3.0, 2.0, 10.0], dtype=np.float32)
    # Deviations from the means 2.5 and 4: (-1.5, -0.5, 0.5, 1.5) and (-3, -1, -2, 6).
    # Ranks: 1 3 2 4.
    pearson = (4.5 + 0.5 - 1 + 9) / math.sqrt(5 * 50)
    spearman = 1 - 6 * (0 + 1 + 1 + 0) / (4 * (16 - 1))
    assert score("pearson", VALUES, outputs) == pytest.approx(pearson)
    assert score("spearman", VALUES, outputs) == pytest.approx(spearman)
    assert score("pearson_and_spearman", VALUES, outputs) == pytest.approx((pearson + spearman) / 2)
    assert score("pearson", VALUES, np.ones(4)) == score("spearman", VALUES, np.ones(4)) == 0.0


def test_multi_label_metrics_match_their_formulas() -> None:
    outputs = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])
    # First label: 2 of 2 found; second: 1 of 1; third: 0 of 1, and 1 predicted wrongly. The second
    # and the last row are right.
    assert score("f1_micro", SETS, outputs) == pytest.approx(2 * 3 / (4 + 4))
    assert score("f1_macro", SETS, outputs) == pytest.approx((1 + 1 + 0) / 3)
    assert score("subset_accuracy", SETS, outputs) == 2 / 4


def test_a_mean_of_two_metrics_is_reported_with_both() -> None:
    labels, logits = np.array([0, 1, 1, 1]), np.array([[1.0, 0], [0, 1.0], [0, 1.0], [1.0, 0]])
    judged = score_logits("accuracy_and_f1", labels, logits, CLASSIFICATION)
    assert (judged["accuracy"], judged["f1"]) == (0.75, pytest.approx(0.8))
    assert judged["accuracy_and_f1"] == pytest.approx((0.75 + 0.8) / 2)
    assert set(score_logits("f1", labels, logits, CLASSIFICATION)) == {
        "loss",
        "accuracy",
        "f1",
        "ece",
    }


def test_a_regression_has_no_metrics_of_classes() -> None:
    logits = np.array([[1.0], [3.0], [2.0], [10.0]], dtype=np.float32)
    judged = score_logits("pearson", VALUES, logits, REGRESSION)
    assert set(judged) == {"loss", "pearson", "spearman"}
    assert judged["loss"] == pytest.approx((0 + 1 + 1 + 36) / 4)
    assert set(score_logits("pearson_and_spearman", VALUES, logits, REGRESSION)) == {
        "loss",
        "pearson",
        "spearman",
        "pearson_and_spearman",
    }
    assert fidelity(logits, logits + 2, REGRESSION) == {"teacher_mse": pytest.approx(4.0)}
    assert sureness(logits, REGRESSION) == {}


def test_multi_label_metrics_count_each_label_as_one_choice() -> None:
    # Probabilities 3/4 and 1/4.
    logits = np.array([[math.log(3), -math.log(3)]], dtype=np.float32)
    judged = score_logits("f1_micro", np.array([[1, 1]], dtype=np.float32), logits, MULTI_LABEL)
    assert set(judged) == {"loss", "f1_micro", "f1_macro", "subset_accuracy", "ece"}
    assert judged["loss"] == pytest.approx((-math.log(3 / 4) - math.log(1 / 4)) / 2)
    # Both predictions have confidence 0.75, and one of them is right.
    assert judged["ece"] == pytest.approx(0.75 - 0.5)
    found = fidelity(logits, np.zeros((1, 2), dtype=np.float32), MULTI_LABEL)
    assert fidelity(logits, np.ones((1, 2), dtype=np.float32), MULTI_LABEL)["agreement"] == 1 / 2
    assert found["teacher_kl"] == pytest.approx(
        math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    )
    assert sureness(logits, MULTI_LABEL)["margin"] == pytest.approx(0.5)


def test_predictions_have_the_shape_of_the_kinds_labels() -> None:
    logits = np.array([[-1.0, 0.0, 2.0]])
    assert CLASSIFICATION.predictions(logits).tolist() == [2]
    assert REGRESSION.predictions(logits).tolist() == [-1.0]
    # Yes from a probability of one half.
    assert MULTI_LABEL.predictions(logits).tolist() == [[0, 1, 1]]


# --- what a teacher must beat ---


def test_a_regression_teacher_must_beat_the_mean_of_train() -> None:
    draw = np.random.default_rng(0)
    labels = draw.uniform(0, 5, 400).astype(np.float32)
    names = ("score",)
    check_floor(REGRESSION, "pearson", labels, names, (labels + draw.normal(0, 1, 400))[:, None])
    with pytest.raises(
        TeacherError, match="always answering with the mean of train .* nothing to teach"
    ):
        check_floor(REGRESSION, "pearson", labels, names, np.full((400, 1), labels.mean()))
    with pytest.raises(
        TeacherError, match=r"\(0\.\d+ to 0\.\d+\) go with the labels .* another scale"
    ):
        check_floor(REGRESSION, "pearson", labels, names, labels[:, None] / 5.5, is_checkpoint=True)
    # One that was fine-tuned on these labels has only learned too little so far.
    with pytest.raises(TeacherError, match="train it for longer"):
        check_floor(REGRESSION, "pearson", labels, names, labels[:, None] / 5.5)


def test_a_multi_label_teacher_must_beat_the_majority_of_each_label() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((300, 2)) < [0.8, 0.3]).astype(np.float32)
    names = ("a", "b")
    check_floor(MULTI_LABEL, "f1_micro", labels, names, 4 * labels - 2)
    with pytest.raises(TeacherError, match="doesn't clearly beat the majority"):
        check_floor(MULTI_LABEL, "f1_micro", labels, names, np.tile([2.0, -2.0], (300, 1)))
