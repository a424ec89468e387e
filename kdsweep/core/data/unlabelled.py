"""Text without labels, which only the teacher labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kdsweep.core.data.loading import kept_in, stamps_of
from kdsweep.core.data.raw_rows import RawRows, clean_rows
from kdsweep.core.data.readers import is_on_hub, open_hub, read_splits
from kdsweep.core.data.row_store import map_texts, publish_texts
from kdsweep.core.data.rows import Say, Split, TaskData, texts_key, without_labels
from kdsweep.core.data.sources import local_path
from kdsweep.core.data.splits import rows_of_lowest_hash
from kdsweep.core.files import fingerprint, locked
from kdsweep.core.settings import SplitNames, TaskSettings
from kdsweep.errors import DataError

# --- text without labels ---------------------------------------------------------------------------------------------


_LOADED_UNLABELLED: dict[
    str, tuple[Split, tuple[str, ...]]
] = {}  # one at most: what was read to be checked is read to be kept next


def load_unlabelled(
    task: TaskSettings,
    data: TaskData,
    cache: Path | None = None,
    *,
    publish: bool = True,
    say: Say = lambda line: None,
) -> tuple[Split, tuple[str, ...]]:
    """The rows of `task.unlabelled` as a split without labels, and what a user should know about them; kept as `load_task` keeps rows.

    Rows whose text is in one of the task's splits (`data`) are dropped. Raises DataError as `load_task` does.
    """
    assert task.unlabelled is not None
    wanted, text = task.unlabelled, task.unlabelled.text or task.text
    # A task whose one split is these rows. It asks for a label column, so it is given one that is there for sure.
    reads: dict[str, Any] = {
        name: getattr(wanted, name) for name in ("dataset", "subset", "revision", "where")
    }
    source = TaskSettings(**reads, text=text, label=text[0], splits=SplitNames(train=wanted.split))
    with _said_of_unlabelled():
        stamps = stamps_of(source)
        hub = (
            open_hub(wanted.dataset, wanted.subset, wanted.revision) if is_on_hub(source) else None
        )
        others = {name: split.key for name, split in data.splits.items()}
        folder = kept_in(
            cache or Path(),
            fingerprint("unlabelled 1", wanted.model_dump(mode="json"), text, others),
            stamps,
            hub,
        )

        def read() -> tuple[Split, tuple[str, ...]]:
            if folder.name not in _LOADED_UNLABELLED:
                _LOADED_UNLABELLED.clear()
                _LOADED_UNLABELLED[folder.name] = _read_unlabelled(source, data, hub, wanted.limit)
            return _LOADED_UNLABELLED[folder.name]

        if cache is None or (not publish and not folder.is_dir()):
            return read()
        if not folder.is_dir():
            with locked(
                folder.with_suffix(".lock"),
                lambda: say("data: another process reads the unlabelled rows; waiting"),
            ):
                if not folder.is_dir():
                    found, notes = read()
                    if stamps_of(source) != stamps:  # as in load_task
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
        raise type(error)(
            said if "task.unlabelled" in said else f"task.unlabelled: {said}"
        ) from error


def _read_unlabelled(
    source: TaskSettings, data: TaskData, hub: Any, limit: int | None
) -> tuple[Split, tuple[str, ...]]:
    path = local_path(str(source.dataset), DataError)
    if path is not None and path.is_file() and source.splits.train != "train":
        raise DataError(
            f"task.split: {source.dataset} is one file, so it has no splits to name; use 'where' to take some of its rows"
        )
    notes: list[str] = []
    rows = clean_rows(source, "unlabelled", read_splits(source, hub)["train"], notes)
    known = np.concatenate(
        [RawRows(split.texts, []).hashes(b"split") for split in data.splits.values()]
    )
    fresh = ~np.isin(rows.hashes(b"split"), known)
    if common := int((~fresh).sum()):
        notes.append(
            f"unlabelled: {common:,} rows dropped: their text is in a split of the task too"
        )
    if not fresh.any():
        raise DataError(
            f"task.dataset: {source.dataset} has no row whose text is not in the task's own splits; it can teach nothing new"
        )
    rows = rows.take(np.flatnonzero(fresh))
    rows = rows if limit is None else rows_of_lowest_hash(rows, limit)
    return Split(
        "unlabelled",
        rows.texts,
        without_labels(data.train.labels, len(rows)),
        texts_key(rows.texts),
    ), tuple(notes)
