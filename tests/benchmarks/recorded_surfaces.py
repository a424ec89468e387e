"""Students with any settings, made up from recorded trials, for searches that never train.

A Gaussian process through the recorded trials of a task says what settings are worth after each
evaluation, without noise. A student predicts what the nearest recorded trial predicted, with rows
changed by chance until it is as good as the surface says, and a seed's luck better or worse.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import optuna
from recorded_curves import Recorded
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from kdsweep.compare.statistics import scores

Params = dict[str, object]
# The luck of a student's seed, as a standard deviation of the metric; and the share of rows that
# are right by chance, with as many wrong, in one of two equally good students.
SEED_LUCK = 0.008
CHANGED_ROWS = 0.03
KINDS = ("constant", "range", "step")


def suggest(trial: optuna.Trial) -> Params:
    """The space that the trials were recorded in."""
    kind = trial.suggest_categorical("alpha.any_of", KINDS)
    if kind == "range":
        trial.suggest_float("alpha", 0.0, 1.0)
    elif kind == "step":
        trial.suggest_float("alpha.at", 0.4, 0.8)
    trial.suggest_float("temperature", 1.0, 10.0)
    trial.suggest_float("learning_rate", 1e-5, 2e-3, log=True)
    return trial.params


@dataclass(frozen=True, eq=False)
class Student:
    """truth: what its settings are worth at the end, without luck. values: the metric
    [evaluations]. predictions: [evaluations, rows]."""

    truth: float
    values: np.ndarray
    predictions: np.ndarray


class Surface:
    """The surface of one task."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self._at = np.array([_features(one) for one in recorded.params])
        kernel = ConstantKernel() * RBF(np.ones(self._at.shape[1]), (0.2, 20.0)) + WhiteKernel()
        self._fitted = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():
            # A length at its bound means that this setting changes nothing.
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._fitted.fit(self._at, recorded.values)

    def curve(self, params: Params) -> np.ndarray:
        """What the settings are worth after each evaluation, without luck."""
        return np.asarray(self._fitted.predict([_features(params)])[0])

    def student(self, params: Params, draw: np.random.Generator) -> Student:
        curve, point = self.curve(params), np.array(_features(params))
        nearest = int(np.linalg.norm(self._at - point, axis=1).argmin())
        better = curve + draw.normal(0, SEED_LUCK) - self.recorded.values[nearest]
        before = self.recorded.predictions[nearest]
        predictions = np.array(
            [self._changed(*one, draw) for one in zip(before, better.tolist(), strict=True)]
        )
        found = scores(self.recorded.metric, self.recorded.labels, list(predictions))
        return Student(float(curve.max()), found, predictions)

    def _changed(
        self, predicted: np.ndarray, better: float, draw: np.random.Generator
    ) -> np.ndarray:
        """What was predicted, with a share of `better` more rows right."""
        labels, made = self.recorded.labels, predicted.copy()
        rows = len(labels)
        right, wrong = (np.flatnonzero((predicted == labels) == state) for state in (True, False))
        change = round(better * rows)
        fewer = min(len(right), round(CHANGED_ROWS * rows) + max(0, -change))
        more = min(len(wrong), round(CHANGED_ROWS * rows) + max(0, change))
        lost, won = (
            draw.choice(right, fewer, replace=False),
            draw.choice(wrong, more, replace=False),
        )
        classes = int(labels.max()) + 1
        made[lost] = (labels[lost] + draw.integers(1, classes, size=fewer)) % classes
        made[won] = labels[won]
        return made


def _features(params: Params) -> list[float]:
    """The settings as coordinates between 0 and 1; what settings of this kind lack is 0.5."""
    number = {name: float(str(value)) for name, value in params.items() if name != "alpha.any_of"}
    kind = params["alpha.any_of"]
    return [
        (math.log(number["learning_rate"]) - math.log(1e-5)) / math.log(200),
        (number["temperature"] - 1) / 9,
        1.0 if kind == "constant" else number.get("alpha", 0.5),
        float(kind == "step"),
        (number["alpha.at"] - 0.4) / 0.4 if kind == "step" else 0.5,
    ]
