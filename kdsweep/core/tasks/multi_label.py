"""A task whose rows may each have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kdsweep.core.tasks.base import (
    UNLABELLED,
    TaskKind,
    describe_counts,
    percent,
)
from kdsweep.core.tasks.floor import ValidationLogits, below_majority, majority_floor

if TYPE_CHECKING:
    import numpy as np
    import torch

    from kdsweep.core.data.raw_values import RawLabels

# Of the rows. A label with fewer is mentioned where the metric is guessed.
RARE_LABEL = 0.05


class MultiLabel(TaskKind):
    """Labels: 0 and 1, fp32 [rows, labels]; NaN throughout for a row without a label.

    Each label is a choice between no and yes. The softmax of its two logits, 0 and the model's
    output, is the output's sigmoid.
    """

    name = "multi_label"
    noun = "a task of several labels"
    description = "each label is a separate yes or no; a row may have several, or none"
    loss_formula = (
        "alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher || student), both for the "
        "yes or no of each label: alpha weighs the labels of the rows, T is `temperature`."
    )
    default_metric = "f1_micro"
    problem_type = "multi_label_classification"
    takes_label_columns = True
    stratified = "of each label by hash of their text"

    def read_labels(self, raw: RawLabels) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
        from kdsweep.core.data.labels import read_label_sets

        return read_label_sets(raw)

    def read_split(self, raw: RawLabels, split: str) -> np.ndarray:
        from kdsweep.core.data.labels import label_matrix

        return label_matrix(raw, split)

    def strata(self, labels: np.ndarray) -> list[np.ndarray]:
        """One for each label, and one for rows without any."""
        import numpy as np

        without = np.flatnonzero(~labels.any(axis=1))
        return [*(np.flatnonzero(column) for column in labels.T), without]

    def empty_labels(self, rows: int, outputs: int) -> np.ndarray:
        import numpy as np

        return np.full((rows, outputs), np.nan, dtype=np.float32)

    def check_shapes(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        if logits.ndim != 2 or labels.shape != logits.shape:
            raise ValueError(
                f"kind: {self.name}: logits {tuple(logits.shape)} and labels "
                f"{tuple(labels.shape)} must both be [rows, labels]"
            )

    def choices(self, logits: torch.Tensor) -> torch.Tensor:
        """[..., labels] as [..., labels, 2]: no and yes for each label."""
        import torch

        return torch.stack([torch.zeros_like(logits), logits], dim=-1)

    def chosen(self, labels: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.where(labels.isnan(), UNLABELLED, labels.round()).long()

    def predictions(self, logits: np.ndarray) -> np.ndarray:
        """0 and 1, [rows, labels]; 1 from a probability of one half."""
        import numpy as np

        return np.asarray((logits >= 0).astype(np.int64))

    def one_choice_a_row(self, logits: np.ndarray) -> np.ndarray:
        """No and yes of each label, [rows * labels, 2]."""
        import numpy as np

        return np.stack([np.zeros_like(logits), logits], axis=-1).reshape(-1, 2)

    def check_floor(self, validation: ValidationLogits) -> None:
        """The floor is those labels that more than half of the rows of train have."""
        import numpy as np

        reached = validation.score(self.predictions(validation.logits))
        majority = np.asarray(validation.train_labels).mean(axis=0) > 0.5
        floor = majority_floor(validation, majority)
        if reached < floor.asked:
            raise below_majority(validation, reached, floor)

    def guess_metric(self, labels: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
        shares = labels.mean(axis=0)
        rare = int(shares.argmin())
        reason = "all labels of all rows together"
        if shares[rare] >= RARE_LABEL:
            return self.default_metric, reason
        return self.default_metric, (
            f"{reason}; `{names[rare]}`, which {percent(shares[rare])} of the rows have, counts "
            "as much as any in f1_macro alone"
        )

    def describe_labels(self, labels: np.ndarray, names: Sequence[str]) -> str:
        counts = [int(count) for count in labels.sum(axis=0)]
        spread = describe_counts(dict(zip(names, counts, strict=True)))
        a_row = labels.sum(axis=1)
        if (a_row == 1).all():
            return (
                f"{spread}; every row has exactly one, so a column with its name would do, as a "
                "classification"
            )
        empty = int((a_row == 0).sum())
        return f"{spread}; {a_row.mean():.1f} labels a row on average, {empty:,} rows have none"

    def describe_split(self, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
        counts = labels.sum(axis=0)
        return {"labels": {name: int(n) for name, n in zip(names, counts, strict=True)}}

    def describe_model(self, names: str) -> str:
        return f"A text classifier with the labels {names}, of which a text may have any number"

    def probability_of_each(self, logits: np.ndarray) -> np.ndarray:
        return self.probabilities(logits)[:, 1].reshape(logits.shape)

    def serve(self, logits: np.ndarray, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """All labels that are likelier than not, and the probability of the least sure of all."""
        import numpy as np

        predicted = self.predictions(logits)
        shown = [_quoted(name) for name in names]
        labels = [", ".join(shown[i] for i in np.flatnonzero(row).tolist()) for row in predicted]
        sure = self.probabilities(logits).max(axis=1).reshape(logits.shape)
        return labels, sure.min(axis=1)


def _quoted(name: str) -> str:
    """The name; in quotes, as in a csv, if it holds a comma or a quote."""
    if "," not in name and '"' not in name:
        return name
    return '"' + name.replace('"', '""') + '"'
