"""Scores of many students on weighted rows: how test scores vary when rows are resampled.

Each function prepares what it can once, for the labels and every student's predictions, and
returns a function of weights. A weight is how often a row was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

# Weights [draws, rows] -> the score of each student for each draw, [students, draws].
WeightedScores = Callable[[np.ndarray], np.ndarray]
# Confusion matrices [..., true, predicted] -> scores [...].
ScoreOfConfusion = Callable[[np.ndarray], np.ndarray]


def share_right(labels: np.ndarray, predicted: Sequence[np.ndarray]) -> WeightedScores:
    """The share of rows that are right as a whole."""
    by_student = [(one == labels).reshape(len(labels), -1).all(axis=1) for one in predicted]
    right = np.stack(by_student).astype(np.float64)
    return lambda weights: np.asarray(right @ weights.T / weights.sum(axis=1))


def correlations(
    labels: np.ndarray, predicted: Sequence[np.ndarray], *, ranks: bool
) -> WeightedScores:
    """Pearson's coefficient, or Spearman's with `ranks`; 0 if one of the two never varies."""
    exact = [np.asarray(values, dtype=np.float64) for values in (labels, *predicted)]
    ranked = [_weighted_ranks(values) for values in exact] if ranks else None

    def scores(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1, keepdims=True)
        if ranked is not None:
            values = [rank(weights) for rank in ranked]
        else:
            values = [np.broadcast_to(one, weights.shape) for one in exact]
        true, *given = (one - (weights * one).sum(axis=1, keepdims=True) / total for one in values)
        own = (weights * true**2).sum(axis=1)
        return np.array(
            [
                _ratio(
                    (weights * true * one).sum(axis=1),
                    np.sqrt(own * (weights * one**2).sum(axis=1)),
                )
                for one in given
            ]
        )

    return scores


def _weighted_ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weights [draws, rows] -> each row's rank among those drawn, [draws, rows].

    Ties share the mean of their ranks. A row that is drawn twice ties with itself.
    """
    order = np.argsort(values, kind="stable")
    # Where each run of equal values starts.
    starts = np.flatnonzero(np.diff(values[order], prepend=np.nan) != 0)
    tie = np.empty(len(values), dtype=np.int64)
    tie[order] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(values)))

    def ranks(weights: np.ndarray) -> np.ndarray:
        counts = np.add.reduceat(weights[:, order], starts, axis=1)
        found: np.ndarray = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, tie]
        return found

    return ranks


def f1_of_labels(
    labels: np.ndarray, predicted: Sequence[np.ndarray], *, macro: bool
) -> WeightedScores:
    """F1 over all labels of all rows together, or the mean over labels of each one's F1.

    labels and predicted: 0 and 1, [rows, labels].
    """
    true = labels.astype(np.float64)
    given = [one.astype(np.float64) for one in predicted]

    def scores(weights: np.ndarray) -> np.ndarray:
        # Each part is [draws, labels].
        parts = [(2 * (weights @ (true * one)), weights @ true + weights @ one) for one in given]
        if macro:
            return np.array([_ratio(right, both).mean(axis=1) for right, both in parts])
        return np.array([_ratio(right.sum(axis=1), both.sum(axis=1)) for right, both in parts])

    return scores


def of_confusions(
    labels: np.ndarray, predicted: Sequence[np.ndarray], score: ScoreOfConfusion
) -> WeightedScores:
    """A score that is computed from confusion matrices. labels: class numbers [rows]."""
    confusions = _weighted_confusions(labels.astype(np.int64), np.stack(predicted).astype(np.int64))
    return lambda weights: score(confusions(weights))


def _weighted_confusions(
    labels: np.ndarray, predicted: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Weights -> confusion matrices [students, draws, true, predicted].

    predicted: [students, rows]. Only wrong predictions are counted, because they are fewest; the
    right ones are what is left of each class.
    """
    from scipy import sparse

    classes = 1 + max(1, int(labels.max()), int(predicted.max()))
    students, rows = predicted.shape
    student, row = np.nonzero(predicted != labels)
    cell = (student * classes + labels[row]) * classes + predicted[student, row]
    shape = (students * classes * classes, rows)
    wrong = sparse.csr_matrix((np.ones(len(row)), (cell, row)), shape=shape)
    true = sparse.csr_matrix((np.ones(rows), (labels, np.arange(rows))), shape=(classes, rows))
    diagonal = np.arange(classes)

    def confusions(weights: np.ndarray) -> np.ndarray:
        flat = np.asarray(wrong @ weights.T)
        counts = flat.reshape(students, classes, classes, len(weights)).transpose(0, 3, 1, 2).copy()
        counts[:, :, diagonal, diagonal] = np.asarray(true @ weights.T).T - counts.sum(axis=-1)
        return counts

    return confusions


# --- scores of confusion matrices [..., true, predicted] ---------------------------------------


def f1_of(confusion: np.ndarray) -> np.ndarray:
    """F1 of class 1."""
    both = confusion.sum(axis=-1)[..., 1] + confusion.sum(axis=-2)[..., 1]
    return _ratio(2 * confusion[..., 1, 1], both)


def f1_macro_of(confusion: np.ndarray) -> np.ndarray:
    """The mean F1 of all classes that are true or predicted anywhere."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    present = both > 0
    return _ratio((_ratio(2 * right, both) * present).sum(axis=-1), present.sum(axis=-1))


def matthews_of(confusion: np.ndarray) -> np.ndarray:
    true = confusion.sum(axis=-1)
    given = confusion.sum(axis=-2)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = true.sum(axis=-1)
    covariance = right.sum(axis=-1) * total - (true * given).sum(axis=-1)
    variances = (total**2 - (true**2).sum(axis=-1)) * (total**2 - (given**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(variances))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """0 if the denominator is 0."""
    zeros = np.zeros_like(np.asarray(above, dtype=float))
    return np.divide(above, below, out=zeros, where=below > 0)
