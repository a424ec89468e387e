"""Confirm: the best finalist of each strategy is trained again with fresh seeds.

Each of these runs is judged once on the test split. Validation decides which trial is confirmed,
before any of them starts. With `confirm.seeds: auto`, what test shows decides which strategies get
more seeds, and nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from kdsweep import metric_names
from kdsweep.compare.recommendation import best_on_validation
from kdsweep.config import Plan
from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import first_few
from kdsweep.sweep.confirm_rules import keep_rules
from kdsweep.sweep.expected_seed_runs import ExpectedSeedRuns, seed_runs_of
from kdsweep.sweep.facts import LookedAt
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.progress import SeedRunCounts
from kdsweep.sweep.seed_runs import SeedRun, SeedRuns
from kdsweep.sweep.slow_steps import saying_how_long
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import PHASES, TrialId


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


def planned_runs(
    plan: Plan, studies: Studies, strategy: str, asked: Iterable[TrialId], looked: LookedAt
) -> ExpectedSeedRuns:
    """How many runs of finalists and of confirm the strategy will have, as far as its search is.

    None where its search has found no trial and can't find one any more. asked: those that are
    asked for so far, which are more where more seeds were asked for once. looked: see `SeedRuns`.
    """
    progress = studies.progress(strategy)
    complete = len(progress.order)
    if progress.running or studies.trials_left(strategy):
        complete += len(progress.running) + studies.trials_left(strategy)
    expected = seed_runs_of(plan.sweep, complete, len(plan.space.strategies))
    so_far = Counter(one.phase for one in asked)
    confirm = max(so_far["confirm"], expected.confirm)
    is_settled = strategy in looked.trials and not looked.is_open(strategy)
    return ExpectedSeedRuns(
        max(so_far["finalist"], expected.finalists),
        confirm,
        confirm if is_settled else max(confirm, expected.confirm_at_most),
    )


class SeedQueue:
    """Which of these runs are still to be started, while one driver runs: first those that judge
    finalists, round by round, then those that confirm the best one, look by look.

    say: gets a line for each look.
    """

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        studies: Studies,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.studies = studies
        self._say = say
        self._asked: dict[str, dict[TrialId, SeedRun]] = {
            strategy: {} for strategy in plan.space.strategies
        }
        self._left: dict[str, deque[SeedRun]] = {name: deque() for name in self._asked}
        self._ended: set[TrialId] = set()
        self._looked = LookedAt({}, {}, {})
        # Strategies whose search isn't over, and those that may ask for runs that aren't known yet.
        self._searching = set(self._asked)
        self._changed: set[str] = set()

    def ready(self, *, teacher: bool) -> list[deque[SeedRun]]:
        """The runs that are known and left, of each strategy whose search is over.

        teacher: whether teachers are ready; without, only strategies that never need one.
        """
        for strategy in list(self._searching):
            if not self.studies.progress(strategy).running and not self.studies.trials_left(
                strategy
            ):
                self._searching.discard(strategy)
                self._has_changed(strategy)
        if self._changed:
            self._ask()
        return [
            runs
            for runs in self._left.values()
            if runs and (teacher or not runs[0].settings.needs_teacher)
        ]

    def _has_changed(self, strategy: str) -> None:
        # Looks are at all strategies together.
        looks = self.plan.sweep.confirm.seeds == "auto"
        self._changed |= set(self._asked) if looks else {strategy}

    def _ask(self) -> None:
        """Add the runs that are asked for now and weren't before."""
        # Before anything can go wrong: what is left is asked for once more at the end.
        changed, self._changed = self._changed, set()
        again = SeedRuns(self.plan, self.folder, self.studies)
        self._keep_look(again)
        for strategy in [name for name in self._asked if name in changed]:
            known = self._asked[strategy]
            for run in again.asked(strategy):
                if run.id in known:
                    continue
                known[run.id] = run
                if self.folder.trial(run.id).is_over:
                    self._ended.add(run.id)
                else:
                    self._left[strategy].append(run)

    def _keep_look(self, again: SeedRuns) -> None:
        """Store what a look has found, and what it was judged by."""
        if again.look_rules is None:
            return
        with saying_how_long(self._say, "comparing strategies on test"):
            self._looked = again.looked
        if any(self._looked.judged.values()) and self.folder.read_facts().looked != self._looked:
            keep_rules(self.plan, self.folder, again.look_rules.favorite)
            self.folder.write_facts(replace(self.folder.read_facts(), looked=self._looked))
            self._say(self._looked.words)

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
        """How many are to be started, now or later, as far as that is known."""
        self.ready(teacher=True)
        later = sum(self._planned(name).least - len(asked) for name, asked in self._asked.items())
        return sum(map(len, self._left.values())) + later

    def counts(self) -> SeedRunCounts:
        self.ready(teacher=True)
        ended = {phase: sum(one.phase == phase for one in self._ended) for phase in PHASES}
        planned = [self._planned(strategy) for strategy in self._asked]
        return SeedRunCounts(
            finalists_ended=ended["finalist"],
            finalists=sum(one.finalists for one in planned),
            confirmed=ended["confirm"],
            to_confirm=sum(one.confirm for one in planned),
            to_confirm_at_most=sum(one.confirm_at_most for one in planned),
        )

    def count_ended(self, run: TrialId) -> None:
        """One more run has ended."""
        self._ended.add(run)
        self._has_changed(run.strategy)
        self.ready(teacher=True)

    def _planned(self, strategy: str) -> ExpectedSeedRuns:
        asked = self._asked[strategy]
        return planned_runs(self.plan, self.studies, strategy, asked, self._looked)


def _order(run: TrialId) -> tuple[int, int]:
    return PHASES.index(run.phase), run.seed_index or 0
