"""The students of a sweep on their way from this disk to the tracker's store, or to removal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from kdsweep.core.files import remove_at_once
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.tracking.base import RunKey, StudentStore
from kdsweep.trial_id import Phase, TrialId

# The store may have files of such a student.
IN_STORE = ("begun", "kept")


@dataclass(frozen=True)
class Students:
    """The students of a strategy's trials, or of the runs that confirm its best one."""

    strategy: str
    phase: Phase

    @property
    def name(self) -> str:
        return f"students of {self.strategy} ({self.phase})"


class TrackedStudents:
    """Which trials have a student, and what becomes of it. Any thread may call `add`."""

    def __init__(
        self, store: StudentStore, folder: SweepFolder, say: Callable[[str], None]
    ) -> None:
        self._store = store
        self._folder = folder
        self._say = say
        self._lock = threading.Lock()
        self._said_replaced: set[TrialId] = set()
        # Trials whose student is on this disk or in the store.
        self._held: dict[Students, set[TrialId]] = self._find_held()

    def add(self, students: Students, trials: Collection[TrialId]) -> None:
        """These trials may have left a student."""
        with self._lock:
            self._held.setdefault(students, set()).update(trials)

    def send(self, students: Students, kept: Collection[TrialId]) -> None:
        """Store the ones that are kept and remove the others."""
        with self._lock:
            held = sorted(self._held[students], key=_order)
        # Nothing is removed before what replaces it is stored.
        for trial in held:
            if trial in kept:
                self._send_student(trial, self._folder.trial(trial))
        for trial in held:
            if trial not in kept and self._may_remove(trial, kept):
                self._remove_student(trial, students)

    def _may_remove(self, trial: TrialId, kept: Collection[TrialId]) -> bool:
        """Whether its student can go. That of an earlier confirm stays until another one is stored,
        and one line says so first.

        kept: the students of its strategy that are kept instead.
        """
        if trial.phase != "confirm":
            return True
        has_been_stored = self._folder.trial(trial).read_tracked().student == "kept"
        stored = [one for one in kept if self._folder.trial(one).read_tracked().has_student]
        if not kept:
            return not has_been_stored
        if any(one.number == trial.number for one in kept):
            return not has_been_stored or any(one.number == trial.number for one in stored)
        if stored and has_been_stored and trial not in self._said_replaced:
            self._said_replaced.add(trial)
            better = min(stored, key=_order).name
            self._say(
                f"{trial.name}: its student is deleted unless it is registered; {better} is "
                "better on validation, confirmed and stored"
            )
        return bool(stored)

    def _remove_student(self, trial: TrialId, students: Students) -> None:
        """Remove it from this disk and from the store."""
        files = self._folder.trial(trial)
        tracked = files.read_tracked()
        if tracked.student in IN_STORE:
            state = self._store.drop(RunKey.of(trial))
            files.write_tracked(replace(tracked, student=state))
        remove_at_once(files.student)
        with self._lock:
            self._held[students].discard(trial)

    def _send_student(self, trial: TrialId, files: SweptTrial) -> None:
        """Move the student from this disk to the store, once its run is complete there."""
        tracked = files.read_tracked()
        if files.student.exists() and tracked.state == "complete":
            # The store may get a part of it and then go away.
            files.write_tracked(replace(tracked, student="begun"))
            self._store.keep(RunKey.of(trial), files.student, files.read_settings())
            files.write_tracked(replace(tracked, student="kept"))
            remove_at_once(files.student)

    def _find_held(self) -> dict[Students, set[TrialId]]:
        held: dict[Students, set[TrialId]] = {}
        for trial in self._folder.started_trials():
            files = self._folder.trial(trial)
            if files.result.exists() and (
                files.student.exists() or files.read_tracked().student in IN_STORE
            ):
                held.setdefault(Students(trial.strategy, trial.phase), set()).add(trial)
        return held


def _order(trial: TrialId) -> tuple[int, int]:
    return trial.number, trial.seed_index or 0
