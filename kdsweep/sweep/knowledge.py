"""Which trials of its strategy a trial knows of: when it is asked for, pruned, and counted.

With a lag, that is a function of the trials' order alone. So the same sweep gives the same trials
on any number of slots, and however often it is resumed.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from kdsweep.config import SweepConfig
from kdsweep.config.sweep import WHATEVER_HAS_ENDED
from kdsweep.sweep.progress import Progress


@dataclass(frozen=True)
class Knowledge:
    """The rule of a sweep.

    lag: of the sampler. sampler_learns: whether it draws from how other trials ended. waits:
    whether anything does that decides about a trial: sampler, pruner or patience.
    """

    lag: int
    sampler_learns: bool
    waits: bool
    patience: int | None

    @classmethod
    def of(cls, config: SweepConfig) -> Knowledge:
        lag, patience = config.sampler.lag, config.budget.patience
        is_by_order = lag != WHATEVER_HAS_ENDED
        learns = config.sampler.type in ("tpe", "gp")
        others_learn = config.pruner.type != "none" or patience is not None
        return cls(lag, learns, is_by_order and (learns or others_learn), patience)

    @property
    def is_by_order(self) -> bool:
        """Whether it follows from the trials' order. Earlier versions had another rule."""
        return self.lag != WHATEVER_HAS_ENDED

    def known(self, number: int, ended: Sequence[int]) -> Sequence[int]:
        """Of the trials that have ended, in order, those that trial `number` may know of.

        By the old rule that is whatever has ended, and so it depends on how fast trials are.
        """
        if not self.is_by_order:
            return ended
        return ended[: bisect.bisect_right(ended, number - self.lag)]

    def is_whole(self, number: int, ended: Sequence[int]) -> bool:
        """Whether all that trial `number` may know of, when it runs, is among these."""
        return self.is_by_order and len(self.known(number, ended)) == max(0, number - self.lag + 1)

    def suffices(self, progress: Progress) -> bool:
        """Whether all that the next trial is to know has happened."""
        return not self.waits or self._room(progress) > 0

    def room(self, progress: Progress, trials: int) -> int:
        """How many of so many trials could start now, given the slots."""
        left = self.left(progress, trials)
        return min(left, self._room(progress)) if self.waits else left

    def _room(self, progress: Progress) -> int:
        """How many trials may follow before one would have to know of a trial that runs."""
        return min(progress.running, default=progress.started) + self.lag - progress.started

    def left(self, progress: Progress, trials: int) -> int:
        """How many of so many trials are to be started; none after `patience` without a gain.

        As long as it isn't known whether there was a gain, there may have been one.
        """
        if self.patience is not None and self.suffices(progress):
            known = self.known(progress.started, progress.ended)
            if progress.since_best(known) >= self.patience:
                return 0
        return max(0, trials - progress.counted)
