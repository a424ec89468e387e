"""Tables that fit the terminal: fewer columns where it is narrow, and no cell is ever cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table

from kdsweep.terminal.console import say, wrapped

GAP = 2
# A column that wraps gets at least this many characters, and what the others leave.
NARROWEST_WRAPPED = 20
HIGHEST_RANK_IN_LISTS = 3


class Column(NamedTuple):
    """rank: those with the highest one go first on a narrow terminal; 0 stays. wraps: at words."""

    name: str
    rank: int = 0
    right: bool = True
    wraps: bool = False


class _Sized(NamedTuple):
    """A column with its cells. least: the width that shows each word whole."""

    column: Column
    cells: list[str]
    natural: int
    least: int


def show_table(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    bold: Collection[int] = (),
    keeps_all: bool = False,
) -> None:
    """Print the table. Columns without any value are left out.

    bold: the rows that stand out. keeps_all: where columns don't fit, show each row as a list of
    values, and leave out none. A table whose columns of rank 0 don't fit is shown so as well.
    """
    every = [_sized(column, [row[i] for row in rows]) for i, column in enumerate(columns)]
    shown = [every[0], *(one for one in every[1:] if any(one.cells))]
    left_out: list[str] = []
    if console.is_terminal:
        while _width(shown) > console.width and not keeps_all:
            rank = max(one.column.rank for one in shown)
            if rank == 0:
                break
            left_out += [one.column.name for one in shown if one.column.rank == rank]
            shown = [one for one in shown if one.column.rank != rank]
        if _width(shown) > console.width:
            most = max(one.column.rank for one in every) if keeps_all else HIGHEST_RANK_IN_LISTS
            listed = [one for one in every if one.column.rank <= most]
            _show_lists(console, listed, bold)
            left_out = [one.column.name for one in every if one not in listed and any(one.cells)]
        else:
            console.print(_table(shown, console.width, bold), soft_wrap=False)
    else:
        # Rich prints no wider than the console is.
        console.width = max(console.width, _width(shown))
        console.print(_table(shown, console.width, bold), soft_wrap=False)
    if left_out:
        names = ", ".join(name.replace("\n", " ") for name in reversed(left_out))
        say(console, f"too narrow for: {names}", style="dim")


def _sized(column: Column, cells: list[str]) -> _Sized:
    lines = [line for cell in (column.name, *cells) for line in cell.split("\n")]
    natural = max(map(cell_len, lines))
    if not column.wraps:
        return _Sized(column, cells, natural, natural)
    words = max((cell_len(word) for line in lines for word in line.split()), default=0)
    return _Sized(column, cells, natural, max(words, min(natural, NARROWEST_WRAPPED)))


def _width(shown: Sequence[_Sized]) -> int:
    return sum(one.least for one in shown) + GAP * (len(shown) - 1)


def _table(shown: Sequence[_Sized], width: int, bold: Collection[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    left = width - _width(shown)
    for one in shown:
        more = min(left, one.natural - one.least)
        left -= more
        is_right = one.column.right and not one.column.wraps
        justify: JustifyMethod = "right" if is_right else "left"
        table.add_column(one.column.name, justify=justify, width=one.least + more)
    for i in range(len(shown[0].cells)):
        table.add_row(*(one.cells[i] for one in shown), style="bold" if i in bold else None)
    return table


def _show_lists(console: Console, shown: Sequence[_Sized], bold: Collection[int]) -> None:
    """Each row as its name, and its values below it."""
    names = [one.column.name.replace("\n", " ") for one in shown]
    widest = max(map(cell_len, names[1:]), default=0)
    for i, first in enumerate(shown[0].cells):
        say(console, first, style="bold" if i in bold else None)
        for name, one in zip(names[1:], shown[1:], strict=True):
            if value := one.cells[i].replace("\n", ", "):
                line = f"  {name:<{widest}}  "
                text = wrapped(value, max(NARROWEST_WRAPPED, console.width - len(line)))
                console.print(line + text.replace("\n", "\n" + " " * len(line)))
