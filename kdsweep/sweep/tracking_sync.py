"""MLflow kept up to date with home, in a thread of its own, so that no slot waits for it.

Home is the truth: what a run should look like is read from the trial's folder, and `tracked.json` beside it says what was
sent. So nothing is lost when MLflow is away: it is sent when it is back, or by the next run of the sweep, and never twice.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdsweep.core.files import write_json
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import TrackingUnreachable
from kdsweep.sweep.folders import SweepFolder
from kdsweep.tracking.mlflow_tracker import Point, RunKey, Tracker, trial_params
from kdsweep.trial_id import Phase, TrialId

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 60.0


@dataclass(frozen=True)
class Students:
    """Which students of a strategy's trials, or of the runs that confirm its best one, are kept; the others' checkpoints go."""

    strategy: str
    phase: Phase


@dataclass(frozen=True)
class Once:
    """Something else to send, by name."""

    name: str


Item = TrialId | Students | Once


class Mirror:
    """The queue of what MLflow has to be told, and the thread that tells it. What is asked for twice is sent once."""

    def __init__(
        self, tracker: Tracker, folder: SweepFolder, metric: str, say: Callable[[str], None]
    ) -> None:
        self.tracker, self.folder, self.metric, self.say = tracker, folder, metric, say
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Item, Any] = OrderedDict()
        self._busy = self._closing = self._away = self._over = False
        self._refused: set[Item] = set()
        self._paused: frozenset[TrialId] = frozenset()
        self._held: dict[Students, set[TrialId]] = self._find_held()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    # --- from the driver's thread ------------------------------------------------------------------------------------

    def trial(self, trial: TrialId) -> None:
        """The trial began, was evaluated or ended."""
        self._put(trial, None)

    def students(
        self, students: Students, kept: tuple[TrialId, ...], ended: TrialId | None = None
    ) -> None:
        """These are the best students now; trial `ended` may have brought another."""
        with self._changed:
            self._held.setdefault(students, set()).update(kept if ended is None else (*kept, ended))
        self._put(students, kept)

    def once(self, name: str, send: Callable[[], None]) -> None:
        self._put(Once(name), send)

    def pause(self, open_trials: frozenset[TrialId]) -> None:
        """The sweep stops before these are over: their runs wait."""
        self._paused = open_trials
        for trial in open_trials:
            self._put(trial, None)

    def is_behind(self, trial: TrialId) -> bool:
        """Whether an ended trial was not sent whole."""
        files = self.folder.trial(trial)
        tracked = files.read_tracked()
        return tracked["state"] is None or (
            files.student.exists() and tracked["state"] == "complete"
        )

    def close(self, patience: float = 20.0) -> int:
        """Send what is left; give up when MLflow has been away for `patience` seconds. Returns how much is left."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            until = time.monotonic() + patience
            while (self._waiting or self._busy) and not (self._away and time.monotonic() > until):
                self._changed.wait(0.2)
                if not self._away:
                    until = time.monotonic() + patience
            left = len(self._waiting) + self._busy + len(self._refused)
            self._over = True
            self._changed.notify_all()
        self._thread.join(
            patience
        )  # or it would go on beside the thread of the sweep's next run in this process
        return left

    def _put(self, item: Item, value: Any) -> None:
        with self._changed:
            self._waiting[item] = value
            self._waiting.move_to_end(item)  # a trial's students come after its run
            self._changed.notify_all()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause, said = FIRST_PAUSE_SECONDS, False
        while True:
            with self._changed:
                while not self._waiting and not self._over:
                    self._changed.wait()
                if self._over:
                    return
                item, value = self._waiting.popitem(last=False)
                self._busy = True
            try:
                self._send(item, value)
                self._refused.discard(item)
                if said:
                    self.say("tracking: MLflow is back; sending what was kept")
                self._away, said, pause = False, False, FIRST_PAUSE_SECONDS
            except TrackingUnreachable as error:
                self._keep(item, value)
                if self._away and not said:  # not for a single call that failed
                    said = True
                    self.say(
                        f"{error}; the trials go on, what it should know is kept and sent later"
                    )
                self._away = True
                self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            except Exception as error:  # refused for good: the sweep is worth more than its picture, and the numbers are in home
                if not self._refused:
                    self.say(
                        f"tracking: MLflow refused {item}: {(str(error).splitlines() or [''])[0]}; the next `kdsweep run` tries again"
                    )
                self._refused.add(item)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _pause(self, seconds: float) -> None:
        """Let MLflow come back; only a moment when the sweep waits for its end."""
        until = time.monotonic() + seconds
        with self._changed:
            while (left := until - time.monotonic()) > 0 and not self._closing:
                self._changed.wait(left)
        if self._closing:
            time.sleep(min(seconds, 1.0))

    def _keep(self, item: Item, value: Any) -> None:
        with self._changed:
            self._waiting.setdefault(item, value)
            self._waiting.move_to_end(item, last=False)

    def _send(self, item: Item, value: Any) -> None:
        match item:
            case TrialId():
                self._send_trial(item)
            case Students():
                self._send_students(item, value)
            case Once():
                value()

    def _send_trial(self, trial: TrialId) -> None:
        files = self.folder.trial(trial)
        if not files.settings.exists():
            return  # asked for and not begun
        tracked, result = files.read_tracked(), files.read_result()
        evaluations = [
            one for one in files.read_evaluations() if result is None or one.step <= result.steps
        ]
        points = [
            Point(name, value, one.timestamp, one.step)
            for one in evaluations[tracked["evaluations"] :]
            for name, value in one.metrics.items()
        ]
        tags: dict[str, str] = {}
        if lost := files.read_lost():
            tags["kdsweep.attempts"] = str(len(lost) + (result is None or result.state != "failed"))
        ended = None
        if result is not None:
            ended = int(files.result.stat().st_mtime * 1000)
            tags["kdsweep.state"] = result.state
            if result.reason:
                tags["kdsweep.reason"] = result.reason
            if result.micro_batch:
                tags["kdsweep.micro_batch"] = str(result.micro_batch)
            once = {"seconds": result.seconds} | {
                f"student/{name}": value for name, value in (result.student or {}).items()
            }
            if result.best is not None and result.state == "complete":
                once |= {
                    f"best/{name}": value
                    for name, value in result.best.metrics.items()
                    if name.startswith("validation/")
                }
            once |= {f"test/{name}": value for name, value in (result.test or {}).items()}
            points += [Point(name, value, ended, 0) for name, value in once.items()]
        settings = (
            TrialSettings.model_validate_json(files.settings.read_text(encoding="utf-8"))
            if tracked["run_id"] is None
            else None
        )
        run_id = self.tracker.write(
            RunKey.of(trial),
            params=trial_params(settings) if settings else {},
            tags=tags,
            points=points,
            state=result.state if result else "paused" if trial in self._paused else "running",
            started=evaluations[0].timestamp - int(1000 * evaluations[0].seconds)
            if evaluations
            else None,
            ended=ended,
        )
        write_json(
            files.tracked,
            tracked
            | {
                "run_id": run_id,
                "evaluations": len(evaluations),
                "state": result.state if result else None,
            },
        )

    def _send_students(self, students: Students, kept: tuple[TrialId, ...]) -> None:
        for trial in sorted(
            self._held[students], key=lambda trial: (trial.number, trial.seed_index or 0)
        ):
            files = self.folder.trial(trial)
            tracked = files.read_tracked()
            if trial in kept:
                if files.student.exists() and tracked["state"] == "complete":
                    settings = TrialSettings.model_validate_json(
                        files.settings.read_text(encoding="utf-8")
                    )
                    how: dict[str, Any] = {
                        "text": settings.task.text,
                        "max_length": settings.training.max_length,
                        "truncation": settings.task.truncation,
                    }
                    self.tracker.upload_student(tracked["run_id"], files.student, **how)
                    self.tracker.tag(tracked["run_id"], {"kdsweep.student": "kept"})
                    write_json(files.tracked, tracked | {"student": "kept"})
                    shutil.rmtree(files.student)
                continue
            if tracked["student"] == "kept":
                write_json(
                    files.tracked,
                    tracked | {"student": self.tracker.drop_student(tracked["run_id"])},
                )
            shutil.rmtree(files.student, ignore_errors=True)
            with self._changed:
                self._held[students].discard(trial)

    def _find_held(self) -> dict[Students, set[TrialId]]:
        """The trials whose student is on this disk or in MLflow, of each strategy and phase."""
        held: dict[Students, set[TrialId]] = {}
        for trial in self.folder.started_trials():
            files = self.folder.trial(trial)
            if files.result.exists() and (
                files.student.exists() or files.read_tracked()["student"] == "kept"
            ):
                held.setdefault(Students(trial.strategy, trial.phase), set()).add(trial)
        return held
