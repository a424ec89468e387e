"""How rows are kept in the cache: written once, mapped into memory by every process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdsweep.core.data.mapped_arrays import MappedTexts, map_array
from kdsweep.core.data.rows import Split, TaskData, texts_key, without_labels
from kdsweep.core.files import publishing, read_json, write_json


def publish_texts(texts: tuple[Sequence[str], ...], notes: tuple[str, ...], folder: Path) -> None:
    """Write rows that have no labels into a new folder."""
    with publishing(folder) as beside:
        for number, column in enumerate(texts):
            MappedTexts.write(_texts(beside, "rows", number), column)
        written = tuple(MappedTexts(_texts(beside, "rows", number)) for number in range(len(texts)))
        write_json(
            beside / "meta.json", {"key": texts_key(written), "columns": len(texts), "notes": notes}
        )


def map_texts(folder: Path, name: str, like: np.ndarray) -> tuple[Split, tuple[str, ...]]:
    """What was published there as a split without labels, and what a user should know about it."""
    meta = read_json(folder / "meta.json")
    texts = tuple(MappedTexts(_texts(folder, "rows", number)) for number in range(meta["columns"]))
    return Split(name, texts, without_labels(like, len(texts[0])), meta["key"]), tuple(
        meta["notes"]
    )


def publish_rows(data: TaskData, folder: Path) -> None:
    """Write everything into a new folder, which is there as a whole or not at all."""
    with publishing(folder) as beside:
        for name, split in data.splits.items():
            np.save(_labels(beside, name), split.labels)
            for number, texts in enumerate(split.texts):
                MappedTexts.write(_texts(beside, name, number), texts)
        splits = {
            name: {"key": split.key, "columns": len(split.texts)}
            for name, split in data.splits.items()
        }
        write_json(
            beside / "meta.json",
            {"label_names": data.label_names, "notes": data.notes, "splits": splits},
        )


def map_rows(folder: Path) -> TaskData:
    """What was published there; labels and texts stay in their files."""
    meta = read_json(folder / "meta.json")
    splits = {}
    for name, facts in meta["splits"].items():
        texts = tuple(
            MappedTexts(_texts(folder, name, number)) for number in range(facts["columns"])
        )
        splits[name] = Split(name, texts, map_array(_labels(folder, name)), facts["key"])
    return TaskData(tuple(meta["label_names"]), splits, tuple(meta["notes"]))


def _labels(folder: Path, split: str) -> Path:
    return folder / f"{split}-labels.npy"


def _texts(folder: Path, split: str, column: int) -> Path:
    return folder / f"{split}-text-{column}.npy"
