"""Raw labels to class numbers, numbers, or sets of labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdsweep.core.data.raw_rows import RawRows, as_text
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import DataError


def number_labels(
    task: TaskSettings, rows: dict[str, RawRows], dataset_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Class numbers from 0 for each split, and the names of the classes in that order."""
    found = {
        name: [_as_label(task, name, value) for value in part.labels] for name, part in rows.items()
    }
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
        raise DataError(
            f"task.label: every row of train has the same label ({task.label} = {values[0]!r})"
        )
    if len(values) > 20 and len(values) > len(found["train"]) / 4:
        raise DataError(
            f"task.label: column {task.label!r} has {len(values):,} values in {len(found['train']):,} rows: that is no label column"
        )
    for name in found:
        if unknown := sorted(set(found[name]) - numbers.keys()):
            raise DataError(
                f"task.label: {name} has the label {unknown[0]!r}, which train doesn't have (train: {', '.join(values)})"
            )
    if task.metric in ("f1", "accuracy_and_f1") and len(names) != 2:
        raise DataError(
            f"task.metric: {task.metric} is for 2 classes and there are {len(names)} ({', '.join(names[:8])}); use f1_macro, accuracy or matthews"
        )
    return names, {
        name: np.array([numbers[label] for label in labels], dtype=np.int64)
        for name, labels in found.items()
    }


def _as_label(task: TaskSettings, split: str, value: Any) -> str:
    """A label as text: 1, 1.0, True, '1' and '1.0' are the same class; a number with a fraction is none."""
    if isinstance(value, list | dict | np.ndarray):
        raise DataError(
            f"task.label: {task.label} of {split} holds lists: a row must have one label; where it may have several, set task.kind: multi_label"
        )
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    text = as_text(value).strip()
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


def _named_labels(
    wanted: tuple[str, ...], values: list[str], numbers: dict[str, int], names: tuple[str, ...]
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Apply the space's `labels`: the order of known names, or new names for numbers 0, 1, ..."""
    if set(wanted) == set(names):
        by_name = {name: wanted.index(name) for name in wanted}
        return wanted, {value: by_name[names[number]] for value, number in numbers.items()}
    if len(wanted) == len(names) and all(value.isdigit() for value in values):
        return wanted, numbers
    raise DataError(
        f"task.labels: [{', '.join(wanted)}] are not the labels of the rows: {', '.join(names)}"
    )


# --- labels that are no classes --------------------------------------------------------------------------------------


def read_numbers(
    task: TaskSettings, rows: dict[str, RawRows]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """A regression's labels, fp32 [rows] for each split, and what its one output is called: as the column is."""
    found = {}
    for name, part in rows.items():
        if missing := sum(value is None or as_text(value).strip() == "" for value in part.labels):
            raise DataError(
                f"task.label: {missing:,} of {len(part):,} rows of the {name} split have no label ({task.label} is empty); remove those rows"
            )
        found[name] = np.array(
            [_as_number(task, name, value) for value in part.labels], dtype=np.float32
        )
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
        raise DataError(
            f"task.label: {task.label} of {split} holds {str(value)[:40]!r}: with kind: regression a label must be a number, below 3.4e+38"
        )
    return number


def read_label_sets(
    task: TaskSettings, rows: dict[str, RawRows], dataset_names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Which labels each row has, fp32 0 and 1 [rows, labels] for each split, and what they are called in that order."""
    if isinstance(task.label, tuple):
        return _named_columns(
            task, {name: _flags(task, name, part.labels) for name, part in rows.items()}
        )
    found = {
        name: [_as_labels(task, name, value) for value in part.labels]
        for name, part in rows.items()
    }
    values = sorted({label for labels in found["train"] for label in labels}, key=_label_order)
    names = dataset_names or tuple(values)
    numbers = {str(i) if dataset_names else name: i for i, name in enumerate(names)}
    if task.labels is not None:
        names, numbers = _named_labels(task.labels, values, numbers, names)
    if len(names) < 2:
        raise DataError(
            f"task.label: the rows of train have {len(names)} different labels in {task.label}; it takes 2 at least"
        )
    out = {}
    for name, sets in found.items():
        out[name] = np.zeros((len(sets), len(names)), dtype=np.float32)
        for row, labels in enumerate(sets):
            for label in labels:
                if label not in numbers:
                    raise DataError(
                        f"task.label: {name} has the label {label!r}, which train doesn't have (train: {', '.join(values)})"
                    )
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
                flags[number, column] = float(
                    FLAGS.get(value.strip().lower(), value) if isinstance(value, str) else value
                )
            except (TypeError, ValueError, OverflowError):
                flags[number, column] = -1
            if flags[number, column] not in (0, 1):
                raise DataError(
                    f"task.label: {name} of {split} holds {value!r}: where each label has its column, that must be 0 or 1 (or true, false)"
                )
    return flags


def _named_columns(
    task: TaskSettings, found: dict[str, np.ndarray]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Apply the space's `labels`: the order of the columns."""
    names = task.label_columns
    if task.labels is None:
        return names, found
    if sorted(task.labels) != sorted(names):
        raise DataError(
            f"task.labels: [{', '.join(task.labels)}] are not the columns of task.label: {', '.join(names)}"
        )
    order = [names.index(name) for name in task.labels]
    return task.labels, {
        name: np.ascontiguousarray(flags[:, order]) for name, flags in found.items()
    }
