"""How many runs with fresh seeds a sweep will have, before its search is over."""

from __future__ import annotations

from dataclasses import dataclass

from kdsweep.compare.cheapest import SEEDS
from kdsweep.compare.finalists import trainings
from kdsweep.config import Plan, trials_of
from kdsweep.config.sweep import LOOKS, Confirm, SweepConfig
from kdsweep.formatting import count, count_range


@dataclass(frozen=True)
class ExpectedSeedRuns:
    """Of one strategy, or of all together, if each has enough complete trials.

    finalists: runs that judge finalists on validation. confirm: runs that are judged on test;
    with `confirm.seeds: auto`, those of the first look. confirm_at_most: all that there may be.
    """

    finalists: int
    confirm: int
    confirm_at_most: int

    @property
    def least(self) -> int:
        return self.finalists + self.confirm

    @property
    def most(self) -> int:
        return self.finalists + self.confirm_at_most

    @property
    def words(self) -> str:
        """`20 runs of finalists and 8 to 40 confirm runs`."""
        confirm = count_range(self.confirm, self.confirm_at_most, "confirm run")
        if not self.finalists:
            return confirm
        return f"{count(self.finalists, 'run')} of finalists and {confirm}"


def seeds_of(confirm: Confirm, strategies: int) -> tuple[int, int]:
    """How many seeds confirm a strategy at least and at most. strategies: how many there are."""
    if confirm.seeds != "auto":
        return confirm.seeds, confirm.seeds
    # A strategy that is compared with no other one is never in question.
    return LOOKS[0], confirm.most if strategies > 1 else LOOKS[0]


def finalist_runs(sweep: SweepConfig, complete: int) -> int:
    """How many runs judge the finalists of a strategy with so many complete trials."""
    finalists = min(sweep.confirm.finalists, complete)
    return trainings(finalists) if sweep.cheapest is None else SEEDS * finalists


def seed_runs_of(sweep: SweepConfig, complete: int, strategies: int) -> ExpectedSeedRuns:
    """Of a strategy with so many complete trials, one of so many."""
    confirm = sweep.confirm
    if not complete or not confirm.seeds:
        return ExpectedSeedRuns(0, 0, 0)
    least, most = seeds_of(confirm, strategies)
    return ExpectedSeedRuns(finalist_runs(sweep, complete), least, most)


def expected_seed_runs(plan: Plan, strategy: str | None = None) -> ExpectedSeedRuns:
    """Of this strategy; None: of all."""
    every = plan.space.strategies
    found = [
        seed_runs_of(plan.sweep, trials_of(plan.space, plan.sweep, one), len(every))
        for one in (every if strategy is None else [strategy])
    ]
    return ExpectedSeedRuns(
        finalists=sum(one.finalists for one in found),
        confirm=sum(one.confirm for one in found),
        confirm_at_most=sum(one.confirm_at_most for one in found),
    )
