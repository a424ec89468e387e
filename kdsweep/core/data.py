"""From a dataset to rows, labels and splits.

Every choice here is a pure function of the rows' content, so that two homes, and a dataset in another order, get the same splits.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsweep import __version__
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.rows import Say, Split, TaskData, map_rows, map_texts, publish_rows, publish_texts, texts_key, without_labels
from kdsweep.core.settings import SPLITS, SplitNames, TaskSettings
from kdsweep.core.sources import DATA_SUFFIXES, hub_answers, local_path, looks_like_a_path, unreachable
from kdsweep.errors import DataError, did_you_mean, first_line

if TYPE_CHECKING:
    import pandas


@dataclass
class _Rows:
    """Rows on their way to a split: text columns, raw labels, and the hash that decides on splits and limits."""

    texts: tuple[Sequence[str], ...]
    labels: list[Any]

    def take(self, chosen: np.ndarray) -> _Rows:
        return _Rows(tuple([column[i] for i in chosen] for column in self.texts), [self.labels[i] for i in chosen])

    def __len__(self) -> int:
        return len(self.texts[0])

    def hashes(self, salt: bytes) -> np.ndarray:
        return text_hashes(self.texts, salt)


def text_hashes(texts: Sequence[Sequence[str]], salt: bytes) -> np.ndarray:
    """[rows] numbers in [0, 1), equal for texts that differ only in case and white space."""
    out = np.empty(len(texts[0]), dtype=np.float64)
    for i, columns in enumerate(zip(*texts, strict=True)):
        text = "\x1f".join(" ".join(column.split()).casefold() for column in columns)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
        out[i] = (int.from_bytes(digest, "little") >> 11) / 2**53
    return out


def fold_numbers(texts: Sequence[Sequence[str]], folds: int) -> np.ndarray:
    """int64 [rows]: which of so many folds each row is in, by hash of its text, so that no text is in two."""
    return (text_hashes(texts, b"fold") * folds).astype(np.int64)


# --- loading ---------------------------------------------------------------------------------------------------------

# What a source is known by: for each file its path, when its content and when its entry last changed (ns), and its size.
Stamps = tuple[tuple[str, int, int, int], ...]
_LOADED: dict[tuple[str, Stamps, Path | None], TaskData] = {}
MOST_LOADED = 4


def load_task(task: TaskSettings, cache: Path | None = None, *, publish: bool = True, say: Say = lambda line: None) -> TaskData:
    """Read, check and split the task's rows.

    With `cache` they are kept there for every other process and mapped into memory: no process holds the texts. Without it, or
    where they are not there yet and `publish` is off, nothing is written and the rows are in memory, for the next caller in this process too.

    Raises DataError with what is wrong, where, and what to do.
    """
    task = task.model_copy(update={"unlabelled": None})
    settings, stamps = task.model_dump_json(exclude={"truncation"}), _stamps(task)  # rows are whole, however much of them is read
    if (found := _LOADED.get((settings, stamps, cache))) is not None:
        return found
    if cache is None:
        return _in_memory(task, settings, stamps, None)
    hub = _open_hub(str(task.dataset), task.subset, task.revision) if _is_on_hub(task) else None
    folder = _kept_in(cache, settings, stamps, hub)
    if not folder.is_dir():
        if not publish:
            return _in_memory(task, settings, stamps, hub)
        with locked(folder.with_suffix(".lock"), lambda: say("data: another process reads the rows; waiting")):
            if not folder.is_dir():
                data = _in_memory(task, settings, stamps, hub)
                if _stamps(task) != stamps:  # a file was written over meanwhile: who knows which one was read
                    return data
                publish_rows(data, folder)
    _LOADED.pop((settings, stamps, None), None)  # or this process would hold the texts for good
    return _remember(settings, stamps, cache, map_rows(folder))


def _in_memory(task: TaskSettings, settings: str, stamps: Stamps, hub: Any) -> TaskData:
    return _LOADED.get((settings, stamps, None)) or _remember(settings, stamps, None, _read_task(task, hub))


def _remember(settings: str, stamps: Stamps, cache: Path | None, data: TaskData) -> TaskData:
    while len(_LOADED) >= MOST_LOADED:
        _LOADED.pop(next(iter(_LOADED)), None)
    _LOADED[settings, stamps, cache] = data
    return data


def _stamps(task: TaskSettings) -> Stamps:
    """Of all files that the rows are read from; empty for a dataset of the Hub."""
    sources = [task.dataset] if isinstance(task.dataset, str) else list(task.dataset.values())
    paths = [path for source in sources if (path := local_path(source, DataError)) is not None]
    files = [file for path in paths for file in (_files_in(path) if path.is_dir() else [path])]
    return tuple((str(file.absolute()), *_stamp(file)) for file in files)


def _files_in(folder: Path) -> list[Path]:
    """Those that rows may be read from. The folder's own time says nothing: it stays what it was when a file in it is written over."""
    if (folder / "dataset_dict.json").exists():
        return sorted(file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in folder.iterdir() if file.suffix in DATA_SUFFIXES and file.is_file())


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
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size  # the second can't be set back by whoever copies a file with its time


def _kept_in(cache: Path, settings: str, stamps: Stamps, hub: Any) -> Path:
    """The folder of the rows. In its name is all that they depend on: what the Hub gives has a fingerprint of its content."""
    content = stamps if hub is None else sorted((str(name), dataset._fingerprint) for name, dataset in hub.items())
    return cache / "rows" / fingerprint("rows 1", __version__, settings, content)


def _read_task(task: TaskSettings, hub: Any) -> TaskData:
    notes: list[str] = []
    frames = _read_splits(task, hub)
    rows = {name: _clean_rows(task, name, frame, notes) for name, frame in frames.items()}
    rows = _hold_out(task, rows, notes)
    rows = {name: _limit(task, name, part) for name, part in rows.items()}
    label_names, numbers = _read_labels(task, rows, frames["train"].label_names)
    splits = {}
    for name in rows:
        part, labels = rows[name], numbers[name]
        if name == "train" and task.left_out is not None:  # only now: which classes there are depends on no fold
            kept = np.flatnonzero(fold_numbers(part.texts, task.left_out.of) != task.left_out.fold)
            notes.append(f"train: {len(part) - len(kept):,} rows left out: fold {task.left_out.fold} of {task.left_out.of}")
            part, labels = part.take(kept), labels[kept]
        key = fingerprint(name, labels.tobytes(), *("\x1e".join(column).encode("utf-8", "surrogatepass") for column in part.texts))
        splits[name] = Split(name, part.texts, labels, key)
    return TaskData(label_names, splits, tuple(notes))


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass
class _Frame:
    """Columns by name as read, and the class names where the dataset itself knows them."""

    columns: dict[str, list[Any]]
    label_names: tuple[str, ...] | None
    source: str


def _read_splits(task: TaskSettings, hub: Any) -> dict[str, _Frame]:
    """The splits that the space names, as they are in the dataset; `hub` is what was opened there, or None if nothing was yet."""
    if isinstance(task.dataset, dict):
        if "train" not in task.dataset:
            raise DataError("task.dataset: a mapping of files needs a 'train' file")
        if task.splits.more_tests:
            raise DataError("task.splits.more_tests: names splits of a dataset, and a mapping of files has none; put the files into one folder")
        return {name: read_file(_existing(source), task) for name, source in task.dataset.items()}

    named = task.splits.named
    path = local_path(task.dataset, DataError)
    if path is None:
        if looks_like_a_path(task.dataset):
            raise DataError(f"task.dataset: there is no file or folder {task.dataset!r}")
        found = hub or _open_hub(task.dataset, task.subset, task.revision)
        return {part: _from_dataset(_pick(found, split, task.dataset), task, task.dataset) for part, split in named.items()}
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


def _read_folder(folder: Path, task: TaskSettings, named: dict[str, str]) -> dict[str, _Frame]:
    if (folder / "dataset_dict.json").exists():
        import datasets

        found = datasets.load_from_disk(str(folder))
        return {name: _from_dataset(_pick(found, split, folder.name), task, str(folder)) for name, split in named.items()}
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in DATA_SUFFIXES}
    if not files:
        raise DataError(f"task.dataset: {folder} holds no csv, tsv, json, jsonl or parquet file")
    return {name: read_file(_pick(files, split, str(folder)), task) for name, split in named.items()}


def _pick(found: Any, split: str, source: str) -> Any:
    if split not in found:
        raise DataError(f"task.splits: {source} has no split {split!r}, only {', '.join(map(str, found))}{did_you_mean(split, found)}")
    return found[split]


def _is_on_hub(task: TaskSettings) -> bool:
    return isinstance(task.dataset, str) and local_path(task.dataset, DataError) is None and not looks_like_a_path(task.dataset)


@functools.lru_cache(maxsize=4)
def _open_hub(name: str, subset: str | None, revision: str | None) -> Any:
    """The dataset with all its splits; its rows stay in its files. A process sees one version of it, however long it runs."""
    online = hub_answers()
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = previous or not online
    try:
        return datasets.load_dataset(name, subset, revision=revision)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError, FileNotFoundError, HfHubHTTPError) as error:
        if not online:
            raise unreachable("task.dataset: the dataset", name) from error
        raise DataError(f"task.dataset: the Hub has no dataset {name!r} that can be read: {first_line(error)}") from error
    except ValueError as error:
        raise DataError(f"task.dataset: {name}: {first_line(error)}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = previous


def _from_dataset(dataset: Any, task: TaskSettings, source: str) -> _Frame:
    feature = dataset.features.get(task.label) if isinstance(task.label, str) else None
    known = getattr(getattr(feature, "feature", feature), "names", None)  # of a list, what is in it
    names = None if known is None else tuple(known)
    wanted = {*task.text, *task.label_columns, *task.where}
    return _Frame({name: list(dataset[name]) if name in wanted else [] for name in dataset.column_names}, names, source)


def read_file(path: Path, task: TaskSettings) -> _Frame:
    try:
        frame = _parse_file(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except (ValueError, csv.Error, OSError, KeyError) as error:
        raise DataError(f"{path}: can't be read as {path.suffix.lstrip('.') or 'a table'}: {first_line(error)}") from error
    # pandas knows several kinds of nothing (NaN, NaT, NA); here there is one.
    return _Frame({str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame.columns}, None, str(path))


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
            return _all_under_headings(pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE if even else csv.QUOTE_MINIMAL, **as_text))
        case ".jsonl":
            with path.open(encoding="utf-8-sig") as file:
                return pandas.DataFrame(_objects([json.loads(line) for line in file if line.strip()]), dtype=object)
        case ".json":
            text = path.read_text(encoding="utf-8-sig")
            try:
                value = json.loads(text)
            except json.JSONDecodeError:
                value = [json.loads(line) for line in text.splitlines() if line.strip()]  # one object a line, in a .json
            if isinstance(value, dict) and isinstance(value.get("data"), list):
                value = value["data"]
            if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
                return pandas.DataFrame(value, dtype=object)
            return pandas.DataFrame(_objects(value), dtype=object)
        case ".parquet":
            return pandas.read_parquet(path)
    raise DataError(f"task.dataset: {path} is none of {', '.join(sorted(DATA_SUFFIXES))}")


def _all_under_headings(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Where every row has more fields than the header, pandas takes the first ones for row names and shifts the others."""
    import pandas

    if not isinstance(frame.index, pandas.RangeIndex):
        raise ValueError("its rows have more fields than the header has columns; a text with the separator in it must be quoted")
    return frame


def _objects(rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected objects, one a row")
    return rows


# --- rows, splits and labels -----------------------------------------------------------------------------------------


def _clean_rows(task: TaskSettings, split: str, frame: _Frame, notes: list[str]) -> _Rows:
    for key, columns in (("text", task.text), ("label", task.label_columns), ("where", tuple(task.where))):
        for column in columns:
            if column not in frame.columns:
                hint = did_you_mean(column, frame.columns)
                raise DataError(f"task.{key}: {frame.source} has no column {column!r}, only {', '.join(map(repr, frame.columns))}{hint}")
    columns_of_labels = [frame.columns[column] for column in task.label_columns]
    labels = columns_of_labels[0] if isinstance(task.label, str) else list(zip(*columns_of_labels, strict=True))
    rows = _Rows(tuple([_as_text(value) for value in frame.columns[column]] for column in task.text), labels)
    keep = np.ones(len(rows), dtype=bool)
    for column, wanted in task.where.items():
        keep &= np.array([str(value) == str(wanted) for value in frame.columns[column]], dtype=bool)
        if not keep.any():
            found = ", ".join(repr(value) for value, _ in Counter(map(str, frame.columns[column])).most_common(5))
            raise DataError(f"task.where: no row of {frame.source} has {column} = {wanted!r}; the column has {found}")
    chosen = int(keep.sum())
    for column_of_text in rows.texts:
        keep &= np.array([bool(text.strip()) for text in column_of_text], dtype=bool)
    if dropped := chosen - int(keep.sum()):
        notes.append(f"{split}: {dropped:,} of {chosen:,} rows dropped: their text is empty")
    return rows.take(np.flatnonzero(keep))


def _as_text(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value):
        return ""
    text = value if isinstance(value, str) else str(value)
    # Half a surrogate pair (JSON can write one: an emoji cut in two) is no character: no tokenizer and no file takes it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _hold_out(task: TaskSettings, rows: dict[str, _Rows], notes: list[str]) -> dict[str, _Rows]:
    """Give every row of train whose text is in another split to nobody, and hold out what isn't named. No text in two splits."""
    out: dict[str, _Rows] = {}
    taken = np.empty(0)
    for name in ("test", *task.splits.more_tests, "validation"):  # the test split is first: it is the one that must stay what it is
        if name in rows:
            hashes = rows[name].hashes(b"split")
            fresh = ~np.isin(hashes, taken)
            if common := int((~fresh).sum()):
                notes.append(f"{name}: {common:,} rows dropped: their text is in {'a' if task.splits.more_tests else 'the'} test split too")
            out[name] = rows[name].take(np.flatnonzero(fresh))
            taken = np.concatenate([taken, hashes])
    train, hashes = rows["train"], rows["train"].hashes(b"split")
    free = ~np.isin(hashes, taken)
    if common := int((~free).sum()):
        notes.append(f"train: {common:,} rows dropped: their text is in the validation or test split too")
    edge = 0.0
    for name in ("test", "validation"):
        if name not in rows:
            held = free & (hashes >= edge) & (hashes < edge + task.holdout)
            out[name] = train.take(np.flatnonzero(held))
            free &= ~held
            edge += task.holdout
            notes.append(f"{name}: {len(out[name]):,} rows held out of train by hash of their text")
    out["train"] = train.take(np.flatnonzero(free))
    for name in (*SPLITS, *task.splits.more_tests):
        if not len(out[name]):
            raise DataError(f"task.dataset: the {name} split has no rows ({len(train):,} rows in train before splits were held out)")
    return {name: out[name] for name in (*SPLITS, *task.splits.more_tests)}


def _limit(task: TaskSettings, name: str, rows: _Rows) -> _Rows:
    limit = getattr(task.limit, name if name in SPLITS else "test")
    if limit is None or limit >= len(rows):
        return rows
    return _nearest(rows, limit)


def _nearest(rows: _Rows, limit: int) -> _Rows:
    return rows.take(np.sort(np.argsort(rows.hashes(b"limit"), kind="stable")[:limit]))


def _read_labels(task: TaskSettings, rows: dict[str, _Rows], dataset_names: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """What the outputs are called, and each split's labels (`Split`); dataset_names: where the dataset itself knows its classes."""
    match task.kind:
        case "classification":
            return _number_labels(task, rows, dataset_names)
        case "regression":
            return _read_numbers(task, rows)
        case "multi_label":
            return _read_label_sets(task, rows, dataset_names)


def _number_labels(task: TaskSettings, rows: dict[str, _Rows], dataset_names: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class numbers from 0 for each split, and the names of the classes in that order."""
    found = {name: [_as_label(task, name, value) for value in part.labels] for name, part in rows.items()}
    for name, labels in found.items():
        if missing := sum(label in {"-1", ""} for label in labels):
            raise DataError(
                f"task.label: {missing:,} of {len(labels):,} rows of the {name} split have no label ({task.label} is -1 or empty); "
                "name another split, or remove those rows"
            )
    values = sorted(set(found["train"]), key=_label_order)
    if dataset_names is not None:  # the dataset's own class names; its labels are their numbers
        names, numbers = dataset_names, {str(i): i for i in range(len(dataset_names))}
    else:
        names, numbers = tuple(values), {value: i for i, value in enumerate(values)}
    if task.labels is not None:
        names, numbers = _named_labels(task.labels, values, numbers, names)
    if len(values) < 2:
        raise DataError(f"task.label: every row of train has the same label ({task.label} = {values[0]!r})")
    if len(values) > 20 and len(values) > len(found["train"]) / 4:
        raise DataError(f"task.label: column {task.label!r} has {len(values):,} values in {len(found['train']):,} rows: that is no label column")
    for name in found:
        if unknown := sorted(set(found[name]) - numbers.keys()):
            raise DataError(f"task.label: {name} has the label {unknown[0]!r}, which train doesn't have (train: {', '.join(values)})")
    if task.metric in ("f1", "accuracy_and_f1") and len(names) != 2:
        raise DataError(f"task.metric: {task.metric} is for 2 classes and there are {len(names)} ({', '.join(names[:8])}); use f1_macro, accuracy or matthews")
    return names, {name: np.array([numbers[label] for label in labels], dtype=np.int64) for name, labels in found.items()}


def _as_label(task: TaskSettings, split: str, value: Any) -> str:
    """A label as text: 1, 1.0, True, '1' and '1.0' are the same class; a number with a fraction is none."""
    if isinstance(value, list | dict | np.ndarray):
        raise DataError(f"task.label: {task.label} of {split} holds lists: a row must have one label; where it may have several, set task.kind: multi_label")
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    text = _as_text(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    if number != number or number in {float("inf"), float("-inf")}:
        return text
    if number != int(number):
        raise DataError(
            f"task.label: {task.label} of {split} holds {text!r}: a class label must be a whole number or a name; for a regression set task.kind: regression"
        )
    return str(int(number))


def _label_order(label: str) -> tuple[int, int, str]:
    try:
        return (0, int(label), "")
    except ValueError:
        return (1, 0, label)


def _named_labels(wanted: tuple[str, ...], values: list[str], numbers: dict[str, int], names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Apply the space's `labels`: the order of known names, or new names for numbers 0, 1, ..."""
    if set(wanted) == set(names):
        by_name = {name: wanted.index(name) for name in wanted}
        return wanted, {value: by_name[names[number]] for value, number in numbers.items()}
    if len(wanted) == len(names) and all(value.isdigit() for value in values):
        return wanted, numbers
    raise DataError(f"task.labels: [{', '.join(wanted)}] are not the labels of the rows: {', '.join(names)}")


# --- labels that are no classes --------------------------------------------------------------------------------------


def _read_numbers(task: TaskSettings, rows: dict[str, _Rows]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """A regression's labels, fp32 [rows] for each split, and what its one output is called: as the column is."""
    found = {}
    for name, part in rows.items():
        if missing := sum(value is None or _as_text(value).strip() == "" for value in part.labels):
            raise DataError(f"task.label: {missing:,} of {len(part):,} rows of the {name} split have no label ({task.label} is empty); remove those rows")
        found[name] = np.array([_as_number(task, name, value) for value in part.labels], dtype=np.float32)
        if len(part) > 1 and np.ptp(found[name]) == 0:
            raise DataError(
                f"task.label: every row of the {name} split has the same label ({task.label} = {found[name][0]:g}): nothing goes with that; "
                "labels that are not public are often -1: name another split"
            )
    return task.label_columns, found


def _as_number(task: TaskSettings, split: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not abs(number) <= float(np.finfo(np.float32).max):  # as NaN isn't either
        raise DataError(f"task.label: {task.label} of {split} holds {str(value)[:40]!r}: with kind: regression a label must be a number, below 3.4e+38")
    return number


def _read_label_sets(task: TaskSettings, rows: dict[str, _Rows], dataset_names: tuple[str, ...] | None) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Which labels each row has, fp32 0 and 1 [rows, labels] for each split, and what they are called in that order."""
    if isinstance(task.label, tuple):
        return _named_columns(task, {name: _flags(task, name, part.labels) for name, part in rows.items()})
    found = {name: [_as_labels(task, name, value) for value in part.labels] for name, part in rows.items()}
    values = sorted({label for labels in found["train"] for label in labels}, key=_label_order)
    names = dataset_names or tuple(values)
    numbers = {str(i) if dataset_names else name: i for i, name in enumerate(names)}
    if task.labels is not None:
        names, numbers = _named_labels(task.labels, values, numbers, names)
    if len(names) < 2:
        raise DataError(f"task.label: the rows of train have {len(names)} different labels in {task.label}; it takes 2 at least")
    out = {}
    for name, sets in found.items():
        out[name] = np.zeros((len(sets), len(names)), dtype=np.float32)
        for row, labels in enumerate(sets):
            for label in labels:
                if label not in numbers:
                    raise DataError(f"task.label: {name} has the label {label!r}, which train doesn't have (train: {', '.join(values)})")
                out[name][row, numbers[label]] = 1
    return names, out


def _as_labels(task: TaskSettings, split: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise DataError(
            f"task.label: {task.label} of {split} holds {value!r}: with kind: multi_label a row must have a list of labels (json, jsonl, parquet, "
            "a dataset), or task.label must name several columns of 0 and 1"
        )
    labels = [_as_label(task, split, one) for one in value]
    if {"-1", ""} & set(labels):
        raise DataError(
            f"task.label: {task.label} of {split} has a list with -1 or nothing in it, which is no label: a row that no label applies to has an empty list"
        )
    return labels


FLAGS = {"true": 1.0, "false": 0.0}  # how a csv has booleans


def _flags(task: TaskSettings, split: str, rows: list[Any]) -> np.ndarray:
    """fp32 [rows, columns] of 0 and 1"""
    flags = np.empty((len(rows), len(task.label_columns)), dtype=np.float32)
    for number, row in enumerate(rows):
        for column, (name, value) in enumerate(zip(task.label_columns, row, strict=True)):
            try:
                flags[number, column] = float(FLAGS.get(value.strip().lower(), value) if isinstance(value, str) else value)
            except (TypeError, ValueError, OverflowError):
                flags[number, column] = -1
            if flags[number, column] not in (0, 1):
                raise DataError(f"task.label: {name} of {split} holds {value!r}: where each label has its column, that must be 0 or 1 (or true, false)")
    return flags


def _named_columns(task: TaskSettings, found: dict[str, np.ndarray]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Apply the space's `labels`: the order of the columns."""
    names = task.label_columns
    if task.labels is None:
        return names, found
    if sorted(task.labels) != sorted(names):
        raise DataError(f"task.labels: [{', '.join(task.labels)}] are not the columns of task.label: {', '.join(names)}")
    order = [names.index(name) for name in task.labels]
    return task.labels, {name: np.ascontiguousarray(flags[:, order]) for name, flags in found.items()}


# --- text without labels ---------------------------------------------------------------------------------------------


_LOADED_UNLABELLED: dict[str, tuple[Split, tuple[str, ...]]] = {}  # one at most: what was read to be checked is read to be kept next


def load_unlabelled(
    task: TaskSettings, data: TaskData, cache: Path | None = None, *, publish: bool = True, say: Say = lambda line: None
) -> tuple[Split, tuple[str, ...]]:
    """The rows of `task.unlabelled` as a split without labels, and what a user should know about them; kept as `load_task` keeps rows.

    Rows whose text is in one of the task's splits (`data`) are dropped. Raises DataError as `load_task` does.
    """
    assert task.unlabelled is not None
    wanted, text = task.unlabelled, task.unlabelled.text or task.text
    # A task whose one split is these rows. It asks for a label column, so it is given one that is there for sure.
    reads: dict[str, Any] = {name: getattr(wanted, name) for name in ("dataset", "subset", "revision", "where")}
    source = TaskSettings(**reads, text=text, label=text[0], splits=SplitNames(train=wanted.split))
    with _said_of_unlabelled():
        stamps = _stamps(source)
        hub = _open_hub(wanted.dataset, wanted.subset, wanted.revision) if _is_on_hub(source) else None
        others = {name: split.key for name, split in data.splits.items()}
        folder = _kept_in(cache or Path(), fingerprint("unlabelled 1", wanted.model_dump(mode="json"), text, others), stamps, hub)

        def read() -> tuple[Split, tuple[str, ...]]:
            if folder.name not in _LOADED_UNLABELLED:
                _LOADED_UNLABELLED.clear()
                _LOADED_UNLABELLED[folder.name] = _read_unlabelled(source, data, hub, wanted.limit)
            return _LOADED_UNLABELLED[folder.name]

        if cache is None or (not publish and not folder.is_dir()):
            return read()
        if not folder.is_dir():
            with locked(folder.with_suffix(".lock"), lambda: say("data: another process reads the unlabelled rows; waiting")):
                if not folder.is_dir():
                    found, notes = read()
                    if _stamps(source) != stamps:  # as in load_task
                        return found, notes
                    publish_texts(found.texts, notes, folder)
    _LOADED_UNLABELLED.pop(folder.name, None)
    return map_texts(folder, "unlabelled", data.train.labels)


@contextlib.contextmanager
def _said_of_unlabelled() -> Iterator[None]:
    """What is said of a task's own rows, said of these."""
    try:
        yield
    except DataError as error:
        said = str(error).replace("task.splits", "task.split").replace("task.", "task.unlabelled.")
        raise type(error)(said if "task.unlabelled" in said else f"task.unlabelled: {said}") from error


def _read_unlabelled(source: TaskSettings, data: TaskData, hub: Any, limit: int | None) -> tuple[Split, tuple[str, ...]]:
    path = local_path(str(source.dataset), DataError)
    if path is not None and path.is_file() and source.splits.train != "train":
        raise DataError(f"task.split: {source.dataset} is one file, so it has no splits to name; use 'where' to take some of its rows")
    notes: list[str] = []
    rows = _clean_rows(source, "unlabelled", _read_splits(source, hub)["train"], notes)
    known = np.concatenate([_Rows(split.texts, []).hashes(b"split") for split in data.splits.values()])
    fresh = ~np.isin(rows.hashes(b"split"), known)
    if common := int((~fresh).sum()):
        notes.append(f"unlabelled: {common:,} rows dropped: their text is in a split of the task too")
    if not fresh.any():
        raise DataError(f"task.dataset: {source.dataset} has no row whose text is not in the task's own splits; it can teach nothing new")
    rows = rows.take(np.flatnonzero(fresh))
    rows = rows if limit is None else _nearest(rows, limit)
    return Split("unlabelled", rows.texts, without_labels(data.train.labels, len(rows)), texts_key(rows.texts)), tuple(notes)
