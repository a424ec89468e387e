"""Optuna: one study a strategy. The only file that imports it.

The sampler is made anew for each trial, seeded by the sweep's seed and the trial's number, so that a sweep that was stopped
and went on asks for the same trials as one that never stopped.
"""

from __future__ import annotations

import bisect
import contextlib
import copy
import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from kdsweep.config import SearchSpace, SweepConfig, trials_of
from kdsweep.config.extremes import numbers_in
from kdsweep.config.parameters import Parameter
from kdsweep.core.files import fingerprint, on_network_file_system, write_ahead
from kdsweep.core.settings import TrainingSettings, TrialSettings
from kdsweep.errors import KdsweepError, without_password
from kdsweep.trial_id import TrialId

optuna.logging.set_verbosity(optuna.logging.WARNING)

STATE = "kdsweep.state"
REASON = "kdsweep.reason"
PATIENCE_SECONDS, FIRST_PAUSE_SECONDS = 600, 0.5
# A sampler's cost grows with the trials that it learns from. TPE's good ones are at most 25 (Optuna's default gamma).
TRIALS_TO_LEARN_FROM, BEST_TO_LEARN_FROM, TRIALS_TO_PRUNE_AGAINST = 250, 40, 1000
TRIALS_FOR_IMPORTANCE, TRIALS_FOR_FANOVA = 5, 150
T = TypeVar("T")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class SearchTrial:
    """A trial that was asked for."""

    id: TrialId
    settings: TrialSettings
    params: dict[str, Any]
    optuna_trial: optuna.Trial = field(repr=False)


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


class _Memory(optuna.storages.InMemoryStorage):
    """Where sampler and pruner look: all of a study's trials, or only so many while `window` is set."""

    window: int | None = None
    best: Callable[[], Sequence[int]] = staticmethod(lambda: ())

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy=False)
        if self.window is not None and len(trials) > self.window:
            first = len(trials) - self.window
            trials = [trials[number] for number in sorted(self.best()) if number < first] + trials[
                first:
            ]
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    @contextlib.contextmanager
    def only(
        self, window: int | None, best: Callable[[], Sequence[int]] = lambda: ()
    ) -> Iterator[None]:
        self.window, self.best = window, best
        try:
            yield
        finally:
            self.window = None


@dataclass
class _Opened:
    """A strategy's study: in memory, where it is asked, and in the database, where it is kept (`kept_id`)."""

    memory: _Memory
    study: optuna.Study
    kept_id: int
    kept_trials: dict[int, int]  # trial number -> its id in the database
    progress: Progress


class Studies:
    """The studies of one sweep. `storage` is an Optuna URL.

    Sampler and pruner work on a copy in memory; what they and the trials say is written to the database at once, each thing in
    a way that can be repeated: nobody else writes there while a sweep runs. Reading and writing it through Optuna instead
    costs three times as much, and more with each trial.

    Raises KdsweepError where the database can't be opened.
    """

    def __init__(
        self,
        storage: str,
        sweep_name: str,
        space: SearchSpace,
        config: SweepConfig,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.sweep_name, self.space, self.config, self.say = sweep_name, space, config, say
        self.storage = _open_storage(storage)
        self.shown = without_password(storage)
        self._studies: dict[str, _Opened] = {}
        self._told: list[Callable[[], None]] = []

    def study_name(self, strategy: str) -> str:
        return f"{self.sweep_name}/{strategy}"

    def _opened(self, strategy: str) -> _Opened:
        """The strategy's study, made where it isn't there yet, with the `start_with` trials that weren't asked for in line."""
        if strategy not in self._studies:
            self._studies[strategy] = self._patiently(lambda: self._open(strategy))
        return self._studies[strategy]

    def _open(self, strategy: str) -> _Opened:
        name, memory = self.study_name(strategy), _Memory()
        directions: list[Any] = ["maximize", *("minimize" for _ in self.config.costs)]
        kept = optuna.create_study(
            storage=self.storage, study_name=name, directions=directions, load_if_exists=True
        )
        study = optuna.create_study(
            storage=memory, study_name=name, directions=directions, pruner=self._pruner(strategy)
        )
        trials = kept.get_trials(deepcopy=False)
        study.add_trials(trials)
        for params in self.space.first_trials(strategy)[len(trials) :]:
            study.enqueue_trial(params)
        return _Opened(
            memory,
            study,
            kept._study_id,
            {trial.number: trial._trial_id for trial in trials},
            _read_progress(trials),
        )

    def trials_for(self, strategy: str) -> int:
        return trials_of(self.space, self.config, strategy)

    def trials_left(self, strategy: str) -> int:
        """How many trials of the strategy are still to be asked for; none where its patience is spent."""
        progress, patience = self.progress(strategy), self.config.budget.patience
        if patience is not None and progress.best is not None and progress.since_best >= patience:
            return 0
        return max(0, self.trials_for(strategy) - progress.started)

    def open_trials(self, strategy: str) -> list[int]:
        """Numbers of trials that were asked for and never told: a driver died."""
        return sorted(self.progress(strategy).running)

    def ask(self, strategy: str) -> SearchTrial:
        """A new trial."""
        opened = self._opened(strategy)
        window = None if self.config.sampler.type == "grid" else TRIALS_TO_LEARN_FROM
        with opened.memory.only(window, best=lambda: opened.progress.order[:BEST_TO_LEARN_FROM]):
            opened.study.sampler = self._sampler(opened.progress.started)
            trial = self._search_trial(strategy, opened.study.ask())
        self._patiently(lambda: self._keep(opened, trial))
        opened.progress.running.add(trial.id.number)
        return trial

    def _keep(self, opened: _Opened, trial: SearchTrial) -> None:
        """Write a new trial, all of it at once; where the database went away while that was done, look for it first."""
        trials = (
            self.storage.get_all_trials(opened.kept_id, deepcopy=False)
            if trial.id.number in opened.kept_trials
            else []
        )
        opened.kept_trials[trial.id.number] = -1  # being written
        found = next((one._trial_id for one in trials if one.number == trial.id.number), None)
        template = opened.memory.get_trial(trial.optuna_trial._trial_id)
        opened.kept_trials[trial.id.number] = (
            self.storage.create_new_trial(opened.kept_id, template_trial=template)
            if found is None
            else found
        )

    def go_on(self, strategy: str, number: int) -> SearchTrial:
        """A trial that was asked for earlier, with the values it was given then."""
        opened = self._opened(strategy)
        opened.study.sampler = self._sampler(number)
        trial_id = opened.memory.get_trial_id_from_study_id_trial_number(
            opened.study._study_id, number
        )
        return self._search_trial(strategy, optuna.Trial(opened.study, trial_id))

    def _patiently(self, call: Callable[[], T]) -> T:
        """What `call` returns; while the database is away it is called again and again, for up to ten minutes."""
        began, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return call()
            except (
                OperationalError,
                InterfaceError,
                optuna.exceptions.StorageInternalError,
            ) as error:
                cause = error.__cause__ or error
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise
                reason = without_password((str(cause).strip().splitlines() or [""])[0])
                if getattr(cause.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                    raise KdsweepError(
                        f"storage: {self.shown}: the disk is full; make room and run the same command again"
                    ) from error
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise KdsweepError(
                        f"storage: {self.shown} hasn't answered for {PATIENCE_SECONDS // 60} minutes: {reason}"
                    ) from error
                if pause == FIRST_PAUSE_SECONDS:
                    self.say(f"storage: {self.shown} doesn't answer ({reason}); trying again")
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    def _search_trial(self, strategy: str, trial: optuna.Trial) -> SearchTrial:
        def suggest(parameter: Parameter) -> Any:
            domain = parameter.domain
            if isinstance(domain, tuple):
                return trial.suggest_categorical(parameter.name, domain)
            if parameter.whole:
                return trial.suggest_int(
                    parameter.name,
                    round(domain.low),
                    round(domain.high),
                    step=round(domain.step or 1),
                    log=domain.log,
                )
            return trial.suggest_float(
                parameter.name, domain.low, domain.high, step=domain.step, log=domain.log
            )

        settings = self.space.settle(
            strategy, suggest, derived_seed("trial", self.config.sampler.seed, trial.number)
        )
        return SearchTrial(TrialId(strategy, trial.number), settings, trial.params, trial)

    def report(self, trial: SearchTrial, evaluation: int, value: float) -> bool:
        """Tell the value of a trial's evaluation (counted from 1); whether the trial should be pruned."""
        if self.config.costs:  # Optuna keeps no evaluations of a study with several objectives
            return False
        opened = self._opened(trial.id.strategy)
        trial_id, kept_id = trial.optuna_trial._trial_id, opened.kept_trials[trial.id.number]
        before = opened.memory.get_trial(trial_id)
        if evaluation not in before.intermediate_values:
            trial.optuna_trial.report(value, evaluation)
            self._patiently(
                lambda: self.storage.set_trial_intermediate_value(kept_id, evaluation, value)
            )
        with opened.memory.only(TRIALS_TO_PRUNE_AGAINST):
            prune = trial.optuna_trial.should_prune()
        # How far the pruner let it come.
        after = opened.memory.get_trial(trial_id).system_attrs
        for name, attribute in after.items():
            if before.system_attrs.get(name) != attribute:
                keep = partial(self.storage.set_trial_system_attr, kept_id, name, attribute)
                self._patiently(keep)
        return prune

    def tell(
        self,
        trial: SearchTrial,
        state: str,
        value: float | None = None,
        reason: str | None = None,
        costs: Sequence[float] = (),
    ) -> None:
        """End a trial: `complete` with its value, `pruned`, `diverged` or `failed`. Whoever tells calls `write_told` soon.

        costs: of a complete trial, in the order of the sweep's other objectives.

        A diverged trial is PRUNED for Optuna, not FAILED: samplers pass failed trials over, and would go there again.
        """
        opened = self._opened(trial.id.strategy)
        optuna_state = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(
            state, TrialState.PRUNED
        )
        attributes = {STATE: state} | ({REASON: reason} if reason else {})
        for name, text in attributes.items():
            trial.optuna_trial.set_user_attr(name, text)
        opened.study.tell(
            trial.optuna_trial,
            [value, *costs] if state == "complete" and value is not None else None,
            optuna_state,
        )
        told = opened.memory.get_trial(trial.optuna_trial._trial_id)

        def write() -> None:
            kept_id = opened.kept_trials[trial.id.number]
            for name, text in attributes.items():
                self.storage.set_trial_user_attr(kept_id, name, text)
            self.storage.set_trial_state_values(kept_id, told.state, told.values)

        self._told.append(write)
        opened.progress.end(trial.id.number, state, value)

    def write_told(self) -> None:
        """Keep the ends that were told. Apart from `tell`, so that a freed slot has its next trial before this is written."""
        while self._told:
            with contextlib.suppress(
                optuna.exceptions.UpdateFinishedTrialError
            ):  # told, and then the answer was lost
                self._patiently(self._told[0])
            self._told.pop(0)

    def progress(self, strategy: str) -> Progress:
        return self._opened(strategy).progress

    def params(self, trial: TrialId) -> dict[str, Any]:
        """What the sampler drew for the trial, or for the one that a run of confirm repeats."""
        opened = self._opened(trial.strategy)
        trial_id = opened.memory.get_trial_id_from_study_id_trial_number(
            opened.study._study_id, trial.number
        )
        return dict(opened.memory.get_trial(trial_id).params)

    def importance(self, strategy: str) -> dict[str, float] | None:
        """What share each parameter has in how the strategy's complete trials differ: shares that add up to 1, the greatest first.

        fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html): how much of the metric's variance each parameter
        explains by itself, in a random forest fitted to the trials. It knows only parameters that every trial has. So where some
        have others (`any_of`), or there are more than 150 trials (that takes seconds), conditional PED-ANOVA (Watanabe et al. 2023,
        https://arxiv.org/abs/2304.10255, and https://arxiv.org/abs/2601.20800): how far a parameter's values among the best tenth of
        the trials, five at least, are from those among all.

        None where that can't be told: fewer than five complete trials, fewer than two parameters that differ, or all values alike.
        """
        from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

        study = self._opened(strategy).study
        trials = [
            trial
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if math.isfinite(_metric(trial))
        ]
        values = {
            name: {trial.params.get(name) for trial in trials}
            for trial in trials
            for name in trial.params
        }
        differing = sorted(name for name, found in values.items() if len(found - {None}) > 1)
        if (
            len(trials) < TRIALS_FOR_IMPORTANCE
            or len(differing) < 2
            or len({_metric(trial) for trial in trials}) < 2
        ):
            return None
        ped_anova = PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, 5 / len(trials))))
        target = _metric if self.config.costs else None
        conditional = any(name not in trial.params for trial in trials for name in differing)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                evaluator = (
                    ped_anova
                    if conditional or len(trials) > TRIALS_FOR_FANOVA
                    else FanovaImportanceEvaluator(seed=0)
                )
                shares = evaluator.evaluate(study, differing, target=target)
            except RuntimeError:  # no tree of the forest found a difference
                shares = ped_anova.evaluate(study, differing, target=target)
        total = sum(shares.values())
        return {name: float(share / total) for name, share in shares.items()} if total > 0 else None

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
                warmup = (
                    pruner.warmup_evaluations + 1
                )  # Optuna prunes from this step on, and evaluations count from 1
                return optuna.pruners.MedianPruner(
                    n_startup_trials=pruner.startup_trials, n_warmup_steps=warmup
                )
            case "hyperband":
                return optuna.pruners.HyperbandPruner(
                    min_resource=pruner.min_evaluations,
                    max_resource=max(self.most_evaluations(strategy), pruner.min_evaluations),
                    reduction_factor=pruner.reduction_factor,
                )
            case "asha":
                return optuna.pruners.SuccessiveHalvingPruner(
                    min_resource=pruner.min_evaluations, reduction_factor=pruner.reduction_factor
                )

    def most_evaluations(self, strategy: str) -> int:
        """How often the longest trial of the strategy is evaluated."""

        values = self.space.values(strategy)

        def largest(name: str) -> int:
            numbers = numbers_in(values[name]) if name in values else []
            return round(max(numbers, default=getattr(TrainingSettings(), name)))

        return largest("epochs") * largest("evaluations_per_epoch")


def _metric(trial: FrozenTrial) -> float:
    """Of a complete trial; the first of its values where there are several objectives."""
    assert trial.values is not None
    return float(trial.values[0])


def _read_progress(trials: Iterable[FrozenTrial]) -> Progress:
    progress = Progress()
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            progress.running.add(trial.number)
        elif trial.state == TrialState.COMPLETE:
            progress.end(trial.number, "complete", _metric(trial))
        elif trial.state in FINISHED:
            pruned = trial.state == TrialState.PRUNED and trial.user_attrs.get(STATE) != "diverged"
            progress.end(trial.number, "pruned" if pruned else "failed", None)
    return progress


def rename_studies(storage: str, old: str, new: str, strategies: Iterable[str]) -> None:
    """Move the studies of sweep `old` to the name `new`."""
    opened = _open_storage(storage)
    names = {
        summary.study_name
        for summary in optuna.get_all_study_summaries(opened, include_best_trial=False)
    }
    for strategy in strategies:
        before, after = f"{old}/{strategy}", f"{new}/{strategy}"
        if before not in names:
            continue
        if after in names:  # an earlier attempt was stopped between the copy and the removal
            optuna.delete_study(study_name=after, storage=opened)
        optuna.copy_study(
            from_study_name=before, from_storage=opened, to_storage=opened, to_study_name=after
        )
        optuna.delete_study(study_name=before, storage=opened)


def _open_storage(url: str) -> optuna.storages.RDBStorage:
    options: dict[str, Any] = {}
    shown = without_password(url)
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        options = (
            {}
            if on_network_file_system(file.parent)
            else {"pool_events": [(write_ahead, "connect")]}
        )
    elif url.startswith("postgresql"):
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}
        if url.startswith("postgresql://") and find_spec("psycopg") is not None:
            url = "postgresql+psycopg" + url.removeprefix("postgresql")
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        missing = isinstance(error, ImportError) and url.startswith("postgresql")
        reason = (
            "its driver isn't installed; pip install 'kdsweep[postgresql]'"
            if missing
            else str(error).strip().splitlines()[0]
        )
        raise KdsweepError(
            f"storage: {shown} can't be opened as an Optuna database: {without_password(reason)}"
        ) from error
