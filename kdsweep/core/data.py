"""From a dataset to batches: rows, labels and splits, tokens in flat memory-mapped arrays, batches of similar length.

Every choice here is a pure function of the rows' content, a seed and an epoch, so that a trial can go on at any step, two
strategies with one seed see the same batches, and two homes get the same splits.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsweep.core.files import fingerprint, locked, publishing, read_json, write_json
from kdsweep.core.settings import SPLITS, TaskSettings
from kdsweep.core.sources import DATA_SUFFIXES, hub_answers, local_path, looks_like_a_path, unreachable
from kdsweep.errors import DataError, did_you_mean, first_line

if TYPE_CHECKING:
    import pandas
    from transformers import PreTrainedTokenizerBase

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one split. `texts` holds one column, or two for sentence pairs; `labels` is int64 [rows]; `key` hashes it all."""

    name: str
    texts: tuple[list[str], ...]
    labels: np.ndarray
    key: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class TaskData:
    """The three splits, what the classes are called, and what a user should know about how they came about."""

    label_names: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...]

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        return self.splits["validation"]

    @property
    def test(self) -> Split:
        return self.splits["test"]

    @property
    def key(self) -> str:
        return fingerprint(self.label_names, [split.key for split in self.splits.values()])


@dataclass
class _Rows:
    """Rows on their way to a split: text columns, raw labels, and the hash that decides on splits and limits."""

    texts: tuple[list[str], ...]
    labels: list[Any]

    def take(self, chosen: np.ndarray) -> _Rows:
        return _Rows(tuple([column[i] for i in chosen] for column in self.texts), [self.labels[i] for i in chosen])

    def __len__(self) -> int:
        return len(self.labels)

    def hashes(self, salt: bytes) -> np.ndarray:
        """[rows] numbers in [0, 1), equal for texts that differ only in case and white space."""
        out = np.empty(len(self), dtype=np.float64)
        for i, columns in enumerate(zip(*self.texts, strict=True)):
            text = "\x1f".join(" ".join(column.split()).casefold() for column in columns)
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
            out[i] = (int.from_bytes(digest, "little") >> 11) / 2**53
        return out


def load_task(task: TaskSettings) -> TaskData:
    """Read, check and split the task's rows. Kept in memory for the next caller in this process.

    Raises DataError with what is wrong, where, and what to do.
    """
    sources = [task.dataset] if isinstance(task.dataset, str) else list(task.dataset.values())
    paths = [path for source in sources if (path := local_path(source, DataError)) is not None]
    # A folder's own time stays what it was when a file in it is written over, so its files are looked at too.
    files = [file for path in paths for file in ([path, *sorted(path.iterdir())] if path.is_dir() else [path])]
    stamps = tuple((stat.st_mtime_ns, stat.st_size) for stat in (file.stat() for file in files))
    return _load_task(task.model_dump_json(), stamps)


@functools.lru_cache(maxsize=4)
def _load_task(settings: str, stamps: tuple[tuple[int, int], ...]) -> TaskData:
    """`stamps` are in the key so that a file that changed is read again."""
    task = TaskSettings.model_validate_json(settings)
    notes: list[str] = []
    frames = _read_splits(task)
    rows = {name: _clean_rows(task, name, frame, notes) for name, frame in frames.items()}
    rows = _hold_out(task, rows, notes)
    rows = {name: _limit(task, name, rows[name]) for name in SPLITS}
    label_names, numbers = _number_labels(task, rows, frames["train"].label_names)
    splits = {}
    for name in SPLITS:
        part, labels = rows[name], numbers[name]
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


def _read_splits(task: TaskSettings) -> dict[str, _Frame]:
    """The splits that the space names, as they are in the dataset."""
    if isinstance(task.dataset, dict):
        if "train" not in task.dataset:
            raise DataError("task.dataset: a mapping of files needs a 'train' file")
        return {name: read_file(_existing(source), task) for name, source in task.dataset.items()}

    named = {name: value for name, value in task.splits.model_dump().items() if value is not None}
    path = local_path(task.dataset, DataError)
    if path is None:
        if looks_like_a_path(task.dataset):
            raise DataError(f"task.dataset: there is no file or folder {task.dataset!r}")
        return _read_hub(task, named)
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


def _read_hub(task: TaskSettings, named: dict[str, str]) -> dict[str, _Frame]:
    online = hub_answers()
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    name = str(task.dataset)
    previous = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = previous or not online
    try:
        found = datasets.load_dataset(name, task.subset, revision=task.revision)
    except (ConnectionError, datasets.exceptions.DatasetNotFoundError, FileNotFoundError, HfHubHTTPError) as error:
        if not online:
            raise unreachable("task.dataset: the dataset", name) from error
        raise DataError(f"task.dataset: the Hub has no dataset {name!r} that can be read: {first_line(error)}") from error
    except ValueError as error:
        raise DataError(f"task.dataset: {name}: {first_line(error)}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = previous
    return {part: _from_dataset(_pick(found, split, name), task, name) for part, split in named.items()}


def _from_dataset(dataset: Any, task: TaskSettings, source: str) -> _Frame:
    feature = dataset.features.get(task.label)
    names = tuple(feature.names) if hasattr(feature, "names") else None
    wanted = {*task.text, task.label, *task.where}
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
    for key, columns in (("text", task.text), ("label", (task.label,)), ("where", tuple(task.where))):
        for column in columns:
            if column not in frame.columns:
                hint = did_you_mean(column, frame.columns)
                raise DataError(f"task.{key}: {frame.source} has no column {column!r}, only {', '.join(map(repr, frame.columns))}{hint}")
    rows = _Rows(tuple([_as_text(value) for value in frame.columns[column]] for column in task.text), frame.columns[task.label])
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
    for name in ("test", "validation"):  # the test split is first: it is the one that must stay what it is
        if name in rows:
            hashes = rows[name].hashes(b"split")
            fresh = ~np.isin(hashes, taken)
            if common := int((~fresh).sum()):
                notes.append(f"{name}: {common:,} rows dropped: their text is in the test split too")
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
    for name in SPLITS:
        if not len(out[name]):
            raise DataError(f"task.dataset: the {name} split has no rows ({len(train):,} rows in train before splits were held out)")
    return out


def _limit(task: TaskSettings, name: str, rows: _Rows) -> _Rows:
    limit = getattr(task.limit, name)
    if limit is None or limit >= len(rows):
        return rows
    nearest = np.argsort(rows.hashes(b"limit"), kind="stable")[:limit]
    return rows.take(np.sort(nearest))


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
    for name in SPLITS:
        if unknown := sorted(set(found[name]) - numbers.keys()):
            raise DataError(f"task.label: {name} has the label {unknown[0]!r}, which train doesn't have (train: {', '.join(values)})")
    if task.metric == "f1" and len(names) != 2:
        raise DataError(f"task.metric: f1 is for 2 classes and there are {len(names)} ({', '.join(names[:8])}); use f1_macro, accuracy or matthews")
    return names, {name: np.array([numbers[label] for label in labels], dtype=np.int64) for name, labels in found.items()}


def _as_label(task: TaskSettings, split: str, value: Any) -> str:
    """A label as text: 1, 1.0, True, '1' and '1.0' are the same class; a number with a fraction is none."""
    if isinstance(value, list | dict | np.ndarray):
        raise DataError(f"task.label: {task.label} of {split} holds lists: a row must have one label")
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
        raise DataError(f"task.label: {task.label} of {split} holds {text!r}: a class label must be a whole number or a name")
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


# --- tokens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TokenizedSplit:
    """One split as one model reads it: all tokens in a row, memory-mapped. Row i is `input_ids[offsets[i]:offsets[i + 1]]`."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray | None
    offsets: np.ndarray
    labels: np.ndarray
    pad_token_id: int
    truncated: int
    key: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Model inputs, int64 [rows, longest of these rows]; what is past a row's end is padding, with no attention."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]
        where = (starts[:, None] + columns)[real]
        ids = np.full(real.shape, self.pad_token_id, dtype=np.int64)
        ids[real] = self.input_ids[where]
        inputs = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
        if self.token_type_ids is not None:
            types = np.zeros(real.shape, dtype=np.int64)
            types[real] = self.token_type_ids[where]
            inputs["token_type_ids"] = types
        return inputs


ROWS_A_TOKENIZER_CALL = 4096


def tokenize_split(
    split: Split,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    token_types: bool,
    cache: Path,
    say: Say = lambda line: None,
) -> TokenizedSplit:
    """Tokenize once, for as long as rows, tokenizer and length stay what they are; afterwards map the file into memory."""
    key = fingerprint("tokens 1", split.key, tokenizer_fingerprint(tokenizer), max_length, token_types)
    folder = cache / "tokens" / key
    if not folder.is_dir():
        with locked(cache / "tokens" / f"{key}.lock", lambda: say(f"tokenizing {split.name}: another process does it; waiting")):
            if not folder.is_dir():
                say(f"tokenizing {split.name}: {len(split):,} rows")
                with publishing(folder) as beside:
                    _tokenize_into(beside, split, tokenizer, max_length, token_types)
    offsets = np.load(folder / "offsets.npy")
    return TokenizedSplit(
        input_ids=np.load(folder / "input_ids.npy", mmap_mode="r"),
        token_type_ids=np.load(folder / "token_type_ids.npy", mmap_mode="r") if token_types else None,
        offsets=offsets,
        labels=split.labels,
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        truncated=read_json(folder / "meta.json")["truncated"],
        key=key,
    )


def _tokenize_into(folder: Path, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int, token_types: bool) -> None:
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    truncated = 0
    for start in range(0, len(split), ROWS_A_TOKENIZER_CALL):
        part = [column[start : start + ROWS_A_TOKENIZER_CALL] for column in split.texts]
        encoded = tokenizer(
            *part,
            truncation=True,
            max_length=max_length,
            return_token_type_ids=token_types,
            return_attention_mask=False,
            return_overflowing_tokens=False,
        )
        rows = encoded["input_ids"]
        lengths.append(np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows)))
        ids.append(np.fromiter((token for row in rows for token in row), dtype=np.int32))
        if token_types:
            types.append(np.fromiter((token for row in encoded["token_type_ids"] for token in row), dtype=np.int8))
        full = [i for i, row in enumerate(rows) if len(row) == max_length]
        if full:  # only a row of full length can have lost something: read those again, whole
            whole = tokenizer(*([column[i] for i in full] for column in part), truncation=False, return_attention_mask=False, verbose=False)
            truncated += sum(len(row) > max_length for row in whole["input_ids"])
    np.save(folder / "input_ids.npy", np.concatenate(ids))
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
    if token_types:
        np.save(folder / "token_type_ids.npy", np.concatenate(types))
    write_json(folder / "meta.json", {"rows": len(split), "truncated": truncated})


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of what the tokenizer does, not of where it lies."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return fingerprint(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()))
    rules = json.loads(backend.to_str())
    rules.pop("truncation", None)  # the last call's settings, not the tokenizer's own
    rules.pop("padding", None)
    return fingerprint(type(tokenizer).__name__, rules)


# --- batches ---------------------------------------------------------------------------------------------------------

BATCHES_A_POOL = 50


def batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The row numbers of each batch of an epoch: every row once, rows of similar length together, in random order.

    A random order is cut into pools of 50 batches, each pool sorted by length and cut into batches, which are then shuffled:
    little padding, and still another mixture in every epoch. A pure function of its arguments.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = batch_size * BATCHES_A_POOL
    out: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        out += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [out[i] for i in random.permutation(len(out))]


def evaluation_batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All rows, longest first, in batches of at most `tokens` tokens with their padding."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + count]
        start += count
