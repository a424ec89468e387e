"""What the tests of reading, splitting and labeling share: rows, and a task that is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import sentences, write_csv

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.settings import TaskSettings
from kdsweep.core.split_settings import SPLITS

ROWS = sentences(120)


def task_of(dataset: Path | str | dict[str, str], **keys: Any) -> TaskSettings:
    if isinstance(dataset, Path):
        dataset = str(dataset)
    defaults = {"dataset": dataset, "text": "text", "label": "label", "holdout": 0.2}
    return TaskSettings(**(defaults | keys))


def load(dataset: Path | str | dict[str, str], **keys: Any) -> TaskData:
    return load_task(task_of(dataset, **keys))


def labels_by_text(data: TaskData) -> dict[str, str]:
    """Text (or texts, with | between them) -> the label's name, over all splits."""
    return {
        "|".join(texts): data.label_names[label]
        for split in data.splits.values()
        for *texts, label in zip(*split.texts, split.labels, strict=True)
    }


def texts_of(data: TaskData) -> dict[str, set[str]]:
    return {name: set(data.splits[name].texts[0]) for name in SPLITS}


def row_count(data: TaskData) -> int:
    return sum(map(len, data.splits.values()))


def folder_of_splits(folder: Path) -> Path:
    """A folder with train.csv (80 rows), validation.csv and test.csv (20 rows each)."""
    folder.mkdir()
    write_csv(folder / "train.csv", ROWS[:80])
    write_csv(folder / "validation.csv", [(f"{text} yes", label) for text, label in ROWS[80:100]])
    write_csv(folder / "test.csv", [(f"{text} no", label) for text, label in ROWS[100:]])
    return folder
