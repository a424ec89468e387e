"""How sure a comparison on the test split is: intervals, and a verdict for every pair.

A student's score varies with its seed and with the examples that it is judged on. Both count, as
in the multi-bootstrap (Sellam et al. 2022, https://arxiv.org/abs/2106.16163). With the three to
ten seeds that people can afford, percentiles of joint draws are too narrow (few seeds) or too wide
(what belongs to one seed and one example is drawn twice). So the draws only give variances, and
each part is counted once:

    variance of a mean over k seeds = s^2 / k + V

s^2 is the variance between seeds. To draw k - 1 of k seeds again and again would give s^2 / k
exactly, so seeds needn't be drawn. V is what resampled examples, the same for all seeds, add for
all seeds alike. The interval is Student's. `tests/compare/test_statistics.py` checks by simulation
what it covers; docs/statistics.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from kdsweep.compare.findings import Estimate, Pair
from kdsweep.compare.spread import spread_of
from kdsweep.compare.verdicts import Compared, judge
from kdsweep.core.evaluation.metric_table import metric_named

WEIGHTS_AT_ONCE = 400_000  # rows x draws: they stay in the processor's cache
# A seed's index -> what the student of that seed predicted (`TaskKind.predictions`).
Predicted = Mapping[int, np.ndarray]


def mean_score(
    metric: str, labels: np.ndarray, predicted: Predicted, *, draws: int = 1000, seed: int = 0
) -> Estimate:
    """The mean of the metric over seeds (at least one) with its 95% interval.

    labels: of the test split.
    """
    students = list(predicted.values())
    exact = scores(metric, labels, students)
    if len(exact) < 2:
        return Estimate(float(exact.mean()), None, None)
    drawn = resampled_scores(metric, labels, students, draws=draws, seed=seed)
    spread = spread_of(exact, drawn, len(labels))
    judged = metric_named(metric)
    return Estimate(
        spread.mean,
        max(spread.mean - spread.half_width, judged.lowest),
        min(spread.mean + spread.half_width, judged.highest),
    )


def compare_pairs(
    metric: str,
    labels: np.ndarray,
    predicted: Mapping[str, Predicted],
    *,
    difference: float = 0.005,
    draws: int = 1000,
    seed: int = 0,
) -> list[Pair]:
    """Every pair of strategies, each on the seeds that both have.

    difference: the one that a reader wants to see, in the metric's own unit. Strategies without a
    seed are left out.
    """
    names = [name for name in predicted if predicted[name]]
    if len(names) < 2:
        return []
    students = {
        (name, index): predicted[name][index] for name in names for index in predicted[name]
    }
    keys = sorted(students, key=lambda key: (names.index(key[0]), key[1]))
    everything = [students[key] for key in keys]
    drawn = resampled_scores(metric, labels, everything, draws=draws, seed=seed)
    exact = dict(zip(keys, scores(metric, labels, everything), strict=True))
    resampled = dict(zip(keys, drawn, strict=True))

    def compared(a: str, b: str) -> Compared:
        common = sorted(predicted[a].keys() & predicted[b].keys())
        differences = np.array([exact[a, index] - exact[b, index] for index in common])
        apart = _rows_apart([(predicted[a][index], predicted[b][index]) for index in common])
        if len(common) < 2:
            return Compared(differences, apart, None)
        of_draws = np.array([resampled[a, index] - resampled[b, index] for index in common])
        return Compared(differences, apart, spread_of(differences, of_draws, len(labels)))

    pairs = {(a, b): compared(a, b) for a, b in combinations(names, 2)}
    tested = {pair: found.p for pair, found in pairs.items() if found.spread is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    judged = metric_named(metric)
    span = judged.highest - judged.lowest
    return [
        judge(a, b, found, corrected.get((a, b)), difference, span)
        for (a, b), found in pairs.items()
    ]


def _rows_apart(predictions: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    """On how many rows two strategies' predictions differ with any seed."""
    apart = [(a != b).reshape(len(a), -1).any(axis=1) for a, b in predictions]
    return int(np.any(apart, axis=0).sum()) if apart else 0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979).

    The chance of any false claim stays below the level, however many pairs there are.
    """
    if not len(p_values):
        return []
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    raised = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, raised)
    return corrected.tolist()


# --- scores of many students, on the rows as they are and as they are drawn ----------------------


def scores(metric: str, labels: np.ndarray, predicted: Sequence[np.ndarray]) -> np.ndarray:
    """The metric of each student [students]."""
    weighted = metric_named(metric).of_students(labels, predicted)
    return weighted(np.ones((1, len(labels))))[:, 0]


def resampled_scores(
    metric: str, labels: np.ndarray, predicted: Sequence[np.ndarray], *, draws: int, seed: int
) -> np.ndarray:
    """The metric of each student on `draws` resamplings of the rows [students, draws].

    All students are judged on the same resamplings.
    """
    generator = np.random.default_rng(seed)
    rows = len(labels)
    weighted = metric_named(metric).of_students(labels, predicted)
    at_once = max(1, WEIGHTS_AT_ONCE // rows)
    parts = []
    for begin in range(0, draws, at_once):
        count = min(at_once, draws - begin)
        drawn = generator.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows).reshape(count, rows)
        parts.append(weighted(times.astype(np.float64)))
    return np.concatenate(parts, axis=1)
