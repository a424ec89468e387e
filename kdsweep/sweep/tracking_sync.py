"""Keeps the tracker up to date with home, in a separate thread, so that no slot waits for it.

Home is the truth. What a run should look like is read from the trial's folder, and `tracked.json`
next to it says what was sent. So an outage loses nothing: what is missing is sent when the tracker
answers again, or by the next run of the sweep, and never twice.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from kdsweep.core.files import remove_at_once
from kdsweep.errors import (
    FolderGone,
    KdsweepError,
    TrackingDamaged,
    TrackingRefused,
    TrackingUnreachable,
    first_line,
)
from kdsweep.formatting import count
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.run_updates import trial_update
from kdsweep.sweep.swept_trial import SweptTrial, Tracked
from kdsweep.tracking.base import RunKey, RunUpdate, Tracking
from kdsweep.trial_id import Phase, TrialId

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
# How long `close` waits for a tracker that doesn't answer.
PATIENCE_SECONDS = 20.0

Send = Callable[[], None]


@dataclass(frozen=True)
class Students:
    """The students of a strategy's trials, or of the runs that confirm its best one."""

    strategy: str
    phase: Phase

    @property
    def name(self) -> str:
        return f"students of {self.strategy} ({self.phase})"


@dataclass(frozen=True)
class Other:
    """Something else to send, known by its name."""

    name: str


Item = TrialId | Students | Other


class TrackingSync:
    """A queue of what the tracker is missing, and the thread that sends it.

    An item that is put twice before it was sent is sent once.
    """

    def __init__(self, tracking: Tracking, folder: SweepFolder, say: Callable[[str], None]) -> None:
        self.tracking = tracking
        self._folder = folder
        self._say = say
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Item, Send] = OrderedDict()
        self._busy = False
        self._closing = False
        self._over = False
        self._unreachable = False
        self._said_unreachable = False
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._refused: set[Item] = set()
        self._paused: frozenset[TrialId] = frozenset()
        self._said_replaced: set[TrialId] = set()
        self._said_refused: set[str] = set()
        # Trials whose student is on this disk or in the store.
        self._held: dict[Students, set[TrialId]] = self._find_held()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    # --- from the driver's thread ----------------------------------------------------------------

    def update_trial(self, trial: TrialId) -> None:
        """The trial started, was evaluated, or ended."""
        self._put(trial, functools.partial(self._send_trial, trial))

    def keep_students(
        self,
        strategy: str,
        phase: Phase,
        kept: Collection[TrialId],
        ended: TrialId | None = None,
    ) -> None:
        """Keep these students and remove the others.

        ended: a trial that has just ended, and so may have left another student.
        """
        students = Students(strategy, phase)
        with self._changed:
            held = self._held.setdefault(students, set())
            held.update(kept)
            if ended is not None:
                held.add(ended)
        self._put(students, functools.partial(self._send_students, students, frozenset(kept)))

    def send_once(self, name: str, send: Send) -> None:
        """Call `send`, again if the tracker didn't answer."""
        self._put(Other(name), send)

    def send_lost_runs(self) -> None:
        """Send again the runs that the tracker had and lacks now: its database is another one."""
        self.send_once("lost runs", self._send_lost_runs)

    def _send_lost_runs(self) -> None:
        lost = [
            trial
            for trial in self._folder.started_trials()
            if self._is_lost(trial, self._folder.trial(trial).read_tracked())
        ]
        if lost:
            self._say(
                f"tracking: {self.tracking.runs.name} lacks {count(len(lost), 'run')} that it "
                "had; sending again"
            )
        # Before anything that is already waiting, such as the best student's registration.
        for trial in lost:
            self._send_trial(trial)

    def _is_lost(self, trial: TrialId, before: Tracked) -> bool:
        """Whether the tracker had the trial's run and doesn't have it now."""
        return before.run_id not in (None, self.tracking.runs.find(RunKey.of(trial)))

    def pause(self, trials: frozenset[TrialId]) -> None:
        """The sweep stops before these trials have ended: show their runs as paused."""
        self._paused = trials
        for trial in trials:
            self.update_trial(trial)

    def is_behind(self, trial: TrialId) -> bool:
        """Whether the tracker lacks a part of this trial, which has ended."""
        files = self._folder.trial(trial)
        state = files.read_tracked().state
        return state is None or (files.student.exists() and state == "complete")

    def wait_until_sent(self) -> None:
        """Wait until nothing is left to send."""
        with self._changed:
            while (self._waiting or self._busy) and not self._over:
                self._changed.wait()

    @property
    def is_away(self) -> bool:
        """After `close`: whether something is left because the tracker didn't answer."""
        return self._unreachable and bool(self._waiting or self._busy)

    def close(self, patience: float = PATIENCE_SECONDS) -> int:
        """Send what is left, until the tracker hasn't answered for `patience` seconds.

        Returns how many items are left.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            until = time.monotonic() + patience
            while self._waiting or self._busy:
                if self._over:
                    break
                if not self._unreachable:
                    until = time.monotonic() + patience
                elif time.monotonic() > until:
                    break
                self._changed.wait(0.2)
            left = len(self._waiting) + self._busy + len(self._refused)
            self._over = True
            self._changed.notify_all()
        # Otherwise it could still run when this process runs the sweep again.
        self._thread.join(patience)
        return left

    def abandon(self) -> None:
        """Send nothing more: home is gone."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join(PATIENCE_SECONDS)

    def _put(self, item: Item, send: Send) -> None:
        with self._changed:
            self._waiting[item] = send
            # A trial's students are sent after its run.
            self._waiting.move_to_end(item)
            self._changed.notify_all()

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            item, send = taken
            try:
                send()
            except FolderGone:
                # The driver finds that out at its own next write, and stops.
                self._put_back(item, send)
                self._over = True
            except TrackingDamaged as error:
                self._put_back(item, send)
                self._over = True
                self._say(f"{error}. Training continues without it")
            except TrackingUnreachable as error:
                self._put_back(item, send)
                self._wait_for_tracker(error)
            except TrackingRefused as error:
                self._was_sent(item)
                self._say_refused(error)
            # The tracker can't take the item now. That must not stop the sweep: all numbers are in
            # home.
            except Exception as error:
                self._refuse(item, error)
            else:
                self._was_sent(item)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _take(self) -> tuple[Item, Send] | None:
        """The next item, when there is one. None at the end."""
        with self._changed:
            while not self._waiting and not self._over:
                self._changed.wait()
            if self._over:
                return None
            self._busy = True
            return self._waiting.popitem(last=False)

    def _put_back(self, item: Item, send: Send) -> None:
        """To be sent first, unless it was put again meanwhile."""
        with self._changed:
            self._waiting.setdefault(item, send)
            self._waiting.move_to_end(item, last=False)

    def _wait_for_tracker(self, error: TrackingUnreachable) -> None:
        # A single call that failed is not worth a message.
        if self._unreachable and not self._said_unreachable:
            self._said_unreachable = True
            self._say(f"{error}; training continues, and the runs are sent later")
        self._unreachable = True
        self._sleep(self._pause_seconds)
        self._pause_seconds = min(2 * self._pause_seconds, LONGEST_PAUSE_SECONDS)

    def _sleep(self, seconds: float) -> None:
        """Give the tracker time to come back; only a moment once the sweep waits for its end."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0 and not self._closing:
                self._changed.wait(left)
        if self._closing:
            time.sleep(min(seconds, 1.0))

    def _refuse(self, item: Item, error: Exception) -> None:
        if not self._refused:
            said = f"tracking: {self.tracking.runs.name} refused {item.name}: {first_line(error)}"
            if isinstance(error, KdsweepError):
                said = str(error)
            self._say(f"{said}; the next `kdsweep run` tries again")
        self._refused.add(item)

    def _say_refused(self, error: TrackingRefused) -> None:
        """Once for each thing that the tracker never takes: every run would have it."""
        if str(error) not in self._said_refused:
            self._said_refused.add(str(error))
            self._say(str(error))

    def _was_sent(self, item: Item) -> None:
        self._refused.discard(item)
        if self._said_unreachable:
            self._say(f"tracking: {self.tracking.runs.name} answers again; sending what it missed")
        self._unreachable = False
        self._said_unreachable = False
        self._pause_seconds = FIRST_PAUSE_SECONDS

    # --- what is sent ----------------------------------------------------------------------------

    def _send_trial(self, trial: TrialId) -> None:
        files = self._folder.trial(trial)
        if not files.settings.exists():
            # The sampler was asked for it, but it was not started.
            return
        paused = trial in self._paused
        before = files.read_tracked()
        is_lost = self._is_lost(trial, before)
        known = Tracked() if is_lost else before
        update, tracked = trial_update(files, known, paused=paused)
        run_id = self.update_run(RunKey.of(trial), update)
        if is_lost and before.has_student and self._send_student_again(trial, before, files):
            tracked = replace(tracked, student="kept")
        files.write_tracked(replace(tracked, run_id=run_id))

    def _send_student_again(self, trial: TrialId, before: Tracked, files: SweptTrial) -> bool:
        """Copy the student of a run that the tracker has lost to the one that replaces it.

        Returns whether the student is still there.
        """
        assert before.run_id is not None
        folder = self.tracking.students.left_behind(before.run_id)
        if folder is None:
            self._say(
                f"{trial.name}: its student is gone with its run; `kdsweep replay "
                f"{self._folder.name} {trial.name}` makes it again"
            )
            return False
        self.tracking.students.keep(RunKey.of(trial), folder, files.read_settings())
        return True

    def update_run(self, run: RunKey, update: RunUpdate) -> str:
        """The tracker's own id of the run, also if it refused a part of the update.

        Only for the thread and for what it calls.
        """
        try:
            return self.tracking.runs.update(run, update)
        except TrackingRefused as error:
            if error.run_id is None:
                raise
            self._say_refused(error)
            return error.run_id

    def _send_students(self, students: Students, kept: Collection[TrialId]) -> None:
        with self._changed:
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
        if trial.phase == "search":
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
        if tracked.student == "kept":
            state = self.tracking.students.drop(RunKey.of(trial))
            files.write_tracked(replace(tracked, student=state))
        remove_at_once(files.student)
        with self._changed:
            self._held[students].discard(trial)

    def _send_student(self, trial: TrialId, files: SweptTrial) -> None:
        """Move the student from this disk to the store, once its run is complete there."""
        tracked = files.read_tracked()
        if files.student.exists() and tracked.state == "complete":
            self.tracking.students.keep(RunKey.of(trial), files.student, files.read_settings())
            files.write_tracked(replace(tracked, student="kept"))
            remove_at_once(files.student)

    def _find_held(self) -> dict[Students, set[TrialId]]:
        held: dict[Students, set[TrialId]] = {}
        for trial in self._folder.started_trials():
            files = self._folder.trial(trial)
            if files.result.exists() and (
                files.student.exists() or files.read_tracked().student == "kept"
            ):
                held.setdefault(Students(trial.strategy, trial.phase), set()).add(trial)
        return held


def _order(trial: TrialId) -> tuple[int, int]:
    return trial.number, trial.seed_index or 0
