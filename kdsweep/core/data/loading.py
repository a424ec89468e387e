"""A task's rows: read once, then kept in the cache for every other process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdsweep.core.data.data_source import DataSource, Stamps, find_source
from kdsweep.core.data.label_names import by_names_of_train, notes_of_names, with_booleans
from kdsweep.core.data.mapped_arrays import MappedTexts
from kdsweep.core.data.overlapping_labels import FEWEST_TEXTS
from kdsweep.core.data.raw_rows import RawRows, clean_rows, raw_labels
from kdsweep.core.data.readers import Frame, read_splits
from kdsweep.core.data.row_store import map_rows, publish_rows
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.splits import check_has_rows, fold_numbers, hold_out, limit_rows, rule_of
from kdsweep.core.files import fingerprint, only_read
from kdsweep.core.hub.snapshots import hub_cache, looking_in
from kdsweep.core.settings import TaskSettings
from kdsweep.core.shared_entry import SharedEntry
from kdsweep.errors import DamagedFile, first_few

# Part of the key of rows in the cache. Raise it when what is written there changes.
ROWS_FORMAT = 2

_LOADED: dict[tuple[str, Stamps, Path | None], TaskData] = {}
MOST_LOADED = 4


def load_task(
    task: TaskSettings,
    cache: Path | None = None,
    *,
    publish: bool = True,
    say: Say = lambda line: None,
) -> TaskData:
    """The task's rows: read, checked, and given to splits.

    With `cache` they are written there for every other process and mapped into memory, so that no
    process holds the texts. Without it, or if they aren't there yet and `publish` is off (or the
    disk can only be read), nothing is written and the rows are in memory, for the next call in this
    process too.

    Raises DataError, which says what is wrong, where, and what to do.
    """
    task = task.model_copy(update={"unlabelled": None})
    # Rows are kept whole, so the truncation is no part of their key.
    settings = task.model_dump_json(exclude={"truncation"})
    source = find_source(task)
    if (found := _LOADED.get((settings, source.stamps, cache))) is not None:
        return found
    if cache is None:
        return _in_memory(task, settings, source)
    with looking_in(hub_cache(cache)):
        return _in_cache(task, settings, source, cache, publish=publish, say=say)


def _in_cache(
    task: TaskSettings, settings: str, source: DataSource, cache: Path, *, publish: bool, say: Say
) -> TaskData:
    folder = cache_folder(cache, settings, source)

    def make() -> TaskData | None:
        data = _in_memory(task, settings, source)
        # If a file changed meanwhile, nobody knows which version was read.
        if find_source(task) != source:
            return data
        publish_rows(data, folder)
        return None

    if publish and not only_read(folder.parent):
        waiting = "data: waiting for another process that reads the rows"
        rows = SharedEntry(folder, lambda: map_rows(folder, task), make, waiting, say).get()
    else:
        try:
            rows = map_rows(folder, task)
        except DamagedFile:
            # Or they aren't there yet.
            return _in_memory(task, settings, source)
    if not isinstance(rows.train.texts[0], MappedTexts):
        return rows
    # The mapped rows replace those in memory, or this process would hold the texts until its end.
    _LOADED.pop((settings, source.stamps, None), None)
    return _remember(settings, source.stamps, cache, rows)


def _in_memory(task: TaskSettings, settings: str, source: DataSource) -> TaskData:
    if (found := _LOADED.get((settings, source.stamps, None))) is not None:
        return found
    return _remember(settings, source.stamps, None, _read_task(task, source))


def _remember(settings: str, stamps: Stamps, cache: Path | None, data: TaskData) -> TaskData:
    while len(_LOADED) >= MOST_LOADED:
        _LOADED.pop(next(iter(_LOADED)), None)
    _LOADED[settings, stamps, cache] = data
    return data


def cache_folder(cache: Path, settings: str, source: DataSource) -> Path:
    """The folder of some rows. Its name hashes everything that they depend on."""
    return cache / "rows" / fingerprint(f"rows {ROWS_FORMAT}", settings, source.content)


def _read_task(task: TaskSettings, source: DataSource) -> TaskData:
    notes: list[str] = []
    frames = read_splits(task, source)
    notes += [f"{name}: {note}" for name, frame in frames.items() for note in frame.notes]
    rows = {name: clean_rows(task, name, frame, notes) for name, frame in frames.items()}
    rows = _with_named_labels(task, rows, frames)
    rows = hold_out(task, rows, notes)
    rows = {name: limit_rows(task, name, part) for name, part in rows.items()}
    raw = raw_labels(task, rows, frames["train"].label_names)
    label_names, labels = task.kind.read_labels(raw)
    if task.label_rule != 1 and task.kind.outputs_are_labels:
        notes += notes_of_names(label_names)
    notes += _labels_that_are_missing(task, label_names, labels)
    splits = {name: _split(name, part.texts, labels[name]) for name, part in rows.items()}
    for name, part in rows.items():
        check_has_rows(name, part)
    # A fold is left out after labels were read, because no fold changes which classes there are.
    splits["train"] = _without_fold(task, splits["train"], notes)
    return TaskData(task.kind, label_names, splits, tuple(notes), rule_of(task))


def _with_named_labels(
    task: TaskSettings, rows: dict[str, RawRows], frames: dict[str, Frame]
) -> dict[str, RawRows]:
    """The rows, their labels meaning the same class in every split."""
    if not isinstance(task.label, str) or not task.kind.outputs_are_labels:
        return rows
    train = frames["train"].label_names
    labels = {
        name: by_names_of_train(name, part.labels, frames[name].label_names, train)
        for name, part in rows.items()
    }
    if task.label_rule != 1:
        labels = with_booleans(labels)
    return {name: RawRows(part.texts, labels[name]) for name, part in rows.items()}


def _labels_that_are_missing(
    task: TaskSettings, names: tuple[str, ...], labels: dict[str, np.ndarray]
) -> list[str]:
    """A note for each split that has no row of some labels."""
    notes = []
    held_out = {name for name in ("validation", "test") if name not in _named(task)}
    for split, found in labels.items():
        rows = task.kind.describe_split(found, names).get("labels", {})
        missing = [name for name, count in rows.items() if not count]
        if not missing:
            continue
        why = ""
        if split in held_out and task.split_rule != 1:
            why = (
                f": a label needs {FEWEST_TEXTS} texts to be in every split; add rows, merge "
                "labels, or leave their rows out (task.where)"
            )
        notes.append(
            f"{split}: no row has {len(missing):,} of the {len(names):,} labels "
            f"({first_few(missing)}){why}"
        )
    return notes


def _named(task: TaskSettings) -> set[str]:
    """The splits that the dataset has, by kdsweep's names."""
    return set(task.splits.named if isinstance(task.dataset, str) else task.dataset)


def _split(name: str, texts: tuple[Sequence[str], ...], labels: np.ndarray) -> Split:
    columns = ["\x1e".join(column).encode("utf-8", "surrogatepass") for column in texts]
    return Split(name, texts, labels, fingerprint(name, labels.tobytes(), *columns))


def _without_fold(task: TaskSettings, train: Split, notes: list[str]) -> Split:
    fold = task.left_out
    if fold is None:
        return train
    numbers = fold_numbers(train, fold.of, task.kind, rule_of(task))
    kept = np.flatnonzero(numbers != fold.fold)
    left_out = len(train) - len(kept)
    notes.append(f"train: {left_out:,} rows left out: fold {fold.fold} of {fold.of}")
    rest = train.take(kept)
    return _split(train.name, rest.texts, rest.labels)
