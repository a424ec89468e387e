"""Rows as they are before they belong to a split: text and raw labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.core.data.raw_values import RawLabels, as_text
from kdsweep.core.data.readers import Frame
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError, did_you_mean, first_few


@dataclass(frozen=True)
class RawRows:
    """One text column, or two for sentence pairs, and a raw label for each row."""

    texts: tuple[Sequence[str], ...]
    labels: list[object]

    def __len__(self) -> int:
        return len(self.texts[0])

    def take(self, chosen: np.ndarray) -> RawRows:
        """The rows with these numbers."""
        return RawRows(
            tuple([column[i] for i in chosen] for column in self.texts),
            [self.labels[i] for i in chosen],
        )


def raw_labels(
    task: TaskSettings, rows: dict[str, RawRows], dataset_names: tuple[str, ...] | None = None
) -> RawLabels:
    """The labels of these splits, with what the task says of them."""
    splits = {name: part.labels for name, part in rows.items()}
    return RawLabels(task.label, splits, task.labels, task.metric, dataset_names)


def clean_rows(task: TaskSettings, split: str, frame: Frame, notes: list[str]) -> RawRows:
    """The rows of a split that have a text and that `task.where` chooses.

    Adds a note about dropped rows. Raises DataError for a missing column or if no row is chosen.
    """
    _check_columns(task, frame)
    columns_of_labels = [frame.columns[column] for column in task.label_columns]
    labels: list[object] = columns_of_labels[0]
    if not isinstance(task.label, str):
        labels = list(zip(*columns_of_labels, strict=True))
    texts = tuple([as_text(value) for value in frame.columns[column]] for column in task.text)
    rows = RawRows(texts, labels)
    keep = _chosen_by_where(task, frame, len(rows))
    chosen = int(keep.sum())
    for column_of_text in rows.texts:
        keep &= np.array([bool(text.strip()) for text in column_of_text], dtype=bool)
    if dropped := chosen - int(keep.sum()):
        notes.append(f"{split}: {dropped:,} of {chosen:,} rows dropped: their text is empty")
    return rows.take(np.flatnonzero(keep))


def _check_columns(task: TaskSettings, frame: Frame) -> None:
    wanted = {"text": task.text, "label": task.label_columns, "where": tuple(task.where)}
    for key, columns in wanted.items():
        for column in columns:
            if column not in frame.columns:
                found = first_few(map(repr, frame.columns))
                hint = did_you_mean(column, frame.columns)
                raise DataError(
                    f"task.{key}: {frame.source} has no column {column!r}, only {found}{hint}"
                )


def _chosen_by_where(task: TaskSettings, frame: Frame, rows: int) -> np.ndarray:
    """bool [rows]"""
    keep = np.ones(rows, dtype=bool)
    for column, wanted in task.where.items():
        values = [str(value) for value in frame.columns[column]]
        keep &= np.array([value == str(wanted) for value in values], dtype=bool)
        if not keep.any():
            common = ", ".join(repr(value) for value, _ in Counter(values).most_common(5))
            raise DataError(
                f"task.where: no row of {frame.source} has {column} = {wanted!r}; "
                f"the column has {common}"
            )
    return keep
