"""Confirm: the best trial of each strategy, trained again with fresh seeds and judged once on the test split.

The seeds are the same for every strategy, so that strategies are compared pair by pair. Which trial is the best is settled by
validation before any of these runs begins.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kdsweep import metric_names
from kdsweep.config import Plan
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialResult
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.seeds import derived_seed
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class ConfirmRun:
    """One such run: the best trial of a strategy with one of confirm's seeds."""

    id: TrialId
    settings: TrialSettings = field(compare=False)


def confirmations(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> list[ConfirmRun]:
    """Every run that confirms the strategy's best trial, done or not; none while the search may still find a better one."""
    progress = studies.progress(strategy)
    if (
        not plan.sweep.confirm.seeds
        or progress.best is None
        or progress.running
        or studies.trials_left(strategy)
    ):
        return []
    number = progress.best[0]
    settings = TrialSettings.model_validate_json(
        folder.trial(TrialId(strategy, number)).settings.read_text(encoding="utf-8")
    )
    seeds = [
        derived_seed("confirm", plan.sweep.sampler.seed, i) for i in range(plan.sweep.confirm.seeds)
    ]
    return [
        ConfirmRun(
            TrialId(strategy, number, i),
            TrialSettings.model_validate(
                settings.model_dump() | {"seed": seed, "judge_test": True}
            ),
        )
        for i, seed in enumerate(seeds)
    ]


def finished(folder: SweepFolder, runs: Iterable[ConfirmRun]) -> dict[ConfirmRun, TrialResult]:
    """How those ended that have."""
    results = {run: folder.trial(run.id).read_result() for run in runs}
    return {run: result for run, result in results.items() if result is not None}


def best_confirmed(metric: str, results: Mapping[ConfirmRun, TrialResult]) -> ConfirmRun | None:
    """The run whose student reached most on validation: the one that is kept. The test split has no say in it."""
    reached = {
        run: result.best.metrics[metric_names.validation(metric)]
        for run, result in results.items()
        if result.state == "complete" and result.best
    }
    return max(reached, key=lambda run: (reached[run], -(run.id.seed_index or 0)), default=None)


class Confirm:
    """Which of these runs are still to be begun, while one driver is at work."""

    def __init__(self, plan: Plan, folder: SweepFolder, studies: Studies) -> None:
        self.plan, self.folder, self.studies = plan, folder, studies
        self._left: dict[str, deque[ConfirmRun]] = {}
        self._ended = 0

    def ready(self, *, teacher: bool) -> list[deque[ConfirmRun]]:
        """What is left of each strategy whose search is over; without the teacher, of those that never need it."""
        for strategy in self.plan.space.strategies:
            if strategy not in self._left and (
                runs := confirmations(self.plan, self.folder, self.studies, strategy)
            ):
                self._left[strategy] = deque(
                    run for run in runs if not self.folder.trial(run.id).result.exists()
                )
                self._ended += len(runs) - len(self._left[strategy])
        return [
            runs
            for runs in self._left.values()
            if runs and (teacher or not runs[0].settings.needs_teacher)
        ]

    def take(self, *, teacher: bool) -> ConfirmRun | None:
        """The next one: all strategies with one seed, then with the next, so that what there is can be compared."""
        ready = self.ready(teacher=teacher)
        return min(ready, key=lambda runs: runs[0].id.seed_index or 0).popleft() if ready else None

    def begun(self) -> list[ConfirmRun]:
        """Those that an earlier driver began and that this one hasn't taken up yet."""
        return [
            run
            for runs in self.ready(teacher=True)
            for run in runs
            if self.folder.trial(run.id).settings.exists()
        ]

    def left(self) -> int:
        """How many are to be begun now or may be later."""
        self.ready(teacher=True)
        later = [
            strategy
            for strategy in self.plan.space.strategies
            if strategy not in self._left and not self._has_none(strategy)
        ]
        return sum(map(len, self._left.values())) + len(later) * self.plan.sweep.confirm.seeds

    def progress(self) -> tuple[int, int]:
        """How many runs have ended, and how many there will be."""
        hopeful = [
            strategy for strategy in self.plan.space.strategies if not self._has_none(strategy)
        ]
        return self._ended, len(hopeful) * self.plan.sweep.confirm.seeds

    def ended(self) -> None:
        self._ended += 1

    def _has_none(self, strategy: str) -> bool:
        """Whether the search of the strategy is over and found nothing."""
        progress = self.studies.progress(strategy)
        return (
            progress.best is None
            and not progress.running
            and not self.studies.trials_left(strategy)
        )
