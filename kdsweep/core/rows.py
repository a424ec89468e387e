"""A task's rows in their three splits, and how they are kept in the cache.

Reading, cleaning, splitting and numbering a million rows takes half a minute and a gigabyte. One process does it; all others map
the result into memory, where they share it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdsweep.core.answers import kind_of
from kdsweep.core.arrays import MappedTexts, map_array
from kdsweep.core.files import fingerprint, publishing, read_json, write_json
from kdsweep.core.settings import SPLITS, Kind

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
        return Split(self.name, texts, self.labels[chosen], fingerprint(self.key, chosen.astype(np.int64).tobytes()))


@dataclass(frozen=True, eq=False)
class TaskData:
    """The three splits and any more tests, what the classes are called, and what a user should know about how they came about.

    A regression has one name: that of its output.
    """

    label_names: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]

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
    return np.full((rows, *like.shape[1:]), np.nan if np.issubdtype(like.dtype, np.floating) else UNLABELLED, dtype=like.dtype)


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


def publish_texts(texts: tuple[Sequence[str], ...], notes: tuple[str, ...], folder: Path) -> None:
    """Write rows that have no labels into a new folder."""
    with publishing(folder) as beside:
        for number, column in enumerate(texts):
            MappedTexts.write(_texts(beside, "rows", number), column)
        written = tuple(MappedTexts(_texts(beside, "rows", number)) for number in range(len(texts)))
        write_json(beside / "meta.json", {"key": texts_key(written), "columns": len(texts), "notes": notes})


def map_texts(folder: Path, name: str, like: np.ndarray) -> tuple[Split, tuple[str, ...]]:
    """What was published there as a split without labels, and what a user should know about it."""
    meta = read_json(folder / "meta.json")
    texts = tuple(MappedTexts(_texts(folder, "rows", number)) for number in range(meta["columns"]))
    return Split(name, texts, without_labels(like, len(texts[0])), meta["key"]), tuple(meta["notes"])


def publish_rows(data: TaskData, folder: Path) -> None:
    """Write everything into a new folder, which is there as a whole or not at all."""
    with publishing(folder) as beside:
        for name, split in data.splits.items():
            np.save(_labels(beside, name), split.labels)
            for number, texts in enumerate(split.texts):
                MappedTexts.write(_texts(beside, name, number), texts)
        splits = {name: {"key": split.key, "columns": len(split.texts)} for name, split in data.splits.items()}
        write_json(beside / "meta.json", {"label_names": data.label_names, "notes": data.notes, "splits": splits})


def map_rows(folder: Path) -> TaskData:
    """What was published there; labels and texts stay in their files."""
    meta = read_json(folder / "meta.json")
    splits = {}
    for name, facts in meta["splits"].items():
        texts = tuple(MappedTexts(_texts(folder, name, number)) for number in range(facts["columns"]))
        splits[name] = Split(name, texts, map_array(_labels(folder, name)), facts["key"])
    return TaskData(tuple(meta["label_names"]), splits, tuple(meta["notes"]))


def _labels(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def _texts(folder: Path, split: str, column: int) -> Path:
    return folder / f"{split}-text-{column}.npy"
