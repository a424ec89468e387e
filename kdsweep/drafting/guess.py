"""A guess with its reason, and the column that a user names instead of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsweep.drafting.columns import Column
from kdsweep.errors import DataError, did_you_mean, first_few

AS_REQUESTED = "as requested"
# How many other candidates a reason names.
MOST_OTHERS = 4


@dataclass(frozen=True)
class Guess:
    """The columns that were chosen, and why, in words that fit after "KEY: `COLUMN`, "."""

    columns: tuple[str, ...]
    reason: str


def named_column(data: str, columns: Sequence[Column], name: str, option: str) -> Column:
    """The column that `option` names. Raises DataError."""
    for column in columns:
        if column.name == name:
            return column
    names = [column.name for column in columns]
    raise DataError(
        f"{option}: {data} has no column {name!r}, only {first_few(map(repr, names))}"
        f"{did_you_mean(name, names)}"
    )
