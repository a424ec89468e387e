"""Optuna: one study for each strategy. Trials are asked for, reported and told here.

The sampler is made again for each trial, from the sweep's seed and the trial's number. So a sweep
that was stopped and resumed asks for the same trials as one that never stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from kdsweep import metric_names
from kdsweep.config import SearchSpace, SweepConfig, trials_of
from kdsweep.config.loading import Scalar
from kdsweep.core.settings import TrialSettings
from kdsweep.sweep.cheapest_search import Constrained, as_one_objective
from kdsweep.sweep.drawn_values import Drawn, settle_drawing
from kdsweep.sweep.facts import ChangedStrategy
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.open_study import OpenStudy
from kdsweep.sweep.paired_pruner import KeptCurves
from kdsweep.sweep.parameter_importance import metric_of, parameter_importance
from kdsweep.sweep.progress import OUTSIDE, Progress
from kdsweep.sweep.restored_trials import (
    REASON,
    STATE,
    RestoredTrial,
    TrialEnd,
    read_progress,
)
from kdsweep.sweep.samplers_and_pruners import make_pruner, make_sampler, most_evaluations
from kdsweep.sweep.seeds import derived_seed
from kdsweep.sweep.shown_trials import TRIALS_TO_LEARN_FROM, ShownTrials
from kdsweep.sweep.start_from import FROM, StartedFrom
from kdsweep.sweep.study_storage import StudyStorage
from kdsweep.sweep.study_writer import KeptStudy, StudyWriter
from kdsweep.trial_id import TrialId

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class SearchTrial:
    """A trial that the sampler was asked for."""

    id: TrialId
    settings: TrialSettings
    drawn: Drawn
    optuna_trial: optuna.Trial = field(repr=False)

    @property
    def params(self) -> Mapping[str, Scalar]:
        return self.drawn.params


class Studies:
    """The studies of one sweep.

    folder: of the sweep, whose trials are added where the database lacks them.

    Sampler and pruner work on a copy in memory. `write` brings the changes of all trials to the
    database, and can be repeated; nobody else writes there while a sweep runs.
    Working on the database through Optuna costs three times as much, and more with each trial.

    Raises KdsweepError if the database can't be opened.
    """

    def __init__(
        self,
        database: StudyStorage,
        sweep_name: str,
        space: SearchSpace,
        config: SweepConfig,
        folder: SweepFolder,
    ) -> None:
        self.database = database
        self.sweep_name = sweep_name
        self.space = space
        self.config = config
        self.folder = folder
        self.knowledge = Knowledge.of(config)
        self.started_from = StartedFrom.read(folder)
        self.changed = folder.read_facts().changed if folder.exists() else {}
        database.replaced = self._write_again
        self._studies: dict[str, OpenStudy] = {}
        # Counting the points of a grid takes time.
        self._trials_for: dict[str, int] = {}
        self._writer = StudyWriter(database)
        self._cheapest = Constrained.of(config, folder, space.task.metric)

    @property
    def storage(self) -> BaseStorage:
        return self.database.storage

    def study_name(self, strategy: str) -> str:
        """`NAME/STRATEGY`; `NAME/STRATEGY@2` once the strategy's space was changed."""
        version = self._changed(strategy).version
        return f"{self.sweep_name}/{strategy}" + (f"@{version}" if version > 1 else "")

    def _changed(self, strategy: str) -> ChangedStrategy:
        return self.changed.get(strategy, ChangedStrategy())

    # --- opening a study -------------------------------------------------------------------------

    def _opened(self, strategy: str) -> OpenStudy:
        """The strategy's study, created if needed, with its next `start_with` trials enqueued."""
        if strategy not in self._studies:
            self._studies[strategy] = self.database.retrying(partial(self._open, strategy))
        return self._studies[strategy]

    def _open(self, strategy: str) -> OpenStudy:
        memory = ShownTrials()
        evaluations = most_evaluations(self.space, strategy)
        study = optuna.create_study(
            storage=memory,
            study_name=self.study_name(strategy),
            directions=self._directions,
            pruner=make_pruner(self.config, evaluations, self._curves(strategy)),
        )
        memory.reshape = self._cheapest
        memory.imported = self._imported(strategy).shown_to(self.config, strategy)
        kept = KeptStudy(self._kept_id(strategy), {})
        trials = self._own_trials(strategy, kept)
        study.add_trials(trials)
        kept.trials = {number: trial._trial_id for number, trial in enumerate(trials)}
        opened = OpenStudy(memory, study, kept, read_progress(study.get_trials(deepcopy=False)))
        if self._restore(strategy, opened):
            opened.progress = read_progress(study.get_trials(deepcopy=False))
        for params in self._to_try(strategy, study):
            study.enqueue_trial(params)
        return opened

    def _imported(self, strategy: str) -> StartedFrom:
        """What the strategy starts from. Values that were drawn from other ranges say nothing."""
        return self.started_from if self._changed(strategy).version == 1 else StartedFrom()

    def _to_try(self, strategy: str, study: optuna.Study) -> list[dict[str, Any]]:
        """The first trials that are left, of a study in which none waits."""
        tried = study.get_trials(deepcopy=False)
        first = cast(list[dict[str, Any]], self.first_trials(strategy))
        if strategy not in self.changed:
            return first[len(tried) :]
        return [
            params
            for params in first
            if not any(params.items() <= trial.params.items() for trial in tried)
        ]

    def first_trials(self, strategy: str) -> list[dict[str, Scalar]]:
        """The parameters of the strategy's first trials; the sampler chooses those of others."""
        found = self.started_from.first_trials(self.space, strategy)
        return [dict(one.params) for one in found]

    def _own_trials(self, strategy: str, kept: KeptStudy) -> list[FrozenTrial]:
        """The trials in the database that aren't of earlier sweeps. Those come first; what a driver
        that was killed hasn't written of them is added."""
        if kept.id is None:
            return []
        trials = self.storage.get_all_trials(kept.id, deepcopy=False)
        own = [trial for trial in trials if FROM not in trial.user_attrs]
        kept.imported = len(trials) - len(own)
        if not own and self.database.access != "read":
            for number, one in enumerate(self._imported(strategy).known.get(strategy, ())):
                if number >= kept.imported:
                    self.storage.create_new_trial(kept.id, template_trial=one.frozen(number))
                    kept.imported += 1
        return own

    def _curves(self, strategy: str) -> KeptCurves:
        metric = self.space.task.metric
        return KeptCurves(metric, lambda number: self.folder.trial(TrialId(strategy, number)))

    def _kept_id(self, strategy: str) -> int | None:
        """The study's id in the database. It is created, unless nothing may be written."""
        name = self.study_name(strategy)
        try:
            # Nothing is written for a study that is there: the disk may be one to read only.
            return self.storage.get_study_id_from_name(name)
        except KeyError:
            if self.database.access == "read":
                return None
            study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                directions=self._directions,
                load_if_exists=True,
            )
            # optuna-dashboard shows them in the place of `Objective 0`.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names([self.space.task.metric, *self.config.costs])
            return study._study_id

    @property
    def _directions(self) -> list[StudyDirection]:
        others = [StudyDirection.MINIMIZE] * len(self.config.costs)
        return [StudyDirection.MAXIMIZE, *others]

    # --- a database that lacks trials ------------------------------------------------------------

    def _restore(self, strategy: str, opened: OpenStudy) -> int:
        """Add the trials that have a folder and aren't in the database; returns how many.

        Where a folder was removed too, the sampler is asked for that number again.
        """
        known = len(opened.kept.trials)
        lost = [number for number in self._with_folder(strategy) if number >= known]
        for number in range(known, max(lost, default=-1) + 1):
            if number in self._changed(strategy).outside:
                self._add_outside(opened)
                continue
            if number in lost:
                self._restore_trial(opened, TrialId(strategy, number))
                continue
            for params in self._to_try(strategy, opened.study)[:1]:
                opened.study.enqueue_trial(params)
            opened.progress = read_progress(opened.study.get_trials(deepcopy=False))
            self._ask(strategy, opened, number)
            self._write_trial(opened, number)
        return len(lost)

    def _with_folder(self, strategy: str) -> list[int]:
        started = self.folder.started_trials()
        return [one.number for one in started if (one.strategy, one.phase) == (strategy, "search")]

    def _restore_trial(self, opened: OpenStudy, trial: TrialId) -> None:
        metric = metric_names.validation(self.space.task.metric)
        files = self.folder.trial(trial)
        # By other ranges, and next to other trials than the pruner would see now.
        is_redrawn = trial.number < self._changed(trial.strategy).before
        found = RestoredTrial.read(
            files, self.space, metric, self.config.costs, is_redrawn=is_redrawn
        )
        template = found.frozen(trial.number)
        number = opened.memory.create_new_trial(opened.study._study_id, template_trial=template)
        opened.study.sampler = optuna.samplers.RandomSampler()

        def is_exact() -> bool:
            if is_redrawn:
                return False
            progress = read_progress(opened.study.get_trials(deepcopy=False))
            return self.knowledge.is_whole(trial.number, progress.ended)

        with opened.memory.to_pruner(self.knowledge, trial.number):
            found.repeat(opened.study, optuna.Trial(opened.study, number), is_exact)
        self._write_trial(opened, trial.number, found.ended)

    def _add_outside(self, opened: OpenStudy) -> None:
        """Take the number of a trial that the strategy's space doesn't have any more."""
        number = len(opened.study.get_trials(deepcopy=False))
        trial = optuna.create_trial(state=TrialState.FAIL, user_attrs={STATE: OUTSIDE})
        opened.study.add_trial(trial)
        self._write_trial(opened, number)

    def _write_trial(self, opened: OpenStudy, number: int, ended: datetime | None = None) -> None:
        """Write a trial that the database lacks, as it is in memory."""
        if opened.kept.id is not None:
            template = opened.memory.get_trial(opened.trial_id(number))
            if template.state.is_finished():
                template.datetime_complete = ended or template.datetime_complete
            kept = self.storage.create_new_trial(opened.kept.id, template_trial=template)
            opened.kept.trials[number] = kept

    def _write_again(self) -> None:
        """Write all that is in memory to a new database."""
        for strategy, opened in self._studies.items():
            opened.kept.id = self._kept_id(strategy)
            opened.kept.trials.clear()
            self._own_trials(strategy, opened.kept)
            for trial in opened.study.get_trials(deepcopy=False):
                if trial.state != TrialState.WAITING:
                    self._write_trial(opened, trial.number)

    # --- ask -------------------------------------------------------------------------------------

    def ask(self, strategy: str) -> SearchTrial:
        """A new trial. The caller calls `write` before it starts."""
        opened = self._opened(strategy)
        trial = self._ask(strategy, opened, opened.progress.started)
        number = trial.id.number
        self._writer.of(opened.kept, number).new = opened.memory.get_trial(
            trial.optuna_trial._trial_id
        )
        opened.progress.running.add(number)
        return trial

    def _ask(self, strategy: str, opened: OpenStudy, number: int) -> SearchTrial:
        """The next trial, which has this number."""
        last = None if self.config.sampler.type == "grid" else TRIALS_TO_LEARN_FROM
        shown = opened.memory.to_sampler(self.knowledge, number, opened.progress, last)
        with shown, as_one_objective(opened.study, self._cheapest):
            opened.study.sampler = make_sampler(self.config, number)
            return self._settle(strategy, opened.study.ask())

    def resume(self, trial: TrialId) -> SearchTrial:
        """A trial that was asked for earlier, with the values that it had then."""
        opened = self._opened(trial.strategy)
        # It draws nothing again.
        opened.study.sampler = optuna.samplers.RandomSampler(seed=trial.number)
        trial_id = opened.trial_id(trial.number)
        return self._settle(trial.strategy, optuna.Trial(opened.study, trial_id))

    def _settle(self, strategy: str, trial: optuna.Trial) -> SearchTrial:
        of_sweep, earlier = self.config.sampler.seed, self.config.start_from
        seed = derived_seed("trial", of_sweep, trial.number, earlier)
        settings = settle_drawing(self.space, strategy, trial, seed)
        drawn = Drawn(trial.params, trial.distributions)
        return SearchTrial(TrialId(strategy, trial.number), settings, drawn, trial)

    # --- report and tell -------------------------------------------------------------------------

    def report(self, trial: SearchTrial, evaluation: int, value: float) -> bool:
        """Whether to prune the trial, whose `evaluation`-th evaluation (from 1) reached `value`.

        The caller calls `write` soon afterwards.
        """
        # Optuna keeps no evaluations of a study with several objectives.
        if self.config.costs:
            return False
        opened = self._opened(trial.id.strategy)
        trial_id, number = trial.optuna_trial._trial_id, trial.id.number
        unwritten = self._writer.of(opened.kept, number)
        if evaluation == 1 and self.knowledge.is_by_order:
            opened.let_repeat(trial.optuna_trial)
        before = opened.memory.get_trial(trial_id)
        written = opened.repeated.get(number, before)
        if evaluation not in written.intermediate_values:
            unwritten.values[evaluation] = value
        if evaluation not in before.intermediate_values:
            trial.optuna_trial.report(value, evaluation)
        with opened.memory.to_pruner(self.knowledge, number):
            prune = trial.optuna_trial.should_prune()
        # How far the pruner let the trial come.
        after = opened.memory.get_trial(trial_id).system_attrs
        for name, attribute in after.items():
            if attribute not in (before.system_attrs.get(name), written.system_attrs.get(name)):
                unwritten.notes[name] = attribute
        return prune

    def tell(
        self,
        trial: SearchTrial,
        state: str,
        value: float | None = None,
        reason: str | None = None,
        costs: Sequence[float] = (),
    ) -> None:
        """End a trial: `complete` with its value, `pruned`, `diverged` or `failed`.

        The caller calls `write` soon afterwards.

        costs: of a complete trial, in the order of the sweep's other objectives.
        """
        opened = self._opened(trial.id.strategy)
        end = TrialEnd.of(state, value, reason, costs)
        for name, text in end.attributes.items():
            trial.optuna_trial.set_user_attr(name, text)
        opened.study.tell(trial.optuna_trial, end.values, end.state)
        unwritten = self._writer.of(opened.kept, trial.id.number)
        unwritten.ended = opened.memory.get_trial(trial.optuna_trial._trial_id)
        unwritten.attributes = end.attributes
        opened.progress.end(trial.id.number, state, value)
        opened.repeated.pop(trial.id.number, None)

    def write(self) -> None:
        """Write to the database what was asked, reported and told."""
        self._writer.write()

    def note(self, strategy: str, name: str, value: JsonValue) -> None:
        """Write an attribute of the strategy's study, which Optuna's dashboard shows."""
        kept = self._opened(strategy).kept
        if (study := kept.id) is not None:
            self.database.retrying(lambda: self.storage.set_study_user_attr(study, name, value))

    # --- what the studies know -------------------------------------------------------------------

    def progress(self, strategy: str) -> Progress:
        return self._opened(strategy).progress

    def trials(self, strategy: str) -> list[FrozenTrial]:
        """The strategy's trials as Optuna knows them, by number; not to be changed."""
        return self._opened(strategy).study.get_trials(deepcopy=False)

    def trials_for(self, strategy: str) -> int:
        if strategy not in self._trials_for:
            self._trials_for[strategy] = trials_of(self.space, self.config, strategy)
        return self._trials_for[strategy]

    def trials_left(self, strategy: str) -> int:
        """How many more trials the strategy gets; none after `patience` trials without a gain."""
        return self.knowledge.left(self.progress(strategy), self.trials_for(strategy))

    def may_ask(self, strategy: str) -> bool:
        """Whether all that the strategy's next trial is to know has happened."""
        return self.knowledge.suffices(self.progress(strategy))

    def open_trials(self, strategy: str) -> list[TrialId]:
        """Trials whose end the study doesn't know. If no driver is running, one died."""
        return [TrialId(strategy, number) for number in sorted(self.progress(strategy).running)]

    def end_of(self, trial: TrialId) -> tuple[str, float | None, str | None]:
        """How an ended trial ended: its state, its value if it is complete, and the reason."""
        opened = self._opened(trial.strategy)
        one = opened.memory.get_trial(opened.trial_id(trial.number))
        states = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}
        state = str(one.user_attrs.get(STATE, states.get(one.state, "pruned")))
        value = metric_of(one) if one.state == TrialState.COMPLETE else None
        return state, value, one.user_attrs.get(REASON)

    def finished_trials(self, strategy: str) -> list[FrozenTrial]:
        """The trials that another sweep may learn from: complete, pruned or diverged."""
        study = self._opened(strategy).study
        return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    def params(self, trial: TrialId) -> dict[str, JsonValue]:
        """What the sampler drew for the trial, or for the one that a confirm run repeats."""
        opened = self._opened(trial.strategy)
        return dict(opened.memory.get_trial(opened.trial_id(trial.number)).params)

    def importance(self, strategy: str) -> dict[str, float] | None:
        """As `parameter_importance` says, of the strategy's own trials."""
        several = bool(self.config.costs)
        return parameter_importance(self._opened(strategy).study, several=several)
