"""Where the rows of a task are: files on this machine, or a dataset on the Hub. Found once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kdsweep.core.data.folders import data_files_in
from kdsweep.core.data.hub_dataset import dataset_commit, open_dataset
from kdsweep.core.data.sources import local_path, looks_like_a_path
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError

if TYPE_CHECKING:
    from datasets import DatasetDict

Made = TypeVar("Made")
# What files are known by: for each its path, the times (ns) when its content and its entry last
# changed, and its size.
Stamps = tuple[tuple[str, int, int, int], ...]

# Two writes that are closer together than a file system's clock ticks leave the same time. Linux
# ticks every 10 ms at most, but FAT and old NFS keep whole seconds, or every other one.
TICK_SECONDS = 0.02
COARSE_TICK_SECONDS = 2.0


@dataclass(frozen=True)
class DataSource:
    """What `task.dataset` names, as it was found on this machine.

    is_mapping: whether it maps splits to files. paths: the file or folder of each name in it; None
    for one that isn't here. stamps: of all files that rows may be read from; empty for a dataset on
    the Hub. subset, revision: of such a dataset.
    """

    is_mapping: bool
    paths: dict[str, Path | None]
    stamps: Stamps
    subset: str | None
    revision: str | None

    @property
    def name(self) -> str:
        """The dataset's name, if the task doesn't map splits to files."""
        return next(iter(self.paths))

    def on_hub(self, use: Callable[[DatasetDict], Made]) -> Made:
        """What `use` makes of the dataset on the Hub. Raises DataError for a name that can only
        mean a path, and HubUnreachable."""
        if looks_like_a_path(self.name):
            raise DataError(f"task.dataset: there is no file or folder {self.name!r}")
        return open_dataset(self.name, self.subset, self.revision, use)

    @property
    def content(self) -> object:
        """What the rows depend on: the commit of a dataset on the Hub, or stamps of files."""
        if self.is_mapping or self.paths[self.name] is not None or looks_like_a_path(self.name):
            return self.stamps
        return ["commit", dataset_commit(self.name, self.revision)]


def find_source(task: TaskSettings) -> DataSource:
    """Look for the task's data on this machine. Nothing is read yet, and the Hub isn't asked."""
    names = [task.dataset] if isinstance(task.dataset, str) else list(task.dataset.values())
    paths = {name: local_path(name, DataError) for name in names}
    # A folder's own time would not do: it stays the same when a file in it is overwritten.
    here = [path for name in names if (path := paths[name]) is not None]
    files = [file for path in here for file in (data_files_in(path) if path.is_dir() else [path])]
    stamps = tuple((str(file.absolute()), *_stamp(file)) for file in files)
    return DataSource(isinstance(task.dataset, dict), paths, stamps, task.subset, task.revision)


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
