"""Confirm: the best finalist of each strategy is trained again with fresh seeds.

Each of these runs is judged once on the test split. Validation decides which trial is confirmed,
before any of them starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from kdsweep import metric_names
from kdsweep.compare.recommendation import best_on_validation
from kdsweep.config import Plan
from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import first_few
from kdsweep.sweep.confirm_rules import keep_rules
from kdsweep.sweep.expected_seed_runs import seed_runs_of
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.progress import SeedRunCounts
from kdsweep.sweep.seed_runs import SeedRun, SeedRuns
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import PHASES, Phase, TrialId


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
    again = SeedRuns(plan, folder, studies)
    found: list[str] = []
    for strategy in plan.space.strategies:
        if not again.confirmations(strategy):
            numbers = {one.number for one in folder.ended_runs("confirm", strategy)}
            found += [TrialId(strategy, number).name for number in sorted(numbers)]
    if not found:
        return None
    return (
        f"what confirm found for {first_few(found)} is kept, and not shown until the extended "
        "search has ended"
    )


def planned_runs(plan: Plan, studies: Studies, strategy: str, phase: Phase) -> int:
    """How many finalists' or confirm runs the strategy will have, as far as its search is.

    0 where its search has found no trial and can't find one any more.
    """
    progress = studies.progress(strategy)
    complete = len(progress.order)
    if progress.running or studies.trials_left(strategy):
        complete += len(progress.running) + studies.trials_left(strategy)
    expected = seed_runs_of(plan.sweep.confirm, complete)
    return expected.finalists if phase == "finalist" else expected.confirm


class SeedQueue:
    """Which of these runs are still to be started, while one driver runs: first those that judge
    finalists, round by round, then those that confirm the best one."""

    def __init__(self, plan: Plan, folder: SweepFolder, studies: Studies) -> None:
        self.plan = plan
        self.folder = folder
        self.studies = studies
        self._asked: dict[str, dict[TrialId, SeedRun]] = {
            strategy: {} for strategy in plan.space.strategies
        }
        self._left: dict[str, deque[SeedRun]] = {name: deque() for name in self._asked}
        self._ended: set[TrialId] = set()
        # Strategies that may ask for runs that aren't known yet.
        self._changed = set(self._asked)

    def ready(self, *, teacher: bool) -> list[deque[SeedRun]]:
        """The runs that are known and left, of each strategy whose search is over.

        teacher: whether teachers are ready; without, only strategies that never need one.
        """
        again = SeedRuns(self.plan, self.folder, self.studies)
        for strategy in [name for name in self._asked if name in self._changed]:
            known = self._asked[strategy]
            for run in again.asked(strategy):
                if run.id in known:
                    continue
                known[run.id] = run
                if self.folder.trial(run.id).is_over:
                    self._ended.add(run.id)
                else:
                    self._left[strategy].append(run)
            if known:
                self._changed.discard(strategy)
        return [
            runs
            for runs in self._left.values()
            if runs and (teacher or not runs[0].settings.needs_teacher)
        ]

    def next(self, *, teacher: bool) -> SeedRun | None:
        """Removes and returns the next run.

        Finalists come first. All strategies come with one seed, then with the next, so that the
        seeds of an unfinished confirm can be compared.
        """
        ready = self.ready(teacher=teacher)
        if not ready:
            return None
        keep_rules(self.plan, self.folder)
        return min(ready, key=lambda runs: _order(runs[0].id)).popleft()

    def started(self) -> list[SeedRun]:
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
        later = sum(self._later(strategy) for strategy in self._asked)
        return sum(map(len, self._left.values())) + later

    def counts(self) -> SeedRunCounts:
        self.ready(teacher=True)
        ended = {phase: sum(one.phase == phase for one in self._ended) for phase in PHASES}
        return SeedRunCounts(
            finalists_ended=ended["finalist"],
            finalists=sum(self._planned(strategy, "finalist") for strategy in self._asked),
            confirmed=ended["confirm"],
            to_confirm=sum(self._planned(strategy, "confirm") for strategy in self._asked),
        )

    def count_ended(self, run: TrialId) -> None:
        """One more run has ended."""
        self._ended.add(run)
        self._changed.add(run.strategy)

    def _planned(self, strategy: str, phase: Phase) -> int:
        """How many runs of this phase there will be; more where more seeds were asked for once."""
        asked = sum(one.phase == phase for one in self._asked[strategy])
        return max(asked, planned_runs(self.plan, self.studies, strategy, phase))

    def _later(self, strategy: str) -> int:
        """How many will be asked for once others have ended."""
        phases: tuple[Phase, ...] = ("finalist", "confirm")
        planned = sum(self._planned(strategy, phase) for phase in phases)
        return planned - len(self._asked[strategy])


def _order(run: TrialId) -> tuple[int, int]:
    return PHASES.index(run.phase), run.seed_index or 0
