"""The progress of a running sweep: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdsweep.formatting import count_range, duration, megabytes
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.progress import Progress, SeedRunCounts
from kdsweep.terminal.backlog import is_behind
from kdsweep.terminal.console import open_console

REFRESH_PER_SECOND = 4
PLAIN_LINE_EVERY_SECONDS = 30.0
MOST_SLOTS_SHOWN = 16
# Smaller downloads and uploads, in bytes, have no line of their own.
SMALLEST_LINE = 1_000_000
BAR_WIDTH = 30


@contextlib.contextmanager
def observing(*, stderr: bool = False) -> Iterator[Observer]:
    """An observer that draws on the terminal, or prints lines when piped."""
    console = open_console(stderr=stderr)
    if not console.is_terminal:
        yield _Lines(console)
        return
    live = _LiveView(console)
    with _Live(
        get_renderable=live.render,
        console=console,
        refresh_per_second=REFRESH_PER_SECOND,
        transient=True,
    ):
        yield live


class _Live(Live):
    """Draws nothing anew while nobody reads, so that lines are kept rather than pictures."""

    def refresh(self) -> None:
        if not is_behind(self.console.file):
            super().refresh()


class _Lines(Observer):
    """A line for each event, and one for the steps from time to time."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last_line = time.monotonic()

    def say(self, line: str) -> None:
        self.console.print(line)
        self.last_line = time.monotonic()

    def step(self, name: str, step: int, total_steps: int) -> None:
        if time.monotonic() - self.last_line > PLAIN_LINE_EVERY_SECONDS:
            self.say(f"{name}: step {step} of {total_steps}")

    def transfer(self, what: str, done: int, size: int) -> None:
        if done == 0 and size >= SMALLEST_LINE:
            self.say(f"{what}: {megabytes(size / 1e6)}")
        elif time.monotonic() - self.last_line > PLAIN_LINE_EVERY_SECONDS:
            self.say(f"{what}: {_of(done, size)}")


class _Steps(NamedTuple):
    """How far a trial is. first, since: the first step that was seen, and when."""

    step: int
    total: int
    first: int
    since: float

    @property
    def words(self) -> str:
        rate = (self.step - self.first) / max(time.monotonic() - self.since, 1e-3)
        return f"step {self.step} of {self.total}, {rate:.1f} a second"


class _LiveView(Observer):
    """One line for each running trial, one for each strategy, one for time and trials left.

    Live draws in a separate thread, so attributes are replaced, never changed in place.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.running: dict[str, _Steps] = {}
        self.transfers: dict[str, tuple[int, int]] = {}
        self.strategies: dict[str, Progress] = {}
        self.trials: dict[str, int] = {}
        self.seed_runs = SeedRunCounts()
        self.seconds, self.seconds_at = 0.0, time.monotonic()
        self.finished_before, self.search_since = 0, time.monotonic()

    def say(self, line: str) -> None:
        self.console.print(line)

    def step(self, name: str, step: int, total_steps: int) -> None:
        before = self.running.get(name)
        first, since = (before.first, before.since) if before else (step, time.monotonic())
        self.running = self.running | {name: _Steps(step, total_steps, first, since)}

    def transfer(self, what: str, done: int, size: int) -> None:
        if size >= SMALLEST_LINE:
            self.transfers = self.transfers | {what: (done, size)}

    def over(self, name: str) -> None:
        self.transfers = {other: at for other, at in self.transfers.items() if other != name}
        self.running = {other: steps for other, steps in self.running.items() if other != name}

    def progress(
        self,
        strategies: dict[str, Progress],
        trials: dict[str, int],
        seed_runs: SeedRunCounts,
        seconds: float,
    ) -> None:
        is_first = not self.strategies
        self.strategies, self.trials, self.seed_runs = strategies, trials, seed_runs
        if is_first:
            self.finished_before, self.search_since = self._finished(), time.monotonic()
        self.seconds, self.seconds_at = seconds, time.monotonic()

    def render(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        for what, (done, size) in self.transfers.items():
            grid.add_row(
                what, _bar(done, size), f"{megabytes(done / 1e6)} of {megabytes(size / 1e6)}"
            )
        running = list(self.running.items())
        for name, steps in running[:MOST_SLOTS_SHOWN]:
            grid.add_row(name, _bar(steps.step, steps.total), steps.words)
        if len(running) > MOST_SLOTS_SHOWN:
            grid.add_row(f"and {len(running) - MOST_SLOTS_SHOWN} more")
        for strategy, progress in self.strategies.items():
            bar = _bar(progress.finished, self.trials[strategy])
            grid.add_row(strategy, bar, _best(progress))
        runs = self.seed_runs
        if runs.finalists:
            grid.add_row("finalists", *_runs(runs.finalists_ended, runs.finalists))
        if runs.to_confirm:
            at_most = runs.to_confirm_at_most
            grid.add_row("confirm", *_runs(runs.confirmed, runs.to_confirm, at_most))
        return Group(grid, Text(self._time_line(), style="dim"))

    def _finished(self) -> int:
        searched = sum(progress.finished for progress in self.strategies.values())
        return searched + self.seed_runs.ended

    def _time_line(self) -> str:
        now = time.monotonic()
        passed = now - self.seconds_at
        if not self.strategies:
            return f"{duration(passed)} spent"
        finished = self._finished()
        left = sum(self.trials.values()) + self.seed_runs.planned - finished
        later = self.seed_runs.planned_at_most - self.seed_runs.planned
        finished_here = finished - self.finished_before
        ahead = ""
        if finished_here:
            ahead = f", about {duration((now - self.search_since) / finished_here * left)} left"
        more = f" to {left + later}" if later > 0 else ""
        return f"{duration(self.seconds + passed)} spent{ahead}, {left}{more} left"


def _of(done: int, size: int) -> str:
    return f"{megabytes(done / 1e6)} of {megabytes(size / 1e6)}"


def _bar(completed: int, total: int) -> ProgressBar:
    return ProgressBar(total=total, completed=completed, width=BAR_WIDTH)


def _runs(done: int, planned: int, at_most: int = 0) -> tuple[ProgressBar, str]:
    runs = count_range(planned, max(planned, at_most), "run")
    return _bar(done, planned), f"{done} of {runs}"


def _best(progress: Progress) -> str:
    if progress.best is None:
        return "nothing yet"
    number, value = progress.best
    return f"best {value:.4f} (trial {number})"
