"""A task's rows in their splits, as everything after loading sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kdsweep.core.data.text_hashes import STRATIFIED, SplitRule
from kdsweep.core.files import fingerprint
from kdsweep.core.split_settings import SPLITS
from kdsweep.core.tasks.base import TaskKind

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split.

    texts: one column, or two for sentence pairs. A column is a list or reads from a file; a slice
    of it is a list in any case. labels: int64 [rows], fp32 [rows] in a regression, fp32 [rows,
    classes] of 0 and 1 if a row may have several labels. key: a hash of all of it. is_view: each
    row is the row of train with the same number, in other words.
    """

    name: str
    texts: tuple[Sequence[str], ...]
    labels: np.ndarray
    key: str
    is_view: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: np.ndarray) -> Split:
        """The rows with these numbers, in memory."""
        texts = tuple([column[i] for i in chosen.tolist()] for column in self.texts)
        return Split(
            self.name,
            texts,
            self.labels[chosen],
            fingerprint(self.key, chosen.astype(np.int64).tobytes()),
        )


@dataclass(frozen=True, eq=False)
class TaskData:
    """All splits of a task: train, validation, test, and any further tests.

    label_names: of the classes; in a regression, of its one output. notes: what a user should know
    about how the splits were made, such as dropped rows. split_rule: how they were made.
    """

    kind: TaskKind
    label_names: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]
    split_rule: SplitRule = STRATIFIED

    def with_splits(self, *splits: Split) -> TaskData:
        """The task with these splits too; one with the name of an existing split replaces it."""
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
        """The splits on which students are judged as well as on test."""
        return {name: split for name, split in self.splits.items() if name not in SPLITS}

    def empty_labels(self, rows: int) -> np.ndarray:
        """Labels for `rows` rows that have none."""
        return self.kind.empty_labels(rows, len(self.label_names))

    @property
    def key(self) -> str:
        return fingerprint(self.label_names, [split.key for split in self.splits.values()])


def texts_key(texts: tuple[Sequence[str], ...]) -> str:
    """A hash of the texts, which are read one by one."""
    digest = hashlib.blake2b(digest_size=8)
    for column in texts:
        digest.update(len(column).to_bytes(8, "little"))
        for text in column:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()
