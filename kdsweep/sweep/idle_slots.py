"""Slots that a search leaves idle, because each trial waits for what it is to know."""

from __future__ import annotations

import math

from kdsweep.config import Plan, trials_of
from kdsweep.formatting import count
from kdsweep.sweep.knowledge import Knowledge

# Trials don't all take the same time: docs/performance.md has the figures.
PLACES_PER_SLOT = 2


def idle_slots(plan: Plan, slots: int | None) -> str | None:
    """One line where some of the slots never get a trial of the search; None: each one does.

    slots: how many there are; None if that isn't known.
    """
    strategies, lag = len(plan.space.strategies), plan.sweep.sampler.lag
    if slots is None or not Knowledge.of(plan.sweep).waits or slots <= strategies * lag:
        return None
    trials = [trials_of(plan.space, plan.sweep, strategy) for strategy in plan.space.strategies]
    enough = math.ceil(PLACES_PER_SLOT * slots / strategies)
    idle = slots - sum(min(lag, most) for most in trials)
    if sum(min(enough, most) for most in trials) <= slots - idle:
        return None
    return (
        f"{idle} of {count(slots, 'slot')} will idle during the search: at most {lag} trials of a "
        f"strategy run at once (sampler.lag); sampler.lag {enough} in a new sweep keeps nearly all "
        "busy"
    )
