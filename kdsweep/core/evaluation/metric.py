"""What a metric is. `metric_table` lists them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.core.evaluation.weighted_scores import WeightedScores


@dataclass(frozen=True)
class Metric:
    """One metric. Higher is better.

    weighted(labels, predicted, weights): the score for each draw, [draws]. labels and predicted
    have the shape of the kind's labels, [rows, ...]; weights [draws, rows] say how often each row
    was drawn. Weights of 1 give the plain score.
    kinds: the names of the kinds of tasks that it fits.
    exact: the plain score, if it is computed in another way.
    prepared: the same as `weighted` for many students at once, if that can be faster.
    mean_of: the metrics that this one averages. They are reported too.
    """

    name: str
    kinds: tuple[str, ...]
    lowest: float
    highest: float
    weighted: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    exact: Callable[[np.ndarray, np.ndarray], float] | None = None
    prepared: Callable[[np.ndarray, Sequence[np.ndarray]], WeightedScores] | None = None
    mean_of: tuple[str, ...] = ()

    def score(self, labels: np.ndarray, predicted: np.ndarray) -> float:
        """The plain score of one student."""
        if self.exact is not None:
            return self.exact(labels, predicted)
        return float(self.weighted(labels, predicted, np.ones((1, len(labels))))[0])

    def of_students(self, labels: np.ndarray, predicted: Sequence[np.ndarray]) -> WeightedScores:
        """Weights [draws, rows] -> scores [students, draws]."""
        if self.prepared is not None:
            return self.prepared(labels, predicted)
        return lambda weights: np.stack([self.weighted(labels, one, weights) for one in predicted])
