"""Columns as a file or a dataset has them, before a task says what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RawTable:
    """Columns by name, each [rows].

    class_names: of each column whose class names the file itself has; its values are their numbers.
    notes: what a user should know about how the file was read.
    """

    columns: dict[str, list[object]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def table_of_objects(rows: Sequence[dict[str, object]]) -> RawTable:
    """A table from one object a row; None where an object lacks a key."""
    names = dict.fromkeys(str(name) for row in rows for name in row)
    return RawTable({name: [without_nan(row.get(name)) for row in rows] for name in names})


def without_nan(value: object) -> object:
    """The value; None for NaN, so that there is one value for nothing."""
    return None if isinstance(value, float) and value != value else value


def named_once(names: Iterable[str]) -> list[str]:
    """The names; the second `a` is `a.1`."""
    found: list[str] = []
    for name in names:
        number, unique = 0, name
        while unique in found:
            number += 1
            unique = f"{name}.{number}"
        found.append(unique)
    return found
