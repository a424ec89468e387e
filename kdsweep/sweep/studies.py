"""Optuna: one study a strategy. The only file that imports it.

The sampler is made anew for each trial, seeded by the sweep's seed and the trial's number, so that a sweep that was stopped
and went on asks for the same trials as one that never stopped.
"""

from __future__ import annotations

import bisect
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from kdsweep.config import SearchSpace, SweepConfig
from kdsweep.config.values import Parameter, each_number
from kdsweep.core.files import fingerprint
from kdsweep.core.settings import TrainingSettings, TrialSettings
from kdsweep.errors import KdsweepError, without_password

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATE = "kdsweep.state"
PATIENCE_SECONDS = 600
T = TypeVar("T")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Ticket:
    """A trial that was asked for."""

    strategy: str
    number: int
    settings: TrialSettings
    params: dict[str, Any]
    trial: optuna.Trial = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.strategy}-{self.number}"


@dataclass
class Progress:
    """Where a strategy stands. `order` lists the complete trials, best first; `ended` all that are over, by number."""

    complete: int = 0
    pruned: int = 0
    failed: int = 0
    running: set[int] = field(default_factory=set)
    order: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    values: dict[int, float] = field(default_factory=dict)

    @property
    def started(self) -> int:
        return len(self.ended) + len(self.running)

    @property
    def finished(self) -> int:
        return len(self.ended)

    @property
    def best(self) -> tuple[int, float] | None:
        """(trial number, value of the task's metric)"""
        return (self.order[0], self.values[self.order[0]]) if self.order else None

    @property
    def since_best(self) -> int:
        """How many trials ended since the best one was asked for."""
        return len(self.ended) - bisect.bisect_right(self.ended, self.order[0]) if self.order else 0

    def end(self, number: int, state: str, value: float | None) -> None:
        self.running.discard(number)
        bisect.insort(self.ended, number)
        if state == "complete":
            assert value is not None
            self.complete += 1
            self.values[number] = value
            bisect.insort(self.order, number, key=lambda other: (-self.values[other], other))
        elif state == "pruned":
            self.pruned += 1
        else:
            self.failed += 1


def derived_seed(purpose: str, seed: int, number: int) -> int:
    return int(fingerprint(purpose, seed, number), 16) % 2**31


class _Grid(optuna.samplers.BruteForceSampler):
    """Every point once. Optuna's GridSampler wants a product of lists; this one walks conditional spaces too."""

    def after_trial(self, *arguments: Any) -> None:
        """Not stop the study when all is visited: that is for `optimize`, and trials are counted here (`trials_for`)."""


class Studies:
    """The studies of one sweep. `storage` is an Optuna URL.

    Raises KdsweepError where the database can't be opened.
    """

    def __init__(self, storage: str, sweep_name: str, space: SearchSpace, config: SweepConfig, say: Callable[[str], None] = lambda line: None) -> None:
        self.sweep_name, self.space, self.config, self.say = sweep_name, space, config, say
        self.storage = _open_storage(storage)
        self.shown = without_password(storage)
        self._studies: dict[str, optuna.Study] = {}
        self._progress: dict[str, Progress] = {}

    def study_name(self, strategy: str) -> str:
        return f"{self.sweep_name}/{strategy}"

    def study(self, strategy: str) -> optuna.Study:
        """The strategy's study, made with its `start_with` trials in line where it isn't there yet."""
        if strategy not in self._studies:
            study = optuna.create_study(
                storage=self.storage,
                study_name=self.study_name(strategy),
                direction="maximize",
                pruner=self._pruner(strategy),
                load_if_exists=True,
            )
            for params in self.space.first_trials(strategy):
                study.enqueue_trial(params, skip_if_exists=True)
            self._studies[strategy] = study
        return self._studies[strategy]

    def trials_for(self, strategy: str) -> int:
        """How many trials the strategy gets: as many as the sweep says, fewer where a grid has fewer points."""
        points = self.space.count_points(strategy) if self.config.sampler.type == "grid" else None
        return self.config.trials if points is None else min(self.config.trials, points)

    def open_trials(self, strategy: str) -> list[int]:
        """Numbers of trials that were asked for and never told: a driver died."""
        return sorted(self.progress(strategy).running)

    def ask(self, strategy: str) -> Ticket:
        """A new trial."""
        ticket = self._patiently(lambda: self._ask(strategy), again=lambda: self._half_asked(strategy) or self._ask(strategy))
        self.progress(strategy).running.add(ticket.number)
        return ticket

    def _ask(self, strategy: str) -> Ticket:
        study = self.study(strategy)
        study.sampler = self._sampler(self.progress(strategy).started)
        return self._ticket(strategy, study.ask())

    def _half_asked(self, strategy: str) -> Ticket | None:
        """The trial that was being asked for when the database went away, if it got there."""
        known = self.progress(strategy).running
        running = self.study(strategy).get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return next((self._open(strategy, trial.number, trial._trial_id) for trial in running if trial.number not in known), None)

    def go_on(self, strategy: str, number: int) -> Ticket:
        """A trial that was asked for earlier, with the values it was given then."""
        trial_id = next(trial._trial_id for trial in self._trials(strategy) if trial.number == number)
        return self._patiently(lambda: self._open(strategy, number, trial_id))

    def _open(self, strategy: str, number: int, trial_id: int) -> Ticket:
        study = self.study(strategy)
        study.sampler = self._sampler(number)
        return self._ticket(strategy, optuna.Trial(study, trial_id))

    def _trials(self, strategy: str) -> list[FrozenTrial]:
        return self._patiently(lambda: self.study(strategy).get_trials(deepcopy=False))

    def _patiently(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What `call` returns; while the database is away it (or `again`) is called again and again, for up to ten minutes."""
        began = time.monotonic()
        pause = 0.5
        while True:
            try:
                return call()
            except (OperationalError, InterfaceError, optuna.exceptions.StorageInternalError) as error:
                reason = without_password(str(error.__cause__ or error).strip().splitlines()[0])
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise KdsweepError(f"storage: {self.shown} hasn't answered for {PATIENCE_SECONDS // 60} minutes: {reason}") from error
                if pause == 0.5:
                    self.say(f"storage: {self.shown} doesn't answer ({reason}); trying again")
                time.sleep(pause)
                pause = min(2 * pause, 10.0)
                call = again or call

    def _ticket(self, strategy: str, trial: optuna.Trial) -> Ticket:
        def suggest(parameter: Parameter) -> Any:
            domain = parameter.domain
            if isinstance(domain, tuple):
                return trial.suggest_categorical(parameter.name, domain)
            if parameter.whole:
                return trial.suggest_int(parameter.name, round(domain.low), round(domain.high), step=round(domain.step or 1), log=domain.log)
            return trial.suggest_float(parameter.name, domain.low, domain.high, step=domain.step, log=domain.log)

        settings = self.space.settle(strategy, suggest, derived_seed("trial", self.config.sampler.seed, trial.number))
        return Ticket(strategy, trial.number, settings, trial.params, trial)

    def report(self, ticket: Ticket, evaluation: int, value: float) -> bool:
        """Tell the value of a trial's evaluation (counted from 1); whether the trial should be pruned."""

        def report() -> bool:
            known = self.storage.get_trial(ticket.trial._trial_id).intermediate_values
            if evaluation not in known:
                ticket.trial.report(value, evaluation)
            return ticket.trial.should_prune()

        return self._patiently(report)

    def tell(self, ticket: Ticket, state: str, value: float | None = None, reason: str | None = None) -> None:
        """End a trial: `complete` with its value, `pruned`, `diverged` or `failed`.

        A diverged trial is PRUNED for Optuna, not FAILED: samplers pass failed trials over, and would go there again.
        """

        def tell() -> None:
            if self.storage.get_trial(ticket.trial._trial_id).state.is_finished():
                return
            ticket.trial.set_user_attr(STATE, state)
            if reason:
                ticket.trial.set_user_attr("kdsweep.reason", reason)
            optuna_state = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(state, TrialState.PRUNED)
            self.study(ticket.strategy).tell(ticket.trial, value if state == "complete" else None, optuna_state, skip_if_finished=True)

        self._patiently(tell)
        self.progress(ticket.strategy).end(ticket.number, state, value)

    def progress(self, strategy: str) -> Progress:
        """Read once, then kept: nobody else writes."""
        if strategy not in self._progress:
            self._progress[strategy] = _read_progress(self._trials(strategy))
        return self._progress[strategy]

    def params(self, strategy: str, number: int) -> dict[str, Any]:
        return dict(next(trial for trial in self._trials(strategy) if trial.number == number).params)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make_sampler(number)

    def _make_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        sampler = self.config.sampler
        seed = derived_seed("sampler", sampler.seed, number)
        match sampler.type:
            case "tpe":
                return optuna.samplers.TPESampler(
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                    n_startup_trials=sampler.startup_trials,
                    seed=seed,
                )
            case "random":
                return optuna.samplers.RandomSampler(seed=seed)
            case "grid":
                return _Grid(seed=seed)
            case "gp":
                return optuna.samplers.GPSampler(n_startup_trials=sampler.startup_trials, seed=seed)

    def _pruner(self, strategy: str) -> optuna.pruners.BasePruner:
        pruner = self.config.pruner
        match pruner.type:
            case "none":
                return optuna.pruners.NopPruner()
            case "median":
                return optuna.pruners.MedianPruner(n_startup_trials=pruner.startup_trials, n_warmup_steps=pruner.warmup_evaluations)
            case "hyperband":
                return optuna.pruners.HyperbandPruner(
                    min_resource=pruner.min_evaluations,
                    max_resource=max(self.most_evaluations(strategy), pruner.min_evaluations),
                    reduction_factor=pruner.reduction_factor,
                )
            case "asha":
                return optuna.pruners.SuccessiveHalvingPruner(min_resource=pruner.min_evaluations, reduction_factor=pruner.reduction_factor)

    def most_evaluations(self, strategy: str) -> int:
        """How often the longest trial of the strategy is evaluated."""

        values = self.space.values(strategy)

        def largest(name: str) -> int:
            numbers = [number for _, number in each_number(values[name])] if name in values else []
            return round(max(numbers, default=getattr(TrainingSettings(), name)))

        return largest("epochs") * largest("evaluations_per_epoch")


def _read_progress(trials: Iterable[FrozenTrial]) -> Progress:
    progress = Progress()
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            progress.running.add(trial.number)
        elif trial.state == TrialState.COMPLETE and trial.value is not None:
            progress.end(trial.number, "complete", trial.value)
        elif trial.state in FINISHED:
            pruned = trial.state == TrialState.PRUNED and trial.user_attrs.get(STATE) != "diverged"
            progress.end(trial.number, "pruned" if pruned else "failed", None)
    return progress


def rename_studies(storage: str, old: str, new: str, strategies: Iterable[str]) -> None:
    """Move the studies of sweep `old` to the name `new`."""
    opened = _open_storage(storage)
    names = {summary.study_name for summary in optuna.get_all_study_summaries(opened, include_best_trial=False)}
    for strategy in strategies:
        before, after = f"{old}/{strategy}", f"{new}/{strategy}"
        if before not in names:
            continue
        if after in names:  # an earlier attempt was stopped between the copy and the removal
            optuna.delete_study(study_name=after, storage=opened)
        optuna.copy_study(from_study_name=before, from_storage=opened, to_storage=opened, to_study_name=after)
        optuna.delete_study(study_name=before, storage=opened)


def _open_storage(url: str) -> optuna.storages.BaseStorage:
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        return optuna.storages.get_storage(url)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise KdsweepError(f"storage: {without_password(url)} can't be opened as an Optuna database: {without_password(reason)}") from error
