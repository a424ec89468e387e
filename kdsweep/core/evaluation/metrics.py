"""The task's metric, and what is measured beside it."""

from __future__ import annotations

import numpy as np
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef

from kdsweep.core.settings import MEANS, METRICS, Metric
from kdsweep.core.tasks.predictions import answers, as_classes, kind_of

CALIBRATION_BINS = 15


def score(metric: Metric, labels: np.ndarray, predicted: np.ndarray) -> float:
    """The task's metric of what was answered (`answers`) against the labels, of the same shape. `f1` is that of class 1.

    A correlation with what never varies is 0.
    """
    if metric in MEANS:
        return sum(score(part, labels, predicted) for part in MEANS[metric]) / 2
    match metric:
        case "accuracy" | "subset_accuracy":  # of several labels a row, all must be right
            return float(accuracy_score(labels, predicted))
        case "f1_micro":
            return float(f1_score(labels, predicted, average="micro", zero_division=0.0))
        case "f1":
            return float(
                f1_score(labels, predicted, average="binary", pos_label=1, zero_division=0.0)
            )
        case "f1_macro":
            return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
        case "matthews":
            return float(matthews_corrcoef(labels, predicted))
        case "pearson" | "spearman":
            if np.ptp(labels) == 0 or np.ptp(predicted) == 0:
                return 0.0
            exact = labels.astype(np.float64), predicted.astype(np.float64)
            return float((pearsonr if metric == "pearson" else spearmanr)(*exact).statistic)
    raise AssertionError(metric)


def judge(metric: Metric, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """`loss`, the task's metric, and those that say something beside it: of classes accuracy and `ece` (`calibration_error`).

    The loss is the mean cross-entropy in nats, where a row may have several labels that of each; in a regression the mean squared error,
    and all its metrics are told. labels, of whichever kind (`kind_of`); logits: [rows, classes].
    """
    kind = kind_of(labels)
    predicted = answers(logits, kind)
    beside: tuple[Metric, ...] = (
        ("accuracy", *MEANS.get(metric, ())) if kind == "classification" else METRICS[kind]
    )
    told: dict[str, float] = {
        name: score(name, labels, predicted)
        for name in dict.fromkeys((*beside, metric))
        if name == metric or name not in MEANS
    }
    if kind == "regression":
        return {"loss": float(np.square(predicted.astype(np.float64) - labels).mean()), **told}
    chosen, probabilities = (
        labels.astype(np.int64).ravel(),
        np.exp(log_probabilities(as_classes(logits, kind))),
    )
    loss = float(log_loss(chosen, probabilities, labels=np.arange(probabilities.shape[1])))
    return {"loss": loss, **told, "ece": calibration_error(chosen, probabilities)}


def by_split(judged: dict[str, dict[str, float]]) -> dict[str, float]:
    """What was reached on test as it is called, and on each split beside it with that split's name before: `NAME/accuracy`."""
    return {
        (metric if split == "test" else f"{split}/{metric}"): value
        for split, found in judged.items()
        for metric, value in found.items()
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: how far confidence (the answer's probability) is from accuracy, in bins of equal width.

    labels: [rows]. probabilities: [rows, classes]. The bins are (0, 1/15], (1/15, 2/15], ...; each weighs as many rows as it has.
    Guo, Pleiss, Sun, Weinberger (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    # A bin's gap times its rows is the difference of two sums over those rows.
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels))


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax, fp64 [rows, classes]."""
    found: np.ndarray = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return found
