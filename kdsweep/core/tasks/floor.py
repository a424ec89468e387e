"""Whether a teacher's answers on validation are clearly better than a constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsweep.errors import TeacherError

if TYPE_CHECKING:
    import numpy as np

    from kdsweep.core.evaluation.metric import Metric


@dataclass(frozen=True, eq=False)
class ValidationLogits:
    """A teacher's logits for validation, and what they are judged by.

    labels: of validation. train_labels: what the constant is chosen by. order: for each class,
    which output of the checkpoint meant it before outputs were reordered by name; None if they
    were not. is_checkpoint: it was fine-tuned elsewhere, perhaps on other labels.
    """

    logits: np.ndarray
    labels: np.ndarray
    train_labels: np.ndarray
    label_names: tuple[str, ...]
    metric: Metric
    order: Sequence[int] | None = None
    is_checkpoint: bool = False

    def score(self, predicted: np.ndarray) -> float:
        return self.metric.score(self.labels, predicted)


@dataclass(frozen=True)
class Floor:
    """What always predicting a constant reaches, and by how much a teacher must be better."""

    reached: float
    margin: float

    @property
    def asked(self) -> float:
        return self.reached + self.margin


def majority_floor(validation: ValidationLogits, constant: np.ndarray | np.intp) -> Floor:
    """The floor of always predicting `constant`.

    A teacher must be better by two standard errors of the constant's score and at least 2 points,
    or by half of what is left to 1.
    """
    import numpy as np

    labels = validation.labels
    floor = validation.score(np.broadcast_to(constant, labels.shape).astype(np.int64))
    error = float(np.sqrt(max(0.0, floor * (1 - floor)) / len(labels)))
    return Floor(floor, min(max(0.02, 2 * error), (1 - floor) / 2))


def below_majority(validation: ValidationLogits, reached: float, floor: Floor) -> TeacherError:
    return TeacherError(
        f"teacher: {validation.metric.name} {reached:.3f} on validation doesn't clearly beat the "
        f"majority class ({floor.reached:.3f}; at least {floor.asked:.3f} is asked for): it has "
        "nothing to teach; train it for longer, with another learning rate, or on more rows "
        "(teacher.training)"
    )
