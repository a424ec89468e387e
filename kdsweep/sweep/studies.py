"""Optuna: one study for each strategy. Trials are asked for, reported and told here.

The sampler is made again for each trial, from the sweep's seed and the trial's number. So a sweep
that was stopped and resumed asks for the same trials as one that never stopped.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from kdsweep.config import SearchSpace, SweepConfig, trials_of
from kdsweep.config.loading import Scalar
from kdsweep.config.parameters import Parameter
from kdsweep.core.settings import TrialSettings
from kdsweep.databases import (
    sqlite_file,
)
from kdsweep.sweep.progress import Progress
from kdsweep.sweep.samplers_and_pruners import WindowedStorage, make_pruner, make_sampler
from kdsweep.sweep.seeds import derived_seed
from kdsweep.sweep.study_storage import open_storage, retrying
from kdsweep.trial_id import TrialId

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATE = "kdsweep.state"
REASON = "kdsweep.reason"
# A sampler learns from the last trials and the best ones before them. TPE's good trials are at most
# 25 (Optuna's default gamma).
TRIALS_TO_LEARN_FROM = 250
BEST_TO_LEARN_FROM = 40
TRIALS_TO_PRUNE_AGAINST = 1000
TRIALS_FOR_IMPORTANCE = 5
MOST_TRIALS_FOR_FANOVA = 150
T = TypeVar("T")


@dataclass(frozen=True)
class SearchTrial:
    """A trial that the sampler was asked for. params: what it drew."""

    id: TrialId
    settings: TrialSettings
    params: dict[str, Scalar]
    optuna_trial: optuna.Trial = field(repr=False)


@dataclass
class _Opened:
    """A strategy's study.

    memory, study: the copy in memory, which sampler and pruner work on. kept_id: its id in the
    database. kept_trials: trial number -> the trial's id in the database.
    """

    memory: WindowedStorage
    study: optuna.Study
    kept_id: int
    kept_trials: dict[int, int]
    progress: Progress

    def trial_id(self, number: int) -> int:
        """The id in memory of trial `number`."""
        return self.memory.get_trial_id_from_study_id_trial_number(self.study._study_id, number)


class Studies:
    """The studies of one sweep. storage: an Optuna URL.

    Sampler and pruner work on a copy in memory. Every change is also written to the database,
    and every write can be repeated; nobody else writes there while a sweep runs.
    Working on the database through Optuna costs three times as much, and more with each trial.

    Raises KdsweepError if the database can't be opened.
    """

    def __init__(
        self,
        storage: str,
        sweep_name: str,
        space: SearchSpace,
        config: SweepConfig,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.sweep_name = sweep_name
        self.space = space
        self.config = config
        self.say = say
        self.url = storage
        self.storage = open_storage(storage)
        self._studies: dict[str, _Opened] = {}
        self._unwritten_ends: list[Callable[[], None]] = []

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that is the database, if it is one."""
        file = sqlite_file(self.url)
        return () if file is None else (file,)

    def study_name(self, strategy: str) -> str:
        return f"{self.sweep_name}/{strategy}"

    # --- opening a study -------------------------------------------------------------------------

    def _opened(self, strategy: str) -> _Opened:
        """The strategy's study, created if needed, with its next `start_with` trials enqueued."""
        if strategy not in self._studies:
            self._studies[strategy] = self._retrying(partial(self._open, strategy))
        return self._studies[strategy]

    def _open(self, strategy: str) -> _Opened:
        name = self.study_name(strategy)
        memory = WindowedStorage()
        others = [StudyDirection.MINIMIZE] * len(self.config.costs)
        directions = [StudyDirection.MAXIMIZE, *others]
        try:
            # Nothing is written for a study that is there: the disk may be one to read only.
            kept = optuna.load_study(storage=self.storage, study_name=name)
        except KeyError:
            kept = optuna.create_study(
                storage=self.storage, study_name=name, directions=directions, load_if_exists=True
            )
        pruner = make_pruner(self.config, self.space, strategy)
        study = optuna.create_study(
            storage=memory, study_name=name, directions=directions, pruner=pruner
        )
        trials = kept.get_trials(deepcopy=False)
        study.add_trials(trials)
        for params in self.space.first_trials(strategy)[len(trials) :]:
            study.enqueue_trial(cast(dict[str, Any], params))
        kept_trials = {trial.number: trial._trial_id for trial in trials}
        return _Opened(memory, study, kept._study_id, kept_trials, _read_progress(trials))

    def _retrying(self, call: Callable[[], T]) -> T:
        return retrying(call, self.url, self.say)

    # --- ask -------------------------------------------------------------------------------------

    def ask(self, strategy: str) -> SearchTrial:
        """A new trial."""
        opened = self._opened(strategy)
        last = None if self.config.sampler.type == "grid" else TRIALS_TO_LEARN_FROM
        with opened.memory.showing(last, best=lambda: opened.progress.order[:BEST_TO_LEARN_FROM]):
            opened.study.sampler = make_sampler(self.config, opened.progress.started)
            trial = self._settle(strategy, opened.study.ask())
        self._retrying(lambda: self._write_asked(opened, trial))
        opened.progress.running.add(trial.id.number)
        return trial

    def _write_asked(self, opened: _Opened, trial: SearchTrial) -> None:
        """Write a new trial in one go.

        If the database went away during an earlier attempt, look for the trial first.
        """
        number = trial.id.number
        found: int | None = None
        if number in opened.kept_trials:
            for one in self.storage.get_all_trials(opened.kept_id, deepcopy=False):
                found = one._trial_id if one.number == number else found
        opened.kept_trials[number] = -1  # being written
        if found is None:
            template = opened.memory.get_trial(trial.optuna_trial._trial_id)
            found = self.storage.create_new_trial(opened.kept_id, template_trial=template)
        opened.kept_trials[number] = found

    def resume(self, trial: TrialId) -> SearchTrial:
        """A trial that was asked for earlier, with the values that it had then."""
        opened = self._opened(trial.strategy)
        opened.study.sampler = make_sampler(self.config, trial.number)
        trial_id = opened.trial_id(trial.number)
        return self._settle(trial.strategy, optuna.Trial(opened.study, trial_id))

    def _settle(self, strategy: str, trial: optuna.Trial) -> SearchTrial:
        def suggest(parameter: Parameter) -> Scalar:
            domain = parameter.domain
            if isinstance(domain, tuple):
                return trial.suggest_categorical(parameter.name, domain)
            if parameter.whole:
                return trial.suggest_int(
                    parameter.name,
                    round(domain.low),
                    round(domain.last),
                    step=round(domain.step or 1),
                    log=domain.log,
                )
            return trial.suggest_float(
                parameter.name, domain.low, domain.last, step=domain.step, log=domain.log
            )

        seed = derived_seed("trial", self.config.sampler.seed, trial.number)
        settings = self.space.settle(strategy, suggest, seed)
        return SearchTrial(TrialId(strategy, trial.number), settings, trial.params, trial)

    # --- report and tell -------------------------------------------------------------------------

    def report(self, trial: SearchTrial, evaluation: int, value: float) -> bool:
        """Whether to prune the trial, whose `evaluation`-th evaluation (from 1) reached `value`."""
        # Optuna keeps no evaluations of a study with several objectives.
        if self.config.costs:
            return False
        opened = self._opened(trial.id.strategy)
        trial_id = trial.optuna_trial._trial_id
        kept_id = opened.kept_trials[trial.id.number]
        before = opened.memory.get_trial(trial_id)
        if evaluation not in before.intermediate_values:
            trial.optuna_trial.report(value, evaluation)
            self._retrying(
                lambda: self.storage.set_trial_intermediate_value(kept_id, evaluation, value)
            )
        with opened.memory.showing(TRIALS_TO_PRUNE_AGAINST):
            prune = trial.optuna_trial.should_prune()
        # How far the pruner let the trial come.
        after = opened.memory.get_trial(trial_id).system_attrs
        for name, attribute in after.items():
            if before.system_attrs.get(name) != attribute:
                keep = partial(self.storage.set_trial_system_attr, kept_id, name, attribute)
                self._retrying(keep)
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

        The caller calls `write_ends` soon afterwards.

        costs: of a complete trial, in the order of the sweep's other objectives.

        A diverged trial is PRUNED for Optuna, not FAILED: samplers ignore failed trials, and would
        draw the same values again.
        """
        opened = self._opened(trial.id.strategy)
        optuna_state = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(
            state, TrialState.PRUNED
        )
        attributes = {STATE: state} | ({REASON: reason} if reason else {})
        for name, text in attributes.items():
            trial.optuna_trial.set_user_attr(name, text)
        values = [value, *costs] if state == "complete" and value is not None else None
        opened.study.tell(trial.optuna_trial, values, optuna_state)
        ended = opened.memory.get_trial(trial.optuna_trial._trial_id)

        def write() -> None:
            kept_id = opened.kept_trials[trial.id.number]
            for name, text in attributes.items():
                self.storage.set_trial_user_attr(kept_id, name, text)
            self.storage.set_trial_state_values(kept_id, ended.state, ended.values)

        self._unwritten_ends.append(write)
        opened.progress.end(trial.id.number, state, value)

    def write_ends(self) -> None:
        """Write the ends that `tell` was given.

        Separate from `tell`, so that a free slot gets its next trial before anything is written.
        """
        while self._unwritten_ends:
            # The error means: it was written, and then the database's answer was lost.
            with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
                self._retrying(self._unwritten_ends[0])
            self._unwritten_ends.pop(0)

    # --- what the studies know -------------------------------------------------------------------

    def progress(self, strategy: str) -> Progress:
        return self._opened(strategy).progress

    def trials_for(self, strategy: str) -> int:
        return trials_of(self.space, self.config, strategy)

    def trials_left(self, strategy: str) -> int:
        """How many more trials the strategy gets; none after `patience` trials without a gain."""
        patience = self.config.budget.patience
        return self.progress(strategy).left(self.trials_for(strategy), patience)

    def open_trials(self, strategy: str) -> list[TrialId]:
        """Trials whose end the study doesn't know. If no driver is running, one died."""
        return [TrialId(strategy, number) for number in sorted(self.progress(strategy).running)]

    def params(self, trial: TrialId) -> dict[str, JsonValue]:
        """What the sampler drew for the trial, or for the one that a confirm run repeats."""
        opened = self._opened(trial.strategy)
        return dict(opened.memory.get_trial(opened.trial_id(trial.number)).params)

    def importance(self, strategy: str) -> dict[str, float] | None:
        """How much each parameter explains of the differences between the strategy's complete
        trials: shares that add up to 1, the greatest first.

        fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html): how much of
        the metric's variance each parameter explains by itself, in a random forest fitted to the
        trials. It handles only parameters that every trial has. If some trials have others
        (`any_of`), or there are more than 150 trials (fANOVA takes seconds then), conditional
        PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255, and
        https://arxiv.org/abs/2601.20800): how far a parameter's values among the best tenth of the
        trials, at least five, are from those among all trials.

        None with fewer than five complete trials, fewer than two parameters that differ, or equal
        values of the metric.
        """
        from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

        study = self._opened(strategy).study
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trials = [trial for trial in complete if math.isfinite(_metric(trial))]
        names = {name for trial in trials for name in trial.params}
        differing = []
        for name in sorted(names):
            values = {trial.params[name] for trial in trials if name in trial.params}
            if len(values - {None}) > 1:
                differing.append(name)
        reached = {_metric(trial) for trial in trials}
        if len(trials) < TRIALS_FOR_IMPORTANCE or len(differing) < 2 or len(reached) < 2:
            return None
        ped_anova = PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, 5 / len(trials))))
        target = _metric if self.config.costs else None
        conditional = any(name not in trial.params for trial in trials for name in differing)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                evaluator = (
                    ped_anova
                    if conditional or len(trials) > MOST_TRIALS_FOR_FANOVA
                    else FanovaImportanceEvaluator(seed=0)
                )
                shares = evaluator.evaluate(study, differing, target=target)
            except RuntimeError:  # no tree of the forest found a difference
                shares = ped_anova.evaluate(study, differing, target=target)
        total = sum(shares.values())
        return {name: float(share / total) for name, share in shares.items()} if total > 0 else None


def _metric(trial: FrozenTrial) -> float:
    """The metric of a complete trial: the first of its values if there are several objectives."""
    assert trial.values is not None
    return float(trial.values[0])


def _read_progress(trials: Iterable[FrozenTrial]) -> Progress:
    progress = Progress()
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            progress.running.add(trial.number)
        elif trial.state == TrialState.COMPLETE:
            progress.end(trial.number, "complete", _metric(trial))
        elif trial.state in (TrialState.PRUNED, TrialState.FAIL):
            pruned = trial.state == TrialState.PRUNED and trial.user_attrs.get(STATE) != "diverged"
            progress.end(trial.number, "pruned" if pruned else "failed", None)
    return progress
