"""Values as a dataset has them: text, and labels with what the task says about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RawLabels:
    """The labels of a task as they were read, and what its settings and its dataset say of them.

    label: the column, or the columns, that the task names. splits: for each split the value of each
    row; a tuple of values if there are several columns. wanted: the order in which the task names
    its labels. metric: the task's. dataset_names: the labels, if the dataset itself names them.
    label_rule: what labels are called (`label_names`).
    """

    label: str | tuple[str, ...]
    splits: dict[str, list[object]]
    wanted: tuple[str, ...] | None
    metric: str
    dataset_names: tuple[str, ...] | None
    label_rule: int = 2

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label


def as_text(value: object) -> str:
    """A value of a text column as text; "" for None and NaN."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = value if isinstance(value, str) else str(value)
    # JSON can hold half of a surrogate pair (an emoji cut in two). It is no character, and
    # tokenizers and files refuse it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
