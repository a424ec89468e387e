"""Which row belongs to which split: a pure function of the rows' content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsweep.core.data.readers import Frame
from kdsweep.core.settings import SPLITS, TaskSettings
from kdsweep.errors import DataError, did_you_mean


@dataclass
class RawRows:
    """Rows on their way to a split: text columns, raw labels, and the hash that decides on splits and limits."""

    texts: tuple[Sequence[str], ...]
    labels: list[Any]

    def take(self, chosen: np.ndarray) -> RawRows:
        return RawRows(
            tuple([column[i] for i in chosen] for column in self.texts),
            [self.labels[i] for i in chosen],
        )

    def __len__(self) -> int:
        return len(self.texts[0])

    def hashes(self, salt: bytes) -> np.ndarray:
        return text_hashes(self.texts, salt)


def text_hashes(texts: Sequence[Sequence[str]], salt: bytes) -> np.ndarray:
    """[rows] numbers in [0, 1), equal for texts that differ only in case and white space."""
    out = np.empty(len(texts[0]), dtype=np.float64)
    for i, columns in enumerate(zip(*texts, strict=True)):
        text = "\x1f".join(" ".join(column.split()).casefold() for column in columns)
        digest = hashlib.blake2b(
            text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt
        ).digest()
        out[i] = (int.from_bytes(digest, "little") >> 11) / 2**53
    return out


def fold_numbers(texts: Sequence[Sequence[str]], folds: int) -> np.ndarray:
    """int64 [rows]: which of so many folds each row is in, by hash of its text, so that no text is in two."""
    return (text_hashes(texts, b"fold") * folds).astype(np.int64)


# --- rows, splits and labels -----------------------------------------------------------------------------------------


def clean_rows(task: TaskSettings, split: str, frame: Frame, notes: list[str]) -> RawRows:
    for key, columns in (
        ("text", task.text),
        ("label", task.label_columns),
        ("where", tuple(task.where)),
    ):
        for column in columns:
            if column not in frame.columns:
                hint = did_you_mean(column, frame.columns)
                raise DataError(
                    f"task.{key}: {frame.source} has no column {column!r}, only {', '.join(map(repr, frame.columns))}{hint}"
                )
    columns_of_labels = [frame.columns[column] for column in task.label_columns]
    labels = (
        columns_of_labels[0]
        if isinstance(task.label, str)
        else list(zip(*columns_of_labels, strict=True))
    )
    rows = RawRows(
        tuple([as_text(value) for value in frame.columns[column]] for column in task.text), labels
    )
    keep = np.ones(len(rows), dtype=bool)
    for column, wanted in task.where.items():
        keep &= np.array([str(value) == str(wanted) for value in frame.columns[column]], dtype=bool)
        if not keep.any():
            found = ", ".join(
                repr(value) for value, _ in Counter(map(str, frame.columns[column])).most_common(5)
            )
            raise DataError(
                f"task.where: no row of {frame.source} has {column} = {wanted!r}; the column has {found}"
            )
    chosen = int(keep.sum())
    for column_of_text in rows.texts:
        keep &= np.array([bool(text.strip()) for text in column_of_text], dtype=bool)
    if dropped := chosen - int(keep.sum()):
        notes.append(f"{split}: {dropped:,} of {chosen:,} rows dropped: their text is empty")
    return rows.take(np.flatnonzero(keep))


def as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = value if isinstance(value, str) else str(value)
    # Half a surrogate pair (JSON can write one: an emoji cut in two) is no character: no tokenizer and no file takes it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def hold_out(task: TaskSettings, rows: dict[str, RawRows], notes: list[str]) -> dict[str, RawRows]:
    """Give every row of train whose text is in another split to nobody, and hold out what isn't named. No text in two splits."""
    out: dict[str, RawRows] = {}
    taken = np.empty(0)
    for name in (
        "test",
        *task.splits.more_tests,
        "validation",
    ):  # the test split is first: it is the one that must stay what it is
        if name in rows:
            hashes = rows[name].hashes(b"split")
            fresh = ~np.isin(hashes, taken)
            if common := int((~fresh).sum()):
                notes.append(
                    f"{name}: {common:,} rows dropped: their text is in {'a' if task.splits.more_tests else 'the'} test split too"
                )
            out[name] = rows[name].take(np.flatnonzero(fresh))
            taken = np.concatenate([taken, hashes])
    train, hashes = rows["train"], rows["train"].hashes(b"split")
    free = ~np.isin(hashes, taken)
    if common := int((~free).sum()):
        notes.append(
            f"train: {common:,} rows dropped: their text is in the validation or test split too"
        )
    edge = 0.0
    for name in ("test", "validation"):
        if name not in rows:
            held = free & (hashes >= edge) & (hashes < edge + task.holdout)
            out[name] = train.take(np.flatnonzero(held))
            free &= ~held
            edge += task.holdout
            notes.append(f"{name}: {len(out[name]):,} rows held out of train by hash of their text")
    out["train"] = train.take(np.flatnonzero(free))
    for name in (*SPLITS, *task.splits.more_tests):
        if not len(out[name]):
            raise DataError(
                f"task.dataset: the {name} split has no rows ({len(train):,} rows in train before splits were held out)"
            )
    return {name: out[name] for name in (*SPLITS, *task.splits.more_tests)}


def limit_rows(task: TaskSettings, name: str, rows: RawRows) -> RawRows:
    limit = getattr(task.limit, name if name in SPLITS else "test")
    if limit is None or limit >= len(rows):
        return rows
    return nearest(rows, limit)


def nearest(rows: RawRows, limit: int) -> RawRows:
    return rows.take(np.sort(np.argsort(rows.hashes(b"limit"), kind="stable")[:limit]))
