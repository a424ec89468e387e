"""The one identity of a trial: its strategy, its number, and the seed that trains it again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

Phase = Literal["search", "finalist", "confirm"]
PHASES: tuple[Phase, ...] = get_args(Phase)

# What a name has between the number of the trial and the index of the seed.
_WORDS: dict[Phase, str] = {"finalist": "finalist", "confirm": "seed"}
_NAME = re.compile(r"(?P<strategy>.+)-(?P<number>\d+)")
_AGAIN = {
    phase: re.compile(rf"(?P<strategy>.+)-(?P<number>\d+)-{word}-(?P<seed_index>\d+)")
    for phase, word in _WORDS.items()
}


@dataclass(frozen=True)
class TrialId:
    """Trial `number` of a strategy's search; with `seed_index`, a run with its settings.

    number: counts from 0 in each strategy. seed_index: which of the fresh seeds, from 0: of
    confirm, or of finalists where `is_finalist`.
    """

    strategy: str
    number: int
    seed_index: int | None = None
    is_finalist: bool = False

    @property
    def phase(self) -> Phase:
        if self.seed_index is None:
            return "search"
        return "finalist" if self.is_finalist else "confirm"

    @property
    def number_and_seed(self) -> str:
        """The name without its strategy: `3`, `3-finalist-0` or `3-seed-0`. MLflow's tag
        `kdsweep.trial`."""
        if self.seed_index is None:
            return str(self.number)
        return f"{self.number}-{_WORDS[self.phase]}-{self.seed_index}"

    @property
    def name(self) -> str:
        """The trial's name everywhere: `distill-3`, `distill-3-finalist-0`, `distill-3-seed-0`."""
        return f"{self.strategy}-{self.number_and_seed}"

    @classmethod
    def parse(cls, name: str, phase: Phase | None = None) -> TrialId:
        """The trial with this name. Raises ValueError where it is no name of a trial.

        phase: where it is known. A strategy may itself be called `a-0-seed`, so that `a-0-seed-1`
        can be read in two ways; without `phase` it is a run of confirm, or one of a finalist.
        """
        for of, pattern in _AGAIN.items():
            if phase in (None, of) and (found := pattern.fullmatch(name)):
                number, seed_index = int(found["number"]), int(found["seed_index"])
                return cls(found["strategy"], number, seed_index, of == "finalist")
        if phase in (None, "search") and (found := _NAME.fullmatch(name)):
            return cls(found["strategy"], int(found["number"]))
        raise ValueError(f"{name!r} is no trial: {TRIAL_NAMES}")


TRIAL_NAMES = "STRATEGY-NUMBER, STRATEGY-NUMBER-finalist-INDEX or STRATEGY-NUMBER-seed-INDEX"
