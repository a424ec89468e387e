"""Which files of a folder are which split.

A split is a file with its name (`train.csv`), its shards (`train-00000-of-00002.parquet`), or a
folder of files with its name. What `hf download` writes has them in a folder `data`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from kdsweep.core.data.sources import COMPRESSED, DATA_SUFFIXES
from kdsweep.core.data.table_files import kind_of_file
from kdsweep.errors import DataError, first_few

SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5,})-of-(?P<count>\d{5,})")
Named = TypeVar("Named")
# What `datasets` writes beside rows.
NO_ROWS = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json"}


def is_saved_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote it, with splits or without."""
    is_single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return is_single or (folder / "dataset_dict.json").is_file()


def files_of_splits(folder: Path) -> dict[str, list[Path]]:
    """split -> its files, in the order of their rows. More than one that isn't a shard is a clash.

    Raises DataError for a folder without any.
    """
    data = folder / "data"
    found = _by_split([*_data_files(folder), *(_data_files(data) if data.is_dir() else [])])
    for inner in _folders_in(folder):
        if inner != data and (files := _data_files(inner)):
            found.setdefault(split_named(found, inner.name) or inner.name, []).extend(files)
    if not found:
        raise DataError(
            f"task.dataset: {folder} has no csv, tsv, json, jsonl or parquet file; "
            "name a folder that has one, or a file"
        )
    return found


def check_one_split(split: str, files: list[Path]) -> list[Path]:
    """The files. Raises DataError if they can't be one split: two formats, or a missing shard."""
    shards = [match for file in files if (match := SHARD.fullmatch(_stem(file)))]
    stems = {_stem(file).casefold() for file in files}
    several_sets = len({file.parent for file in files}) > 1 or len(stems) < len(files)
    if several_sets:
        names = first_few(file.name for file in files)
        raise DataError(
            f"task.dataset: {files[0].parent} has several files for the split {split!r}: "
            f"{names}; remove all but one, or name the files: dataset: {{{split}: FILE}}"
        )
    if not shards:
        return files
    counts = {int(match["count"]) for match in shards}
    numbers = sorted(int(match["number"]) for match in shards)
    if len(shards) < len(files) or len(counts) > 1:
        names = first_few(file.name for file in files)
        raise DataError(
            f"task.dataset: {files[0].parent} has several sets of files for the split {split!r}: "
            f"{names}; remove all but one"
        )
    missing = sorted(set(range(counts.pop())) - set(numbers))
    if missing:
        raise DataError(
            f"task.dataset: {files[0].parent} lacks shards of the split {split!r}: number "
            f"{first_few(missing)} of {len(missing) + len(numbers)}; download them again"
        )
    return files


def split_named(splits: Mapping[str, Named], split: str) -> str | None:
    """The split's name as the folder has it: `TRAIN` for `train` if there is no other."""
    if split in splits:
        return split
    alike = [name for name in splits if name.casefold() == split.casefold()]
    return alike[0] if len(alike) == 1 else None


def data_files_in(folder: Path) -> list[Path]:
    """Every file that the folder's rows may be read from."""
    if is_saved_dataset(folder):
        return sorted(file for file in folder.rglob("*") if file.is_file())
    nested = [file for one in _folders_in(folder) for file in _data_files(one)]
    return [*_data_files(folder), *nested]


def _folders_in(folder: Path) -> list[Path]:
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."]


def _data_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if kind_of_file(file) in DATA_SUFFIXES
        and file.is_file()
        and not file.name.startswith((".", "_"))
        and file.name not in NO_ROWS
    )


def _by_split(files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        shard = SHARD.fullmatch(_stem(file))
        name = shard["split"] if shard else _stem(file)
        known = split_named(found, name) or name
        found.setdefault(known, []).append(file)
    return found


def _stem(file: Path) -> str:
    """The name without its suffixes: `train` of `train.csv.gz`; `a.b` of `a.b.csv`."""
    stem = file.name
    while Path(stem).suffix.lower() in COMPRESSED | DATA_SUFFIXES:
        stem = stem[: -len(Path(stem).suffix)]
    return stem
