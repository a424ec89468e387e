"""What labels are called.

Label rule 1, of version 0.1.0, reads text as numbers where it can: `007`, `7` and `7.0` are one
class, and True is `1`. Rule 2 keeps text as it is written. A sweep keeps the rule that it started
with.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

import numpy as np

from kdsweep.core.data.raw_values import as_text
from kdsweep.core.data.text_hashes import normal_text
from kdsweep.errors import DataError, first_few

SPELLED_BOOLEANS = {"true": True, "false": False}
# Letters of other scripts and signs that look like the Latin ones in the second line.
HOMOGLYPHS = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеѕіјорсухΑΒΕΖΗΙΚΜΝΟΡΤΥΧαονρ‐‑‒–—−’‘“”_",
    "ABESIJKMHOPCTYXaesijopcyxABEZHIKMNOPTYXaovp------''\"\"-",
)


# --- one value ---


def name_by_rule_1(value: object) -> str | float:
    """The class's name: 1, 1.0, True, '1' and '1.0' are the same one. A fraction stays a number."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    text = as_text(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    if number != number or number in {float("inf"), float("-inf")}:
        return text
    return str(int(number)) if number == int(number) else number


def name_as_written(value: object) -> str | float:
    """The class's name by rule 2. A number that has a fraction stays a number.

    Text is as written, in NFC and without blanks around it. A whole number is an integer, and a
    boolean is `true` or `false`.
    """
    if isinstance(value, str):
        return unicodedata.normalize("NFC", as_text(value)).strip()
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating | Decimal) and value == value:
        is_whole = abs(value) != Decimal("Infinity") and value == int(value)
        return str(int(value)) if is_whole else float(value)
    return as_text(value).strip()


NAMERS: dict[int, Callable[[object], str | float]] = {1: name_by_rule_1, 2: name_as_written}


def label_order(name: str) -> tuple[int, int, str]:
    """Whole numbers first, in their order, then other names."""
    if name.removeprefix("-").isascii() and name.removeprefix("-").isdigit():
        return (0, int(name), name)
    return (1, 0, name)


# --- a column ---


def with_booleans(columns: dict[str, list[object]]) -> dict[str, list[object]]:
    """The labels of each split, as booleans if every text in them spells one."""
    found = {
        value.strip().lower()
        for labels in columns.values()
        for value in labels
        if isinstance(value, str) and value.strip()
    }
    if not found or not found <= SPELLED_BOOLEANS.keys():
        return columns
    return {split: [_as_boolean(value) for value in labels] for split, labels in columns.items()}


def _as_boolean(value: object) -> object:
    return SPELLED_BOOLEANS.get(value.strip().lower(), value) if isinstance(value, str) else value


def by_names_of_train(
    split: str,
    labels: list[object],
    own: tuple[str, ...] | None,
    train: tuple[str, ...] | None,
) -> list[object]:
    """The split's labels, numbered as train numbers its classes.

    own, train: the class names of this split and of train, where they have some; labels are their
    numbers. If train has none, labels become names. Raises DataError for a class that train doesn't
    know.
    """
    if (own is None and train is None) or own == train:
        return labels
    numbers = {name: i for i, name in enumerate(train or ())}

    def renumbered(value: object) -> object:
        if isinstance(value, list | tuple | np.ndarray):
            return [renumbered(one) for one in value]
        name = value
        if own is not None and isinstance(value, int | np.integer) and 0 <= value < len(own):
            name = own[int(value)]
        if train is None or not isinstance(name, str):
            return name
        if name in numbers:
            return numbers[name]
        if own is None:
            return value
        raise DataError(
            f"task.label: {split} has the class {name!r}, which train doesn't have (train: "
            f"{first_few(train)}); give both splits the same class names"
        )

    return [renumbered(value) for value in labels]


# --- all names ---


def notes_of_names(names: Sequence[str]) -> list[str]:
    """A line for labels that are the same number, and one for labels that look alike."""
    notes = []
    by_number: dict[object, list[str]] = {}
    by_looks: dict[str, list[str]] = {}
    for name in names:
        if (number := _number(name)) is not None:
            by_number.setdefault(number, []).append(name)
        by_looks.setdefault(normal_text(name.translate(HOMOGLYPHS)), []).append(name)
    for found, what in ((by_number, "the same number"), (by_looks, "alike in looks")):
        groups = [group for group in found.values() if len(group) > 1]
        if groups:
            shown = "; ".join(" and ".join(map(ascii, group)) for group in groups[:4])
            more = f"; and {len(groups) - 4} more" if len(groups) > 4 else ""
            notes.append(
                f"labels: {shown}{more} are {what}, but different classes: text labels are kept "
                "as written; if they mean the same, write them alike"
            )
    return notes


def _number(name: str) -> Decimal | None:
    if name in SPELLED_BOOLEANS:
        return Decimal(SPELLED_BOOLEANS[name])
    try:
        number = Decimal(name)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
