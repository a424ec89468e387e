"""The caches of a home as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsweep.errors import first_few
from kdsweep.formatting import file_size
from kdsweep.terminal.console import open_console, say
from kdsweep.terminal.tables import Column, show_table

if TYPE_CHECKING:
    from kdsweep.housekeeping.cleaning import Cleaning


def show_caches(found: Cleaning) -> None:
    console = open_console()
    rows = []
    for one in found.sizes:
        counts = (f"{one.entries:,}", file_size(one.bytes), f"{one.unused_entries:,}")
        rows.append([one.kind, *counts, file_size(one.unused_bytes)])
    names = ("cache", "entries", "size", "unused", "unused size")
    show_table(console, [Column(name, right=name != "cache") for name in names], rows)
    if found.running:
        say(console, f"{first_few(found.running)} run now, so nothing can be removed")
    if found.unread:
        say(
            console,
            f"{first_few(found.unread)} can't be read, so no teacher and nothing of the Hub counts "
            "as unused",
        )
