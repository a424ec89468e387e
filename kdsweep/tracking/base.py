"""What a sweep needs of a tracker and of a store for students. MLflow is one implementation.

Another one is a class for each protocol, and a line in `opening.py`. Every call may raise
TrackingUnreachable; the caller then repeats it later. A call that is repeated must change nothing.
A call may also raise TrackingRefused; the caller then says so once and never repeats it. And it may
raise TrackingDamaged; nothing more is sent then until the sweep runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from kdsweep.core.settings import TrialSettings
from kdsweep.trial_id import TrialId

RunPhase = Literal["sweep", "teacher", "search", "finalist", "confirm"]
RunState = Literal["running", "paused", "complete", "pruned", "diverged", "failed"]


@dataclass(frozen=True)
class RunKey:
    """Names a run within its sweep, whichever tracker keeps it.

    phase: `sweep` is the sweep's own run, the parent of the others. trial: for the phases `search`
    `finalist` and `confirm`. teacher: which one, where a sweep has several.
    """

    phase: RunPhase
    trial: TrialId | None = None
    teacher: str = ""

    @classmethod
    def of(cls, trial: TrialId) -> RunKey:
        """The run of a trial, or of one that trains it again."""
        return cls(trial.phase, trial)

    @property
    def name(self) -> str:
        """`sweep`, `teacher`, `teacher-1a2b3c`, `distill-3` or `distill-3-seed-0`."""
        if self.trial is not None:
            return self.trial.name
        return f"{self.phase}-{self.teacher}" if self.teacher else self.phase


@dataclass(frozen=True)
class MetricValue:
    """A metric, measured at `timestamp` (milliseconds since 1970) after `step` optimizer steps."""

    name: str
    value: float
    timestamp: int
    step: int


@dataclass(frozen=True)
class RunUpdate:
    """What is new about a run. Params and tags are merged with those that the run has.

    started, ended: milliseconds since 1970; None where unknown.
    """

    state: RunState
    params: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[MetricValue] = ()
    started: int | None = None
    ended: int | None = None


@dataclass(frozen=True)
class KeptRuns:
    """What a tracker has of a sweep, and would be removed with it.

    versions: registered students, in words. folders: with the runs' files, where those are in home.
    not_made_here: how many runs of this sweep's name stay, because another home made them.
    by_hand: students that a user registered as other models. experiment: its name, where nothing
    else is in it. needs_gc: whether the tracker keeps files until it is told to drop them.
    """

    runs: int
    versions: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    not_made_here: int = 0
    by_hand: tuple[str, ...] = ()
    needs_gc: bool = False
    experiment: str | None = None


# Whether this home made the run of a trial: the trial's name, and the tracker's id of the run.
MadeHere = Callable[[str, str], bool]


class Tracker(Protocol):
    """Keeps the runs of one sweep: its own, one for each teacher, trial, and run of
    finalists and of confirm."""

    @property
    def name(self) -> str:
        """What messages call it, such as `MLflow at http://gpu1:5000`. Without a password."""

    def connect(self) -> None:
        """Raises TrackingUnreachable, or another KdsweepError where it can never be used."""

    def update(self, run: RunKey, update: RunUpdate) -> str:
        """Start the run unless it exists, log what is new, and pause or end it as `state` says.
        A run that a user has deleted, and the tracker can restore, is restored.

        Returns the tracker's own id of the run, which is shown to users. Raises TrackingRefused
        with that id if the tracker took all but what the error names.
        """

    def update_all(self, updates: Sequence[tuple[RunKey, RunUpdate]]) -> list[str]:
        """Do the same for several runs, each of them once, and as cheaply as possible.

        Returns the runs' ids in the same order. If it raises, `update` is called for each.
        """

    def find(self, run: RunKey) -> str | None:
        """Its own id of the run, also if a user deleted it there; None where it has none."""

    def prepare_views(self, metric: str) -> None:
        """Set up how the tracker shows this sweep's runs, best `metric` first. May do nothing."""

    def describe_sweep(self, text: str) -> None:
        """Show this text (Markdown) with the sweep's run."""

    def add_file(self, run: RunKey, file: Path) -> None:
        """Keep a copy of the file with a run that was started."""

    def rename_sweep(self, name: str) -> None:
        """Move all runs of this sweep to another name. Ends those that are running or paused."""

    def find_kept(self, made_here: MadeHere | None) -> KeptRuns:
        """What is kept of this sweep. Creates nothing. made_here: None if all is this home's."""

    def remove_kept(
        self, made_here: MadeHere | None, metric: str, say: Callable[[str], None]
    ) -> None:
        """Remove it, with the published students. A call that was cut short can be repeated.

        metric: by which students are compared, as in `register_best`. say: told what else changed.
        """


class StudentStore(Protocol):
    """Keeps the best students of one sweep."""

    def keep(self, run: RunKey, folder: Path, settings: TrialSettings) -> None:
        """Copy the student in `folder` (a Hugging Face folder, which stays as it is).

        settings: of its trial; they say which columns and how much of a row the student reads.
        """

    def fetch(self, run: RunKey, folder: Path, run_id: str | None = None) -> None:
        """Copy a kept student into `folder`. Raises KdsweepError where the store has none.

        run_id: what `update` returned, by which the student may be found without asking.
        """

    def left_behind(self, run_id: str) -> Path | None:
        """Where the student of a run lies that the tracker has lost; None if that isn't known."""

    def drop(self, run: RunKey) -> Literal["removed", "registered"]:
        """Remove a kept student. `registered`: it stays, because it has been published."""

    def register_best(self, model: str, run: RunKey, metric: str, value: float) -> str:
        """Publish the run's kept student as the best version of `model`, if it is.

        value: its `metric` on validation. Of two equal students the earlier one stays.
        Returns one line that says what was done.
        """


@dataclass(frozen=True)
class Tracking:
    """Where one sweep keeps its runs and its students."""

    runs: Tracker
    students: StudentStore
