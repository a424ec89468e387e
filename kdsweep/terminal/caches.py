"""The caches of a home as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from kdsweep.errors import first_few
from kdsweep.formatting import file_size
from kdsweep.terminal.console import open_console

if TYPE_CHECKING:
    from kdsweep.housekeeping.cleaning import Cleaning


def show_caches(found: Cleaning) -> None:
    console = open_console()
    table = Table()
    for name in ("cache", "entries", "size", "unused", "unused size"):
        table.add_column(name, justify="left" if name == "cache" else "right")
    for one in found.sizes:
        counts = (f"{one.entries:,}", file_size(one.bytes), f"{one.unused_entries:,}")
        table.add_row(one.kind, *counts, file_size(one.unused_bytes))
    console.print(table)
    if found.running:
        console.print(f"{first_few(found.running)} run now, so nothing can be removed")
    if found.unread:
        console.print(
            f"{first_few(found.unread)} can't be read, so no teacher and nothing of the Hub counts "
            "as unused"
        )
