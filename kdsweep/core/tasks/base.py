"""What the kind of a task decides. One subclass for each kind, one file for each subclass.

Nothing here imports torch, transformers or scipy until a method needs it: settings know their kind
before any model is loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification

    from kdsweep.core.data.raw_values import RawLabels
    from kdsweep.core.evaluation.metric import Metric
    from kdsweep.core.tasks.floor import ValidationLogits
    from kdsweep.core.tasks.label_scale import LabelScale

# The class number of a row that has no label, which only the teacher teaches. Labels that are
# floating have NaN instead.
UNLABELLED = -100


class TaskKind(ABC):
    """One kind of task: what a label is, which head and loss it takes, and what logits mean.

    The first dimension of labels, logits and predictions is the split's rows. A row is the unit
    that is resampled when test scores are compared.
    """

    # The value of `task.kind` in YAML and in stored JSON.
    name: ClassVar[str]
    # In a sentence: "label_smoothing: a regression has no classes".
    noun: ClassVar[str]
    # For `kdsweep init` and its file: what a label is, and what the loss is.
    description: ClassVar[str]
    loss_formula: ClassVar[str]
    default_metric: ClassVar[str]
    default_divergence: ClassVar[str] = "kl"
    # What transformers calls it in a model's config. Its pipelines choose their output by it.
    problem_type: ClassVar[str]
    # The task on the Hugging Face Hub, as a tag and in words.
    pipeline: ClassVar[str] = "text-classification"
    pipeline_title: ClassVar[str] = "Text Classification"
    # Whether logits become probabilities: divergences, temperature, calibration, label smoothing.
    has_probabilities: ClassVar[bool] = True
    # Whether exactly one of the outputs is right for a row.
    picks_one_class: ClassVar[bool] = False
    # How rows are held out of train, in a sentence.
    stratified: ClassVar[str]
    # Whether outputs are named after labels, so that a checkpoint's names can be compared.
    outputs_are_labels: ClassVar[bool] = True
    # Whether `task.label` may name several columns of 0 and 1, one for each label.
    takes_label_columns: ClassVar[bool] = False
    # What an exported ONNX file answers.
    onnx_outputs: ClassVar[tuple[str, ...]] = ("logits",)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<kind of task: {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled or copied, it is still the one object of its kind.
        return the_one, (type(self),)

    # --- labels ---

    @abstractmethod
    def read_labels(self, raw: RawLabels) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        """The names of the outputs, and the labels of each split. Raises DataError."""

    @abstractmethod
    def read_split(self, raw: RawLabels, split: str) -> np.ndarray:
        """The labels of one split by itself, in the shape that `read_labels` gives them.

        Class numbers only say which rows have the same class. A row may have no label. Raises
        DataError for values that can't be labels.
        """

    @abstractmethod
    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """For each label the rows that have it, int64 each. Every row is in at least one.

        Splits have the same share of each.
        """

    @abstractmethod
    def empty_labels(self, rows: int, outputs: int) -> np.ndarray:
        """Labels for `rows` rows that have none."""

    def unfit(self, name: str, value: object) -> str | None:
        """Why the setting `name` can't have `value` in a task of this kind; None if it can."""
        if name == "distill.logits":
            return self._unfit_divergence(value)
        if name == "label_smoothing" and value and not self.has_probabilities:
            return f"label_smoothing: {self.noun} has no classes to smooth over; leave it out"
        follows = name == "distill.temperature_follows" and value == "confidence"
        if follows and not self.picks_one_class:
            return (
                "distill.temperature_follows: confidence is that of one answer among classes, "
                f"which a task of kind: {self.name} doesn't have; leave it out"
            )
        return None

    def _unfit_divergence(self, name: object) -> str | None:
        from kdsweep.core.objective.divergences import divergence_named

        if self.has_probabilities or not divergence_named(str(name)).requires_probabilities:
            return None
        return (
            f"distill: {name} compares probabilities, and {self.noun} has none: its outputs are "
            f"matched by squared error (leave it out, or '{self.default_divergence}')"
        )

    def label_scale(self, labels: np.ndarray) -> LabelScale:
        """What the model's outputs are standardized by, from the labels of train."""
        from kdsweep.core.tasks.label_scale import LabelScale

        return LabelScale()

    # --- model ---

    def model_class(self) -> type[AutoModelForSequenceClassification]:
        """The class of transformers that puts this kind's head on a model."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    # --- loss ---

    @abstractmethod
    def check_shapes(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Raise ValueError unless the labels are this kind's, for logits [rows, outputs]."""

    def choices(self, logits: torch.Tensor) -> torch.Tensor:
        """[..., outputs] as [..., choices, options]: softmax runs over the options."""
        return logits.unsqueeze(-2)

    def chosen(self, labels: torch.Tensor) -> torch.Tensor:
        """The right option of each choice, int64 [rows, choices]; UNLABELLED where unknown."""
        return labels.unsqueeze(-1)

    def task_loss(
        self, logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float
    ) -> torch.Tensor:
        """The loss of the labels, averaged over all rows. Rows without a label add nothing."""
        from torch.nn import functional

        numbers = self.chosen(labels).flatten()
        summed = functional.cross_entropy(
            self.choices(logits).flatten(0, 1),
            numbers,
            ignore_index=UNLABELLED,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        return summed / len(numbers)

    # --- predictions ---

    @abstractmethod
    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """What logits [rows, outputs] predict, in the shape of the labels."""

    def one_choice_a_row(self, logits: np.ndarray) -> np.ndarray:
        """Logits [rows, outputs] as [rows * choices, options]: softmax runs over the options."""
        return logits

    # --- evaluation ---

    def judged_beside(self, metric: Metric, fitting: tuple[str, ...]) -> tuple[str, ...]:
        """The metrics that are reported in addition to the task's, in their order.

        fitting: kdsweep's own metrics for this kind.
        """
        return fitting

    def loss(self, labels: np.ndarray, logits: np.ndarray) -> float:
        """The mean loss that is reported: cross-entropy in nats, of each choice."""
        import numpy as np
        from sklearn.metrics import log_loss

        probabilities = self.probabilities(logits)
        options = np.arange(probabilities.shape[1])
        return float(log_loss(self.chosen_options(labels), probabilities, labels=options))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """softmax of `one_choice_a_row`, fp64."""
        import numpy as np

        return np.exp(self.log_probabilities(logits))

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """log softmax of `one_choice_a_row`, fp64."""
        import numpy as np
        from scipy.special import log_softmax

        one_a_row = np.asarray(self.one_choice_a_row(logits), dtype=np.float64)
        found: np.ndarray = log_softmax(one_a_row, axis=1)
        return found

    def chosen_options(self, labels: np.ndarray) -> np.ndarray:
        """The right option of each row of `one_choice_a_row`, int64."""
        import numpy as np

        return labels.astype(np.int64).ravel()

    # --- the teacher ---

    @abstractmethod
    def check_floor(self, validation: ValidationLogits) -> None:
        """Raise TeacherError unless a teacher's answers are clearly better than a constant."""

    # --- what a person reads ---

    @abstractmethod
    def guess_metric(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
        """A fair metric for labels of train, and why. names: of the outputs, as they are shown."""

    @abstractmethod
    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> str:
        """How the labels of train are spread, for a comment in a space."""

    @abstractmethod
    def describe_split(self, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        """What `kdsweep plan` shows of a split's labels, as JSON."""

    @abstractmethod
    def describe_model(self, names: str) -> str:
        """The first words of a model card. names: the outputs, already listed."""

    # --- serving ---

    def probability_of_each(self, logits: np.ndarray) -> np.ndarray:
        """How likely each output is, fp64 [rows, outputs]. Only of a kind with probabilities."""
        return self.probabilities(logits)

    @abstractmethod
    def serve(self, logits: np.ndarray, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """What each row is called, and the score of that, fp64 [rows]."""


@cache
def the_one(kind: type[TaskKind]) -> TaskKind:
    """The object of this kind: each process has one."""
    return kind()


def rows_by_value(values: np.ndarray) -> list[np.ndarray]:
    """For each different value the rows that have it, int64 each, in their order."""
    import numpy as np

    _, ends = np.unique(values, return_counts=True)
    return np.split(np.argsort(values, kind="stable"), np.cumsum(ends)[:-1])


def percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1f}%"


def describe_counts(counts: dict[str, int]) -> str:
    """The eight most frequent labels with their rows."""
    common = sorted(counts, key=lambda name: -counts[name])
    more = f" and {len(common) - 8} more" if len(common) > 8 else ""
    listed = ", ".join(f"{name} ({counts[name]:,})" for name in common[:8])
    return f"rows of train: {listed}{more}"
