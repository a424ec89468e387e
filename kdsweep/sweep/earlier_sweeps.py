"""Finds what a sweep can start from: the finished trials of the earlier sweeps that it names.

Trials enter the strategy's study where rows, models, ranges and settings are the same, by content:
their values then belong to the same objective. The best ones are always tried first, as trials of
this sweep. So the best trial never comes from an earlier sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import cast

from kdsweep.config import Plan, SearchSpace
from kdsweep.config.loading import Plain, Scalar
from kdsweep.config.older_spaces import as_trained
from kdsweep.config.parameters import fitting
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.files import fingerprint
from kdsweep.errors import DamagedFile, SettingsConflict, SweepLocked, UnknownSweep, first_few
from kdsweep.formatting import count, joined
from kdsweep.sweep.best_first import best_first
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.identity import differences
from kdsweep.sweep.input_check import UNLABELLED, models_of_space, pin_model
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.pins import ModelPin, Pins
from kdsweep.sweep.results import recorded
from kdsweep.sweep.shown_trials import BEST_TO_LEARN_FROM, TRIALS_TO_LEARN_FROM
from kdsweep.sweep.start_from import FirstTrial, ImportedTrial, StartedFrom
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId

FIRST_TRIALS = 3
# Splits that a trial's value rests on. Nothing else reads the test split.
SPLITS = ("train", "validation", UNLABELLED)
MOST_REASONS = 2


def what_to_start_from(plan: Plan, home: Home, *, fresh: bool = False) -> StartedFrom:
    """What the sweep keeps, or will keep; nothing where it doesn't start from others.

    plan: with its inputs. fresh: whether it starts over. Raises UnknownSweep, SweepLocked or
    SettingsConflict for an earlier sweep that can't be used, as long as the sweep hasn't started,
    and DamagedFile where it has started and doesn't have them any more.
    """
    folder = home.sweep(plan.name)
    if not plan.sweep.start_from:
        return StartedFrom()
    if folder.exists() and not fresh:
        if not folder.start_from.exists():
            todo = "restore it from a copy, or start over (--fresh)"
            raise DamagedFile(f"{folder.start_from} is missing", todo)
        return StartedFrom.read(folder)
    here = Inputs.of_plan(plan, home)
    found = {strategy: _Found() for strategy in plan.space.strategies}
    earlier = [_earlier(home, name) for name in plan.sweep.start_from]
    lines = tuple(line for one in earlier for line in _add(found, here, one))
    return StartedFrom(
        {name: one.known() for name, one in found.items() if one.enters},
        {name: one.first() for name, one in found.items() if one.has_first},
        lines,
    )


# --- the earlier sweeps --------------------------------------------------------------------------


@dataclass(frozen=True)
class Earlier:
    """An earlier sweep, opened to be read."""

    plan: Plan
    studies: Studies
    pins: Pins

    @property
    def name(self) -> str:
        return self.plan.name


def _earlier(home: Home, name: str) -> Earlier:
    try:
        folder: SweepFolder = home.existing(name)
    except UnknownSweep as error:
        raise UnknownSweep(f"start_from: {error}") from None
    if (holder := folder.holder()) is not None:
        raise SweepLocked(
            f"start_from: sweep {name!r} is being used by {holder.words}; wait for it, or stop it "
            f"(kdsweep stop {name})"
        )
    try:
        plan, studies = recorded(home, name)
        return Earlier(plan, studies, folder.read_facts().pins)
    except DamagedFile as error:
        todo = f"restore it from a copy, or leave {name!r} out"
        raise DamagedFile(f"start_from: {error.what}", todo) from error


# --- whether its values are of the same objective ------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What the values of the sweep will rest on, by content. splits: name -> the hash of its rows.
    models: source -> a hash of its files."""

    plan: Plan
    splits: Mapping[str, str]
    label_names: tuple[str, ...]
    models: Mapping[str, str]

    @classmethod
    def of_plan(cls, plan: Plan, home: Home) -> Inputs:
        task = plan.space.task
        data = load_task(task, home.cache, publish=False)
        keys = {name: split.key for name, split in data.splits.items()}
        if task.unlabelled is not None:
            keys[UNLABELLED] = load_unlabelled(task, data, home.cache, publish=False)[0].key
        pins = {
            source: pin_model(source, trust_remote_code=trusted)
            for source, trusted in models_of_space(plan.space).items()
        }
        return cls(plan, keys, data.label_names, _hashes(pins))

    def why_other_values(self, earlier: Earlier) -> str | None:
        """How the earlier sweep's task differs; None if its values mean the same."""
        now, before = self.plan.identity["objective"], earlier.plan.identity["objective"]
        if now != before:
            return f"another objective: {first_few(differences(before, now, 'objective'))}"
        kinds = {one.space.task.kind.name for one in (earlier.plan, self.plan)}
        if len(kinds) > 1 or earlier.pins.label_names not in (None, self.label_names):
            return "other labels"
        keys = {name: split.key for name, split in earlier.pins.splits.items()}
        changed = [name for name in SPLITS if keys.get(name) != self.splits.get(name)]
        return f"other rows: {joined(changed)}" if changed else None

    def why_other_trials(self, earlier: Earlier, strategy: str) -> str | None:
        """How the strategy's trials differ from the earlier sweep's; None if they are drawn from
        the same ranges and trained in the same way."""
        before = _trained(earlier.plan, strategy, _hashes(earlier.pins.models))
        changes = differences(before, _trained(self.plan, strategy, self.models))
        return first_few(changes, MOST_REASONS) if changes else None


def _hashes(pins: Mapping[str, ModelPin]) -> dict[str, str]:
    """Of models whose files are known: the commit of one on the Hub may not be."""
    return {source: fingerprint(dict(pin.files)) for source, pin in pins.items() if pin.files}


def _trained(plan: Plan, strategy: str, models: Mapping[str, str]) -> dict[str, Plain]:
    """All that a trial of the strategy may be, each model by its content."""
    space = cast(dict[str, Plain], as_trained(plan.identity)["space"])
    chosen = cast(dict[str, dict[str, Plain]], space["strategies"])[strategy]
    found: dict[str, Plain] = {key: value for key, value in chosen.items() if key != "start_with"}
    # The rest of the task is in the rows: only this decides later what a model reads of them.
    found["task"] = {"truncation": plan.space.task.truncation}
    sections = ["student", "training"]
    if plan.space.may_need_teacher(strategy):
        sections.append("teacher")
    found |= {key: space[key] for key in sections if key in space}
    return cast(dict[str, Plain], _by_content(found, models))


def _by_content(value: Plain, models: Mapping[str, str]) -> Plain:
    """The value, with each name of a model followed by a hash of its files alone."""
    if isinstance(value, list):
        return [_by_content(one, models) for one in value]
    if isinstance(value, dict):
        return {key: _by_content(one, models) for key, one in value.items()}
    if isinstance(value, str):
        for source, found in models.items():
            if source == value or source.startswith(f"{value}@"):
                return f"model {found[:8]}"
    return value


# --- what a strategy takes of them ---------------------------------------------------------------


class _Found:
    """What one strategy takes. enters: trials of the same objective. same: the best ones of them,
    after what they are ranked by, the lower the better. others: the best ones of each other earlier
    sweep, as far as this strategy can have their values."""

    def __init__(self) -> None:
        self.enters: list[ImportedTrial] = []
        self.same: list[tuple[float, FirstTrial]] = []
        self.others: list[list[FirstTrial]] = []

    @property
    def has_first(self) -> bool:
        return bool(self.same or any(self.others))

    def known(self) -> tuple[ImportedTrial, ...]:
        """As many as a sampler learns from: the last ones, and the best ones before them."""
        complete = [one for one in self.enters if one.state == "complete" and one.values]
        best = sorted(complete, key=lambda one: -cast(tuple[float, ...], one.values)[0])
        last = self.enters[-(TRIALS_TO_LEARN_FROM - BEST_TO_LEARN_FROM) :]
        kept = {id(one) for one in [*best[:BEST_TO_LEARN_FROM], *last]}
        return tuple(one for one in self.enters if id(one) in kept)

    def first(self) -> tuple[FirstTrial, ...]:
        """The best of the same objective, then the best of each other sweep, then their second."""
        ranked = [one for _, one in sorted(self.same, key=lambda one: one[0])]
        others = (one for rank in zip_longest(*self.others) for one in rank if one is not None)
        found: list[FirstTrial] = []
        for one in [*ranked, *others]:
            if all(one.params != other.params for other in found):
                found.append(one)
        return tuple(found[:FIRST_TRIALS])


def _add(found: Mapping[str, _Found], here: Inputs, earlier: Earlier) -> list[str]:
    """Add the trials of one earlier sweep; returns what was taken and what wasn't, in words."""
    other_values = here.why_other_values(earlier)
    lines, taken = [], 0
    for strategy in earlier.plan.space.strategies:
        if strategy not in found:
            lines.append(f"{strategy} is no strategy of this sweep")
            continue
        trials = earlier.studies.finished_trials(strategy)
        bests = _bests(earlier, here.plan.space, strategy)
        why = other_values or here.why_other_trials(earlier, strategy)
        if why is None:
            names = [f"{earlier.name} {TrialId(strategy, one.number).name}" for one in trials]
            found[strategy].enters += map(ImportedTrial.of_trial, names, trials)
            found[strategy].same += bests
            taken += len(trials)
            learns = Knowledge.of(here.plan.sweep).sampler_learns
            lines.append(f"{strategy}: {_entering(len(trials), len(bests), learns=learns)}")
        else:
            found[strategy].others.append([one for _, one in bests])
            taken += len(bests)
            lines.append(f"{strategy}: no trial is known from the start ({why}); {_tried(bests)}")
    if not taken:
        raise SettingsConflict(
            f"start_from: sweep {earlier.name!r} has no trial that this sweep can start from "
            f"({'; '.join(lines) or 'no strategy'}); leave it out"
        )
    return [f"from {earlier.name}: {line}" for line in lines]


def _entering(trials: int, bests: int, *, learns: bool) -> str:
    if not trials:
        return "no trial has finished"
    known = f"{count(trials, 'trial')} known from the start"
    if not learns:
        known = "no trial is known from the start (the sampler learns from none)"
    if not bests:
        return f"{known}; none is complete, so that none can be tried first"
    first = "the best one" if bests == 1 else f"the best {bests}"
    return f"{known}; {first} to be tried first"


def _tried(bests: Sequence[object]) -> str:
    if not bests:
        return "none of the best can be tried first either"
    if len(bests) == 1:
        return "the best one may be tried first, as far as its values fit"
    return f"the best {len(bests)} may be tried first, as far as their values fit"


def _bests(earlier: Earlier, space: SearchSpace, strategy: str) -> list[tuple[float, FirstTrial]]:
    """The strategy's best trials, as far as any of their parameters fits; lower is better.

    By the metric; by its rank in its own sweep where that looked for the cheapest student.
    """
    values = earlier.studies.progress(strategy).values
    best = best_first(earlier.plan.sweep, earlier.studies, strategy)
    found: list[tuple[float, FirstTrial]] = []
    for rank, number in enumerate(best[:FIRST_TRIALS]):
        trial = TrialId(strategy, number)
        drawn = cast(Mapping[str, Scalar], earlier.studies.params(trial))
        if params := fitting(space.parameters(strategy), drawn):
            first = FirstTrial(f"{earlier.name} {trial.name}", params)
            is_by_metric = earlier.plan.sweep.cheapest is None
            found.append((-values[number] if is_by_metric else rank, first))
    return found
