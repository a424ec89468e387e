"""Confirm: the best trial of each strategy is trained again with fresh seeds.

Each of these runs is judged once on the test split. The seeds are the same for every strategy, so
that strategies are compared pair by pair. Validation decides which trial is the best, before any of
these runs starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kdsweep import metric_names
from kdsweep.compare.recommendation import best_on_validation
from kdsweep.config import Plan
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import first_few
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.seeds import derived_seed
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class ConfirmRun:
    """The best trial of a strategy, to be trained with one of confirm's seeds."""

    id: TrialId
    settings: TrialSettings = field(compare=False)


def confirmations(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> list[ConfirmRun]:
    """Every run that confirms the strategy's best trial, done or not.

    None while the search may still find a better trial. If a user asks for fewer seeds later, those
    that were measured still count.
    """
    progress = studies.progress(strategy)
    search_is_over = not progress.running and not studies.trials_left(strategy)
    if progress.best is None or not search_is_over:
        return []
    best = TrialId(strategy, progress.best[0])
    asked = range(plan.sweep.confirm.seeds)
    ended = {one.seed_index or 0 for one in folder.ended_confirm_runs(strategy, best.number)}
    seeds = [*asked, *sorted(ended - set(asked))]
    if not seeds:
        return []
    settings = folder.trial(best).read_settings()
    runs: list[ConfirmRun] = []
    for i in seeds:
        seed = derived_seed("confirm", plan.sweep.sampler.seed, i)
        changed = settings.model_copy(update={"seed": seed, "judge_test": True})
        runs.append(ConfirmRun(TrialId(strategy, best.number, i), changed))
    return runs


def finished(folder: SweepFolder, runs: Iterable[ConfirmRun]) -> dict[ConfirmRun, TrialResult]:
    """The results of those that have ended."""
    results = {run: folder.trial(run.id).read_result() for run in runs}
    return {run: result for run, result in results.items() if result is not None}


def best_confirmed(metric: str, results: Mapping[TrialId, TrialResult]) -> TrialId | None:
    """The run whose student is kept: the best on validation. The test split has no say in it."""
    return best_on_validation(
        {
            run: result.best.metrics[metric_names.validation(metric)]
            for run, result in results.items()
            if result.state == "complete" and result.best
        }
    )


def not_shown(plan: Plan, folder: SweepFolder, studies: Studies) -> str | None:
    """One line that names what confirm found earlier and a report now leaves out, or None.

    The search of these strategies is open again, so their best trial may change.
    """
    found: list[str] = []
    for strategy in plan.space.strategies:
        if not confirmations(plan, folder, studies, strategy):
            numbers = {one.number for one in folder.ended_confirm_runs(strategy)}
            found += [TrialId(strategy, number).name for number in sorted(numbers)]
    if not found:
        return None
    return (
        f"what confirm found for {first_few(found)} is kept, and not shown until the extended "
        "search has ended"
    )


class ConfirmQueue:
    """Which of these runs are still to be started, while one driver runs."""

    def __init__(self, plan: Plan, folder: SweepFolder, studies: Studies) -> None:
        self.plan = plan
        self.folder = folder
        self.studies = studies
        self._left: dict[str, deque[ConfirmRun]] = {}
        self._runs: dict[str, int] = {}
        self._ended = 0

    def ready(self, *, teacher: bool) -> list[deque[ConfirmRun]]:
        """What is left of each strategy whose search is over.

        teacher: whether teachers are ready; without, only strategies that never need one.
        """
        for strategy in self.plan.space.strategies:
            if strategy in self._left:
                continue
            if runs := confirmations(self.plan, self.folder, self.studies, strategy):
                left = [run for run in runs if not self.folder.trial(run.id).is_over]
                self._left[strategy] = deque(left)
                self._runs[strategy] = len(runs)
                self._ended += len(runs) - len(left)
        return [
            runs
            for runs in self._left.values()
            if runs and (teacher or not runs[0].settings.needs_teacher)
        ]

    def next(self, *, teacher: bool) -> ConfirmRun | None:
        """Removes and returns the next run.

        All strategies come with one seed, then with the next, so that an unfinished confirm can be
        compared as far as it is.
        """
        ready = self.ready(teacher=teacher)
        if not ready:
            return None
        return min(ready, key=lambda runs: runs[0].id.seed_index or 0).popleft()

    def started(self) -> list[ConfirmRun]:
        """Those that an earlier driver started and this one hasn't resumed yet."""
        return [
            run
            for runs in self.ready(teacher=True)
            for run in runs
            if self.folder.trial(run.id).settings.exists()
        ]

    def left(self) -> int:
        """How many are to be started, now or later."""
        self.ready(teacher=True)
        later = [strategy for strategy in self._hopeful() if strategy not in self._left]
        return sum(map(len, self._left.values())) + len(later) * self.plan.sweep.confirm.seeds

    def progress(self) -> tuple[int, int]:
        """How many runs have ended, and how many there will be."""
        seeds = self.plan.sweep.confirm.seeds
        return self._ended, sum(self._runs.get(strategy, seeds) for strategy in self._hopeful())

    def count_ended(self) -> None:
        """One more run has ended."""
        self._ended += 1

    def _hopeful(self) -> list[str]:
        """Strategies whose search has found a trial, or still may."""
        return [
            strategy for strategy in self.plan.space.strategies if self._may_have_best(strategy)
        ]

    def _may_have_best(self, strategy: str) -> bool:
        progress = self.studies.progress(strategy)
        found = progress.best is not None
        return found or bool(progress.running) or self.studies.trials_left(strategy) > 0
