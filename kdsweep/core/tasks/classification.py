"""A task whose label is one of several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdsweep.core.tasks.base import (
    UNLABELLED,
    TaskKind,
    describe_counts,
    percent,
    rows_by_value,
)
from kdsweep.core.tasks.floor import ValidationLogits, below_majority, majority_floor
from kdsweep.errors import TeacherError, first_few

if TYPE_CHECKING:
    import numpy as np
    import torch

    from kdsweep.core.data.raw_values import RawLabels
    from kdsweep.core.evaluation.metric import Metric

# The smaller of two classes has at least this share of the rows, or accuracy isn't fair.
BALANCED_TWO = 0.35
# The smallest of several classes has at least this share of what the largest has.
BALANCED_MANY = 0.5
MANY_CLASSES = 10
# Another order of a teacher's labels is believed if it is right in this part of the rows that the
# best order would miss by chance.
FITS = 0.25


class Classification(TaskKind):
    """Labels: class numbers from 0, int64 [rows]; UNLABELLED for a row without a label."""

    name = "classification"
    noun = "a classification"
    description = "the label is one of several classes"
    loss_formula = (
        "alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher || student): "
        "alpha weighs the labels, T is `temperature`."
    )
    default_metric = "accuracy"
    problem_type = "single_label_classification"
    picks_one_class = True
    stratified = "of each class by hash of their text"

    def read_labels(self, raw: RawLabels) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        from kdsweep.core.data.labels import number_labels

        return number_labels(raw)

    def read_split(self, raw: RawLabels, split: str) -> np.ndarray:
        import numpy as np

        from kdsweep.core.data.labels import class_texts

        found = class_texts(raw, split)
        return np.unique(np.array(found, dtype=object), return_inverse=True)[1]

    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """One for each class."""
        return rows_by_value(labels)

    def empty_labels(self, rows: int, outputs: int) -> np.ndarray:
        import numpy as np

        return np.full(rows, UNLABELLED, dtype=np.int64)

    def check_shapes(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        fits = logits.ndim == 2 and labels.shape == logits.shape[:1]
        if not fits or labels.is_floating_point():
            raise ValueError(
                f"kind: {self.name}: logits {tuple(logits.shape)} and labels "
                f"{tuple(labels.shape)} ({labels.dtype}) must be [rows, classes] and class "
                "numbers [rows]"
            )

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """Class numbers [rows]."""
        import numpy as np

        return np.asarray(logits.argmax(axis=1))

    def judged_beside(self, metric: Metric, fitting: tuple[str, ...]) -> tuple[str, ...]:
        return (self.default_metric, *metric.mean_of)

    def check_floor(self, validation: ValidationLogits) -> None:
        """The floor is the most frequent class of train."""
        import numpy as np

        predicted = self.predictions(validation.logits)
        majority = np.bincount(validation.train_labels).argmax()
        floor = majority_floor(validation, majority)
        reached = validation.score(predicted)
        if reached >= floor.asked:
            return
        better = _better_order(validation, predicted) if validation.is_checkpoint else None
        if better is not None and better[1] > floor.asked:
            names, accuracy = better
            raise TeacherError(
                f"teacher: {validation.metric.name} {reached:.3f} on validation, but its labels "
                f"seem to be in another order: as [{first_few(names)}] accuracy would be "
                f"{accuracy:.3f}; "
                "set teacher.labels to the order of the checkpoint's outputs"
            )
        raise below_majority(validation, reached, floor)

    def guess_metric(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
        """Accuracy if it is fair; else one that always predicting one class can't please."""
        import numpy as np

        counts = np.bincount(labels, minlength=len(names))
        shares = counts / counts.sum()
        if len(names) == 2:
            return _metric_of_two(shares, names)
        if shares.min() / shares.max() < BALANCED_MANY:
            rare = int(shares.argmin())
            common = int(shares.argmax())
            return "f1_macro", (
                f"each class counts the same, though `{names[rare]}` has {percent(shares[rare])} "
                f"of the rows and `{names[common]}` {percent(shares[common])}"
            )
        if len(names) > MANY_CLASSES:
            return "f1_macro", f"each of the {len(names)} classes counts the same"
        return "accuracy", (
            f"the {len(names)} classes are about as frequent ({percent(shares.min())} to "
            f"{percent(shares.max())} of the rows)"
        )

    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> str:
        counts = [int((labels == i).sum()) for i in range(len(names))]
        return describe_counts(dict(zip(names, counts, strict=True)))

    def describe_split(self, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        import numpy as np

        counts = np.bincount(labels, minlength=len(names))
        return {"labels": {name: int(n) for name, n in zip(names, counts, strict=True)}}

    def describe_model(self, names: str) -> str:
        return f"A text classifier with the labels {names}"

    def serve(self, logits: np.ndarray, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """The likeliest label and its probability."""
        predicted = self.predictions(logits).tolist()
        return [names[i] for i in predicted], self.probabilities(logits).max(axis=1)


def _metric_of_two(shares: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
    rare = int(shares.argmin())
    share = shares[rare]
    if share >= BALANCED_TWO:
        return "accuracy", (
            f"the two classes are about as frequent ({percent(share)} and {percent(1 - share)})"
        )
    if rare == 1:
        return "f1", (
            f"of `{names[1]}`, which only {percent(share)} of the rows have: accuracy would hide it"
        )
    return "matthews", (
        f"`{names[0]}` is rare ({percent(share)}), and f1 would be that of `{names[1]}`, the "
        "second class"
    )


def _better_order(
    validation: ValidationLogits, predicted: np.ndarray
) -> tuple[list[str], float] | None:
    """An order of the checkpoint's outputs that fits the labels well, and its accuracy.

    None if there is none. Of many orders the best one is always better than the given one, so it
    must be far above the best order of predictions that have nothing to do with their rows.
    """
    import numpy as np

    names, order, labels = validation.label_names, validation.order, validation.labels
    true, given, accuracy = _best_order(labels, predicted, len(names))
    draw = np.random.default_rng(0)
    shuffled = [_best_order(labels, draw.permutation(predicted), len(names))[2] for _ in range(5)]
    by_chance = float(np.mean(shuffled))
    if list(given) == list(true) or accuracy < by_chance + FITS * (1 - by_chance):
        return None
    # In the order of the checkpoint's own outputs, which is what teacher.labels names.
    columns = range(len(given)) if order is None else np.argsort(order)
    found = [names[int(true[list(given).index(i)])] for i in columns]
    return found, accuracy


def _best_order(
    labels: np.ndarray, predicted: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Classes, the predictions that fit them best if those are renamed, and their accuracy."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (labels, predicted), 1)
    true, given = linear_sum_assignment(-confusion)
    return true, given, float(confusion[true, given].sum() / len(labels))
