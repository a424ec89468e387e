"""How far a sweep is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsweep.formatting import count, duration
from kdsweep.sweep.budget import say_use
from kdsweep.terminal.console import open_console, say
from kdsweep.terminal.tables import Column, show_table

if TYPE_CHECKING:
    from kdsweep.sweep.status import SweepStatus

COLUMNS = (
    Column("strategy", right=False),
    Column("done"),
    Column("pruned", 3),
    Column("failed", 4),
    Column("running", 1),
    Column("left"),
    Column("finalists", 5),
    Column("confirmed", 2),
)


def show_status(status: SweepStatus) -> None:
    console = open_console()
    console.print(f"{status.sweep}: {status.state}", style="bold")
    rows = []
    for strategy, found in status.strategies.items():
        best = ""
        if found.best is not None:
            best = f"{found.best.validation:.4f} (trial {found.best.trial})"
        counts = (found.complete, found.pruned, found.failed, found.running, found.left)
        finalists = _so_far(found.finalists_ended, found.finalists_left)
        confirmed = _so_far(found.confirmed, found.to_confirm, found.to_confirm_at_most)
        rows.append([strategy, *map(str, counts), finalists, confirmed, best])
    show_table(console, [*COLUMNS, Column(f"best {status.metric}")], rows)
    left = f", about {_left(status)} left" if status.seconds_left_at_most else ""
    budget = f", budget {status.budget.hours:g} h" if status.budget.hours else ""
    say(console, f"{duration(status.seconds_spent)} spent{left}{budget}")
    if status.precision is not None:
        say(console, f"trained in {status.precision}")
    for strategy, trials in status.earlier_space.items():
        say(console, f"{strategy}: {count(trials, 'trial')} from an earlier space, not counted")
    for line in status.start_from:
        say(console, line)
    if status.slots is not None:
        say(console, say_use(status.slots))


def _so_far(ended: int, left: int, at_most: int = 0) -> str:
    if not ended + max(left, at_most):
        return ""
    more = f" to {ended + at_most}" if at_most > left else ""
    return f"{ended} of {ended + left}{more}"


def _left(status: SweepStatus) -> str:
    """`2 min`, `2 min to 9 min`."""
    least, most = duration(status.seconds_left or 0), duration(status.seconds_left_at_most or 0)
    return least if least == most else f"{least} to {most}"
