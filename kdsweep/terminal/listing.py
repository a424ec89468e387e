"""The sweeps of a home as a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from kdsweep.formatting import duration, file_size, score
from kdsweep.housekeeping.listing import Counts, ListedSweep
from kdsweep.terminal.console import open_console, say
from kdsweep.terminal.tables import Column, show_table

COLUMNS = (
    Column("sweep", right=False),
    Column("state", wraps=True),
    Column("trials"),
    Column("confirmed", 3),
    Column("best", 1, wraps=True),
    Column("last used", 2, right=False),
    Column("size", 4),
)


def show_sweeps(home: Path, sweeps: Sequence[ListedSweep]) -> None:
    console = open_console()
    if not sweeps:
        console.print(f"no sweeps in {home} yet; kdsweep run SPACE starts one")
        return
    rows = []
    for one in sweeps:
        trials = confirmed = ""
        if one.counts is not None:
            trials = f"{one.counts.ended:,}/{one.counts.trials:,}"
            if one.counts.to_confirm:
                confirmed = f"{one.counts.confirmed}/{_planned(one.counts)}"
        used = _ago(time.time() - one.last_used)
        cells = (one.name, _state(one), trials, confirmed, _best(one), used, file_size(one.bytes))
        rows.append(cells)
    show_table(console, COLUMNS, rows)
    for one in sweeps:
        if one.problem is not None:
            say(console, f"{one.name}: {one.problem}")


def _planned(counts: Counts) -> str:
    """How many confirm runs there will be: `12`, `12 to 80`."""
    most = counts.to_confirm_at_most
    return f"{counts.to_confirm} to {most}" if most > counts.to_confirm else str(counts.to_confirm)


def _ago(seconds: float) -> str:
    """`42 s ago`, `3 h ago`, `5 days ago`."""
    days = seconds / 86400
    if days >= 2:
        return f"{days:.0f} days ago"
    hours = seconds / 3600
    return f"{hours:.0f} h ago" if hours >= 2 else f"{duration(max(0, round(seconds)))} ago"


def _state(sweep: ListedSweep) -> str:
    if sweep.state in ("running", "removing") and sweep.holder is not None:
        phase = f" ({sweep.phase})" if sweep.phase else ""
        return f"{sweep.state}{phase}, {sweep.holder.words}"
    if sweep.state == "stopped":
        return f"stopped ({sweep.phase}), can be resumed"
    return "half removed" if sweep.state == "removing" else sweep.state


def _best(sweep: ListedSweep) -> str:
    if sweep.best is None:
        return ""
    recommended = ", recommended" if sweep.best.recommended else ""
    return f"{sweep.best.trial}: {sweep.best.metric} {score(sweep.best.validation)}{recommended}"
