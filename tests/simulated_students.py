"""Students of known ability on fresh test rows: what a statement about them should say is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

CLASSES = {"f1_macro": 4}  # of other metrics: 2
NUMBERS = ("pearson",)


@dataclass(frozen=True)
class Variation:
    """Standard deviations of what makes a prediction right or wrong, on a probit scale.

    seeds: of a student's ability. rows: of how hard a row is for everybody. own_rows: of how hard
    it is for one strategy. noise: of one student on one row.
    """

    seeds: float
    rows: float
    own_rows: float
    noise: float = 1.0

    @property
    def total(self) -> float:
        parts = np.array([self.seeds, self.rows, self.own_rows, self.noise])
        return float(np.sqrt((parts**2).sum()))


def true_score(metric: str, ability: float, variation: Variation, share: float = 0.5) -> float:
    """The mean over all possible seeds and rows. share: of class 1.

    Each seed's share of right predictions is normal in its ability, and gives the metric. The error
    of a number has e^-(ability + seed) times the standard deviation of everything else.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(61)
    if metric in NUMBERS:
        others = variation.total**2 - variation.seeds**2
        errors = others * np.exp(-2 * (ability + variation.seeds * points))
        return float((1 + errors) ** -0.5 @ weights / weights.sum())
    rest = np.sqrt(variation.total**2 - variation.seeds**2)
    right = norm.cdf((ability + variation.seeds * points) / rest)
    return float(_of_share_right(metric, right, share) @ weights / weights.sum())


def _of_share_right(metric: str, right: np.ndarray, share: float) -> np.ndarray:
    if metric == "accuracy":
        return right
    if metric == "f1_macro":
        classes = CLASSES[metric]
        shares = class_shares(share, classes)[:, None]
        wrong = (1 - right) * (shares + (1 - shares) / (classes - 1))
        scores = 2 * shares * right / (2 * shares * right + wrong)
        return np.asarray(scores.mean(axis=0))
    true_one, false_one = share * right, (1 - share) * (1 - right)
    if metric == "f1":
        return 2 * true_one / (true_one + false_one + share)
    assert metric == "matthews"
    given = true_one + false_one
    return (true_one - share * given) / np.sqrt(share * (1 - share) * given * (1 - given))


def class_shares(share: float, classes: int) -> np.ndarray:
    """The first class has `share`; the others are equally frequent."""
    return np.array([share, *[(1 - share) / (classes - 1)] * (classes - 1)])


def ability_for(metric: str, score: float, variation: Variation, share: float = 0.5) -> float:
    """The ability with this true score."""
    return float(
        brentq(lambda x: true_score(metric, x, variation, share) - score, -15 * variation.total, 15)
    )


def simulate(
    draw: np.random.Generator,
    abilities: Mapping[str, tuple[float, Variation]],
    seeds: int,
    rows: int,
    share: float = 0.5,
    metric: str = "accuracy",
) -> tuple[np.ndarray, dict[str, dict[int, np.ndarray]]]:
    """Labels [rows] that fit the metric, and the predictions of each strategy's students by seed.

    The rows are as hard for all strategies as the first one's variation says.
    """
    classes = CLASSES.get(metric, 2)
    if metric in NUMBERS:
        labels = draw.normal(0, 1, rows)
    elif classes == 2:
        labels = (draw.random(rows) < share).astype(int)
    else:
        labels = draw.choice(classes, size=rows, p=class_shares(share, classes))
    difficulty = draw.normal(0, 1, rows)
    predicted = {}
    for strategy, (ability, variation) in abilities.items():
        of_seeds = ability + draw.normal(0, variation.seeds, (seeds, 1))
        others = variation.rows * difficulty + draw.normal(0, variation.own_rows, rows)
        others = others + draw.normal(0, variation.noise, (seeds, rows))
        if metric in NUMBERS:
            predicted[strategy] = dict(enumerate(labels + np.exp(-of_seeds) * others))
            continue
        wrong = 1 - labels
        if classes > 2:
            wrong = (labels + 1 + draw.integers(classes - 1, size=(seeds, rows))) % classes
        predicted[strategy] = dict(enumerate(np.where(of_seeds + others > 0, labels, wrong)))
    return labels, predicted
