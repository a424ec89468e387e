"""Slots that a search leaves idle, because each trial waits for what it is to know."""

from __future__ import annotations

import math

from kdsweep.config import Plan, trials_of
from kdsweep.formatting import count
from kdsweep.sweep.knowledge import Knowledge

# Trials don't all take the same time: docs/performance.md has the figures.
PLACES_PER_SLOT = 2


def idle_slots(plan: Plan, slots: int | None) -> str | None:
    """One line where slots of the search would idle, always or at times; None: hardly one does.

    slots: how many there are; None if that isn't known.
    """
    lag = plan.sweep.sampler.lag
    if slots is None or not Knowledge.of(plan.sweep).waits:
        return None
    trials = [trials_of(plan.space, plan.sweep, strategy) for strategy in plan.space.strategies]
    places = sum(min(lag, most) for most in trials)
    enough = math.ceil(PLACES_PER_SLOT * slots / len(trials))
    if slots * PLACES_PER_SLOT <= places or sum(min(enough, most) for most in trials) <= places:
        return None
    idle = slots - places
    which = f"some of {slots} slots wait"
    if idle > 0:
        which = f"{idle} of {count(slots, 'slot')} will idle"
    return (
        f"{which} during the search: at most {lag} trials of a strategy run at once (sampler.lag); "
        f"sampler.lag {enough} in a new sweep keeps nearly all busy"
    )
