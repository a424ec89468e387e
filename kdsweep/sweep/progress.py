"""How far a strategy's search is, and the runs with fresh seeds that come after it."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

# The state of a trial that the strategy's space doesn't have any more.
OUTSIDE = "from an earlier space"


@dataclass
class Progress:
    """A strategy's trials by what became of them.

    order: the complete trials, best first. ended: all trials that are over, by number. values: the
    task's metric of each complete trial. outside: of those in `ended`, the ones that count no
    longer, because the strategy's space has changed.
    """

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: set[int] = field(default_factory=set)
    order: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)
    outside: set[int] = field(default_factory=set)

    @property
    def started(self) -> int:
        """How many numbers are taken: the next trial has this one."""
        return len(self.ended) + len(self.running)

    @property
    def counted(self) -> int:
        """How many of the trials that have started count."""
        return self.started - len(self.outside)

    @property
    def finished(self) -> int:
        return len(self.ended) - len(self.outside)

    @property
    def counted_ends(self) -> list[int]:
        """Those that have ended and count."""
        return [number for number in self.ended if number not in self.outside]

    @property
    def best(self) -> tuple[int, float] | None:
        """(trial number, value of the task's metric)"""
        return (self.order[0], self.values[self.order[0]]) if self.order else None

    def since_best(self, known: Sequence[int]) -> int:
        """How many of the trials in `known`, by number, came after the best one of them."""
        last = known[-1] if known else -1
        best = next((number for number in self.order if number <= last), None)
        if best is None:
            return 0
        outside = sum(best < number <= last for number in self.outside)
        return len(known) - bisect.bisect_right(known, best) - outside

    def end(self, number: int, state: str, value: float | None) -> None:
        """Count a trial that ended. value: the metric of a complete one."""
        self.running.discard(number)
        bisect.insort(self.ended, number)
        if state == "complete":
            assert value is not None
            self.complete += 1
            self.values[number] = value
            bisect.insort(self.order, number, key=lambda other: (-self.values[other], other))
        elif state == "pruned":
            self.pruned += 1
        elif state == OUTSIDE:
            self.outside.add(number)
        else:
            self.failed += 1


@dataclass(frozen=True)
class SeedRunCounts:
    """How many runs with fresh seeds have ended, and how many there will be.

    to_confirm: as far as that is known; with `confirm.seeds: auto` there may be more later.
    """

    finalists_ended: int = 0
    finalists: int = 0
    confirmed: int = 0
    to_confirm: int = 0
    to_confirm_at_most: int = 0

    @property
    def ended(self) -> int:
        return self.finalists_ended + self.confirmed

    @property
    def planned(self) -> int:
        return self.finalists + self.to_confirm

    @property
    def planned_at_most(self) -> int:
        return self.finalists + self.to_confirm_at_most


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is.

    strategies: the search of each. trials: how many each strategy gets. seed_runs: of finalists and
    of confirm. seconds: of wall time that the sweep has spent.
    """

    strategies: dict[str, Progress] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)
    seed_runs: SeedRunCounts = field(default_factory=SeedRunCounts)
    seconds: float = 0.0

    @property
    def trials_left(self) -> int:
        """How many trials of the search haven't ended."""
        return sum(
            self.trials[strategy] - progress.finished
            for strategy, progress in self.strategies.items()
        )
