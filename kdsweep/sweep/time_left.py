"""How long the rest of a sweep takes, from the durations of its trials and runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean


@dataclass
class Durations:
    """Seconds of what has ended, by kind. full: trials that ran to their end. pruned: trials that
    ended before. runs: those with fresh seeds, of finalists and of confirm, which never end early.
    projected: what those that ended before would have taken to their end, where that is known.
    """

    full: list[float] = field(default_factory=list)
    pruned: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)
    projected: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class JobsLeft:
    """How many trials and runs haven't ended. more_runs: those that there may be in addition.

    running: seconds that each of those which run now has taken so far.
    """

    trials: int
    runs: int
    more_runs: int = 0
    running: Sequence[float] = ()

    @property
    def any(self) -> bool:
        return self.trials + self.runs > 0


def time_left(spent: Durations, left: JobsLeft, slots: float) -> tuple[float, float] | None:
    """(least, most) seconds: with trials pruned as often as so far and no more runs than are known,
    and with none pruned and all runs that there may be. None where nothing tells.

    slots: how many jobs run at a time.
    """
    whole = [*spent.full, *spent.runs]
    if not whole and not spent.pruned:
        return None
    trials = [*spent.full, *spent.pruned]
    # Until a trial has run to its end, the longest that didn't is the best guess.
    a_full = mean(spent.full or whole or spent.projected or [max(spent.pruned)])
    a_trial = mean(trials or whole)
    a_run = mean(spent.runs) if spent.runs else a_full
    least = left.trials * a_trial + left.runs * a_run
    most = left.trials * max(a_full, a_trial) + (left.runs + left.more_runs) * a_run
    a_job = a_trial if left.trials else a_run
    # One that takes longer than usual is nearly done.
    done = sum(min(seconds, 0.9 * a_job) for seconds in left.running)
    at_once = max(1.0, slots)
    return max(0.0, least - done) / at_once, max(0.0, most - done) / at_once
