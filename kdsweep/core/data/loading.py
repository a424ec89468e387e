"""A task's rows: read once, then kept in the cache for every other process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdsweep.core.data.data_source import DataSource, Stamps, find_source
from kdsweep.core.data.raw_rows import RawRows, clean_rows
from kdsweep.core.data.raw_values import RawLabels
from kdsweep.core.data.readers import read_splits
from kdsweep.core.data.row_store import map_rows, publish_rows
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.splits import fold_numbers, hold_out, limit_rows
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.settings import TaskSettings

# Part of the key of rows in the cache. Raise it when what is written there changes.
ROWS_FORMAT = 1

_LOADED: dict[tuple[str, Stamps, Path | None], TaskData] = {}
MOST_LOADED = 4


def load_task(
    task: TaskSettings,
    cache: Path | None = None,
    *,
    publish: bool = True,
    say: Say = lambda line: None,
) -> TaskData:
    """The task's rows: read, checked, and given to splits.

    With `cache` they are written there for every other process and mapped into memory, so that no
    process holds the texts. Without it, or if they aren't there yet and `publish` is off, nothing
    is written and the rows are in memory, for the next call in this process too.

    Raises DataError, which says what is wrong, where, and what to do.
    """
    task = task.model_copy(update={"unlabelled": None})
    # Rows are kept whole, so the truncation is no part of their key.
    settings = task.model_dump_json(exclude={"truncation"})
    source = find_source(task)
    if (found := _LOADED.get((settings, source.stamps, cache))) is not None:
        return found
    if cache is None:
        return _in_memory(task, settings, source)
    folder = cache_folder(cache, settings, source)
    if not folder.is_dir():
        if not publish:
            return _in_memory(task, settings, source)
        with locked(
            folder.with_suffix(".lock"),
            lambda: say("data: waiting for another process that reads the rows"),
        ):
            if not folder.is_dir():
                data = _in_memory(task, settings, source)
                # If a file changed meanwhile, nobody knows which version was read.
                if find_source(task) != source:
                    return data
                publish_rows(data, folder)
    # The mapped rows replace those in memory, or this process would hold the texts until its end.
    _LOADED.pop((settings, source.stamps, None), None)
    return _remember(settings, source.stamps, cache, map_rows(folder, task.kind))


def _in_memory(task: TaskSettings, settings: str, source: DataSource) -> TaskData:
    if (found := _LOADED.get((settings, source.stamps, None))) is not None:
        return found
    return _remember(settings, source.stamps, None, _read_task(task, source))


def _remember(settings: str, stamps: Stamps, cache: Path | None, data: TaskData) -> TaskData:
    while len(_LOADED) >= MOST_LOADED:
        _LOADED.pop(next(iter(_LOADED)), None)
    _LOADED[settings, stamps, cache] = data
    return data


def cache_folder(cache: Path, settings: str, source: DataSource) -> Path:
    """The folder of some rows. Its name hashes everything that they depend on."""
    return cache / "rows" / fingerprint(f"rows {ROWS_FORMAT}", settings, source.content)


def _read_task(task: TaskSettings, source: DataSource) -> TaskData:
    notes: list[str] = []
    frames = read_splits(task, source)
    rows = {name: clean_rows(task, name, frame, notes) for name, frame in frames.items()}
    rows = hold_out(task, rows, notes)
    rows = {name: limit_rows(task, name, part) for name, part in rows.items()}
    raw = {name: part.labels for name, part in rows.items()}
    label_names, labels = task.kind.read_labels(
        RawLabels(task.label, raw, task.labels, task.metric, frames["train"].label_names)
    )
    # A fold is left out after labels were read, because no fold changes which classes there are.
    rows["train"], labels["train"] = _without_fold(task, rows["train"], labels["train"], notes)
    splits = {
        name: Split(name, part.texts, labels[name], _split_key(name, part, labels[name]))
        for name, part in rows.items()
    }
    return TaskData(task.kind, label_names, splits, tuple(notes))


def _without_fold(
    task: TaskSettings, train: RawRows, labels: np.ndarray, notes: list[str]
) -> tuple[RawRows, np.ndarray]:
    fold = task.left_out
    if fold is None:
        return train, labels
    kept = np.flatnonzero(fold_numbers(train.texts, fold.of) != fold.fold)
    left_out = len(train) - len(kept)
    notes.append(f"train: {left_out:,} rows left out: fold {fold.fold} of {fold.of}")
    return train.take(kept), labels[kept]


def _split_key(name: str, rows: RawRows, labels: np.ndarray) -> str:
    columns = ["\x1e".join(column).encode("utf-8", "surrogatepass") for column in rows.texts]
    return fingerprint(name, labels.tobytes(), *columns)
