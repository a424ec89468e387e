"""Searches that never ran: students of known ability on fresh validation rows.

A row of a class is right where ability + seed + row + setting's row + noise > 0. A regression's
prediction follows the label, and its error grows where a class's ability would fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import Row

from kdsweep.compare.records import SearchPredictions
from kdsweep.compare.settings_comparison import compare_settings, scores_of

NUMBERS = ("pearson", "spearman")
SEVERAL_LABELS = ("f1_micro", "subset_accuracy")


@dataclass(frozen=True)
class Kind:
    """What varies, as standard deviations in units of the noise, and what is measured.

    seeds: between seeds. settings: what makes a row hard for one setting. rows: what makes it hard
    for all. runs: how many runs of confirm.
    """

    metric: str = "accuracy"
    rows: int = 500
    seeds: float = 0.0
    settings: float = 0.0
    difficulty: float = 1.0
    runs: int = 0


def search(draw: np.random.Generator, kind: Kind, abilities: Sequence[float]) -> SearchPredictions:
    """The trials of one strategy; confirm repeats the one that did best on validation."""
    labels = _labels(draw, kind)
    difficulty = draw.normal(0, kind.difficulty, kind.rows)
    own = draw.normal(0, kind.settings, (len(abilities), kind.rows))

    def student(number: int) -> np.ndarray:
        ability = abilities[number] + draw.normal(0, kind.seeds)
        return _predicted(draw, kind, labels, ability, difficulty + own[number])

    trials = {number: student(number) for number in range(len(abilities))}
    best = int(np.argmax(scores_of(kind.metric, labels, list(trials.values()))))
    confirmed = {index: student(best) for index in range(kind.runs)}
    return SearchPredictions(len(trials), labels, trials, confirmed)


def _labels(draw: np.random.Generator, kind: Kind) -> np.ndarray:
    if kind.metric in NUMBERS:
        return draw.normal(size=kind.rows).astype(np.float32)
    if kind.metric in SEVERAL_LABELS:
        return (draw.random((kind.rows, 3)) < 0.4).astype(np.int64)
    classes = 6 if kind.metric in ("accuracy", "f1_macro") else 2
    return draw.integers(classes, size=kind.rows)


def _predicted(
    draw: np.random.Generator,
    kind: Kind,
    labels: np.ndarray,
    ability: float,
    of_rows: np.ndarray,
) -> np.ndarray:
    if kind.metric in NUMBERS:
        # The part of a row's difficulty that has a sign; `ability` is 1 where the error is usual.
        error = 0.5 * np.exp(1 - ability) * (of_rows + draw.normal(size=kind.rows))
        return (labels + error).astype(np.float32)
    if kind.metric in SEVERAL_LABELS:
        right = ability + of_rows[:, None] + draw.normal(size=labels.shape) > 0
        return np.where(right, labels, 1 - labels)
    right = ability + of_rows + draw.normal(size=kind.rows) > 0
    classes = int(labels.max()) + 1
    wrong = (labels + 1 + draw.integers(max(1, classes - 1), size=kind.rows)) % classes
    return np.where(right, labels, wrong)


@dataclass(frozen=True)
class Found:
    """Shares of sweeps, 0 to 1; `alike`: of the trials, on average.

    excluded_falsely: a setting that is as good as the best one in truth. best_kept: every
    strategy's set has a truly best setting.
    """

    excluded_falsely: float
    best_kept: float
    alike: float


def sweeps(
    kind: Kind,
    abilities: Sequence[float],
    *,
    strategies: int = 4,
    count: int = 200,
    seed: int = 0,
    draws: int = 300,
) -> Found:
    """What `count` made-up sweeps say. abilities: of each strategy's trials."""
    draw = np.random.default_rng(seed)
    truth = np.array(abilities)
    best = set(np.flatnonzero(truth == truth.max()).tolist())
    falsely, kept, alike = 0, 0, 0
    for number in range(count):
        made = {f"s{i}": search(draw, kind, abilities) for i in range(strategies)}
        found = compare_settings(kind.metric, made, draws=draws, seed=number)
        sets = [set(one.alike or ()) for one in found.values()]
        falsely += any(best - one for one in sets)
        kept += all(best & one for one in sets)
        alike += sum(map(len, sets))
    return Found(falsely / count, kept / count, alike / (count * strategies * len(abilities)))


# --- the measurement -----------------------------------------------------------------------------

# With 400 sweeps, 5% and 95% are known to within two points. A target has that room.
TIES: tuple[tuple[str, Kind, int], ...] = (
    ("200 rows, 3 trials", Kind(rows=200, settings=0.3), 3),
    ("200 rows, 24 trials", Kind(rows=200, settings=0.3), 24),
    ("2,000 rows, 12 trials", Kind(rows=2000, settings=0.3), 12),
    ("200 rows, 3 trials, 5 seeds", Kind(rows=200, seeds=0.2, runs=5), 3),
    ("500 rows, 12 trials, 2 seeds", Kind(rows=500, seeds=0.2, runs=2), 12),
    ("2,000 rows, 24 trials, 5 seeds", Kind(rows=2000, seeds=0.3, runs=5), 24),
    ("f1_macro, 300 rows, 12 trials", Kind("f1_macro", rows=300, settings=0.3), 12),
    ("matthews, 300 rows, 12 trials", Kind("matthews", rows=300, settings=0.3), 12),
    ("pearson, 300 rows, 12 trials", Kind("pearson", rows=300, settings=0.3), 12),
    ("f1_micro, 300 rows, 12 trials", Kind("f1_micro", rows=300, settings=0.3), 12),
)


def settings(
    folder: Path, count: int = 400, ties: Sequence[tuple[str, Kind, int]] = TIES
) -> list[Row]:
    """False exclusions where all settings are equal; the best one kept where they are not."""
    rows = []
    for what, kind, trials in ties:
        equal = sweeps(kind, [1.0] * trials, count=count)
        falsely = 100 * equal.excluded_falsely
        rows.append(Row(f"{what}: sweeps with a false exclusion", falsely, "%", at_most=7.0))
        near = sweeps(kind, np.linspace(0.4, 1.0, trials).tolist(), count=count // 4)
        kept = 100 * near.best_kept
        rows.append(Row(f"{what}, near ties: the best one is kept", kept, "%", at_least=93.0))
        rows.append(Row(f"{what}, near ties: settings alike", 100 * near.alike, "%"))
    return rows
