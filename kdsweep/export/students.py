"""Which student is meant, and its files: in MLflow, or still in the trial's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdsweep.core.files import read_json
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import DataError, KdsweepError, did_you_mean
from kdsweep.replay import check_rows
from kdsweep.report.model import Report
from kdsweep.sweep.confirm import best_confirmed, confirmations, finished
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.results import recorded
from kdsweep.sweep.results import report as report_of
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.tracking.base import RunKey
from kdsweep.tracking.opening import open_tracking
from kdsweep.trial_id import TrialId

MOST_SHOWN = 12


@dataclass(frozen=True)
class Student:
    """A trial that is complete, and so has had a student."""

    id: TrialId
    files: SweptTrial
    settings: TrialSettings
    result: TrialResult


def choose(
    home: Home, sweep: str, report: Report, *, trial: str | None, strategy: str | None
) -> Student:
    """The trial of this name; or the strategy's student that is published; or, the winner of its `report`.

    Raises UnknownSweep for a trial that isn't there, KdsweepError for one that has no student.
    """
    folder = home.existing(sweep)
    if trial is not None:
        chosen = folder.find_trial(trial)
    elif strategy is not None:
        chosen = _best_of(home, sweep, strategy)
    else:
        chosen = _winner(sweep, report)
    files = folder.trial(chosen)
    result = files.read_result()
    if result is None or result.state != "complete" or result.best is None:
        raise KdsweepError(
            f"{chosen.name} has no student: it is {result.state if result else 'still running'}; {_those_kept(folder)}"
        )
    settings = TrialSettings.model_validate_json(files.settings.read_text(encoding="utf-8"))
    return Student(chosen, files, settings, result)


def _winner(sweep: str, report: Report) -> TrialId:
    if report.winner is None:
        raise KdsweepError(
            f"sweep {sweep!r} has no student yet: no trial has finished; see `kdsweep status {sweep}`"
        )
    return report.winner


def _best_of(home: Home, sweep: str, strategy: str) -> TrialId:
    plan, studies = recorded(home, sweep)
    if strategy not in plan.space.strategies:
        raise KdsweepError(
            f"sweep {sweep!r} has no strategy {strategy!r}, only {', '.join(plan.space.strategies)}{did_you_mean(strategy, plan.space.strategies)}"
        )
    folder = home.sweep(sweep)
    run = best_confirmed(
        plan.space.task.metric, finished(folder, confirmations(plan, folder, studies, strategy))
    )
    if run is not None:
        return run.id
    best = studies.progress(strategy).best
    if best is None:
        raise KdsweepError(
            f"no trial of {strategy} has finished in sweep {sweep!r}; see `kdsweep status {sweep}`"
        )
    return TrialId(strategy, best[0])


# --- what is said of it ----------------------------------------------------------------------------------------------


def read_report(home: Home, sweep: str) -> Report:
    """The sweep's report as it stands; the one that was written at its end where the data can't be read as it was any more."""
    folder = home.existing(sweep)
    try:
        plan, _ = recorded(home, sweep)
        check_rows(home, folder, plan.space.task, unlabelled=False)
        return report_of(home, sweep)
    except DataError:
        if not folder.report.exists():
            raise
        return Report.from_json(read_json(folder.report))


# --- its files -------------------------------------------------------------------------------------------------------


def fetch(home: Home, folder: SweepFolder, student: Student, into: Path) -> None:
    """Fill the folder `into` with the student's files. Raises KdsweepError where it wasn't kept, TrackingUnreachable where MLflow is away."""
    files = student.files
    if files.student.exists():
        try:
            shutil.copytree(files.student, into, dirs_exist_ok=True)
            return
        except OSError:
            if files.student.exists():  # else the sweep at work sent it to MLflow just now
                raise
    tracked = files.read_tracked()
    if not tracked.has_student:
        again = f"`kdsweep replay {folder.name} {student.id.name}` makes it again; `keep: {{students: N}}` in the sweep keeps more"
        raise KdsweepError(
            f"the student of {student.id.name} wasn't kept; {_those_kept(folder)}; {again}"
        )
    tracking = open_tracking(
        home.tracking_uri(folder.read_config().tracking),
        experiment=folder.read_facts().experiment,
        sweep=folder.name,
        artifacts=home.artifacts,
    )
    tracking.students.fetch(RunKey.of(student.id), into)


def _those_kept(folder: SweepFolder) -> str:
    names = list(_kept(folder))
    return (
        "no student was kept"
        if not names
        else f"kept are {', '.join(names[:MOST_SHOWN])}{', ...' if len(names) > MOST_SHOWN else ''}"
    )


def _kept(folder: SweepFolder) -> Iterator[str]:
    for trial in folder.started_trials():
        files = folder.trial(trial)
        if files.result.exists() and (files.student.exists() or files.read_tracked().has_student):
            yield trial.name
