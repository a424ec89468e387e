"""The guesses about a dataset, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from kdsweep.config.loading import Plain
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.sources import PACKAGE, local_path
from kdsweep.core.data.splits import HELD_OUT
from kdsweep.core.settings import TaskSettings
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.drafting.columns import Column, look_at, shown
from kdsweep.drafting.labels import guess_label, skipped_columns
from kdsweep.drafting.split_names import guess_splits, with_labels
from kdsweep.drafting.tables import read_tables
from kdsweep.drafting.texts import guess_text
from kdsweep.errors import BlankLabels, DataError

FEW_ROWS = 1_000
HOLDOUT = 0.1
HOLDOUT_OF_FEW_ROWS = 0.2


@dataclass(frozen=True)
class DataRequest:
    """What `kdsweep init` was asked for: a dataset, and columns instead of guesses."""

    data: str
    subset: str | None = None
    text: Sequence[str] = ()
    label: Sequence[str] = ()


@dataclass(frozen=True)
class DraftedTask:
    """The task section of the space.

    holdout: None if the dataset has all three splits. blank_labels: `drop` if rows have no label.
    """

    dataset: str
    subset: str | None
    text: tuple[str, ...]
    label: tuple[str, ...]
    kind: TaskKind
    splits: dict[str, str]
    holdout: float | None
    metric: str
    blank_labels: str | None = None

    def as_written(self) -> dict[str, Plain]:
        """The keys that the file has, in its order; defaults are left out."""
        task: dict[str, Plain] = {"dataset": self.dataset}
        if self.subset is not None:
            task["subset"] = self.subset
        task["text"] = _one_or_list(self.text)
        task["label"] = _one_or_list(self.label)
        if self.kind is not DEFAULT_KIND:
            task["kind"] = self.kind.name
        if self.splits:
            task["splits"] = {**self.splits}
        if self.holdout is not None:
            task["holdout"] = self.holdout
        if self.blank_labels is not None:
            task["blank_labels"] = self.blank_labels
        task["metric"] = self.metric
        return task


def _one_or_list(names: tuple[str, ...]) -> Plain:
    return names[0] if len(names) == 1 else list(names)


@dataclass(frozen=True)
class Reasons:
    """Why each guess was made."""

    text: str
    label: str
    splits: str
    metric: str


@dataclass(frozen=True)
class Draft:
    """A space that is not written yet: its task, the reasons, and what they were made from."""

    name: str
    file: Path
    task: DraftedTask
    reasons: Reasons
    data: TaskData
    columns: tuple[Column, ...]

    @property
    def notes(self) -> list[str]:
        """What a user should know of how the rows were read; `reasons` says what is held out."""
        return [note for note in self.data.notes if HELD_OUT not in note]

    @property
    def text_columns(self) -> list[Column]:
        return [column for column in self.columns if column.name in self.task.text]


def draft_space(request: DataRequest, file: Path, name: str) -> Draft:
    """Look at the data and guess. Raises DataError if something can't be guessed."""
    data = request.data
    tables = read_tables(data, request.subset)
    named = guess_splits(data, tables)
    train = tables[named.get("train", "")]
    columns = look_at(train)
    label = guess_label(data, columns, request.label)
    text = guess_text(data, columns, label.columns, request.text)
    if both := next((column for column in text.columns if column in label.columns), None):
        raise DataError(
            f"--text: {data}: `{shown(both)}` is the label; give --label too, or another text "
            "column"
        )
    splits = with_labels(named, tables, label.columns)
    is_small = len(next(iter(train.columns.values()))) < FEW_ROWS
    holdout = HOLDOUT_OF_FEW_ROWS if is_small else HOLDOUT
    task = DraftedTask(
        dataset=_as_written(data, file),
        subset=request.subset,
        text=text.columns,
        label=label.columns,
        kind=label.kind,
        splits=splits.names,
        holdout=None if len(splits.names) == 3 else holdout,
        metric=label.kind.default_metric,
    )
    # If `plan` would refuse the rows, we refuse them now.
    try:
        rows = load_task(_settings(task, data))
    except BlankLabels:
        task = replace(task, blank_labels="drop")
        rows = load_task(_settings(task, data))
    names = [shown(name) for name in rows.label_names]
    metric, why_metric = rows.kind.guess_metric(rows.train.labels, names)
    skipped = skipped_columns(columns, [*text.columns, *label.columns])
    reasons = Reasons(
        text=text.reason,
        label="; ".join(filter(None, [label.reason, skipped])),
        splits=splits.reason,
        metric=why_metric,
    )
    task = replace(task, metric=metric)
    return Draft(name, file, task, reasons, rows, tuple(columns))


def _as_written(data: str, file: Path) -> str:
    """The dataset as the space names it: a relative path is relative to the space's folder."""
    path = local_path(data, DataError)
    if path is None or data.startswith((PACKAGE, "/", "~")):
        return data
    relative = os.path.relpath(path.resolve(), file.parent.resolve())
    # A bare word could be a dataset on the Hub.
    is_clear = path.is_file() or relative.startswith("..")
    return relative if is_clear else f"./{relative}"


def _settings(task: DraftedTask, data: str) -> TaskSettings:
    """The task as it is read from here. Raises DataError."""
    path = local_path(data, DataError)
    is_named = path is None or data.startswith(PACKAGE)
    source = data if is_named or path is None else str(path.resolve())
    try:
        return TaskSettings.model_validate({**task.as_written(), "dataset": source})
    except ValidationError as error:
        # What was asked for can't be a task, such as three text columns.
        broken = error.errors(include_url=False)[0]
        raise DataError(f"{data}: task.{broken['loc'][0]}: {broken['msg']}") from error
