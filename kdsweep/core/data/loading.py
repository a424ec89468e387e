"""A task's rows, read once and kept in the cache for every other process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep import __version__
from kdsweep.core.data.labels import read_labels
from kdsweep.core.data.raw_rows import clean_rows
from kdsweep.core.data.readers import is_on_hub, open_hub, read_splits
from kdsweep.core.data.row_store import map_rows, publish_rows
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.sources import DATA_SUFFIXES, local_path
from kdsweep.core.data.splits import fold_numbers, hold_out, limit_rows
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError

# --- loading ---------------------------------------------------------------------------------------------------------

# What a source is known by: for each file its path, when its content and when its entry last changed (ns), and its size.
Stamps = tuple[tuple[str, int, int, int], ...]
_LOADED: dict[tuple[str, Stamps, Path | None], TaskData] = {}
MOST_LOADED = 4


def load_task(
    task: TaskSettings,
    cache: Path | None = None,
    *,
    publish: bool = True,
    say: Say = lambda line: None,
) -> TaskData:
    """Read, check and split the task's rows.

    With `cache` they are kept there for every other process and mapped into memory: no process holds the texts. Without it, or
    where they are not there yet and `publish` is off, nothing is written and the rows are in memory, for the next caller in this process too.

    Raises DataError with what is wrong, where, and what to do.
    """
    task = task.model_copy(update={"unlabelled": None})
    settings, stamps = (
        task.model_dump_json(exclude={"truncation"}),
        stamps_of(task),
    )  # rows are whole, however much of them is read
    if (found := _LOADED.get((settings, stamps, cache))) is not None:
        return found
    if cache is None:
        return _in_memory(task, settings, stamps, None)
    hub = open_hub(str(task.dataset), task.subset, task.revision) if is_on_hub(task) else None
    folder = kept_in(cache, settings, stamps, hub)
    if not folder.is_dir():
        if not publish:
            return _in_memory(task, settings, stamps, hub)
        with locked(
            folder.with_suffix(".lock"),
            lambda: say("data: another process reads the rows; waiting"),
        ):
            if not folder.is_dir():
                data = _in_memory(task, settings, stamps, hub)
                if (
                    stamps_of(task) != stamps
                ):  # a file was written over meanwhile: who knows which one was read
                    return data
                publish_rows(data, folder)
    _LOADED.pop((settings, stamps, None), None)  # or this process would hold the texts for good
    return _remember(settings, stamps, cache, map_rows(folder))


def _in_memory(task: TaskSettings, settings: str, stamps: Stamps, hub: Any) -> TaskData:
    return _LOADED.get((settings, stamps, None)) or _remember(
        settings, stamps, None, _read_task(task, hub)
    )


def _remember(settings: str, stamps: Stamps, cache: Path | None, data: TaskData) -> TaskData:
    while len(_LOADED) >= MOST_LOADED:
        _LOADED.pop(next(iter(_LOADED)), None)
    _LOADED[settings, stamps, cache] = data
    return data


def stamps_of(task: TaskSettings) -> Stamps:
    """Of all files that the rows are read from; empty for a dataset of the Hub."""
    sources = [task.dataset] if isinstance(task.dataset, str) else list(task.dataset.values())
    paths = [path for source in sources if (path := local_path(source, DataError)) is not None]
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    return tuple((str(file.absolute()), *_stamp(file)) for file in files)


def _files_in(folder: Path) -> list[Path]:
    """Those that rows may be read from. The folder's own time says nothing: it stays what it was when a file in it is written over."""
    if (folder / "dataset_dict.json").exists():
        return sorted(file for file in folder.rglob("*") if file.is_file())
    return sorted(
        file for file in folder.iterdir() if file.suffix in DATA_SUFFIXES and file.is_file()
    )


# Two writes closer together than a file system's clock ticks leave the same time: Linux's tick is 10 ms at most, but some file
# systems (FAT, old NFS) keep whole seconds, or every other one.
TICK_SECONDS, COARSE_TICK_SECONDS = 0.02, 2.0


def _stamp(file: Path) -> tuple[int, int, int]:
    """Waits until a file that was written just now could not be written again without its time moving on."""
    stat = file.stat()
    tick = TICK_SECONDS if stat.st_mtime_ns % 1_000_000_000 else COARSE_TICK_SECONDS
    if 0 <= (age := time.time() - stat.st_mtime) < tick:
        time.sleep(tick - age)
        stat = file.stat()
    return (
        stat.st_mtime_ns,
        stat.st_ctime_ns,
        stat.st_size,
    )  # the second can't be set back by whoever copies a file with its time


def kept_in(cache: Path, settings: str, stamps: Stamps, hub: Any) -> Path:
    """The folder of the rows. In its name is all that they depend on: what the Hub gives has a fingerprint of its content."""
    content = (
        stamps
        if hub is None
        else sorted((str(name), dataset._fingerprint) for name, dataset in hub.items())
    )
    return cache / "rows" / fingerprint("rows 1", __version__, settings, content)


def _read_task(task: TaskSettings, hub: Any) -> TaskData:
    notes: list[str] = []
    frames = read_splits(task, hub)
    rows = {name: clean_rows(task, name, frame, notes) for name, frame in frames.items()}
    rows = hold_out(task, rows, notes)
    rows = {name: limit_rows(task, name, part) for name, part in rows.items()}
    label_names, numbers = read_labels(task, rows, frames["train"].label_names)
    splits = {}
    for name in rows:
        part, labels = rows[name], numbers[name]
        if (
            name == "train" and task.left_out is not None
        ):  # only now: which classes there are depends on no fold
            kept = np.flatnonzero(fold_numbers(part.texts, task.left_out.of) != task.left_out.fold)
            notes.append(
                f"train: {len(part) - len(kept):,} rows left out: fold {task.left_out.fold} of {task.left_out.of}"
            )
            part, labels = part.take(kept), labels[kept]
        key = fingerprint(
            name,
            labels.tobytes(),
            *("\x1e".join(column).encode("utf-8", "surrogatepass") for column in part.texts),
        )
        splits[name] = Split(name, part.texts, labels, key)
    return TaskData(label_names, splits, tuple(notes))
