"""How rows are kept in the cache: written once, and mapped into memory by every process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdsweep.core.data.mapped_arrays import MappedTexts
from kdsweep.core.data.rows import Split, TaskData, texts_key
from kdsweep.core.data.splits import rule_of
from kdsweep.core.files import publishing, read_array, read_json, whole, write_json
from kdsweep.core.settings import TaskSettings


def publish_rows(data: TaskData, folder: Path) -> None:
    """Write a task's rows into a new folder, which appears as a whole or not at all."""
    with publishing(folder) as beside:
        for name, split in data.splits.items():
            np.save(_labels_file(beside, name), split.labels)
            for number, texts in enumerate(split.texts):
                MappedTexts.write(_texts_file(beside, name, number), texts)
        splits = {
            name: {"key": split.key, "columns": len(split.texts)}
            for name, split in data.splits.items()
        }
        meta = {"label_names": data.label_names, "notes": data.notes, "splits": splits}
        write_json(beside / "meta.json", meta)


def map_rows(folder: Path, task: TaskSettings) -> TaskData:
    """The rows that `publish_rows` wrote; labels and texts stay in their files."""
    with whole(folder / "meta.json"):
        meta = read_json(folder / "meta.json")
        names, notes = tuple(meta["label_names"]), tuple(meta["notes"])
        splits = {}
        for name, facts in meta["splits"].items():
            texts = _map_texts(folder, name, facts["columns"])
            labels = _map_labels(folder, name, task.kind.empty_labels(len(texts[0]), len(names)))
            splits[name] = Split(name, texts, labels, facts["key"])
        return TaskData(task.kind, names, splits, notes, rule_of(task))


def _map_labels(folder: Path, split: str, like: np.ndarray) -> np.ndarray:
    return read_array(_labels_file(folder, split), mmap_mode="r", like=like).view(np.ndarray)


def publish_texts(
    texts: tuple[Sequence[str], ...],
    notes: tuple[str, ...],
    folder: Path,
    *,
    of: str | None = None,
) -> None:
    """Write rows that have no labels into a new folder, which appears as a whole or not at all.

    of: the content hash of the rows that these were made from.
    """
    with publishing(folder) as beside:
        for number, column in enumerate(texts):
            MappedTexts.write(_texts_file(beside, "rows", number), column)
        written = _map_texts(beside, "rows", len(texts))
        meta = {"key": texts_key(written), "columns": len(texts), "notes": notes, "of": of}
        write_json(beside / "meta.json", meta)


def map_texts(folder: Path) -> tuple[tuple[MappedTexts, ...], str, tuple[str, ...]]:
    """The text columns that `publish_texts` wrote, their content hash, and their notes."""
    with whole(folder / "meta.json"):
        meta = read_json(folder / "meta.json")
        texts = _map_texts(folder, "rows", meta["columns"])
        return texts, meta["key"], tuple(meta["notes"])


def _map_texts(folder: Path, split: str, columns: int) -> tuple[MappedTexts, ...]:
    """The columns. Raises ValueError if they have different numbers of rows."""
    found = tuple(MappedTexts(_texts_file(folder, split, number)) for number in range(columns))
    if len({len(column) for column in found}) != 1:
        raise ValueError(f"the columns of {split} don't have the same number of rows")
    return found


def _labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def _texts_file(folder: Path, split: str, column: int) -> Path:
    return folder / f"{split}-text-{column}.npy"
