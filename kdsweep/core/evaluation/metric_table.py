"""The metrics a task may have: a table, which installed packages can extend.

A package adds a metric with an entry point in the group `kdsweep.metrics` that names a `Metric`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from kdsweep.core.evaluation import weighted_scores
from kdsweep.core.evaluation.metric import Metric
from kdsweep.core.evaluation.weighted_scores import WeightedScores
from kdsweep.core.plugins import METRICS_GROUP, load_plugin, plugin_names
from kdsweep.core.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import TaskKind


def metric_named(name: str) -> Metric:
    """The metric that `task.metric` names. Raises KeyError for an unknown one."""
    if name in METRICS:
        return METRICS[name]
    return load_plugin(METRICS_GROUP, name, Metric)


def known_metrics() -> list[str]:
    """All that can be named: kdsweep's own first, then those of installed packages."""
    return [*METRICS, *(name for name in plugin_names(METRICS_GROUP) if name not in METRICS)]


def metrics_for(kind: TaskKind) -> tuple[str, ...]:
    """kdsweep's own metrics for a kind of task."""
    return tuple(name for name, metric in METRICS.items() if kind.name in metric.kinds)


# --- plain scores of one student: (labels, predicted) -> score ---------------------------------


def _accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predicted))


def _f1(labels: np.ndarray, predicted: np.ndarray, *, average: str) -> float:
    """`binary` is F1 of class 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average=average, pos_label=1, zero_division=0.0))


def _matthews(labels: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def _correlation(labels: np.ndarray, predicted: np.ndarray, *, ranks: bool) -> float:
    """0 if one of the two never varies."""
    from scipy.stats import pearsonr, spearmanr

    if np.ptp(labels) == 0 or np.ptp(predicted) == 0:
        return 0.0
    correlate = spearmanr if ranks else pearsonr
    return float(correlate(labels.astype(np.float64), predicted.astype(np.float64)).statistic)


# --- kdsweep's own metrics ---------------------------------------------------------------------


def _own(
    name: str,
    kinds: tuple[TaskKind, ...],
    exact: Callable[[np.ndarray, np.ndarray], float],
    prepared: Callable[[np.ndarray, Sequence[np.ndarray]], WeightedScores],
    *,
    lowest: float = 0.0,
    mean_of: tuple[str, ...] = (),
) -> Metric:
    def weighted(labels: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        scores: np.ndarray = prepared(labels, [predicted])(weights)[0]
        return scores

    names = tuple(kind.name for kind in kinds)
    return Metric(name, names, lowest, 1.0, weighted, exact, prepared, mean_of)


def _mean(name: str, kinds: tuple[TaskKind, ...], parts: tuple[str, str], lowest: float) -> Metric:
    """What GLUE's leaderboard takes for a task of two metrics: their mean."""

    def exact(labels: np.ndarray, predicted: np.ndarray) -> float:
        return sum(METRICS[part].score(labels, predicted) for part in parts) / 2

    def prepared(labels: np.ndarray, predicted: Sequence[np.ndarray]) -> WeightedScores:
        each = [METRICS[part].of_students(labels, predicted) for part in parts]
        return lambda weights: np.mean([scores(weights) for scores in each], axis=0)

    return _own(name, kinds, exact, prepared, lowest=lowest, mean_of=parts)


def _of_confusions(score: weighted_scores.ScoreOfConfusion) -> Callable[..., WeightedScores]:
    return partial(weighted_scores.of_confusions, score=score)


def _f1_macro(labels: np.ndarray, predicted: Sequence[np.ndarray]) -> WeightedScores:
    """Of classes, or of several labels a row."""
    if labels.ndim == 2:
        return weighted_scores.f1_of_labels(labels, predicted, macro=True)
    return weighted_scores.of_confusions(labels, predicted, weighted_scores.f1_macro_of)


_CLASSES = (CLASSIFICATION,)
_LABELS = (MULTI_LABEL,)
_NUMBERS = (REGRESSION,)
# The order is that in which messages list them.
_OWN = (
    _own("accuracy", _CLASSES, _accuracy, weighted_scores.share_right),
    _own(
        "f1",
        _CLASSES,
        partial(_f1, average="binary"),
        _of_confusions(weighted_scores.f1_of),
    ),
    _own(
        "f1_micro",
        _LABELS,
        partial(_f1, average="micro"),
        partial(weighted_scores.f1_of_labels, macro=False),
    ),
    _own("f1_macro", (*_CLASSES, *_LABELS), partial(_f1, average="macro"), _f1_macro),
    _own("subset_accuracy", _LABELS, _accuracy, weighted_scores.share_right),
    _own(
        "matthews",
        _CLASSES,
        _matthews,
        _of_confusions(weighted_scores.matthews_of),
        lowest=-1.0,
    ),
    _mean("accuracy_and_f1", _CLASSES, ("accuracy", "f1"), 0.0),
    _own(
        "pearson",
        _NUMBERS,
        partial(_correlation, ranks=False),
        partial(weighted_scores.correlations, ranks=False),
        lowest=-1.0,
    ),
    _own(
        "spearman",
        _NUMBERS,
        partial(_correlation, ranks=True),
        partial(weighted_scores.correlations, ranks=True),
        lowest=-1.0,
    ),
    _mean("pearson_and_spearman", _NUMBERS, ("pearson", "spearman"), -1.0),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _OWN}
