"""Runs of a trial's settings with fresh seeds: of finalists first, then of confirm.

The best trials of a strategy are its finalists. They are judged on validation alone, and the best
one is confirmed: judged on the test split, with seeds on which no finalist was judged. The seeds
are the same for every strategy, so that strategies can be compared pair by pair.

What is to be trained, and which trial is chosen, follows from the search and from the results in
the folders. So a sweep that was killed chooses as one that wasn't. With `confirm.seeds: auto`, so
does the number of seeds: all runs of a look end before it is judged, in whatever order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from kdsweep import metric_names
from kdsweep.compare.finalists import Judged, mean_of
from kdsweep.compare.looks import LookRules, compare_in_looks
from kdsweep.config import Plan
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialResult
from kdsweep.sweep.best_first import best_first, judge_finalists
from kdsweep.sweep.confirm_rules import look_rules
from kdsweep.sweep.facts import LookedAt, SweepFacts
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.kept_logits import read_ended_seeds
from kdsweep.sweep.seeds import derived_seed
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class SeedRun:
    """A trial of the search, to be trained again with a fresh seed.

    id: its phase says whether it is one of the finalists, or the trial that confirm trains.
    """

    id: TrialId
    settings: TrialSettings = field(compare=False)


def finished(folder: SweepFolder, runs: Iterable[SeedRun]) -> dict[TrialId, TrialResult]:
    """The results of those that have ended."""
    results = {run.id: folder.trial(run.id).read_result() for run in runs}
    return {run: result for run, result in results.items() if result is not None}


class SeedRuns:
    """What the trials of a sweep are trained again for, as its folders and studies are now.

    It reads them once: who wants to know what is asked for after another run has ended makes a new
    one.
    """

    def __init__(self, plan: Plan, folder: SweepFolder, studies: Studies) -> None:
        self.plan = plan
        self.folder = folder
        self.studies = studies
        self._judged: dict[str, Judged | None] = {}

    @cached_property
    def _facts(self) -> SweepFacts:
        return self.folder.read_facts()

    def asked(self, strategy: str) -> list[SeedRun]:
        """Every run that the strategy's trials are trained again for, done or not, as far as it is
        known. Once all of these have ended and none is added, the strategy is done."""
        return [*self.finalists(strategy), *self.confirmations(strategy)]

    # --- finalists -------------------------------------------------------------------------------

    def judged(self, strategy: str) -> Judged | None:
        """How far the strategy's finalists are judged; None while its search isn't over."""
        if strategy not in self._judged:
            self._judged[strategy] = self._judge(strategy)
        return self._judged[strategy]

    def _judge(self, strategy: str) -> Judged | None:
        progress = self.studies.progress(strategy)
        if progress.running or self.studies.trials_left(strategy):
            return None
        ended: dict[tuple[int, int], float | None] = {}
        for run in self.folder.ended_runs("finalist", strategy):
            result = self.folder.trial(run).read_result()
            assert result is not None and run.seed_index is not None
            ended[run.number, run.seed_index] = self._reached(result)
        return judge_finalists(self.plan.sweep, self.studies, strategy, ended)

    def _reached(self, result: TrialResult) -> float | None:
        """The task's metric on validation; None of a run that failed or diverged."""
        if result.state != "complete" or result.best is None:
            return None
        return result.best.metrics[metric_names.validation(self.plan.space.task.metric)]

    def finalists(self, strategy: str) -> list[SeedRun]:
        """Every run in the rounds so far that judges the strategy's finalists, done or not.

        Where nothing is to be confirmed, only those that are done.
        """
        judged = self.judged(strategy)
        if judged is None:
            return []
        runs = [TrialId(strategy, number, i, is_finalist=True) for number, i in judged.asked]
        if not self.plan.sweep.confirm.seeds:
            runs = [run for run in runs if self.folder.trial(run).is_over]
        settings = {
            number: self.folder.trial(TrialId(strategy, number)).read_settings()
            for number in {run.number for run in runs}
        }
        return [
            SeedRun(run, settings[run.number].model_copy(update={"seed": self._seed(run)}))
            for run in runs
        ]

    def _seed(self, run: TrialId) -> int:
        """The seed that trains this run."""
        assert run.seed_index is not None
        return derived_seed(run.phase, self.plan.sweep.sampler.seed, run.seed_index)

    # --- confirm ---------------------------------------------------------------------------------

    def trial_to_confirm(self, strategy: str) -> TrialId | None:
        """The best finalist; None until that is known, and where no trial is complete."""
        judged = self.judged(strategy)
        if judged is None or judged.chosen is None:
            return None
        return TrialId(strategy, judged.chosen)

    def best_trial(self, strategy: str) -> TrialId | None:
        """The best finalist; the search's best trial until that is known; None without a trial."""
        if (chosen := self.trial_to_confirm(strategy)) is not None:
            return chosen
        best = next(iter(best_first(self.plan.sweep, self.studies, strategy)), None)
        return None if best is None else TrialId(strategy, best)

    def confirmations(self, strategy: str) -> list[SeedRun]:
        """Every run that confirms the strategy's best finalist, done or not; none until it is
        known.

        If a user asks for fewer seeds later, those that were measured still count.
        """
        best = self.trial_to_confirm(strategy)
        if best is None:
            return []
        asked = range(self.seeds_wanted(strategy))
        ended = set(self._ended(best))
        settings = self.folder.trial(best).read_settings()
        runs = [TrialId(strategy, best.number, i) for i in [*asked, *sorted(ended - set(asked))]]
        more = {"judge_test": True}
        return [
            SeedRun(run, settings.model_copy(update={"seed": self._seed(run), **more}))
            for run in runs
        ]

    def _ended(self, trial: TrialId) -> list[int]:
        """The indices of the trial's runs of confirm that have a result."""
        runs = self.folder.ended_runs("confirm", trial.strategy, trial.number)
        return [one.seed_index for one in runs if one.seed_index is not None]

    def seeds_wanted(self, strategy: str) -> int:
        """How many seeds confirm the strategy, as far as that is known."""
        seeds = self.plan.sweep.confirm.seeds
        if seeds != "auto":
            return seeds
        assert self.look_rules is not None
        return self.looked.wanted.get(strategy, self.look_rules.looks[0])

    # --- looks -----------------------------------------------------------------------------------

    @property
    def to_confirm(self) -> dict[str, TrialId] | None:
        """The trial of each strategy that has one; None until that is known of all strategies."""
        found: dict[str, TrialId] = {}
        for strategy in self.plan.space.strategies:
            judged = self.judged(strategy)
            if judged is None or (judged.order and judged.chosen is None):
                return None
            if judged.chosen is not None:
                found[strategy] = TrialId(strategy, judged.chosen)
        return found

    @cached_property
    def look_rules(self) -> LookRules | None:
        """With `confirm.seeds: auto`; its favorite is only known when all finalists are judged."""
        confirm = self.plan.sweep.confirm
        if confirm.seeds != "auto":
            return None
        return look_rules(confirm, self._facts.confirm, self._favorite())

    def _favorite(self) -> str | None:
        """The strategy whose trial to confirm is ahead on validation: by its runs as a finalist,
        or by the search where there are none. Of equals, the first."""
        means: dict[str, float] = {}
        for strategy, trial in (self.to_confirm or {}).items():
            judged = self.judged(strategy)
            assert judged is not None
            mean = mean_of(judged.values[trial.number])
            if not judged.values[trial.number]:
                mean = self.studies.progress(strategy).values[trial.number]
            if mean is not None:
                means[strategy] = mean
        return max(means, key=lambda name: means[name], default=None)

    @cached_property
    def looked(self) -> LookedAt:
        """What the looks have asked for so far; of no strategy until the trials to confirm are
        known.

        The first look that is due is judged here, which takes seconds with many rows and seeds. So
        the driver stores what it found.
        """
        trials = self.to_confirm
        if self.look_rules is None or trials is None:
            return LookedAt({}, {}, {})
        numbers = {strategy: trial.number for strategy, trial in trials.items()}
        kept = self._facts.looked
        if kept is None or kept.trials != numbers:
            kept = LookedAt.before(numbers, self.look_rules.looks[0])
        ended = {strategy: _without_gap(self._ended(trial)) for strategy, trial in trials.items()}
        if not kept.is_due(ended):
            return kept
        labels, seeds = read_ended_seeds(
            self.plan,
            self.folder.home,
            {strategy: self._results(trial) for strategy, trial in trials.items()},
        )
        found = compare_in_looks(self.plan.space.task.metric, labels, seeds, rules=self.look_rules)
        return LookedAt(numbers, found.seeds_judged, found.seeds_wanted)

    def _results(self, trial: TrialId) -> dict[TrialId, TrialResult]:
        runs = [TrialId(trial.strategy, trial.number, index) for index in self._ended(trial)]
        results = {run: self.folder.trial(run).read_result() for run in runs}
        return {run: result for run, result in results.items() if result is not None}


def _without_gap(ended: Iterable[int]) -> int:
    """How many from the first on have ended."""
    found = set(ended)
    return next(index for index in range(len(found) + 1) if index not in found)
