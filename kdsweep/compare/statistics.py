"""How sure a comparison on the test split is: intervals, and a verdict for every pair.

A student's score varies with its seed and with the examples that it is judged on. Both count, as
in the multi-bootstrap (Sellam et al. 2022, https://arxiv.org/abs/2106.16163). With the three to
ten seeds that people can afford, percentiles of joint draws are too narrow (few seeds) or too wide
(what belongs to one seed and one example is drawn twice). So the draws only give variances, and
each part is counted once:

    variance of a mean over k seeds = s^2 / k + V

s^2 is the variance between seeds. To draw k - 1 of k seeds again and again would give s^2 / k
exactly, so seeds needn't be drawn. V is what resampled examples, the same for all seeds, add for
all seeds alike. A teacher is one model that isn't trained again: it has no s^2. The intervals are
Student's. `make bench NAMES=verdicts` shows by simulation how often statements are false;
docs/statistics.md has the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from kdsweep.compare.families import Family
from kdsweep.compare.few_seeds import family_of
from kdsweep.compare.findings import AgainstTeacher, Comparison, Estimate, Pair, TeacherState
from kdsweep.compare.spread import spread_of
from kdsweep.compare.verdicts import Compared, PairRules, judge_pair, within
from kdsweep.config.sweep import MARGIN
from kdsweep.core.evaluation.metric_table import metric_named

WEIGHTS_AT_ONCE = 400_000  # rows x draws: they stay in the processor's cache
ROWS_TRIED = 24  # of which one more is added, to see what one row changes
# A seed's index -> what the student of that seed predicted (`TaskKind.predictions`).
Predicted = Mapping[int, np.ndarray]


def compare(
    metric: str,
    labels: np.ndarray,
    predicted: Mapping[str, Predicted],
    teachers: Sequence[np.ndarray | None] = (),
    *,
    margin: float = MARGIN,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """What the test split says of strategies, of pairs of them, and of the first teacher.

    labels: of the test split. predicted: by strategy; those without a seed are left out. teachers:
    what each predicted on the test split, None where that isn't known. margin: the difference, in
    the metric's own unit, below which two strategies are as good as equal.
    """
    judged = Judged(metric, labels, predicted, teachers, draws=draws, seed=seed)
    families = {
        name: family_of(len(judged.strategies), len(predicted[name])) for name in judged.strategies
    }
    return Comparison(
        means={name: judged.mean(name, family) for name, family in families.items()},
        pairs=tuple(judged.pairs(margin)),
        teachers=judged.of_teachers(),
        against_teacher=judged.against_teacher(families),
    )


class Judged:
    """Every student's and teacher's score, on the real rows and on resampled ones.

    All are judged on the same draws.
    """

    def __init__(
        self,
        metric: str,
        labels: np.ndarray,
        predicted: Mapping[str, Predicted],
        teachers: Sequence[np.ndarray | None],
        *,
        draws: int,
        seed: int,
    ) -> None:
        self.metric = metric_named(metric)
        self.rows = len(labels)
        self.strategies = [name for name in predicted if predicted[name]]
        self.predicted = {
            (name, index): predicted[name][index]
            for name in self.strategies
            for index in predicted[name]
        }
        self._teachers = [None if one is None else ("", i) for i, one in enumerate(teachers)]
        self.predicted |= {("", i): one for i, one in enumerate(teachers) if one is not None}
        every = list(self.predicted.values())
        # A teacher's strategy is "".
        self.exact: dict[tuple[str, int], float] = {}
        if not every:
            return
        self.exact = dict(zip(self.predicted, scores(metric, labels, every).tolist(), strict=True))
        drawn = resampled_scores(metric, labels, every, draws=draws, seed=seed)
        self.drawn = dict(zip(self.predicted, drawn, strict=True))
        changes = one_row_changes(metric, labels, every, seed=seed)
        self.one_row = dict(zip(self.predicted, changes.tolist(), strict=True))

    # --- scores ---

    def mean(self, strategy: str, family: Family, seeds: int | None = None) -> Estimate:
        """seeds: use those with a lower index."""
        keys = [(strategy, seed) for seed in self._seeds(strategy, seeds)]
        value = float(np.mean([self.exact[key] for key in keys]))
        return self._estimate(keys, family) if len(keys) > 1 else Estimate(value, None, None)

    def of_teachers(self) -> tuple[Estimate | None, ...]:
        return tuple(
            None if key is None else self._estimate([key], Family(1)) for key in self._teachers
        )

    def _estimate(self, keys: Sequence[tuple[str, int]], family: Family) -> Estimate:
        exact = np.array([self.exact[key] for key in keys])
        drawn = np.stack([self.drawn[key] for key in keys])
        one_row = float(np.mean([self.one_row[key] for key in keys]))
        spread = spread_of(exact, drawn, self.rows, one_row)
        low, high = spread.score_interval(family.tail, self.metric.lowest, self.metric.highest)
        return Estimate(spread.mean, low, high)

    def _seeds(self, strategy: str, below: int | None = None) -> list[int]:
        return sorted(
            seed
            for name, seed in self.exact
            if name == strategy and (below is None or seed < below)
        )

    # --- differences ---

    def pairs(self, margin: float) -> list[Pair]:
        """Every pair, with all seeds that both have."""
        found = {(a, b): self.compared(a, b) for a, b in combinations(self.strategies, 2)}
        comparable = sum(one.spread is not None for one in found.values())

        def rules(one: Compared) -> PairRules:
            now = family_of(comparable, len(one.differences))
            return PairRules(now, margin, self.span, later=Family(comparable))

        return [judge_pair(a, b, one, rules(one)) for (a, b), one in found.items()]

    def compared(self, a: str, b: str, seeds: int | None = None) -> Compared:
        """seeds: use those with a lower index."""
        both = [seed for seed in self._seeds(a, seeds) if (b, seed) in self.exact]
        return self._compared([((a, seed), (b, seed)) for seed in both])

    def against_teacher(
        self, families: Mapping[str, Family], seeds: Mapping[str, int] | None = None
    ) -> dict[str, AgainstTeacher] | None:
        """Each strategy and the first teacher; None where its predictions aren't known.

        families: by strategy. seeds: use those with a lower index, by strategy.
        """
        if not self._teachers or self._teachers[0] is None:
            return None
        return {
            name: self._against_teacher(self._seeds(name, (seeds or {}).get(name)), name, family)
            for name, family in families.items()
        }

    def _against_teacher(
        self, seeds: Sequence[int], strategy: str, family: Family
    ) -> AgainstTeacher:
        teacher = ("", 0)
        found = self._compared([((strategy, seed), teacher) for seed in seeds])
        if found.spread is None:
            return AgainstTeacher(float(found.differences.mean()), None, "undecided")
        state: TeacherState = "undecided"
        if found.p < family.level:
            state = "above" if found.spread.mean > 0 else "below"
        interval = within(found.spread.difference_interval(family.tail), self.span)
        return AgainstTeacher(found.spread.mean, interval, state)

    @property
    def span(self) -> float:
        return self.metric.highest - self.metric.lowest

    def _compared(self, keys: Sequence[tuple[tuple[str, int], tuple[str, int]]]) -> Compared:
        """keys: of two models each, with the same seed."""
        differences = np.array([self.exact[a] - self.exact[b] for a, b in keys])
        apart = _rows_apart([(self.predicted[a], self.predicted[b]) for a, b in keys])
        if len(keys) < 2:
            return Compared(differences, apart, None)
        drawn = np.array([self.drawn[a] - self.drawn[b] for a, b in keys])
        one_row = max(
            float(np.mean([self.one_row[pair[side]] for pair in keys])) for side in (0, 1)
        )
        return Compared(differences, apart, spread_of(differences, drawn, self.rows, one_row))


def _rows_apart(predictions: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    """On how many rows two strategies' predictions differ with any seed."""
    apart = [(a != b).reshape(len(a), -1).any(axis=1) for a, b in predictions]
    return int(np.any(apart, axis=0).sum()) if apart else 0


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


def one_row_changes(
    metric: str, labels: np.ndarray, predicted: Sequence[np.ndarray], *, seed: int = 0
) -> np.ndarray:
    """How much one more row changes each student's score, if it is right instead of wrong.

    The root mean square over rows like those that there are, [students], in the metric's own unit.
    For accuracy on n rows it is 1 / (n + 1). A wrong prediction is another row's label.
    """
    generator = np.random.default_rng(seed)
    rows = len(labels)
    tried = generator.permutation(rows)[:ROWS_TRIED]
    wrong = np.stack([_another_label(labels, labels[row], generator) for row in tried])
    right = labels[tried]
    more_labels = np.concatenate([labels, right, right])
    more_predicted = [np.concatenate([one, right, wrong]) for one in predicted]
    weights = np.concatenate([np.ones((2 * len(tried), rows)), np.eye(2 * len(tried))], axis=1)
    found = metric_named(metric).of_students(more_labels, more_predicted)(weights)
    changes = found[:, : len(tried)] - found[:, len(tried) :]
    return np.asarray(np.sqrt((changes**2).mean(axis=1)))


def _another_label(
    labels: np.ndarray, label: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    differs = (labels != label).reshape(len(labels), -1).any(axis=1)
    others = np.flatnonzero(differs)
    if len(others):
        return np.asarray(labels[generator.choice(others)])
    # All rows have one label.
    return np.asarray(1 - label if labels.ndim == 2 else label + 1)
