"""What a sweep starts from: trials of earlier sweeps, as `start_from.json` keeps them.

It is written once, before the sweep's first trial. So the earlier sweeps may be removed later, and
a sweep that was killed starts from the same trials. `earlier_sweeps` finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from kdsweep.config import SearchSpace, SweepConfig
from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import fitting
from kdsweep.core.files import read_json, whole, write_json
from kdsweep.sweep.drawn_values import Drawn
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.restored_trials import STATE

# The attribute of a trial in Optuna's study that belongs to an earlier sweep.
FROM = "kdsweep.from"
# GP finds its space by numbers, and skips those below 0.
NEWEST_FOR_GP = 1_000_000_000


@dataclass(frozen=True)
class ImportedTrial:
    """A finished trial of an earlier sweep.

    of: the sweep and the trial, `sst2 distill-3`. values: of each objective; None if it has
    none. evaluations: the metric of each, counted from 1. ended: in seconds since 1970.
    """

    of: str
    state: str
    drawn: Drawn
    values: tuple[float, ...] | None
    evaluations: Mapping[int, float]
    ended: float

    @classmethod
    def of_trial(cls, of: str, trial: FrozenTrial) -> ImportedTrial:
        """trial: finished, and not failed."""
        usual = "complete" if trial.state == TrialState.COMPLETE else "pruned"
        assert trial.datetime_complete is not None
        return cls(
            of,
            str(trial.user_attrs.get(STATE, usual)),
            Drawn(trial.params, trial.distributions),
            None if trial.values is None else tuple(trial.values),
            dict(trial.intermediate_values),
            trial.datetime_complete.timestamp(),
        )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> ImportedTrial:
        values = found["values"]
        return cls(
            found["of"],
            found["state"],
            Drawn.from_json(found),
            None if values is None else tuple(values),
            {int(evaluation): value for evaluation, value in found["evaluations"].items()},
            found["ended"],
        )

    def to_json(self) -> dict[str, object]:
        return {
            "of": self.of,
            "state": self.state,
            **self.drawn.to_json(),
            "values": self.values,
            "evaluations": dict(self.evaluations),
            "ended": self.ended,
        }

    def frozen(self, number: int) -> FrozenTrial:
        """As Optuna has it, with a mark that says where it comes from."""
        ended = datetime.fromtimestamp(self.ended)
        return FrozenTrial(
            number=number,
            state=TrialState.COMPLETE if self.state == "complete" else TrialState.PRUNED,
            value=None,
            values=self.values,
            datetime_start=ended,
            datetime_complete=ended,
            params=dict(self.drawn.params),
            distributions=dict(self.drawn.distributions),
            user_attrs={STATE: self.state, FROM: self.of},
            system_attrs={},
            intermediate_values=dict(self.evaluations),
            trial_id=-1,
        )


@dataclass(frozen=True)
class FirstTrial:
    """Settings to be tried first: of one of the best trials of earlier sweeps, or of `start_with`.

    of: as of an imported one; empty for `start_with`. params: those of its values that the strategy
    can have; the sampler draws the others.
    """

    of: str
    params: Mapping[str, Scalar]


@dataclass(frozen=True)
class StartedFrom:
    """What a sweep starts from, by strategy. lines: what was taken and what wasn't, in words.

    known: what the sampler knows from the start. first: what is tried first.
    """

    known: Mapping[str, Sequence[ImportedTrial]] = field(default_factory=dict)
    first: Mapping[str, Sequence[FirstTrial]] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: SweepFolder) -> StartedFrom:
        """What the sweep keeps. Raises DamagedFile where the file can't be read."""
        if not folder.start_from.exists():
            return cls()
        with whole(folder.start_from):
            found = read_json(folder.start_from)
            known = {
                strategy: tuple(map(ImportedTrial.from_json, trials))
                for strategy, trials in found["known"].items()
            }
            first = {
                strategy: tuple(FirstTrial(**one) for one in trials)
                for strategy, trials in found["first"].items()
            }
            return cls(known, first, tuple(found["lines"]))

    def write(self, folder: SweepFolder) -> None:
        """Only for who holds the sweep's lock, before the sweep has started.

        A run that was killed before that may have left the file of another start.
        """
        if self == StartedFrom():
            folder.start_from.unlink(missing_ok=True)
            return
        known = {name: [one.to_json() for one in trials] for name, trials in self.known.items()}
        first = {
            name: [{"of": one.of, "params": dict(one.params)} for one in trials]
            for name, trials in self.first.items()
        }
        found = {"known": known, "first": first, "lines": list(self.lines)}
        write_json(folder.start_from, found)

    def shown_to(self, config: SweepConfig, strategy: str) -> list[FrozenTrial]:
        """The trials that the strategy's sampler knows from the start, the oldest first."""
        trials = self.known.get(strategy, ())
        first = NEWEST_FOR_GP if config.sampler.type == "gp" else -len(trials)
        return [one.frozen(number) for number, one in enumerate(trials, start=first)]

    def first_trials(self, space: SearchSpace, strategy: str) -> list[FirstTrial]:
        """The strategy's first trials: the best ones of earlier sweeps, then those of `start_with`.
        The sampler chooses those that are left."""
        parameters = space.parameters(strategy)
        # The space may have changed since they were found.
        bests = [
            FirstTrial(one.of, params)
            for one in self.first.get(strategy, ())
            if (params := fitting(parameters, one.params))
        ]
        of_bests = [one.params for one in bests]
        others = [one for one in space.first_trials(strategy) if one not in of_bests]
        return bests + [FirstTrial("", one) for one in others]
