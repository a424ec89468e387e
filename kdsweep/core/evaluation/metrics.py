"""The task's metric, and what else is measured."""

from __future__ import annotations

import numpy as np

from kdsweep.core.evaluation.metric_table import metric_named, metrics_for
from kdsweep.core.tasks.base import TaskKind

CALIBRATION_BINS = 15


def score_logits(
    metric: str, labels: np.ndarray, logits: np.ndarray, kind: TaskKind
) -> dict[str, float]:
    """`loss`, the task's metric, and those that are reported besides it.

    labels: the kind's. logits: [rows, outputs]. With probabilities there is also `ece`, the
    `calibration_error`.
    """
    predicted = kind.predictions(logits)
    chosen = metric_named(metric)
    beside = kind.judged_beside(chosen, metrics_for(kind))
    beside = tuple(name for name in beside if not metric_named(name).mean_of)
    names = dict.fromkeys((*beside, metric))
    judged = {"loss": kind.loss(labels, logits)}
    judged |= {name: metric_named(name).score(labels, predicted) for name in names}
    if kind.has_probabilities:
        probabilities = kind.probabilities(logits)
        judged["ece"] = calibration_error(kind.chosen_options(labels), probabilities)
    return judged


def by_split(judged: dict[str, dict[str, float]]) -> dict[str, float]:
    """The metrics of test under their own names, those of other splits as `SPLIT/accuracy`."""
    return {
        (metric if split == "test" else f"{split}/{metric}"): value
        for split, found in judged.items()
        for metric, value in found.items()
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: how far confidence is from accuracy.

    labels: [rows]. probabilities: [rows, classes]. Confidence is the probability of the
    prediction. The bins are (0, 1/15], (1/15, 2/15], ..., each weighted by its number of rows.
    Guo, Pleiss, Sun, Weinberger (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    # A bin's gap times its rows is the difference of two sums over those rows.
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels))
