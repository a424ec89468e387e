"""Guesses which column holds the label, and what kind of task that makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsweep.core.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import TaskKind
from kdsweep.drafting.column_names import (
    AMOUNT_NAMES,
    ASIDE_NAMES,
    LABEL_NAMES,
    is_known,
    rank,
)
from kdsweep.drafting.columns import MOST_CLASSES, Column, seen, shown
from kdsweep.drafting.guess import AS_REQUESTED, MOST_OTHERS, Guess, named_column
from kdsweep.errors import DataError


@dataclass(frozen=True)
class LabelGuess(Guess):
    """The label column, or several of 0 and 1, and the kind of task that makes."""

    kind: TaskKind


def guess_label(data: str, columns: Sequence[Column], wanted: Sequence[str]) -> LabelGuess:
    """The label column or columns.

    wanted: the columns that the user named. Raises DataError, with every column, if none looks like
    a label.
    """
    if wanted:
        return _requested(data, [named_column(data, columns, name, "--label") for name in wanted])
    kinds = {
        column.name: found
        for column in columns
        if column.name.strip() and (found := _kind_of_label(column)) is not None
    }
    candidates = [column for column in columns if column.name in kinds]
    if not candidates:
        raise DataError(
            f"{data}: no column looks like a label (a few values, each in many rows; numbers with "
            "a fraction; lists of names); name one with --label, or write task.label and task.text "
            f"yourself (columns: {seen(columns)})"
        )
    flags = [column for column in candidates if column.is_flag and not _is_aside(column)]
    if len(flags) > 1 and not any(map(_is_plainly_a_label, candidates)):
        chosen = flags
        kind: TaskKind = MULTI_LABEL
        reason = _why_several(flags)
    else:
        # Labels are among the last columns more often than not.
        in_order = list(reversed(candidates))
        best = min(in_order, key=lambda column: _preference(column, kinds[column.name]))
        chosen = [best]
        kind = kinds[best.name]
        reason = _why_one(best, kind)
    others = [_other(one, kinds[one.name], kind) for one in candidates if one not in chosen]
    reasons = "; ".join([reason, *others[:MOST_OTHERS]])
    return LabelGuess(tuple(column.name for column in chosen), reasons, kind)


def _preference(column: Column, kind: TaskKind) -> tuple[bool | int, ...]:
    """The likelier label has the smaller one."""
    return (
        column.class_names is None,
        _label_rank(column),
        kind is REGRESSION,
        column.unlabelled > 0,
        column.kind == "number",
    )


def _label_rank(column: Column) -> int:
    """By name: one that labels have, then any other, then one that is something about a row."""
    if _has_label_name(column):
        return rank(column.name, LABEL_NAMES)
    is_about_a_row = not is_known(column.name, LABEL_NAMES) and _is_aside(column)
    return len(LABEL_NAMES) + 1 if is_about_a_row else len(LABEL_NAMES)


def _has_label_name(column: Column) -> bool:
    """`label_confidence` has none: it is a number about a label."""
    is_number = column.kind in ("number", "fraction") and not column.is_class_like
    is_about_a_label = is_number and _is_aside(column)
    return is_known(column.name, LABEL_NAMES) and not is_about_a_label


def _is_aside(column: Column) -> bool:
    return is_known(column.name, ASIDE_NAMES)


def _is_plainly_a_label(column: Column) -> bool:
    """Whether this column is the label even if others hold 0 and 1."""
    if column.is_flag:
        return column.name.strip().lower() in LABEL_NAMES
    is_named = column.class_names is not None or _has_label_name(column)
    return is_named or (column.kind in ("word", "text") and not _is_aside(column))


# --- the kind of a column's task ---


def _kind_of_label(column: Column) -> TaskKind | None:
    """What kind of task the column would be the label of; None if it looks like no label."""
    if column.is_label_list and not _is_aside(column):
        return MULTI_LABEL
    if column.kind == "fraction" and column.distinct > 1:
        return REGRESSION
    is_number = _could_be_amounts(column) and not _are_class_numbers(column)
    if is_number and _has_label_name(column):
        return REGRESSION
    return CLASSIFICATION if column.is_class_like else None


def _could_be_amounts(column: Column) -> bool:
    return column.kind == "number" and column.distinct > 2 and column.class_names is None


def _are_class_numbers(column: Column) -> bool:
    """Whether whole numbers are the numbers of classes.

    Either a few, or more (77 intents, say) that are counted up and not called a score.
    """
    is_few = column.distinct <= MOST_CLASSES
    is_counted = column.counts_up and not is_known(column.name, AMOUNT_NAMES)
    return column.is_class_like and (is_few or is_counted)


# --- labels that the user names ---


def _requested(data: str, chosen: Sequence[Column]) -> LabelGuess:
    names = tuple(column.name for column in chosen)
    if len(chosen) == 1:
        kind = _kind_of_requested(data, chosen[0])
        is_plain = kind is CLASSIFICATION and not _could_be_amounts(chosen[0])
        why = "" if is_plain else f"; {_why_one(chosen[0], kind)}"
        return LabelGuess(names, AS_REQUESTED + why, kind)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"--label: {data}: `{shown(twice)}` is named twice")
    if broken := next((column for column in chosen if not column.holds_flags), None):
        raise DataError(
            f"--label: {data}: `{shown(broken.name)}` is no column of 0 and 1, as several labels "
            f"must be: {broken.describe()}; name one label, or columns of 0 and 1"
        )
    return LabelGuess(names, f"{AS_REQUESTED}; {_why_several(chosen)}", MULTI_LABEL)


def _kind_of_requested(data: str, column: Column) -> TaskKind:
    """As `_kind_of_label`, whatever the column's name is.

    If it looks like no label, it is read as classes, and the reader of rows checks them.
    """
    if column.is_label_list:
        return MULTI_LABEL
    if column.kind in ("lists", "other", "empty"):
        raise DataError(
            f"--label: {data}: `{shown(column.name)}` is no label: {column.describe()}; a label is "
            "a name, a number, or a short list of different names"
        )
    is_amount = column.kind == "number" and column.distinct > 2 and not column.is_class_like
    if column.kind == "fraction" or is_amount:
        return REGRESSION
    return _kind_of_label(column) or CLASSIFICATION


# --- reasons ---


def _why_one(column: Column, kind: TaskKind) -> str:
    if kind is MULTI_LABEL:
        return column.describe()
    if kind is REGRESSION:
        examples = f"{column.distinct:,} different ones"
        if column.kind == "fraction":
            examples = f"with a fraction ({column.examples})"
        lowest = "; -1 counts as a number here, not as a missing label" if column.low == -1 else ""
        return f"numbers from {column.low:g} to {column.high:g}, {examples}{lowest}"
    values = f"{len(column.class_names or ()) or column.distinct} values"
    if not _could_be_amounts(column):
        return values
    return (
        f"{values}, read as names of classes; `kind: regression` with "
        "`metric: pearson_and_spearman` would read them as numbers"
    )


def _why_several(flags: Sequence[Column]) -> str:
    words = {text.lower() for column in flags for text in column.common}
    values = "booleans" if words & {"true", "false"} else "0 and 1"
    return (
        f"{len(flags)} columns of {values}, one for each label; one of them alone would be a "
        "classification"
    )


def _other(column: Column, kind: TaskKind, chosen: TaskKind) -> str:
    other_kind = f" (kind: {kind.name})" if kind is not chosen else ""
    return f"`{shown(column.name)}` could be the label too: {column.describe()}{other_kind}"


def skipped_columns(columns: Sequence[Column], used: Sequence[str]) -> str:
    """What was no candidate for anything, and why."""
    rest = [
        column
        for column in columns
        if column.name not in used and _kind_of_label(column) is None and not column.is_text_like
    ]
    return "; ".join(
        f"`{shown(column.name)}` is skipped: {column.describe()}" for column in rest[:MOST_OTHERS]
    )
