"""How many runs with fresh seeds a sweep will have, before its search is over."""

from __future__ import annotations

from dataclasses import dataclass

from kdsweep.compare.finalists import trainings
from kdsweep.config import Plan, trials_of
from kdsweep.config.sweep import Confirm
from kdsweep.formatting import count


@dataclass(frozen=True)
class ExpectedSeedRuns:
    """Of one strategy, or of all together, if each has enough complete trials.

    finalists: runs that judge finalists on validation. confirm: runs that are judged on test.
    """

    finalists: int
    confirm: int

    @property
    def most(self) -> int:
        """How many runs there are at most."""
        return self.finalists + self.confirm

    @property
    def words(self) -> str:
        """`20 runs of finalists and 20 confirm runs`."""
        confirm = count(self.confirm, "confirm run")
        if not self.finalists:
            return confirm
        return f"{count(self.finalists, 'run')} of finalists and {confirm}"


def seed_runs_of(confirm: Confirm, complete: int) -> ExpectedSeedRuns:
    """Of a strategy with so many complete trials."""
    if not complete or not confirm.seeds:
        return ExpectedSeedRuns(0, 0)
    return ExpectedSeedRuns(trainings(min(confirm.finalists, complete)), confirm.seeds)


def expected_seed_runs(plan: Plan, strategy: str | None = None) -> ExpectedSeedRuns:
    """Of this strategy; None: of all."""
    strategies = plan.space.strategies if strategy is None else [strategy]
    found = [
        seed_runs_of(plan.sweep.confirm, trials_of(plan.space, plan.sweep, one))
        for one in strategies
    ]
    return ExpectedSeedRuns(
        finalists=sum(one.finalists for one in found), confirm=sum(one.confirm for one in found)
    )
