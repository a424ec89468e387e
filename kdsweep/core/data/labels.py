"""From raw labels to class numbers, numbers, or sets of labels.

Each kind of task reads labels with one of `number_labels`, `read_numbers` and `read_label_sets`.
They return the names of the outputs and, for each split, the labels of its rows. They raise
DataError for labels that can't be used.
"""

from __future__ import annotations

from typing import SupportsFloat

import numpy as np

from kdsweep.core.data.label_names import NAMERS, label_order, name_as_written
from kdsweep.core.data.raw_values import RawLabels, as_text
from kdsweep.errors import BlankLabels, DataError, first_few

Labels = tuple[tuple[str, ...], dict[str, np.ndarray]]

# How csv files write booleans.
FLAGS = {"true": 1.0, "false": 0.0}
# What a row without a label has.
NO_LABEL = {"-1", "-1.0", ""}
LEAVE_OUT = "remove those rows, or leave them out (task.blank_labels: drop)"
# Of a regression's labels in fp32, in their standard deviations.
LARGEST_ROUNDING = 1e-3
LARGEST_NUMBER = float(np.finfo(np.float32).max)


def is_blank(value: object) -> bool:
    """Whether a raw label is empty. An empty list isn't: the row has none of the labels.

    value: a tuple if there are several columns; one empty column is enough.
    """
    if isinstance(value, tuple):
        return any(map(is_blank, value))
    return not isinstance(value, list | dict | np.ndarray) and as_text(value).strip() == ""


# --- one class for each row ---


def number_labels(raw: RawLabels) -> Labels:
    """The names of the classes, and for each split their numbers from 0, int64 [rows].

    If the dataset itself names the classes, its labels are their numbers.
    """
    found = {name: class_texts(raw, name) for name in raw.splits}
    for name, labels in found.items():
        if missing := sum(label in NO_LABEL for label in labels):
            what = (
                f"task.label: {missing:,} of {len(labels):,} rows of the {name} split have no "
                f"label ({raw.label} is -1 or empty); name another split, or "
            )
            if missing == labels.count(""):
                raise BlankLabels(what + LEAVE_OUT)
            raise DataError(what + "remove those rows")
    values = sorted(set(found["train"]), key=label_order)
    names, numbers = _names_and_numbers(raw, values)
    _check_classes(raw, values, names, len(found["train"]))
    for name, labels in found.items():
        if unknown := sorted(set(labels) - numbers.keys()):
            raise _unknown_label(name, unknown[0], values)
    return names, {
        name: np.array([numbers[label] for label in labels], dtype=np.int64)
        for name, labels in found.items()
    }


def class_texts(raw: RawLabels, split: str) -> list[str]:
    """The class of each row as text; -1 or "" for a row without a label."""
    return [_as_label(raw, split, value) for value in raw.splits[split]]


def _names_and_numbers(raw: RawLabels, values: list[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the outputs, and the number of the output of each raw value.

    `task.labels` orders known names, or names the numbers 0, 1, ...
    """
    if raw.dataset_names:
        names = raw.dataset_names
        numbers = {str(i): i for i in range(len(names))}
    else:
        names = tuple(values)
        numbers = {name: i for i, name in enumerate(names)}
    if raw.wanted is None:
        return names, numbers
    wanted = tuple(str(name_as_written(name)) for name in raw.wanted)
    if set(wanted) == set(names):
        return wanted, {value: wanted.index(names[number]) for value, number in numbers.items()}
    are_numbers = all(value.isdigit() for value in values) or set(values) == {"false", "true"}
    # Other numbers would be a slip, not names.
    are_names = raw.dataset_names or raw.label_rule == 1 or not any(map(str.isdigit, wanted))
    if len(wanted) == len(names) and are_numbers and are_names:
        return wanted, numbers
    raise DataError(
        f"task.labels: [{first_few(wanted)}] are not the labels of the rows: {first_few(names)}"
    )


def _check_classes(
    raw: RawLabels, values: list[str], names: tuple[str, ...], train_rows: int
) -> None:
    if len(values) < 2:
        raise DataError(
            f"task.label: every row of train has the same label ({raw.label} = {values[0]!r}); "
            "name another column, or add rows with other labels"
        )
    if len(values) > 20 and len(values) > train_rows / 4:
        # A csv has its numbers as text.
        fractions = [value for value in values if "." in value and _float_or_nan(value) % 1]
        if 2 * len(fractions) > len(values):
            raise _no_class(raw, "train", fractions[0])
        raise DataError(
            f"task.label: column {raw.label!r} has {len(values):,} values in {train_rows:,} rows: "
            "that is no label column; name another one"
        )
    if raw.metric in ("f1", "accuracy_and_f1") and len(names) != 2:
        raise DataError(
            f"task.metric: {raw.metric} is for 2 classes and there are {len(names)} "
            f"({first_few(names)}); use f1_macro, accuracy or matthews"
        )


def _as_label(raw: RawLabels, split: str, value: object) -> str:
    """The name of a label. Raises DataError for lists and for a number with a fraction."""
    if isinstance(value, list | dict | np.ndarray):
        raise DataError(
            f"task.label: {raw.label} of {split} has lists, but a row must have one label; "
            "if a row may have several, set task.kind: multi_label"
        )
    name = NAMERS[raw.label_rule](value)
    if isinstance(name, float):
        raise _no_class(raw, split, as_text(value).strip())
    return name


def _no_class(raw: RawLabels, split: str, text: str) -> DataError:
    return DataError(
        f"task.label: {raw.label} of {split} has {text!r}, but a class label must be a whole "
        "number or a name; for a regression set task.kind: regression"
    )


def _unknown_label(split: str, label: str, values: list[str]) -> DataError:
    return DataError(
        f"task.label: {split} has the label {label!r}, which train doesn't have "
        f"(train: {first_few(values)})"
    )


# --- a number for each row ---


def read_numbers(raw: RawLabels) -> Labels:
    """The name of the column, and for each split its numbers, fp32 [rows]."""
    found = {}
    for name, values in raw.splits.items():
        found[name] = numbers_of(raw, name)
        if len(values) > 1 and np.ptp(found[name]) == 0:
            raise DataError(
                f"task.label: every row of the {name} split has the same label ({raw.label} = "
                f"{found[name][0]:g}), so nothing can be learned from it; labels that are not "
                "public are often -1: name another split"
            )
    return raw.columns, found


def numbers_of(raw: RawLabels, split: str) -> np.ndarray:
    """fp32 [rows]"""
    values = raw.splits[split]
    if missing := sum(as_text(value).strip() == "" for value in values):
        raise BlankLabels(
            f"task.label: {missing:,} of {len(values):,} rows of the {split} split have no label "
            f"({raw.label} is empty); {LEAVE_OUT}"
        )
    numbers = np.array([_as_number(raw, split, value) for value in values], dtype=np.float64)
    rounded = numbers.astype(np.float32)
    spread = numbers.std() if len(numbers) else 0.0
    if spread and np.abs(rounded - numbers).max() > LARGEST_ROUNDING * spread:
        raise DataError(
            f"task.label: {raw.label} of {split} goes from {numbers.min():.15g} to "
            f"{numbers.max():.15g}: that differs by less than models, which compute in fp32, can "
            "tell apart; subtract a number from all labels"
        )
    return rounded


def _as_number(raw: RawLabels, split: str, value: object) -> float:
    number = _float_or_nan(value)
    # A comparison with NaN is False.
    if not abs(number) <= LARGEST_NUMBER:
        raise DataError(
            f"task.label: {raw.label} of {split} has {str(value)[:40]!r}: with kind: regression a "
            "label must be a number, below 3.4e+38"
        )
    return number


def _float_or_nan(value: object) -> float:
    if not isinstance(value, str | bytes | SupportsFloat):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


# --- several labels for each row ---


def read_label_sets(raw: RawLabels) -> Labels:
    """The names of the labels, and for each split 1 where a row has one, fp32 [rows, labels]."""
    if isinstance(raw.label, tuple):
        flags = {name: _flags(raw, name, values) for name, values in raw.splits.items()}
        return _in_wanted_order(raw, flags)
    found = {
        name: [_as_labels(raw, name, value) for value in values]
        for name, values in raw.splits.items()
    }
    values = sorted({label for labels in found["train"] for label in labels}, key=label_order)
    names, numbers = _names_and_numbers(raw, values)
    if len(names) < 2:
        raise DataError(
            f"task.label: the rows of train have {len(names)} different labels in {raw.label}, "
            "but there must be at least 2; name another column"
        )
    out = {}
    for name, sets in found.items():
        if unknown := sorted({label for labels in sets for label in labels} - numbers.keys()):
            raise _unknown_label(name, unknown[0], values)
        out[name] = _matrix(sets, numbers, len(names))
    return names, out


def label_matrix(raw: RawLabels, split: str) -> np.ndarray:
    """fp32 [rows, labels]: 1 where a row has a label that any row of this split has.

    The labels are in the order of their names, however the task names them.
    """
    rows = raw.splits[split]
    if isinstance(raw.label, tuple):
        return _flags(raw, split, rows)[:, np.argsort(raw.label)]
    found = [_as_labels(raw, split, value) for value in rows]
    numbers = {label: i for i, label in enumerate(sorted({one for row in found for one in row}))}
    return _matrix(found, numbers, len(numbers))


def _matrix(rows: list[list[str]], numbers: dict[str, int], width: int) -> np.ndarray:
    """fp32 [rows, width]: 1 in the columns of a row's labels."""
    found = np.zeros((len(rows), width), dtype=np.float32)
    for row, labels in enumerate(rows):
        found[row, [numbers[label] for label in labels]] = 1
    return found


def _as_labels(raw: RawLabels, split: str, value: object) -> list[str]:
    if not isinstance(value, list | tuple | np.ndarray):
        if is_blank(value):
            raise BlankLabels(
                f"task.label: rows of the {split} split have no label ({raw.label} is empty); give "
                f"a row without labels an empty list, or {LEAVE_OUT}"
            )
        raise DataError(
            f"task.label: {raw.label} of {split} has {value!r}: with kind: multi_label a row must "
            "have a list of labels (json, jsonl, parquet, a dataset), or task.label must name "
            "several columns of 0 and 1"
        )
    labels = [_as_label(raw, split, one) for one in value]
    if NO_LABEL & set(labels):
        raise DataError(
            f"task.label: {raw.label} of {split} has a list with -1 or nothing in it, which is no "
            "label; give a row without labels an empty list"
        )
    return labels


def _flags(raw: RawLabels, split: str, rows: list[object]) -> np.ndarray:
    """fp32 [rows, columns] of 0 and 1. rows: a tuple with a value of each column."""
    flags = np.empty((len(rows), len(raw.columns)), dtype=np.float32)
    for number, row in enumerate(rows):
        assert isinstance(row, tuple)
        for column, (name, value) in enumerate(zip(raw.columns, row, strict=True)):
            flag = FLAGS.get(value.strip().lower(), value) if isinstance(value, str) else value
            flags[number, column] = _float_or_nan(flag)
            if is_blank(value):
                raise BlankLabels(
                    f"task.label: rows of the {split} split have no label ({name} is empty); "
                    f"{LEAVE_OUT}"
                )
            if flags[number, column] not in (0, 1):
                raise DataError(
                    f"task.label: {name} of {split} has {value!r}: a column for one label must "
                    "have 0 or 1 (or true, false)"
                )
    return flags


def _in_wanted_order(raw: RawLabels, found: dict[str, np.ndarray]) -> Labels:
    """The columns in the order of `task.labels`, if the space has that."""
    names = raw.columns
    if raw.wanted is None:
        return names, found
    if sorted(raw.wanted) != sorted(names):
        raise DataError(
            f"task.labels: [{first_few(raw.wanted)}] are not the columns of task.label: "
            f"{first_few(names)}"
        )
    order = [names.index(name) for name in raw.wanted]
    return raw.wanted, {
        name: np.ascontiguousarray(flags[:, order]) for name, flags in found.items()
    }
