"""The rows of `task.unlabelled`: text without labels, which only the teacher labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdsweep.core.data.data_source import DataSource, find_source
from kdsweep.core.data.loading import cache_folder
from kdsweep.core.data.raw_rows import clean_rows
from kdsweep.core.data.readers import read_splits
from kdsweep.core.data.row_store import map_texts, publish_texts
from kdsweep.core.data.rows import Say, Split, TaskData, texts_key
from kdsweep.core.data.splits import SPLIT, rows_of_lowest_hash
from kdsweep.core.data.text_hashes import text_hashes
from kdsweep.core.files import fingerprint
from kdsweep.core.settings import TaskSettings
from kdsweep.core.shared_entry import SharedEntry
from kdsweep.core.split_settings import SplitNames
from kdsweep.errors import DamagedFile, DataError

# Part of the key of these rows in the cache. Raise it when what is written there changes.
UNLABELLED_FORMAT = 2

# At most one entry: the rows that a check read are the ones that the run then publishes.
_LOADED_UNLABELLED: dict[str, tuple[Split, tuple[str, ...]]] = {}


def load_unlabelled(
    task: TaskSettings,
    data: TaskData,
    cache: Path | None = None,
    *,
    publish: bool = True,
    say: Say = lambda line: None,
) -> tuple[Split, tuple[str, ...]]:
    """The rows of `task.unlabelled` as a split without labels, and what a user should know of them.

    Rows whose text is in one of the task's splits (`data`) are dropped. `cache` and `publish` mean
    what they do in `load_task`. Raises DataError as `load_task` does.
    """
    assert task.unlabelled is not None
    limit, text_task = task.unlabelled.limit, _as_task(task)
    with _errors_name_unlabelled():
        source = find_source(text_task)
        folder = cache_folder(cache or Path(), _settings_key(task, text_task, data), source)

        def read() -> tuple[Split, tuple[str, ...]]:
            if folder.name not in _LOADED_UNLABELLED:
                _LOADED_UNLABELLED.clear()
                _LOADED_UNLABELLED[folder.name] = _read_unlabelled(limit, text_task, source, data)
            return _LOADED_UNLABELLED[folder.name]

        def mapped() -> tuple[Split, tuple[str, ...]]:
            texts, key, notes = map_texts(folder)
            _LOADED_UNLABELLED.pop(folder.name, None)
            return Split("unlabelled", texts, data.empty_labels(len(texts[0])), key), notes

        def make() -> tuple[Split, tuple[str, ...]] | None:
            rows, notes = read()
            # If a file changed meanwhile, nobody knows which version was read.
            if find_source(text_task) != source:
                return rows, notes
            publish_texts(rows.texts, notes, folder)
            return None

        if cache is None:
            return read()
        if publish:
            waiting = "data: waiting for another process that reads the unlabeled rows"
            return SharedEntry(folder, mapped, make, waiting, say).get()
        try:
            return mapped()
        except DamagedFile:
            # Or they aren't there yet.
            return read()


def _as_task(task: TaskSettings) -> TaskSettings:
    """A task whose one split is the unlabeled rows.

    A task needs a label column; a text column is one that certainly exists.
    """
    assert task.unlabelled is not None
    wanted = task.unlabelled
    text = wanted.text or task.text
    return TaskSettings(
        dataset=wanted.dataset,
        subset=wanted.subset,
        revision=wanted.revision,
        where=wanted.where,
        text=text,
        label=text[0],
        splits=SplitNames(train=wanted.split),
        symmetric=task.symmetric,
        split_rule=task.split_rule,
        label_rule=task.label_rule,
    )


def _settings_key(task: TaskSettings, text_task: TaskSettings, data: TaskData) -> str:
    assert task.unlabelled is not None
    return fingerprint(
        f"unlabelled {UNLABELLED_FORMAT}",
        task.unlabelled.model_dump(mode="json"),
        text_task.text,
        {name: split.key for name, split in data.splits.items()},
        *([] if task.split_rule == 1 else [task.split_rule, task.symmetric]),
    )


@contextlib.contextmanager
def _errors_name_unlabelled() -> Iterator[None]:
    """Let a DataError about `task.KEY` name `task.unlabelled.KEY`."""
    try:
        yield
    except DataError as error:
        message = str(error).replace("task.splits", "task.split")
        message = message.replace("task.", "task.unlabelled.")
        if "task.unlabelled" not in message:
            message = f"task.unlabelled: {message}"
        raise type(error)(message) from error


def _read_unlabelled(
    limit: int | None, text_task: TaskSettings, source: DataSource, data: TaskData
) -> tuple[Split, tuple[str, ...]]:
    path = source.paths[source.name]
    if path is not None and path.is_file() and text_task.splits.train != "train":
        raise DataError(
            f"task.split: {source.name} is one file, so it has no splits to name; "
            "use 'where' to take some of its rows"
        )
    notes: list[str] = []
    rows = clean_rows(text_task, "unlabelled", read_splits(text_task, source)["train"], notes)
    rule = data.split_rule
    known = [text_hashes(split.texts, SPLIT, rule) for split in data.splits.values()]
    fresh = ~np.isin(text_hashes(rows.texts, SPLIT, rule), np.concatenate(known))
    if common := int((~fresh).sum()):
        notes.append(
            f"unlabelled: {common:,} rows dropped: their text is in a split of the task too"
        )
    if not fresh.any():
        raise DataError(
            f"task.dataset: every row of {source.name} is in the task's own splits, so it "
            "teaches nothing new; name other text"
        )
    rows = rows.take(np.flatnonzero(fresh))
    if limit is not None:
        rows = rows_of_lowest_hash(rows, limit, rule)
    labels = data.empty_labels(len(rows))
    return Split("unlabelled", rows.texts, labels, texts_key(rows.texts)), tuple(notes)
