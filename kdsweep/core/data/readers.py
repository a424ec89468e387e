"""From a dataset to columns: csv, tsv, json, jsonl and parquet files, folders, and the Hub."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kdsweep.core.data.data_source import DataSource
from kdsweep.core.data.sources import DATA_SUFFIXES
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError, did_you_mean, first_few, first_line

if TYPE_CHECKING:
    import pandas
    from datasets import Dataset

Named = TypeVar("Named")


@dataclass(frozen=True)
class Frame:
    """Columns by name, as read.

    `label_names`: the classes, if the dataset itself names them. `source`: what errors call it.
    """

    columns: dict[str, list[object]]
    label_names: tuple[str, ...] | None
    source: str


def read_splits(task: TaskSettings, source: DataSource) -> dict[str, Frame]:
    """The splits that the space names, as the dataset has them. Raises DataError."""
    if isinstance(task.dataset, dict):
        return _read_mapping(task, source)
    named = task.splits.named
    path = source.paths[source.name]
    if path is None:
        found = source.on_hub()
        return {
            name: _from_dataset(_pick(found, split, source.name), task, source.name)
            for name, split in named.items()
        }
    if path.is_dir():
        return _read_folder(path, task)
    if named != {"train": "train"}:
        raise DataError(
            f"task.splits: {source.name} is one file, so it has no splits to name; give "
            "'dataset: {train: FILE, test: FILE}', or leave 'splits' out to hold rows out of the "
            "file"
        )
    return {"train": read_file(path)}


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
        found[str(name)] = read_file(path)
    return found


def _read_folder(folder: Path, task: TaskSettings) -> dict[str, Frame]:
    named = task.splits.named
    if (folder / "dataset_dict.json").exists():
        import datasets

        found = datasets.load_from_disk(str(folder))
        return {
            name: _from_dataset(_pick(found, split, folder.name), task, str(folder))
            for name, split in named.items()
        }
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in DATA_SUFFIXES}
    if not files:
        raise DataError(
            f"task.dataset: {folder} has no csv, tsv, json, jsonl or parquet file; "
            "name a folder that has one, or a file"
        )
    return {name: read_file(_pick(files, split, str(folder))) for name, split in named.items()}


def _pick(splits: Mapping[str, Named], split: str, source: str) -> Named:
    if split not in splits:
        found = first_few(splits)
        raise DataError(
            f"task.splits: {source} has no split {split!r}, only {found}"
            f"{did_you_mean(split, splits)}"
        )
    return splits[split]


# --- datasets of the Hub and saved ones ---


def _from_dataset(dataset: Dataset, task: TaskSettings, source: str) -> Frame:
    feature = dataset.features.get(task.label) if isinstance(task.label, str) else None
    # Of a column of lists, the names are those of what is in the lists.
    names = getattr(getattr(feature, "feature", feature), "names", None)
    wanted = {*task.text, *task.label_columns, *task.where}
    columns = {name: list(dataset[name]) if name in wanted else [] for name in dataset.column_names}
    return Frame(columns, None if names is None else tuple(names), source)


# --- files ---


def read_file(path: Path) -> Frame:
    """All columns of a csv, tsv, json, jsonl or parquet file. Raises DataError."""
    try:
        frame = _parse_file(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (ValueError, csv.Error, OSError, KeyError) as error:
        kind = path.suffix.lstrip(".") or "a table"
        raise DataError(f"{path}: can't be read as {kind}: {first_line(error)}") from error
    # pandas has several values for "nothing" (NaN, NaT, NA); here there is one, None.
    columns = {
        str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist()
        for name in frame.columns
    }
    return Frame(columns, None, str(path))


def _parse_file(path: Path) -> pandas.DataFrame:
    import pandas

    match path.suffix.lower():
        case ".csv":
            return _read_separated(path, ",", quoted=True)
        case ".tsv":
            return _read_separated(path, "\t", quoted=_has_quoted_fields(path))
        case ".jsonl":
            text = path.read_text(encoding="utf-8-sig")
            return pandas.DataFrame(_objects(_json_lines(text)), dtype=object)
        case ".json":
            return _parse_json(path.read_text(encoding="utf-8-sig"))
        case ".parquet":
            return pandas.read_parquet(path)
    suffixes = ", ".join(sorted(DATA_SUFFIXES))
    raise DataError(f"task.dataset: {path} is none of {suffixes}; save it as one of these")


def _read_separated(path: Path, separator: str, *, quoted: bool) -> pandas.DataFrame:
    """A csv or tsv file in which every value is text: 'null', 'NA' and '007' stay as written."""
    import pandas

    frame = pandas.read_csv(
        path,
        sep=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
    )
    # If every row has more fields than the header, pandas takes the first ones for row names and
    # shifts the others.
    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError(
            "its rows have more fields than the header has columns; a text with the separator in "
            "it must be quoted"
        )
    return frame


def _has_quoted_fields(path: Path) -> bool:
    """Whether quotes in a tsv file enclose fields; if not, they are plain characters.

    Most tab-separated corpora (GLUE's own among them) write quotes as they are; some quote fields
    as csv does. If all lines have the same number of tabs, the file is of the first kind.
    """
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        return len({line.count("\t") for line in file if line.strip()}) != 1


def _parse_json(text: str) -> pandas.DataFrame:
    """A list of objects, a mapping of columns, a list under "data", or one object a line."""
    import pandas

    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = _json_lines(text)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        return pandas.DataFrame(value, dtype=object)
    return pandas.DataFrame(_objects(value), dtype=object)


def _json_lines(text: str) -> list[object]:
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _objects(rows: object) -> list[dict[str, object]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object per row")
    return rows
