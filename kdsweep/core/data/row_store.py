"""How rows are kept in the cache: written once, and mapped into memory by every process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdsweep.core.data.mapped_arrays import MappedTexts, map_array
from kdsweep.core.data.rows import Split, TaskData, texts_key
from kdsweep.core.data.splits import rule_of
from kdsweep.core.files import publishing, read_json, write_json
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
    meta = read_json(folder / "meta.json")
    splits = {}
    for name, facts in meta["splits"].items():
        texts = _map_texts(folder, name, facts["columns"])
        splits[name] = Split(name, texts, map_array(_labels_file(folder, name)), facts["key"])
    names, notes = tuple(meta["label_names"]), tuple(meta["notes"])
    return TaskData(task.kind, names, splits, notes, rule_of(task))


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
    meta = read_json(folder / "meta.json")
    texts = _map_texts(folder, "rows", meta["columns"])
    return texts, meta["key"], tuple(meta["notes"])


def _map_texts(folder: Path, split: str, columns: int) -> tuple[MappedTexts, ...]:
    return tuple(MappedTexts(_texts_file(folder, split, number)) for number in range(columns))


def _labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def _texts_file(folder: Path, split: str, column: int) -> Path:
    return folder / f"{split}-text-{column}.npy"
