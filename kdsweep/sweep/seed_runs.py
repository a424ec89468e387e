"""Runs of a trial's settings with fresh seeds: of finalists first, then of confirm.

The best trials of a strategy are its finalists. They are judged on validation alone, and the best
one is confirmed: judged on the test split, with seeds on which no finalist was judged. The seeds
are the same for every strategy, so that strategies can be compared pair by pair.

Nothing of this is remembered: what is to be trained, and which trial is chosen, follows from the
search and from the results in the folders. So a sweep that was killed chooses as one that wasn't.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kdsweep import metric_names
from kdsweep.compare.finalists import Judged, judge
from kdsweep.config import Plan
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialResult
from kdsweep.sweep.folders import SweepFolder
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


def asked_runs(plan: Plan, folder: SweepFolder, studies: Studies, strategy: str) -> list[SeedRun]:
    """Every run that the strategy's trials are trained again for, done or not, as far as it is
    known. Once all of these have ended and none is added, the strategy is done."""
    return [
        *finalist_runs(plan, folder, studies, strategy),
        *confirmations(plan, folder, studies, strategy),
    ]


def finished(folder: SweepFolder, runs: Iterable[SeedRun]) -> dict[SeedRun, TrialResult]:
    """The results of those that have ended."""
    results = {run: folder.trial(run.id).read_result() for run in runs}
    return {run: result for run, result in results.items() if result is not None}


# --- finalists -----------------------------------------------------------------------------------


def judged_finalists(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> Judged | None:
    """How far the strategy's finalists are judged; None while its search isn't over."""
    progress = studies.progress(strategy)
    if progress.running or studies.trials_left(strategy):
        return None
    ended: dict[tuple[int, int], float | None] = {}
    if plan.sweep.confirm.finalists > 1:
        for run in folder.ended_runs("finalist", strategy):
            result = folder.trial(run).read_result()
            assert result is not None and run.seed_index is not None
            ended[run.number, run.seed_index] = _reached(plan, result)
    return judge(progress.order, plan.sweep.confirm.finalists, ended)


def _reached(plan: Plan, result: TrialResult) -> float | None:
    """The task's metric on validation; None of a run that failed or diverged."""
    if result.state != "complete" or result.best is None:
        return None
    return result.best.metrics[metric_names.validation(plan.space.task.metric)]


def finalist_runs(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> list[SeedRun]:
    """Every run in the rounds so far that judges the strategy's finalists, done or not.

    Where nothing is to be confirmed, only those that are done.
    """
    judged = judged_finalists(plan, folder, studies, strategy)
    if judged is None:
        return []
    runs = [TrialId(strategy, number, i, is_finalist=True) for number, i in judged.asked]
    if not plan.sweep.confirm.seeds:
        runs = [run for run in runs if folder.trial(run).is_over]
    settings = {
        number: folder.trial(TrialId(strategy, number)).read_settings()
        for number in {run.number for run in runs}
    }
    return [
        SeedRun(run, settings[run.number].model_copy(update={"seed": _seed(plan, run)}))
        for run in runs
    ]


def _seed(plan: Plan, run: TrialId) -> int:
    """The seed that trains this run."""
    assert run.seed_index is not None
    return derived_seed(run.phase, plan.sweep.sampler.seed, run.seed_index)


# --- confirm -------------------------------------------------------------------------------------


def trial_to_confirm(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> TrialId | None:
    """The best finalist; None until that is known, and where no trial is complete."""
    judged = judged_finalists(plan, folder, studies, strategy)
    if judged is None or judged.chosen is None:
        return None
    return TrialId(strategy, judged.chosen)


def best_trial(plan: Plan, folder: SweepFolder, studies: Studies, strategy: str) -> TrialId | None:
    """The best finalist; the search's best trial until that is known; None without a trial."""
    if (chosen := trial_to_confirm(plan, folder, studies, strategy)) is not None:
        return chosen
    best = studies.progress(strategy).best
    return None if best is None else TrialId(strategy, best[0])


def confirmations(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> list[SeedRun]:
    """Every run that confirms the strategy's best finalist, done or not; none until it is known.

    If a user asks for fewer seeds later, those that were measured still count.
    """
    best = trial_to_confirm(plan, folder, studies, strategy)
    if best is None:
        return []
    asked = range(plan.sweep.confirm.seeds)
    ended = {one.seed_index or 0 for one in folder.ended_runs("confirm", strategy, best.number)}
    settings = folder.trial(best).read_settings()
    runs = [TrialId(strategy, best.number, i) for i in [*asked, *sorted(ended - set(asked))]]
    return [
        SeedRun(run, settings.model_copy(update={"seed": _seed(plan, run), "judge_test": True}))
        for run in runs
    ]
