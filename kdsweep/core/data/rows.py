"""A task's rows in their splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdsweep.core.files import fingerprint
from kdsweep.core.settings import SPLITS, Kind
from kdsweep.core.tasks.predictions import kind_of

Say = Callable[[str], None]
UNLABELLED = -100  # the class number of a row that only the teacher labels; in a regression or with several labels it is NaN


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split. `texts` holds one column, or two for sentence pairs; `labels` is int64 [rows], fp32 [rows] in a regression,
    fp32 [rows, classes] of 0 and 1 where a row may have several; `key` hashes it all.

    A column is a list, or reads from a file what is asked for; a slice of it is a list in any case.
    """

    name: str
    texts: tuple[Sequence[str], ...]
    labels: np.ndarray
    key: str

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> Split:
        """The rows of these numbers, in memory."""
        texts = tuple([column[i] for i in chosen.tolist()] for column in self.texts)
        return Split(
            self.name,
            texts,
            self.labels[chosen],
            fingerprint(self.key, chosen.astype(np.int64).tobytes()),
        )


@dataclass(frozen=True, eq=False)
class TaskData:
    """The three splits and any more tests, what the classes are called, and what a user should know about how they came about.

    A regression has one name: that of its output.
    """

    label_names: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]

    def with_splits(self, *splits: Split) -> TaskData:
        """The same task with these splits as well; one of the same name takes the old one's place."""
        return replace(self, splits=self.splits | {split.name: split for split in splits})

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        return self.splits["validation"]

    @property
    def test(self) -> Split:
        return self.splits["test"]

    @property
    def more_tests(self) -> dict[str, Split]:
        """The splits that are judged beside test."""
        return {name: split for name, split in self.splits.items() if name not in SPLITS}

    @property
    def kind(self) -> Kind:
        return kind_of(self.train.labels)

    @property
    def key(self) -> str:
        return fingerprint(self.label_names, [split.key for split in self.splits.values()])


def without_labels(like: np.ndarray, rows: int) -> np.ndarray:
    """Labels of so many rows that have none, of the kind of `like`."""
    return np.full(
        (rows, *like.shape[1:]),
        np.nan if np.issubdtype(like.dtype, np.floating) else UNLABELLED,
        dtype=like.dtype,
    )


def texts_key(texts: tuple[Sequence[str], ...]) -> str:
    """A content hash of texts, read one by one."""
    digest = hashlib.blake2b(digest_size=8)
    for column in texts:
        digest.update(len(column).to_bytes(8, "little"))
        for text in column:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()
