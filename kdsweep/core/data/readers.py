"""From a dataset to columns: csv, tsv, json, jsonl, parquet, folders and the Hub."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.core.data.sources import (
    DATA_SUFFIXES,
    hub_answers,
    local_path,
    looks_like_a_path,
    unreachable,
)
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError, did_you_mean, first_line

if TYPE_CHECKING:
    import pandas


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass
class Frame:
    """Columns by name as read, and the class names where the dataset itself knows them."""

    columns: dict[str, list[Any]]
    label_names: tuple[str, ...] | None
    source: str


def read_splits(task: TaskSettings, hub: Any) -> dict[str, Frame]:
    """The splits that the space names, as they are in the dataset; `hub` is what was opened there, or None if nothing was yet."""
    if isinstance(task.dataset, dict):
        if "train" not in task.dataset:
            raise DataError("task.dataset: a mapping of files needs a 'train' file")
        if task.splits.more_tests:
            raise DataError(
                "task.splits.more_tests: names splits of a dataset, and a mapping of files has none; put the files into one folder"
            )
        return {name: read_file(_existing(source), task) for name, source in task.dataset.items()}

    named = task.splits.named
    path = local_path(task.dataset, DataError)
    if path is None:
        if looks_like_a_path(task.dataset):
            raise DataError(f"task.dataset: there is no file or folder {task.dataset!r}")
        found = hub or open_hub(task.dataset, task.subset, task.revision)
        return {
            part: _from_dataset(_pick(found, split, task.dataset), task, task.dataset)
            for part, split in named.items()
        }
    if path.is_file():
        if named != {"train": "train"}:
            raise DataError(
                f"task.splits: {task.dataset} is one file, so it has no splits to name; "
                "give 'dataset: {train: FILE, test: FILE}', or leave 'splits' out to hold rows out of the file"
            )
        return {"train": read_file(path, task)}
    return _read_folder(path, task, named)


def _existing(source: str) -> Path:
    path = local_path(source, DataError)
    if path is None or not path.is_file():
        raise DataError(f"task.dataset: there is no file {source!r}")
    return path


def _read_folder(folder: Path, task: TaskSettings, named: dict[str, str]) -> dict[str, Frame]:
    if (folder / "dataset_dict.json").exists():
        import datasets

        found = datasets.load_from_disk(str(folder))
        return {
            name: _from_dataset(_pick(found, split, folder.name), task, str(folder))
            for name, split in named.items()
        }
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in DATA_SUFFIXES}
    if not files:
        raise DataError(f"task.dataset: {folder} holds no csv, tsv, json, jsonl or parquet file")
    return {
        name: read_file(_pick(files, split, str(folder)), task) for name, split in named.items()
    }


def _pick(found: Any, split: str, source: str) -> Any:
    if split not in found:
        raise DataError(
            f"task.splits: {source} has no split {split!r}, only {', '.join(map(str, found))}{did_you_mean(split, found)}"
        )
    return found[split]


def is_on_hub(task: TaskSettings) -> bool:
    return (
        isinstance(task.dataset, str)
        and local_path(task.dataset, DataError) is None
        and not looks_like_a_path(task.dataset)
    )


@functools.lru_cache(maxsize=4)
def open_hub(name: str, subset: str | None, revision: str | None) -> Any:
    """The dataset with all its splits; its rows stay in its files. A process sees one version of it, however long it runs."""
    online = hub_answers()
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = previous or not online
    try:
        return datasets.load_dataset(name, subset, revision=revision)
    except (
        ConnectionError,
        datasets.exceptions.DatasetNotFoundError,
        FileNotFoundError,
        HfHubHTTPError,
    ) as error:
        if not online:
            raise unreachable("task.dataset: the dataset", name) from error
        raise DataError(
            f"task.dataset: the Hub has no dataset {name!r} that can be read: {first_line(error)}"
        ) from error
    except ValueError as error:
        raise DataError(f"task.dataset: {name}: {first_line(error)}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = previous


def _from_dataset(dataset: Any, task: TaskSettings, source: str) -> Frame:
    feature = dataset.features.get(task.label) if isinstance(task.label, str) else None
    known = getattr(getattr(feature, "feature", feature), "names", None)  # of a list, what is in it
    names = None if known is None else tuple(known)
    wanted = {*task.text, *task.label_columns, *task.where}
    return Frame(
        {name: list(dataset[name]) if name in wanted else [] for name in dataset.column_names},
        names,
        source,
    )


def read_file(path: Path, task: TaskSettings) -> Frame:
    try:
        frame = _parse_file(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (ValueError, csv.Error, OSError, KeyError) as error:
        raise DataError(
            f"{path}: can't be read as {path.suffix.lstrip('.') or 'a table'}: {first_line(error)}"
        ) from error
    # pandas knows several kinds of nothing (NaN, NaT, NA); here there is one.
    return Frame(
        {
            str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist()
            for name in frame.columns
        },
        None,
        str(path),
    )


def _parse_file(path: Path) -> pandas.DataFrame:
    """Text stays text: 'null', 'NA' and '007' are what somebody wrote, not missing values or numbers."""
    import pandas

    as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    match path.suffix.lower():
        case ".csv":
            return _all_under_headings(pandas.read_csv(path, **as_text))
        case ".tsv":
            # Most tab-separated corpora (GLUE's own among them) write quotes as they are; some quote fields as csv does.
            # A table whose lines all have the header's number of tabs is the first kind.
            with path.open(encoding="utf-8-sig", newline="\n") as file:
                even = len({line.count("\t") for line in file if line.strip()}) == 1
            return _all_under_headings(
                pandas.read_csv(
                    path, sep="\t", quoting=csv.QUOTE_NONE if even else csv.QUOTE_MINIMAL, **as_text
                )
            )
        case ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                return pandas.DataFrame(
                    _objects([json.loads(line) for line in file if line.strip()]), dtype=object
                )
        case ".json":
            text = path.read_text(encoding="utf-8-sig")
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                value = [
                    json.loads(line) for line in text.splitlines() if line.strip()
                ]  # one object a line, in a .json
            if isinstance(value, dict) and isinstance(value.get("data"), list):
                value = value["data"]
            if isinstance(value, dict) and all(
                isinstance(column, list) for column in value.values()
            ):
                return pandas.DataFrame(value, dtype=object)
            return pandas.DataFrame(_objects(value), dtype=object)
        case ".parquet":
            return pandas.read_parquet(path)
    raise DataError(f"task.dataset: {path} is none of {', '.join(sorted(DATA_SUFFIXES))}")


def _all_under_headings(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Where every row has more fields than the header, pandas takes the first ones for row names and shifts the others."""
    import pandas

    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError(
            "its rows have more fields than the header has columns; a text with the separator in it must be quoted"
        )
    return frame


def _objects(rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected objects, one a row")
    return rows
