"""From a dataset to the columns of its splits: files, folders, saved datasets, and the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kdsweep.core.data.data_source import DataSource
from kdsweep.core.data.folders import (
    check_one_split,
    files_of_splits,
    is_saved_dataset,
    split_named,
)
from kdsweep.core.data.raw_table import RawTable
from kdsweep.core.data.table_files import names_of_feature, read_table
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError, did_you_mean, first_few, first_line

if TYPE_CHECKING:
    from datasets import Dataset

Named = TypeVar("Named")


@dataclass(frozen=True)
class Frame:
    """Columns of one split by name, as read.

    label_names: the classes, if the split itself names them; its labels are their numbers. source:
    what errors call it. notes: what a user should know about how its files were read.
    """

    columns: dict[str, list[object]]
    label_names: tuple[str, ...] | None
    source: str
    notes: tuple[str, ...] = ()


def read_splits(task: TaskSettings, source: DataSource) -> dict[str, Frame]:
    """The splits that the space names, as the dataset has them. Raises DataError."""
    if isinstance(task.dataset, dict):
        return _read_mapping(task, source)
    named = task.splits.named
    path = source.paths[source.name]
    if path is None:
        return source.on_hub(
            lambda found: {
                name: _from_dataset(pick_split(found, split, source.name), task, source.name)
                for name, split in named.items()
            }
        )
    if path.is_dir():
        return _read_folder(path, task)
    if named != {"train": "train"}:
        raise DataError(
            f"task.splits: {source.name} is one file, so it has no splits to name; give "
            "'dataset: {train: FILE, test: FILE}', or leave 'splits' out to hold rows out of the "
            "file"
        )
    return {"train": _from_files([path], task)}


def _read_mapping(task: TaskSettings, source: DataSource) -> dict[str, Frame]:
    assert isinstance(task.dataset, dict)
    if "train" not in task.dataset:
        raise DataError("task.dataset: a mapping of files needs a 'train' file")
    if task.splits.more_tests:
        raise DataError(
            "task.splits.more_tests: names splits of a dataset, but a mapping of files has none; "
            "put the files into one folder"
        )
    found = {}
    for name, file in task.dataset.items():
        path = source.paths[file]
        if path is None or not path.is_file():
            raise DataError(f"task.dataset: there is no file {file!r}")
        found[str(name)] = _from_files([path], task)
    return found


def _read_folder(folder: Path, task: TaskSettings) -> dict[str, Frame]:
    named = task.splits.named
    if is_saved_dataset(folder):
        saved = load_saved(folder)
        return {
            name: _from_dataset(pick_split(saved, split, str(folder)), task, str(folder))
            for name, split in named.items()
        }
    files = files_of_splits(folder)
    found = {}
    for name, split in named.items():
        chosen = check_one_split(split, pick_split(files, split, str(folder)))
        found[name] = _from_files(chosen, task)
    return found


def pick_split(splits: Mapping[str, Named], split: str, source: str) -> Named:
    """The split with this name, or the one that differs in case only. Raises DataError."""
    found = split_named(splits, split)
    if found is None:
        raise DataError(
            f"task.splits: {source} has no split {split!r}, only {first_few(splits)}"
            f"{did_you_mean(split, splits)}"
        )
    return splits[found]


# --- datasets of the Hub and saved ones ---


def load_saved(folder: Path) -> Mapping[str, Dataset]:
    """The splits that `save_to_disk` wrote; a dataset without splits is `train`.

    Raises DataError if its files can't be read.
    """
    import datasets
    import pyarrow

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(
            f"task.dataset: {folder} can't be read as a saved dataset: {first_line(error)}"
        ) from error
    except IndexError as error:
        # It can't be read if a split has no rows.
        raise DataError(f"task.dataset: {folder} has a split without rows; remove it") from error
    if isinstance(found, datasets.Dataset):
        return {"train": found}
    return {str(name): split for name, split in found.items()}


def _from_dataset(dataset: Dataset, task: TaskSettings, source: str) -> Frame:
    names: tuple[str, ...] = ()
    if isinstance(task.label, str):
        names = names_of_feature(dataset.features.get(task.label))
    wanted = _wanted(task)
    columns = {name: list(dataset[name]) if name in wanted else [] for name in dataset.column_names}
    return Frame(columns, names or None, source)


# --- files ---


def _wanted(task: TaskSettings) -> set[str]:
    """The columns that the task reads."""
    return {*task.text, *task.label_columns, *task.where}


def _from_files(files: list[Path], task: TaskSettings) -> Frame:
    """The rows of one file, or of all shards of a split. Raises DataError."""
    tables = [read_table(file, _wanted(task)) for file in files]
    first = tables[0]
    names = [_label_names(table, task) for table in tables]
    for file, table, its_names in zip(files, tables, names, strict=True):
        if missing := sorted(first.columns.keys() - table.columns.keys()):
            raise DataError(f"{file}: has no column {missing[0]!r}, but {files[0].name} has one")
        if its_names != names[0]:
            raise DataError(
                f"{file}: numbers its classes in another way than {files[0].name}; write both with "
                "the same class names"
            )
    columns = {
        name: [value for table in tables for value in table.columns[name]] for name in first.columns
    }
    several = len(files) > 1
    notes = [
        f"{file.name}: {note}" if several else note
        for file, table in zip(files, tables, strict=True)
        for note in table.notes
    ]
    if several:
        notes.append(f"read from {len(files):,} files, {files[0].name} to {files[-1].name}")
    source = str(files[0].parent) if several else str(files[0])
    return Frame(columns, names[0], source, tuple(notes))


def _label_names(table: RawTable, task: TaskSettings) -> tuple[str, ...] | None:
    return table.class_names.get(task.label) if isinstance(task.label, str) else None
