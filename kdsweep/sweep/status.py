"""How far a sweep is, read without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from kdsweep.config.sweep import Budget
from kdsweep.formatting import precision_in_words
from kdsweep.report.model import SlotUse
from kdsweep.sweep.budget import TimeSpent, use_of_slots
from kdsweep.sweep.changed_space import of_earlier_space
from kdsweep.sweep.confirm import planned_runs
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.results import recorded
from kdsweep.sweep.seed_runs import SeedRuns, finished
from kdsweep.sweep.time_left import Durations, JobsLeft, time_left
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class BestSoFar:
    """The best trial of a search. trial: its number. validation: the task's metric."""

    trial: int
    validation: float


@dataclass(frozen=True)
class StrategyStatus:
    """How many of a strategy's trials have ended and how many have not; also of the runs that judge
    its finalists, and of those that confirm the best one. running: trials, and runs of both kinds.

    to_confirm: how many of those are left, as far as that is known; with `confirm.seeds: auto`
    there may be more later.
    """

    complete: int
    pruned: int
    failed: int
    running: int
    left: int
    finalists_ended: int
    finalists_left: int
    confirmed: int
    to_confirm: int
    to_confirm_at_most: int
    best: BestSoFar | None


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is. budget: as it is set.

    seconds_left, seconds_left_at_most: as `time_left` says; None while no trial has ended.
    precision: what models are trained in; None where nothing has settled it. start_from: what was
    taken from earlier sweeps, in words. earlier_space: how many trials count no longer, by
    strategy, because it has changed or is gone.
    """

    sweep: str
    metric: str
    state: Literal["running", "stopped", "done"]
    strategies: dict[str, StrategyStatus]
    seconds_spent: float
    gpu_hours_spent: float
    seconds_left: float | None
    seconds_left_at_most: float | None
    budget: Budget
    slots: SlotUse | None
    precision: str | None
    start_from: tuple[str, ...]
    earlier_space: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """What `kdsweep status --json` prints."""
        return asdict(self) | {
            "budget": self.budget.model_dump(),
            "slots": None if self.slots is None else self.slots.to_json(),
        }


def status(home: Home, name: str, say: Callable[[str], None] = lambda line: None) -> SweepStatus:
    """How far sweep `name` is. Raises UnknownSweep."""
    plan, studies = recorded(home, name, say)
    folder = home.existing(name)
    seed_runs = SeedRuns(plan, folder, studies)
    strategies: dict[str, StrategyStatus] = {}
    durations, running_runs = Durations(), 0
    for strategy in plan.space.strategies:
        progress = studies.progress(strategy)
        runs = seed_runs.asked(strategy)
        again = finished(folder, runs)
        _add_trials(durations, folder, [TrialId(strategy, one) for one in progress.counted_ends])
        durations.runs += [result.seconds for result in again.values()]
        waiting = [folder.trial(run.id) for run in runs if run.id not in again]
        started = sum(files.settings.exists() for files in waiting)
        running_runs += started
        done = Counter(run.phase for run in again)
        ids = [run.id for run in runs]
        planned = planned_runs(plan, studies, strategy, ids, seed_runs.looked)
        strategies[strategy] = StrategyStatus(
            complete=progress.complete,
            pruned=progress.pruned,
            failed=progress.failed,
            running=len(progress.running) + started,
            left=studies.trials_left(strategy),
            finalists_ended=done["finalist"],
            finalists_left=planned.finalists - done["finalist"],
            confirmed=done["confirm"],
            to_confirm=planned.confirm - done["confirm"],
            to_confirm_at_most=planned.confirm_at_most - done["confirm"],
            best=None if progress.best is None else BestSoFar(*progress.best),
        )
    every = list(strategies.values())
    left = JobsLeft(
        trials=sum(one.left + one.running for one in every) - running_runs,
        runs=sum(one.finalists_left + one.to_confirm for one in every),
        more_runs=sum(one.to_confirm_at_most - one.to_confirm for one in every),
    )
    spent = TimeSpent.read(folder.clock)
    slots = spent.slot_seconds / spent.seconds if spent.seconds else 1.0
    seconds_left = time_left(durations, left, slots)
    state: Literal["running", "stopped", "done"] = "stopped" if left.any else "done"
    if folder.is_running():
        state = "running"
    return SweepStatus(
        sweep=name,
        metric=plan.space.task.metric,
        state=state,
        strategies=strategies,
        seconds_spent=spent.seconds,
        gpu_hours_spent=spent.gpu_seconds / 3600,
        seconds_left=None if seconds_left is None else seconds_left[0],
        seconds_left_at_most=None if seconds_left is None else seconds_left[1],
        budget=plan.sweep.budget,
        slots=use_of_slots(spent),
        precision=precision_in_words(plan.space.precisions()),
        start_from=studies.started_from.lines,
        earlier_space=of_earlier_space(folder, plan.space.strategies),
    )


def _add_trials(durations: Durations, folder: SweepFolder, trials: Sequence[TrialId]) -> None:
    for trial in trials:
        if (result := folder.trial(trial).read_result()) is not None:
            kind = durations.full if result.state == "complete" else durations.pruned
            kind.append(result.seconds)
