"""What a sweep keeps when its strategies change midway, and what of them is new.

One write of `sweep.json`, with the new space and what is kept of the old one, changes the sweep. A
kill before or after it loses nothing. A changed strategy then has a study with a new name, which is
made from the trials' folders, as after a lost database. The study of the earlier space is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from kdsweep.config import Plan, trials_of
from kdsweep.config.loading import Plain
from kdsweep.config.older_spaces import as_trained
from kdsweep.errors import first_few
from kdsweep.formatting import count
from kdsweep.sweep.drawn_values import NOTHING_KNOWN, Drawn, drawn_for
from kdsweep.sweep.facts import ChangedStrategy
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.identity import differences, is_same_sweep
from kdsweep.sweep.start_from import StartedFrom
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.trial_id import TrialId

MOST_SHOWN = 5
Strategies = Mapping[str, dict[str, Plain]]


@dataclass(frozen=True)
class SpaceChange:
    """strategies: those whose space isn't the first one any more, by now. lines: what is the same
    and what is new, in words."""

    strategies: Mapping[str, ChangedStrategy]
    lines: tuple[str, ...]


def space_change(plan: Plan, folder: SweepFolder) -> SpaceChange | None:
    """How the plan's strategies differ from those that the sweep ran with last; None if they don't,
    if there is no such sweep, or if it differs in more than that.

    plan: with its inputs. Raises DamagedFile where a trial's settings can't be read.
    """
    if not folder.exists():
        return None
    facts = folder.read_facts()
    if not is_same_sweep(plan, facts.identity):
        return None
    before, now = _strategies(facts.identity), _strategies(plan.identity)
    if before == now:
        return None
    changed, lines = dict(facts.changed), []
    started: dict[str, list[int]] = {}
    for trial in folder.started_trials():
        if trial.phase == "search":
            started.setdefault(trial.strategy, []).append(trial.number)
    for strategy in now:
        one = _Compared(plan, folder, strategy, sorted(started.get(strategy, [])))
        record = one.changed(before.get(strategy), now[strategy], changed.get(strategy))
        if record is not None:
            changed[strategy] = record
        lines.append(one.line(before.get(strategy), now[strategy], record))
    for strategy in before:
        if strategy not in now:
            # If it comes back, its study is another one.
            changed.setdefault(strategy, ChangedStrategy())
            trials = len(started.get(strategy, []))
            kept = f"its {count(trials, 'trial')} {_are(trials)} kept as from an earlier space"
            lines.append(f"{strategy}: removed; {kept}")
    return SpaceChange(changed, tuple(lines))


def _strategies(identity: dict[str, Plain]) -> Strategies:
    space = cast(dict[str, Plain], as_trained(identity)["space"])
    return cast(Strategies, space["strategies"])


def _ranges(strategy: Mapping[str, Plain]) -> dict[str, Plain]:
    """All that its trials may be, without what is tried first."""
    return {key: value for key, value in strategy.items() if key != "start_with"}


@dataclass(frozen=True)
class _Compared:
    """One strategy of the new space. started: its trials, by number."""

    plan: Plan
    folder: SweepFolder
    strategy: str
    started: list[int]

    def changed(
        self,
        before: dict[str, Plain] | None,
        now: dict[str, Plain],
        record: ChangedStrategy | None,
    ) -> ChangedStrategy | None:
        """What is to be stored of it; None if nothing was, and it is the same or new."""
        if before is not None and _ranges(before) == _ranges(now):
            return record if before == now else record or ChangedStrategy()
        if before is None and record is None:
            return None
        version = (record or ChangedStrategy()).version + 1
        outside = tuple(number for number in self.started if not self._is_inside(number))
        return ChangedStrategy(version, max(self.started, default=-1) + 1, outside)

    def _is_inside(self, number: int) -> bool:
        files: SweptTrial = self.folder.trial(TrialId(self.strategy, number))
        found = files.read_drawn()
        drawn = None if found is None else Drawn.from_json(found)
        settings = files.read_settings()
        return drawn_for(self.plan.space, self.strategy, settings, drawn) is not NOTHING_KNOWN

    def line(
        self,
        before: dict[str, Plain] | None,
        now: dict[str, Plain],
        record: ChangedStrategy | None,
    ) -> str:
        outside = () if record is None else record.outside
        inside = len(self.started) - len(outside)
        if before == now:
            return f"{self.strategy}: the same; its {_counting(inside)}"
        if before is None and not self.started:
            return f"{self.strategy}: new"
        if before is None:
            how = "back again"
        elif _ranges(before) == _ranges(now):
            return (
                f"{self.strategy}: other start_with, of which is tried next what wasn't tried; its "
                f"{_counting(inside)}"
            )
        else:
            how = first_few(differences(_ranges(before), _ranges(now)), MOST_SHOWN)
        words = f"{self.strategy}: {how}; {self._kept(outside)}"
        trials = trials_of(self.plan.space, self.plan.sweep, self.strategy)
        if inside >= trials:
            words += "; none is left to search the new space, so raise 'trials'"
        if StartedFrom.read(self.folder).known.get(self.strategy):
            words += "; what the sampler knew of earlier sweeps is of the earlier space too"
        return words

    def _kept(self, outside: tuple[int, ...]) -> str:
        started = len(self.started)
        if not started:
            return "no trial so far"
        if not outside:
            return f"its {count(started, 'trial')} {_are(started)} inside and {_counts(started)}"
        inside = started - len(outside)
        names = first_few([TrialId(self.strategy, one).name for one in outside], MOST_SHOWN)
        return (
            f"{inside:,} of its {count(started, 'trial')} {_are(inside)} inside and "
            f"{_counts(inside)}, {len(outside):,} {_are(len(outside))} kept as from an earlier "
            f"space ({names})"
        )


def _are(trials: int) -> str:
    return "is" if trials == 1 else "are"


def _counts(trials: int) -> str:
    return "counts" if trials == 1 else "count"


def _counting(trials: int) -> str:
    return f"{count(trials, 'trial')} {_counts(trials)}"


def with_change(plan: Plan, folder: SweepFolder) -> Mapping[str, ChangedStrategy]:
    """The changed strategies of a sweep that exists, as they are with this plan."""
    change = space_change(plan, folder)
    return folder.read_facts().changed if change is None else change.strategies


def of_earlier_space(folder: SweepFolder, strategies: Mapping[str, object]) -> dict[str, int]:
    """How many trials of the search are from an earlier space, by strategy. strategies: of now."""
    changed = folder.read_facts().changed
    found = {name: len(one.outside) for name, one in changed.items() if name in strategies}
    for trial in folder.started_trials():
        if trial.phase == "search" and trial.strategy not in strategies:
            found[trial.strategy] = found.get(trial.strategy, 0) + 1
    return {name: trials for name, trials in found.items() if trials}
