"""A task's rows: read once, then kept in the cache for every other process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdsweep.core.data.raw_rows import RawRows, clean_rows
from kdsweep.core.data.raw_values import RawLabels
from kdsweep.core.data.readers import is_on_hub, open_hub, read_splits
from kdsweep.core.data.row_store import map_rows, publish_rows
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.sources import DATA_SUFFIXES, local_path
from kdsweep.core.data.splits import fold_numbers, hold_out, limit_rows
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError

if TYPE_CHECKING:
    from datasets import DatasetDict

# Part of the key of rows in the cache. Raise it when what is written there changes.
ROWS_FORMAT = 1

# What a source is known by, for each file: its path, the times (ns) when its content and its entry
# last changed, and its size.
Stamps = tuple[tuple[str, int, int, int], ...]

_LOADED: dict[tuple[str, Stamps, Path | None], TaskData] = {}
MOST_LOADED = 4

# Two writes that are closer together than a file system's clock ticks leave the same time. Linux
# ticks every 10 ms at most, but FAT and old NFS keep whole seconds, or every other one.
TICK_SECONDS = 0.02
COARSE_TICK_SECONDS = 2.0


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
    stamps = stamps_of(task)
    if (found := _LOADED.get((settings, stamps, cache))) is not None:
        return found
    if cache is None:
        return _in_memory(task, settings, stamps, None)
    hub = open_hub(str(task.dataset), task.subset, task.revision) if is_on_hub(task) else None
    folder = cache_folder(cache, settings, stamps, hub)
    if not folder.is_dir():
        if not publish:
            return _in_memory(task, settings, stamps, hub)
        with locked(
            folder.with_suffix(".lock"),
            lambda: say("data: waiting for another process that reads the rows"),
        ):
            if not folder.is_dir():
                data = _in_memory(task, settings, stamps, hub)
                # If a file changed meanwhile, nobody knows which version was read.
                if stamps_of(task) != stamps:
                    return data
                publish_rows(data, folder)
    # The mapped rows replace those in memory, or this process would hold the texts until its end.
    _LOADED.pop((settings, stamps, None), None)
    return _remember(settings, stamps, cache, map_rows(folder, task.kind))


def _in_memory(
    task: TaskSettings, settings: str, stamps: Stamps, hub: DatasetDict | None
) -> TaskData:
    if (found := _LOADED.get((settings, stamps, None))) is not None:
        return found
    return _remember(settings, stamps, None, _read_task(task, hub))


def _remember(settings: str, stamps: Stamps, cache: Path | None, data: TaskData) -> TaskData:
    while len(_LOADED) >= MOST_LOADED:
        _LOADED.pop(next(iter(_LOADED)), None)
    _LOADED[settings, stamps, cache] = data
    return data


def stamps_of(task: TaskSettings) -> Stamps:
    """The stamps of all files that the rows are read from; empty for a dataset on the Hub."""
    sources = [task.dataset] if isinstance(task.dataset, str) else list(task.dataset.values())
    paths = [path for source in sources if (path := local_path(source, DataError)) is not None]
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    return tuple((str(file.absolute()), *_stamp(file)) for file in files)


def _files_in(folder: Path) -> list[Path]:
    """The files that rows may be read from.

    The folder's own time would not do: it stays the same when a file in it is overwritten.
    """
    if (folder / "dataset_dict.json").exists():
        return sorted(file for file in folder.rglob("*") if file.is_file())
    return sorted(
        file for file in folder.iterdir() if file.suffix in DATA_SUFFIXES and file.is_file()
    )


def _stamp(file: Path) -> tuple[int, int, int]:
    """Times and size of a file. For one that was just written, waits until its file system's clock
    has ticked, so that another write would leave another time.
    """
    stat = file.stat()
    tick = TICK_SECONDS if stat.st_mtime_ns % 1_000_000_000 else COARSE_TICK_SECONDS
    if 0 <= (age := time.time() - stat.st_mtime) < tick:
        time.sleep(tick - age)
        stat = file.stat()
    # A program that copies a file with its time can set the first time back, but not the second.
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


def cache_folder(cache: Path, settings: str, stamps: Stamps, hub: DatasetDict | None) -> Path:
    """The folder of some rows. Its name hashes everything that they depend on.

    For a dataset on the Hub that is the fingerprint of its content, for files their stamps.
    """
    content: object = stamps
    if hub is not None:
        content = sorted((str(name), dataset._fingerprint) for name, dataset in hub.items())
    return cache / "rows" / fingerprint(f"rows {ROWS_FORMAT}", settings, content)


def _read_task(task: TaskSettings, hub: DatasetDict | None) -> TaskData:
    notes: list[str] = []
    frames = read_splits(task, hub)
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
