"""Which student to export, the report that describes it, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import KdsweepError, TrackingDamaged, TrackingUnreachable, did_you_mean
from kdsweep.report.model import Report
from kdsweep.serving import write_settings
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.kept_students import confirmed_students
from kdsweep.sweep.results import recorded
from kdsweep.sweep.results import report as report_of
from kdsweep.sweep.seed_runs import SeedRuns
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.tracking.base import RunKey
from kdsweep.tracking.opening import open_tracking
from kdsweep.trial_id import TrialId

MOST_SHOWN = 12


@dataclass(frozen=True)
class Student:
    """A complete trial, which has or had a student."""

    id: TrialId
    files: SweptTrial
    settings: TrialSettings
    result: TrialResult

    def write_settings(self, folder: Path) -> None:
        """Write next to the student's files how it reads rows. A trial's own folder hasn't that."""
        task = self.settings.task
        write_settings(
            folder,
            text=task.text,
            max_length=self.settings.training.max_length,
            truncation=task.truncation,
            trust_remote_code=self.settings.student.trust_remote_code,
            quantize=self.settings.student.quantize,
        )


@dataclass(frozen=True)
class Source:
    """What is exported, and what is known about it."""

    home: Home
    folder: SweepFolder
    report: Report
    student: Student


@dataclass(frozen=True)
class Choice:
    """What a user asks for: the student of a trial, the best one of a strategy, or the winner."""

    home: Home
    folder: SweepFolder
    trial: str | None
    strategy: str | None
    say: Callable[[str], None]

    def source(self) -> Source:
        """What this means now: a sweep that runs may find a better student. Raises as `choose`."""
        name = self.folder.name
        report = report_of(self.home, name, self.say)
        student = choose(self.home, name, report, trial=self.trial, strategy=self.strategy)
        return Source(self.home, self.folder, report, student)

    def fetch(self, source: Source, into: Path) -> Source:
        """Copy the student's files into the folder `into`, and return what they are of: another
        student where the sweep has replaced this one meanwhile. Raises as `fetch`."""
        try:
            fetch(self.home, self.folder, source.student, into)
            return source
        except (KdsweepError, OSError):
            now = self.source()
            if now.student.id == source.student.id:
                raise
        self.say(f"{source.student.id.name} was replaced meanwhile by {now.student.id.name}")
        shutil.rmtree(into)
        into.mkdir()
        fetch(self.home, self.folder, now.student, into)
        return now


def choose(
    home: Home, sweep: str, report: Report, *, trial: str | None, strategy: str | None
) -> Student:
    """The trial of this name; or the published student of `strategy`; or the report's winner.

    Raises UnknownSweep if there is no such trial, KdsweepError if it has no student.
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
        state = "still running" if result is None else result.state
        raise KdsweepError(f"{chosen.name} has no student: it is {state}; {_kept_words(folder)}")
    settings = files.read_settings()
    return Student(chosen, files, settings, result)


def _winner(sweep: str, report: Report) -> TrialId:
    if report.winner is None:
        raise KdsweepError(
            f"sweep {sweep!r} has no student yet: no trial has finished; see "
            f"`kdsweep status {sweep}`"
        )
    return report.winner


def _best_of(home: Home, sweep: str, strategy: str) -> TrialId:
    plan, studies = recorded(home, sweep)
    strategies = plan.space.strategies
    if strategy not in strategies:
        hint = did_you_mean(strategy, strategies)
        raise KdsweepError(
            f"sweep {sweep!r} has no strategy {strategy!r}, only {', '.join(strategies)}{hint}"
        )
    folder = home.sweep(sweep)
    if confirmed := confirmed_students(plan, folder, studies, strategy):
        return confirmed[0]
    best = SeedRuns(plan, folder, studies).best_trial(strategy)
    if best is None:
        raise KdsweepError(
            f"no trial of {strategy} has finished in sweep {sweep!r}; see `kdsweep status {sweep}`"
        )
    return best


def fetch(home: Home, folder: SweepFolder, student: Student, into: Path) -> None:
    """Copy the student's files into the folder `into`.

    Raises KdsweepError if it wasn't kept, TrackingUnreachable if the tracker doesn't answer.
    """
    files = student.files
    if files.student.exists():
        try:
            shutil.copytree(files.student, into, dirs_exist_ok=True)
            return
        except OSError:
            # A sweep that is running may have moved it to the tracker meanwhile.
            if files.student.exists():
                raise
    tracked = files.read_tracked()
    if tracked.student == "removed":
        raise _not_kept(folder, student)
    tracking = open_tracking(
        home.tracking_uri(folder.read_config().tracking),
        experiment=folder.read_facts().experiment,
        sweep=folder.name,
        artifacts=home.artifacts,
    )
    try:
        tracking.students.fetch(RunKey.of(student.id), into, tracked.run_id)
    except (TrackingUnreachable, TrackingDamaged):
        raise
    except KdsweepError as error:
        # What the tracker has of the trial isn't known where `tracked.json` was damaged.
        if tracked.has_student:
            raise
        raise _not_kept(folder, student) from error


def _not_kept(folder: SweepFolder, student: Student) -> KdsweepError:
    name = student.id.name
    return KdsweepError(
        f"the student of {name} wasn't kept; {_kept_words(folder)}; "
        f"`kdsweep replay {folder.name} {name}` makes it again; "
        "`keep: {students: N}` in the sweep keeps more"
    )


def _kept_words(folder: SweepFolder) -> str:
    names = list(_kept(folder))
    if not names:
        return "no student was kept"
    more = ", ..." if len(names) > MOST_SHOWN else ""
    return f"kept are {', '.join(names[:MOST_SHOWN])}{more}"


def _kept(folder: SweepFolder) -> Iterator[str]:
    for trial in folder.started_trials():
        files = folder.trial(trial)
        if files.result.exists() and (files.student.exists() or files.read_tracked().has_student):
            yield trial.name
