"""A trial's folder in a sweep: the core's files, and what happened to the trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kdsweep.core.files import read_json, whole, write_atomically, write_json
from kdsweep.core.trial_folder import InFolder, TrialFolder, known
from kdsweep.errors import DamagedFile
from kdsweep.sweep.worker_failures import Death, WorkerFailures, note_failure, read_failures
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class Tracked:
    """What the tracker has of a trial.

    run_id: the tracker's own id. evaluations: how many were sent. state: of the trial's result,
    None while it isn't sent. student: whether the store has it, or a part (begun); None if it never
    had any. look: of a confirm run; None without looks. outside: whether it is shown as from an
    earlier space.
    """

    run_id: str | None = None
    evaluations: int = 0
    state: str | None = None
    student: Literal["begun", "kept", "removed", "registered"] | None = None
    look: int | None = None
    outside: bool = False

    @property
    def has_student(self) -> bool:
        """Whether the store has the student now."""
        return self.student in ("kept", "registered")


class SweptTrial(TrialFolder):
    """The files of one trial, in addition to those of `TrialFolder`:

    drawn.json     what the sampler drew for the trial
    tracked.json   what the tracker has of the trial
    lost.json      when and how workers died that ran it, and how far it was
    error.txt      the stack trace of the error that made it fail
    """

    drawn = InFolder("drawn.json")
    tracked = InFolder("tracked.json")
    lost = InFolder("lost.json")
    error = InFolder("error.txt")

    def __init__(self, root: Path, id: TrialId) -> None:
        super().__init__(root)
        self.id = id

    def read_drawn(self) -> dict[str, Any] | None:
        """None for a run of confirm, and for a trial of version 0.1.0."""
        if not self.drawn.exists():
            return None
        with whole(self.drawn):
            found: dict[str, Any] = read_json(self.drawn)
            return {key: found[key] for key in ("params", "distributions")}

    def write_drawn(self, drawn: dict[str, object]) -> None:
        write_json(self.drawn, drawn)

    def read_tracked(self) -> Tracked:
        """A file that can't be read says nothing; the next run sends the trial again."""
        if not self.tracked.exists():
            return Tracked()
        try:
            with whole(self.tracked):
                return Tracked(**known(Tracked, read_json(self.tracked)))
        except DamagedFile:
            return Tracked()

    def write_tracked(self, tracked: Tracked) -> None:
        write_json(self.tracked, asdict(tracked))

    def read_lost(self) -> list[Death]:
        return read_failures(self.lost)

    def write_lost(self, reason: str) -> WorkerFailures:
        """Note that a worker died while it ran this trial."""
        step = self.saved_step() or 0
        return note_failure(self.lost, reason, {"checkpoint": step}, step)

    def write_error(self, trace: str) -> None:
        write_atomically(self.error, lambda file: file.write(trace.encode()))
