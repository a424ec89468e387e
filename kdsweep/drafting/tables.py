"""Reads a dataset by its columns, before a task says which hold the text and the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsweep.core.data.folders import (
    check_one_split,
    data_files_in,
    files_of_splits,
    is_saved_dataset,
)
from kdsweep.core.data.hub_dataset import open_dataset
from kdsweep.core.data.raw_table import RawTable
from kdsweep.core.data.readers import load_saved
from kdsweep.core.data.sources import local_path, looks_like_a_path, nearest_file
from kdsweep.core.data.table_files import read_table
from kdsweep.errors import DataError

if TYPE_CHECKING:
    import datasets

ROWS_LOOKED_AT = 20_000
# The labels of a split whose labels are not public.
UNLABELLED = {"-1", ""}
# How the types of labels start, in the lists of a dataset.
DTYPES_OF_LABELS = ("string", "large_string", "bool", "int", "uint")


@dataclass(frozen=True)
class Table:
    """The rows of one split, by column.

    class_names: for each column whose class names the dataset itself knows.
    """

    columns: Mapping[str, Sequence[Any]]
    class_names: dict[str, tuple[str, ...]]

    def is_unlabelled(self, column: str) -> bool:
        """Whether no row has a label in this column. Benchmarks publish such test splits."""
        return all(
            as_text(one) in UNLABELLED
            for value in self.columns.get(column, [])
            for one in (elements(value) if is_list(value) else [value])
        )


def is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def elements(value: Any) -> list[Any]:
    return list(value.tolist() if isinstance(value, np.ndarray) else value)


def as_text(value: object) -> str:
    """A value as a label is compared: `1.0` and True are `1`, a missing value is empty."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(int(value))
    text = str(value).strip()
    is_whole = text.endswith(".0") and text[:-2].lstrip("-").isdigit()
    return text[:-2] if is_whole else text


def read_tables(data: str, subset: str | None) -> dict[str, Table]:
    """Every split of a dataset, by the dataset's name for it; a single file is `{"": rows}`.

    Raises DataError if nothing can be read.
    """
    path = local_path(data, DataError)
    if path is None:
        if looks_like_a_path(data):
            raise DataError(f"{data}: there is no such file or folder{nearest_file(data)}")
        return _read_hub(data, subset)
    if path.is_file():
        return {"": _from_files([path])}
    if is_saved_dataset(path):
        return {name: _from_dataset(split) for name, split in load_saved(path).items()}
    if not data_files_in(path):
        raise DataError(
            f"{data}: this folder holds no csv, tsv, json, jsonl or parquet file, and no dataset "
            "that save_to_disk wrote"
        )
    splits = files_of_splits(path)
    return {name: _from_files(check_one_split(name, files)) for name, files in splits.items()}


def _from_files(files: Sequence[Path]) -> Table:
    """The rows of one file, or the first ones of the shards of a split."""
    read: list[RawTable] = []
    for file in files:
        if sum(_rows(one) for one in read) < ROWS_LOOKED_AT:
            read.append(read_table(file))
    names = [name for name in read[0].columns if all(name in one.columns for one in read)]
    columns = {name: [value for one in read for value in one.columns[name]] for name in names}
    return Table(columns, read[0].class_names)


def _rows(table: RawTable) -> int:
    return max((len(column) for column in table.columns.values()), default=0)


def _read_hub(name: str, subset: str | None) -> dict[str, Table]:
    try:
        return open_dataset(
            name,
            subset,
            None,
            lambda found: {str(split): _from_dataset(rows) for split, rows in found.items()},
        )
    except DataError as error:
        # There is no task yet whose keys a message could name.
        message = str(error).replace("in task.subset", "with --subset")
        message = message.replace("task.dataset: ", "").replace("task.subset", "--subset")
        raise type(error)(message if name in message else f"{name}: {message}") from error


def _from_dataset(dataset: datasets.Dataset) -> Table:
    """The first rows. Columns of images, embeddings and the like are listed without content."""
    import datasets

    features = dataset.features
    rows = dataset.select(range(min(len(dataset), ROWS_LOOKED_AT)))
    columns: dict[str, Sequence[Any]] = {}
    class_names: dict[str, tuple[str, ...]] = {}
    for name in dataset.column_names:
        # Of a list, what is in it.
        feature = getattr(features[name], "feature", features[name])
        is_value = isinstance(feature, datasets.Value) and (
            feature is features[name] or feature.dtype.startswith(DTYPES_OF_LABELS)
        )
        if isinstance(feature, datasets.ClassLabel):
            class_names[name] = tuple(feature.names)
        is_plain = is_value or name in class_names
        columns[name] = list(rows[name]) if is_plain else [{}] * len(rows)
    return Table(columns, class_names)
