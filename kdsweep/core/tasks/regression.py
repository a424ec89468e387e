"""A task whose label is a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdsweep.core.tasks.base import TaskKind, rows_by_value
from kdsweep.core.tasks.floor import ValidationLogits
from kdsweep.errors import TeacherError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from kdsweep.core.data.raw_values import RawLabels
    from kdsweep.core.tasks.label_scale import LabelScale


# Splits have the same share of each tenth of the labels.
BINS = 10


class Regression(TaskKind):
    """Labels: fp32 [rows]; NaN for a row without one. Logits: one output, [rows, 1]."""

    name = "regression"
    noun = "a regression"
    description = (
        "the label is a number; labels and teacher are matched by squared error, and temperature "
        "plays no part"
    )
    loss_formula = (
        "alpha * MSE(student, labels) + (1 - alpha) * MSE(student, teacher): "
        "alpha weighs the labels."
    )
    default_metric = "pearson"
    default_divergence = "mse"
    problem_type = "regression"
    has_probabilities = False
    outputs_are_labels = False
    stratified = "of each tenth of the labels by hash of their text"

    def read_labels(self, raw: RawLabels) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        from kdsweep.core.data.labels import read_numbers

        return read_numbers(raw)

    def read_split(self, raw: RawLabels, split: str) -> np.ndarray:
        from kdsweep.core.data.labels import numbers_of

        return numbers_of(raw, split)

    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """One for each tenth of the rows, ordered by label."""
        import numpy as np

        edges = np.nanquantile(labels, np.arange(1, BINS) / BINS)
        return rows_by_value(np.searchsorted(edges, labels, side="right"))

    def empty_labels(self, rows: int, outputs: int) -> np.ndarray:
        import numpy as np

        return np.full(rows, np.nan, dtype=np.float32)

    def label_scale(self, labels: np.ndarray) -> LabelScale:
        from kdsweep.core.tasks.label_scale import LabelScale

        return LabelScale.of_labels(labels)

    def check_shapes(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        fits = labels.ndim == 1 and logits.shape == (len(labels), 1)
        if not fits or not labels.is_floating_point():
            raise ValueError(
                f"kind: {self.name}: logits {tuple(logits.shape)} and labels "
                f"{tuple(labels.shape)} ({labels.dtype}) must be [rows, 1] and floating [rows]"
            )

    def task_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """The squared error, averaged over all rows."""
        labelled = ~labels.isnan()
        errors = logits[labelled, 0] - labels[labelled].float()
        return errors.square().sum() / len(labels)

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """The values themselves, [rows]."""
        import numpy as np

        return np.asarray(logits[:, 0])

    def loss(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """The mean squared error."""
        import numpy as np

        predicted = self.predictions(logits).astype(np.float64)
        return float(np.square(predicted - labels).mean())

    def check_floor(self, validation: ValidationLogits) -> None:
        """The floor is the mean of the labels of train.

        A teacher beats it if its squared error is smaller by two standard errors and at least 2%,
        or by half. A correlation alone won't do: outputs on another scale than the labels have
        one, and would teach that scale.
        """
        import numpy as np

        labels = validation.labels.astype(np.float64)
        mean = float(np.asarray(validation.train_labels, dtype=np.float64).mean())
        outputs = self.predictions(validation.logits).astype(np.float64)
        baseline = np.square(labels - mean)
        errors = np.square(labels - outputs)
        gained = baseline - errors
        error_of_gain = gained.std() / np.sqrt(len(labels))
        asked = min(max(0.02 * baseline.mean(), 2 * error_of_gain), baseline.mean() / 2)
        if gained.mean() >= asked:
            return
        reached = validation.score(self.predictions(validation.logits))
        message = (
            f"teacher: mean squared error {errors.mean():.3g} on validation "
            f"({validation.metric.name} {reached:.3f}) doesn't clearly beat always "
            f"answering with the mean of train ({baseline.mean():.3g}; at most "
            f"{baseline.mean() - asked:.3g} is asked for): "
        )
        if reached > 0.5 and validation.is_checkpoint:
            raise TeacherError(
                f"{message}its outputs ({outputs.min():.3g} to {outputs.max():.3g}) go with the "
                f"labels ({labels.min():.3g} to {labels.max():.3g}) but are on another scale; "
                "rescale the labels, or fine-tune it on them (teacher.model instead of "
                "teacher.checkpoint)"
            )
        raise TeacherError(
            f"{message}it has nothing to teach; train it for longer, with another learning rate, "
            "or on more rows (teacher.training)"
        )

    def guess_metric(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
        return "pearson_and_spearman", (
            "the mean of Pearson's coefficient (answers and labels on a line) and Spearman's (in "
            "the same order)"
        )

    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> str:
        return (
            f"rows of train: {len(labels):,}, from {labels.min():g} to {labels.max():g}, "
            f"{labels.mean():.3g} on average"
        )

    def describe_split(self, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        ends = {"least": labels.min(), "mean": labels.mean(), "greatest": labels.max()}
        return {"values": {name: round(float(value), 4) for name, value in ends.items()}}

    def describe_model(self, names: str) -> str:
        return f"A text regression of {names}"

    def serve(self, logits: np.ndarray, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """What the value is called, and the value."""
        import numpy as np

        return [names[0]] * len(logits), self.predictions(logits).astype(np.float64)
