"""The one identity of a trial: its strategy, its number, and the seed that confirms it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Phase = Literal["search", "confirm"]

_NAME = re.compile(r"(?P<strategy>.+)-(?P<number>\d+)")
_CONFIRM_NAME = re.compile(r"(?P<strategy>.+)-(?P<number>\d+)-seed-(?P<seed_index>\d+)")


@dataclass(frozen=True)
class TrialId:
    """Trial `number` of a strategy's search; with `seed_index`, a run that confirms it.

    number: counts from 0 in each strategy. seed_index: which of confirm's seeds, from 0.
    """

    strategy: str
    number: int
    seed_index: int | None = None

    @property
    def phase(self) -> Phase:
        return "search" if self.seed_index is None else "confirm"

    @property
    def number_and_seed(self) -> str:
        """The name without its strategy: `3`, or `3-seed-0`. MLflow's tag `kdsweep.trial`."""
        return (
            str(self.number) if self.seed_index is None else f"{self.number}-seed-{self.seed_index}"
        )

    @property
    def name(self) -> str:
        """The trial's name everywhere: `distill-3`, or `distill-3-seed-0`."""
        return f"{self.strategy}-{self.number_and_seed}"

    @classmethod
    def parse(cls, name: str, phase: Phase | None = None) -> TrialId:
        """The trial with this name. Raises ValueError where it is no name of a trial.

        phase: where it is known. A strategy may itself be called `a-0-seed`, so that `a-0-seed-1`
        can be read in two ways; without `phase` it is a run of confirm.
        """
        if phase != "search" and (found := _CONFIRM_NAME.fullmatch(name)):
            return cls(found["strategy"], int(found["number"]), int(found["seed_index"]))
        if phase != "confirm" and (found := _NAME.fullmatch(name)):
            return cls(found["strategy"], int(found["number"]))
        raise ValueError(f"{name!r} is no trial: STRATEGY-NUMBER, or STRATEGY-NUMBER-seed-INDEX")
