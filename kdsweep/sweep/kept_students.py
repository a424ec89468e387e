"""Which students of a strategy keep their checkpoints.

Of the search, the best `keep.students`. Of finalists, none. Of confirm, the one that stands for the
strategy, until a newer confirm has ended and its own student is stored.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdsweep.config import Plan
from kdsweep.core.trial_folder import TrialResult
from kdsweep.sweep.best_first import best_first
from kdsweep.sweep.confirm import best_confirmed
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.seed_runs import SeedRuns
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.tracking_sync import TrackingSync
from kdsweep.trial_id import TrialId


def confirmed_students(
    plan: Plan, folder: SweepFolder, studies: Studies, strategy: str
) -> list[TrialId]:
    """The runs of confirm whose students are kept: first the one that stands for the strategy.

    While the search is open again, or a newer best trial is being confirmed, the student of the
    earlier confirm is kept too. Empty before the first run of confirm has ended.
    """
    metric = plan.space.task.metric
    ended: dict[int, dict[TrialId, TrialResult]] = {}
    for run in folder.ended_runs("confirm", strategy):
        result = folder.trial(run).read_result()
        assert result is not None
        ended.setdefault(run.number, {})[run] = result
    runs = {run.id for run in SeedRuns(plan, folder, studies).confirmations(strategy)}
    now = {run: result for one in ended.values() for run, result in one.items() if run in runs}
    best = best_confirmed(metric, now)
    if best is not None and len(now) == len(runs):
        return [best]
    others = {number: one for number, one in ended.items() if not runs & one.keys()}
    earlier = _newest(metric, folder, others, best_first(plan.sweep, studies, strategy))
    return [one for one in (best, earlier) if one is not None]


def _newest(
    metric: str,
    folder: SweepFolder,
    ended: Mapping[int, Mapping[TrialId, TrialResult]],
    order: list[int],
) -> TrialId | None:
    """The best run of the newest confirm: of the trial whose student is still there, and of several
    of the search's best one."""
    rank = {number: i for i, number in enumerate(order)}
    bests: list[TrialId] = []
    for number in sorted(ended, key=lambda one: rank.get(one, len(order))):
        if (best := best_confirmed(metric, ended[number])) is not None:
            bests.append(best)
    return next((one for one in bests if _has_student(folder, one)), next(iter(bests), None))


def _has_student(folder: SweepFolder, run: TrialId) -> bool:
    files = folder.trial(run)
    return files.read_tracked().has_student or files.student.exists()


def keep_students(
    plan: Plan,
    folder: SweepFolder,
    studies: Studies,
    tracking: TrackingSync,
    strategy: str,
    ended: TrialId | None = None,
) -> None:
    """Let the tracker store the students that are kept, and remove the others.

    ended: a trial that has just ended, and so may have left another student.
    """
    most = plan.sweep.keep.students
    kept = [
        TrialId(strategy, number) for number in best_first(plan.sweep, studies, strategy)[:most]
    ]
    searched = ended if ended is not None and ended.phase == "search" else None
    tracking.keep_students(strategy, "search", kept, searched)
    kept = confirmed_students(plan, folder, studies, strategy)
    if not most:
        # Nothing new is stored then, but what an earlier run of the sweep kept isn't removed.
        kept = [one for one in kept if _was_kept(folder, one, ended)]
    confirmed = ended if ended is not None and ended.phase == "confirm" else None
    tracking.keep_students(strategy, "confirm", kept, confirmed)
    if ended is None or ended.phase == "finalist":
        tracking.keep_students(strategy, "finalist", [], ended)


def _was_kept(folder: SweepFolder, run: TrialId, ended: TrialId | None) -> bool:
    files = folder.trial(run)
    return files.read_tracked().has_student or (ended is None and files.student.exists())
