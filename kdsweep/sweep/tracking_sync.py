"""Keeps the tracker up to date with home, in a separate thread, so that no slot waits for it.

Home is the truth. What a run should look like is read from the trial's folder, and `tracked.json`
next to it says what was sent. So an outage loses nothing: what is missing is sent when the tracker
answers again, or by the next run of the sweep, and never twice.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from kdsweep.errors import (
    FolderGone,
    KdsweepError,
    TrackingDamaged,
    TrackingRefused,
    TrackingUnreachable,
    first_line,
)
from kdsweep.formatting import count
from kdsweep.sweep.confirm_rules import look_of
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.run_updates import trial_update
from kdsweep.sweep.swept_trial import SweptTrial, Tracked
from kdsweep.sweep.tracked_students import Students, TrackedStudents
from kdsweep.tracking.base import RunKey, RunUpdate, Tracking
from kdsweep.trial_id import Phase, TrialId

FIRST_PAUSE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 60.0
# Runs that are sent together.
MOST_TOGETHER = 200
# After a second of work, the thread rests so long: it takes at most a fifth of a core from the
# driver, and what happens meanwhile is sent together.
SECONDS_OF_REST = 4.0
LONGEST_REST_SECONDS = 30.0
# How long `close` waits for a tracker that doesn't answer.
PATIENCE_SECONDS = 20.0

Send = Callable[[], None]


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
        # As the sweep is opened; while it runs, its space doesn't change.
        self._facts = folder.read_facts() if folder.exists() else None
        self._say = say
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Item, Send] = OrderedDict()
        self._busy = 0
        self._hurried = 0
        self._not_before = 0.0
        self._sent: dict[TrialId, Tracked] = {}
        self._closing = False
        self._over = False
        self._unreachable = False
        self._said_unreachable = False
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._refused: set[Item] = set()
        self._paused: frozenset[TrialId] = frozenset()
        self._said_refused: set[str] = set()
        self._students = TrackedStudents(tracking.students, folder, say)
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
        self._students.add(students, kept if ended is None else [*kept, ended])
        self._put(students, functools.partial(self._students.send, students, frozenset(kept)))

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
        if before.run_id is None or trial in self._sent:
            return False
        return before.run_id != self.tracking.runs.find(RunKey.of(trial))

    def pause(self, trials: frozenset[TrialId]) -> None:
        """The sweep stops before these trials have ended: show their runs as paused."""
        self._paused = trials
        for trial in trials:
            self.update_trial(trial)

    def update_those_behind(self, trials: Iterable[TrialId]) -> None:
        """Of these trials, which have ended, send those of which the tracker lacks a part."""
        for trial in trials:
            if self._is_behind(trial):
                self.update_trial(trial)

    def _is_behind(self, trial: TrialId) -> bool:
        files = self._folder.trial(trial)
        tracked = files.read_tracked()
        if tracked.state is None or tracked.look != self._look(trial):
            return True
        if tracked.outside != self._is_outside(trial):
            return True
        return files.student.exists() and tracked.state == "complete"

    def _is_outside(self, trial: TrialId) -> bool:
        """Whether it is from an earlier space."""
        return self._facts is not None and not self._facts.has_room_for(trial)

    def _look(self, trial: TrialId) -> int | None:
        """The look of `confirm.seeds: auto` that this run belongs to."""
        if trial.phase != "confirm" or trial.seed_index is None:
            return None
        return look_of(self._folder.read_facts().confirm, trial.seed_index)

    def wait_until_sent(self) -> None:
        """Wait until nothing is left to send."""
        with self._changed:
            self._hurried += 1
            self._changed.notify_all()
            while (self._waiting or self._busy) and not self._over:
                self._changed.wait()
            self._hurried -= 1

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
        while taken := self._take():
            started = time.thread_time()
            self._send(taken)
            with self._changed:
                self._busy = 0
                self._changed.notify_all()
            if any(isinstance(item, TrialId) for item in taken):
                rest = SECONDS_OF_REST * (time.thread_time() - started)
                self._not_before = time.monotonic() + min(rest, LONGEST_REST_SECONDS)

    def _send(self, taken: Mapping[Item, Send]) -> None:
        trials = [item for item in taken if isinstance(item, TrialId)]
        if len(trials) > 1:
            together = functools.partial(self._send_trials, trials)
            if self._try(taken, together) != "refused":
                return
        # One by one, so that only the one that something is wrong with is refused.
        left = dict(taken)
        while left and not self._over:
            item, send = next(iter(left.items()))
            del left[item]
            if self._try({item: send}, send) == "later":
                break
        self._put_back(left)

    def _try(self, items: Mapping[Item, Send], send: Send) -> Literal["sent", "later", "refused"]:
        """Send these items. Of several, nothing is said or noted where they are refused."""
        try:
            send()
        except FolderGone:
            # The driver finds that out at its own next write, and stops.
            self._put_back(items)
            self._over = True
            return "later"
        except TrackingDamaged as error:
            self._put_back(items)
            self._over = True
            self._say(f"{error}. Training continues without it")
            return "later"
        except TrackingUnreachable as error:
            # It may come back without some of its runs.
            self._sent.clear()
            self._put_back(items)
            self._wait_for_tracker(error)
            return "later"
        # The tracker can't take the item now. That must not stop the sweep: all numbers are in
        # home.
        except Exception as error:
            if len(items) > 1:
                return "refused"
            self._note_refused(next(iter(items)), error)
            return "refused"
        for item in items:
            self._was_sent(item)
        return "sent"

    def _note_refused(self, item: Item, error: Exception) -> None:
        if isinstance(error, TrackingRefused):
            self._was_sent(item)
            self._say_refused(error)
        else:
            self._refuse(item, error)

    def _take(self) -> dict[Item, Send]:
        """The next item when there is one: trials as many as there are, anything else alone.
        Empty at the end."""
        with self._changed:
            while not self._over:
                rest = self._not_before - time.monotonic()
                if self._waiting and (rest <= 0 or self._closing or self._hurried):
                    break
                self._changed.wait(rest if self._waiting else None)
            if self._over:
                return {}
            item, send = self._waiting.popitem(last=False)
            taken = {item: send}
            if isinstance(item, TrialId):
                for other in list(itertools.islice(self._waiting, MOST_TOGETHER - 1)):
                    # What isn't a trial keeps its place among them.
                    if not isinstance(other, TrialId):
                        break
                    taken[other] = self._waiting.pop(other)
            self._busy = len(taken)
            return taken

    def _put_back(self, items: Mapping[Item, Send]) -> None:
        """To be sent first, in this order, unless they were put again meanwhile."""
        with self._changed:
            for item, send in reversed(list(items.items())):
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
        before = files.read_tracked()
        if not self._is_lost(trial, before):
            update, tracked = self._update_of(files)
            run_id = self.update_run(RunKey.of(trial), update)
            self._note_sent(files, replace(tracked, run_id=run_id))
            return
        update, tracked = self._update_since(files, Tracked())
        run_id = self.update_run(RunKey.of(trial), update)
        if before.has_student and self._send_student_again(trial, before, files):
            tracked = replace(tracked, student="kept")
        self._note_sent(files, replace(tracked, run_id=run_id))

    def _send_trials(self, trials: Iterable[TrialId]) -> None:
        """Raises KdsweepError, or whatever a tracker raises, if that isn't possible at once."""
        updates: list[tuple[RunKey, RunUpdate]] = []
        sent: list[tuple[SweptTrial, Tracked]] = []
        for files in map(self._folder.trial, trials):
            if not files.settings.exists():
                continue
            update, tracked = self._update_of(files)
            if self._is_lost(files.id, tracked):
                raise KdsweepError(f"{files.id.name}: its run is lost")
            updates.append((RunKey.of(files.id), update))
            sent.append((files, tracked))
        run_ids = self.tracking.runs.update_all(updates)
        for (files, tracked), run_id in zip(sent, run_ids, strict=True):
            self._note_sent(files, replace(tracked, run_id=run_id))

    def _update_of(self, files: SweptTrial) -> tuple[RunUpdate, Tracked]:
        """What is new about the trial, and what the tracker will then have of it."""
        known = self._sent.get(files.id) or files.read_tracked()
        return self._update_since(files, known)

    def _update_since(self, files: SweptTrial, known: Tracked) -> tuple[RunUpdate, Tracked]:
        outside = self._is_outside(files.id)
        # One that was still running is not continued.
        paused = files.id in self._paused or outside
        look = self._look(files.id)
        return trial_update(files, known, paused=paused, look=look, outside=outside)

    def _note_sent(self, files: SweptTrial, tracked: Tracked) -> None:
        """Remember what the tracker has. Of a trial that runs, only its run is written: what is
        sent again changes nothing."""
        before = self._sent.pop(files.id, None)
        if tracked.state is None:
            self._sent[files.id] = tracked
        if before is None or tracked.state is not None or before.run_id != tracked.run_id:
            files.write_tracked(tracked)

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
