"""Rows as they are before they belong to a split: text and raw labels."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

import numpy as np

from kdsweep.core.data.labels import is_blank
from kdsweep.core.data.raw_values import RawLabels, as_text
from kdsweep.core.data.readers import Frame
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError, did_you_mean, first_few

# What a value of a text column may be, besides nothing and bytes.
TEXT_LIKE = (str, int, float, np.number, np.str_, Decimal, datetime.date, datetime.time)
# Half of a surrogate pair.
HALVES = re.compile("[\ud800-\udfff]")
# What others are called in an error.
NO_TEXTS: dict[type, str] = {
    list: "lists",
    tuple: "lists",
    np.ndarray: "lists",
    dict: "mappings",
}


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
    return RawLabels(task.label, splits, task.labels, task.metric, dataset_names, task.label_rule)


def clean_rows(task: TaskSettings, split: str, frame: Frame, notes: list[str]) -> RawRows:
    """The rows of a split that have a text and that `task.where` chooses.

    Adds a note about dropped rows. Raises DataError for a missing column or if no row is chosen.
    """
    _check_columns(task, frame)
    columns_of_labels = [_labels(frame, column) for column in task.label_columns]
    labels: list[object] = columns_of_labels[0]
    if not isinstance(task.label, str):
        labels = list(zip(*columns_of_labels, strict=True))
    texts = tuple(_texts(frame, column) for column in task.text)
    if halves := sum(
        map(_has_half_a_character, chain(*(frame.columns[column] for column in task.text)))
    ):
        notes.append(
            f"{split}: {halves:,} texts hold half of a character (an emoji that was cut), which is "
            "read as '?'"
        )
    rows = RawRows(texts, labels)
    keep = _chosen_by_where(task, frame, len(rows))
    chosen = int(keep.sum())
    for column_of_text in rows.texts:
        keep &= np.array([bool(text.strip()) for text in column_of_text], dtype=bool)
    if dropped := chosen - int(keep.sum()):
        notes.append(f"{split}: {dropped:,} of {chosen:,} rows dropped: their text is empty")
    if task.blank_labels == "drop":
        keep &= _labeled(split, rows, keep, notes)
    return rows.take(np.flatnonzero(keep))


def _labeled(split: str, rows: RawRows, keep: np.ndarray, notes: list[str]) -> np.ndarray:
    """bool [rows]: which rows have a label. Adds a note about the others among those to `keep`."""
    labeled = np.array([not is_blank(label) for label in rows.labels], dtype=bool)
    if blank := int((keep & ~labeled).sum()):
        notes.append(
            f"{split}: {blank:,} of {int(keep.sum()):,} rows dropped: their label is empty"
        )
    return labeled


def _has_half_a_character(value: object) -> bool:
    return isinstance(value, str) and not value.isascii() and HALVES.search(value) is not None


def _texts(frame: Frame, column: str) -> list[str]:
    return read_texts(frame.columns[column], f"task.text: {column} of {frame.source}")


def read_texts(values: Iterable[object], what: str, first_row: int = 1) -> list[str]:
    """Values as texts: bytes are UTF-8, numbers are as they are printed, and nothing is "".

    what: the column, as errors call it. Raises DataError for what is no text, with its row.
    """
    found = []
    for row, value in enumerate(values, start=first_row):
        text = _decoded(value, what, row)
        if text is not None and not isinstance(text, TEXT_LIKE):
            held = NO_TEXTS.get(type(text), f"values of type {type(text).__name__}")
            raise DataError(
                f"{what} holds {held}, not texts (row {row:,}); name another column, or join them "
                "to one text a row"
            )
        found.append(as_text(text))
    return found


def _labels(frame: Frame, column: str) -> list[object]:
    return [
        _decoded(value, f"task.label: {column} of {frame.source}", row)
        for row, value in enumerate(frame.columns[column], start=1)
    ]


def _decoded(value: object, what: str, row: int) -> object:
    """The text of bytes; any other value as it is. Raises DataError for bytes that aren't UTF-8."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} holds bytes that are no UTF-8 text (row {row:,}, byte {error.start}); save "
            "the column as text"
        ) from error


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
