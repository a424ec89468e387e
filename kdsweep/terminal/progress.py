"""The progress of a running sweep: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kdsweep.formatting import count_range, duration, megabytes
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.progress import SweepProgress
from kdsweep.terminal.console import open_console, wrapped
from kdsweep.terminal.live_screen import LiveScreen
from kdsweep.terminal.pace import Pace

PLAIN_LINE_EVERY_SECONDS = 30.0
MOST_SLOTS_SHOWN = 16
# Smaller downloads and uploads, in bytes, have no line of their own.
SMALLEST_LINE = 1_000_000
WIDEST_BAR, NARROWEST_BAR = 30, 8


@contextlib.contextmanager
def observing(*, stderr: bool = False) -> Iterator[Observer]:
    """An observer that draws on the terminal, or prints lines when piped."""
    console = open_console(stderr=stderr)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console)
        return
    live = _LiveView(console)
    with live.screen.drawing():
        yield live


class _Paced(Observer):
    """Knows how long the rest may take, from what it hears of."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.pace = Pace()
        self.file: _FileRows | None = None

    def step(self, name: str, step: int, total_steps: int) -> None:
        self.pace.step(name, step, total_steps)

    def over(self, name: str) -> None:
        self.pace.over(name)

    def progress(self, sweep: SweepProgress) -> None:
        self.pace.progress(sweep)

    def rows(self, what: str, done: int, total: int) -> None:
        self.file = _FileRows.after(self.file, what, done, total)


class _Lines(_Paced):
    """A line for each event, and one for the steps from time to time."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.last_line = self.last_words = time.monotonic()

    def say(self, line: str) -> None:
        self.console.print(line)
        self.last_line = time.monotonic()

    def step(self, name: str, step: int, total_steps: int) -> None:
        super().step(name, step, total_steps)
        if time.monotonic() - self.last_line > PLAIN_LINE_EVERY_SECONDS:
            self.say(f"{name}: step {step} of {total_steps}; {self.pace.words}")
            self.last_words = time.monotonic()

    def progress(self, sweep: SweepProgress) -> None:
        super().progress(sweep)
        if time.monotonic() - self.last_words > PLAIN_LINE_EVERY_SECONDS:
            self.say(self.pace.words)
            self.last_words = time.monotonic()

    def transfer(self, what: str, done: int, size: int) -> None:
        if done == 0 and size >= SMALLEST_LINE:
            self.say(f"{what}: {megabytes(size / 1e6)}")
        elif time.monotonic() - self.last_line > PLAIN_LINE_EVERY_SECONDS:
            self.say(f"{what}: {_of(done, size)}")

    def rows(self, what: str, done: int, total: int) -> None:
        super().rows(what, done, total)
        if self.file and time.monotonic() - self.last_line > PLAIN_LINE_EVERY_SECONDS:
            self.say(f"{what}: {self.file.words}")


class _Steps(NamedTuple):
    """How far a trial is. first, since: the first step that was seen, and when."""

    step: int
    total: int
    first: int
    since: float

    @property
    def rate(self) -> float:
        return (self.step - self.first) / max(time.monotonic() - self.since, 1e-3)


class _Row(NamedTuple):
    """A line of the live view. short: the words where the terminal is narrow."""

    name: str
    done: int
    of: int
    words: str
    short: str


class _FileRows(NamedTuple):
    """How far a file is. since: when its first rows began."""

    what: str
    done: int
    total: int
    since: float

    @classmethod
    def after(cls, before: _FileRows | None, what: str, done: int, total: int) -> _FileRows:
        if before is None or before.what != what:
            return cls(what, done, total, time.monotonic())
        return before._replace(done=done, total=total)

    @property
    def words(self) -> str:
        words = f"{self.done:,} of {self.total:,} rows"
        if not self.done:
            return words
        rate = self.done / max(time.monotonic() - self.since, 1e-3)
        left = duration((self.total - self.done) / rate)
        return f"{words}, {rate:,.0f} a second, about {left} left"


class _LiveView(_Paced):
    """One line for each running trial, one for each strategy, one for time and trials left.

    A separate thread draws, so attributes are replaced, never changed in place.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.screen = LiveScreen(console, self.render)
        self.running: dict[str, _Steps] = {}
        self.transfers: dict[str, tuple[int, int]] = {}

    def say(self, line: str) -> None:
        self.screen.say(wrapped(line, self.console.width))

    def step(self, name: str, step: int, total_steps: int) -> None:
        super().step(name, step, total_steps)
        before = self.running.get(name)
        first, since = (before.first, before.since) if before else (step, time.monotonic())
        self.running = self.running | {name: _Steps(step, total_steps, first, since)}

    def transfer(self, what: str, done: int, size: int) -> None:
        if size >= SMALLEST_LINE:
            self.transfers = self.transfers | {what: (done, size)}

    def over(self, name: str) -> None:
        if self.file is not None and self.file.what == name:
            self.file = None
        super().over(name)
        self.transfers = {other: at for other, at in self.transfers.items() if other != name}
        self.running = {other: steps for other, steps in self.running.items() if other != name}

    def render(self) -> list[Text]:
        """The rows, the last one for time. A low terminal shows fewer running trials."""
        running = self._running()
        others = [*self._transfers(), *self._files(), *self._totals()]
        fits = max(0, self.console.height - 3 - len(others))
        if len(running) > (most := min(MOST_SLOTS_SHOWN, fits)):
            more = len(running) - max(0, most - 1)
            running = [*running[: max(0, most - 1)], _Row(f"and {more} more", 0, 0, "", "")]
        rows = _aligned([*running, *others], self.console.width, ascii_only=self._is_ascii())
        return [*rows, Text(self.pace.words, style="dim")]

    def _is_ascii(self) -> bool:
        return self.console.options.ascii_only

    def _running(self) -> list[_Row]:
        return [
            _Row(
                name,
                steps.step,
                steps.total,
                f"step {steps.step} of {steps.total}, {steps.rate:.1f} a second",
                f"step {steps.step} of {steps.total}",
            )
            for name, steps in self.running.items()
        ]

    def _transfers(self) -> list[_Row]:
        found = self.transfers.items()
        return [
            _Row(what, done, size, _of(done, size), _of(done, size)) for what, (done, size) in found
        ]

    def _files(self) -> list[_Row]:
        file = self.file
        if file is None:
            return []
        return [_Row(file.what, file.done, file.total, file.words, f"{file.done:,} rows")]

    def _totals(self) -> list[_Row]:
        """How far the search of each strategy is, and the runs with fresh seeds."""
        rows = []
        sweep = self.pace.sweep
        for strategy, progress in sweep.strategies.items():
            done, trials = progress.finished, sweep.trials[strategy]
            best = "nothing yet"
            short = f"{done} of {trials}"
            if progress.best is not None:
                number, value = progress.best
                best, short = f"best {value:.4f} (trial {number})", f"{short}, best {value:.4f}"
            rows.append(_Row(strategy, done, trials, f"{done} of {trials}, {best}", short))
        runs = sweep.seed_runs
        if runs.finalists:
            rows.append(_runs("finalists", runs.finalists_ended, runs.finalists))
        if runs.to_confirm:
            at_most = runs.to_confirm_at_most
            rows.append(_runs("confirm", runs.confirmed, runs.to_confirm, at_most))
        return rows


def _of(done: int, size: int) -> str:
    return f"{megabytes(done / 1e6)} of {megabytes(size / 1e6)}"


def _runs(name: str, done: int, planned: int, at_most: int = 0) -> _Row:
    words = f"{done} of {count_range(planned, max(planned, at_most), 'run')}"
    return _Row(name, done, planned, words, words)


def _aligned(rows: Sequence[_Row], width: int, *, ascii_only: bool) -> list[Text]:
    """Names, bars and words below each other. A name is never shortened: bars and words are."""
    name_width = max(
        (cell_len(row.name) for row in rows if cell_len(row.name) <= width // 2), default=0
    )
    words = [row.words for row in rows]
    if _left_for_bars(width, name_width, words) < NARROWEST_BAR:
        words = [row.short for row in rows]
    bar = min(WIDEST_BAR, _left_for_bars(width, name_width, words))
    lines = []
    for row, said in zip(rows, words, strict=True):
        line = Text(row.name + " " * max(0, name_width - cell_len(row.name)))
        if row.of and bar >= NARROWEST_BAR and cell_len(row.name) <= name_width:
            line.append("  ").append_text(_bar(row, bar, "-" if ascii_only else "━"))
        lines.append(line.append(f"  {said}"))
    return lines


def _left_for_bars(width: int, name_width: int, words: Sequence[str]) -> int:
    return width - name_width - max(map(cell_len, words), default=0) - 4


def _bar(row: _Row, width: int, piece: str) -> Text:
    done = min(width, width * row.done // row.of)
    is_done = row.done >= row.of
    return Text.assemble(
        (piece * done, "bar.finished" if is_done else "bar.complete"),
        (piece * (width - done), "bar.back"),
    )
