"""The report and its trials, as the charts read them; and how each strategy looks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from kdsweep.compare.records import COLORS, TrialRecord
from kdsweep.report.charts.figures import INK
from kdsweep.report.model import Report
from kdsweep.trial_id import Phase

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
DASHES = (
    "solid",
    "dash",
    "dot",
    "dashdot",
    "longdash",
    "longdashdot",
    "6px 2px 2px 2px",
    "2px 6px",
)


class Look(NamedTuple):
    """How a strategy looks in every chart."""

    color: str
    symbol: str
    dash: str


def looks_of(strategies: Iterable[str]) -> dict[str, Look]:
    """The eighth color is black: ink. From the ninth strategy on, colors repeat with other markers
    and dashes."""
    eight = len(COLORS)
    looks = {}
    for i, name in enumerate(strategies):
        color = COLORS[i % eight]
        shift = (i + i // eight) % eight
        looks[name] = Look(INK if color == "#000000" else color, SYMBOLS[shift], DASHES[shift])
    return looks


class Reached(NamedTuple):
    """A complete trial of the search with the metric that it reached on validation."""

    trial: TrialRecord
    value: float

    @property
    def strategy(self) -> str:
        return self.trial.id.strategy


@dataclass(frozen=True)
class Material:
    """A report and its trials."""

    report: Report
    records: Sequence[TrialRecord]

    @property
    def metric(self) -> str:
        return self.report.metric

    @cached_property
    def looks(self) -> dict[str, Look]:
        return looks_of(self.report.strategies)

    @cached_property
    def searched(self) -> dict[str, list[TrialRecord]]:
        """The trials of the search, by strategy and number."""
        return self._by_strategy("search")

    @cached_property
    def confirmed(self) -> dict[str, list[TrialRecord]]:
        """The runs of confirm, by strategy, number and seed."""
        return self._by_strategy("confirm")

    def _by_strategy(self, phase: Phase) -> dict[str, list[TrialRecord]]:
        found: dict[str, list[TrialRecord]] = {name: [] for name in self.report.strategies}
        for record in sorted(self.records, key=lambda one: (one.id.number, one.id.seed_index or 0)):
            if record.id.phase == phase and record.id.strategy in found:
                found[record.id.strategy].append(record)
        return found

    @cached_property
    def complete(self) -> list[Reached]:
        """The search's complete trials, strategy by strategy."""
        complete = [
            one for trials in self.searched.values() for one in trials if one.state == "complete"
        ]
        found = [(one, one.best(self.metric)) for one in complete]
        return [
            Reached(one, value)
            for one, value in found
            if value is not None and math.isfinite(value)
        ]

    @cached_property
    def best_first(self) -> list[Reached]:
        return sorted(self.complete, key=lambda one: -one.value)

    @property
    def teacher_validation(self) -> float | None:
        return self.report.teacher.validation if self.report.teacher else None

    def best_trial(self, strategy: str) -> int | None:
        """The number of the strategy's best trial."""
        best = self.report.strategies[strategy].best
        return None if best is None else best.trial
