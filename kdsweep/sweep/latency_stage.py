"""Measuring how long students take for one row: once for each architecture, while nothing else
runs on that machine. Every trial of the architecture has that figure.

At the end of the sweep all architectures are measured again, in turn.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping

from kdsweep.config.student_shapes import shapes_of_students
from kdsweep.core.evaluation.latency_figures import Device, MeasuredShapes, ModelShape
from kdsweep.core.files import write_atomically
from kdsweep.core.hub.repository import shown
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import KdsweepError
from kdsweep.formatting import count, milliseconds
from kdsweep.sweep.engines.events import Ended, WorkerLost
from kdsweep.sweep.engines.jobs import LatencyJob
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.latency_file import LatencyFile
from kdsweep.sweep.open_sweep import OpenSweep
from kdsweep.sweep.worker_failures import WorkerFailures

# How long a sweep that has nothing else to do waits for a slot to measure again.
MOST_SECONDS_FOR_A_SLOT = 60.0


class LatencyStage:
    """What is to be measured, and what was.

    A sweep that was created before this rule existed has none of it: there each trial measures its
    own student when it ends.
    """

    def __init__(self, sweep: OpenSweep) -> None:
        self._sweep = sweep
        self._file = LatencyFile.read(sweep.folder.latency)
        self._is_used = sweep.folder.read_facts().latency == "once"
        self._wanted: dict[Device, dict[ModelShape, None]] = {}
        self._measuring: set[Device] = set()
        self._unmeasured: set[ModelShape] = set()
        self._again = {one.device for one in self._file.architectures if one.last is None}
        self._worker_failures: Counter[Device] = Counter()
        self._waiting_since: float | None = None

    # --- before trials ---------------------------------------------------------------------------

    @property
    def is_first(self) -> bool:
        """Whether nothing is measured yet, so that other slots should not even start."""
        return self._is_used and not self._file.architectures and not self._unmeasured

    def costs(self, settings: TrialSettings, device: Device) -> Mapping[str, float] | None:
        """What a trial's student will be said to take on this kind of device; None: it measures."""
        found = self._file.find(ModelShape.of_student(settings), device)
        return found.first.costs if found is not None and self._is_used else None

    def is_needed_for(self, settings: TrialSettings, device: Device) -> bool:
        """Whether the trial must wait until its architecture is measured; if so, it will be."""
        shape = ModelShape.of_student(settings)
        if not self._is_missing(shape, device):
            return False
        self._wanted.setdefault(device, {})[shape] = None
        return True

    def holds(self, device: Device) -> bool:
        """Whether slots of this kind wait for a measurement, or one is due before they start."""
        if device not in self._wanted:
            missing = [shape for shape in self._shapes() if self._is_missing(shape, device)]
            self._wanted[device] = dict.fromkeys(missing)
        return bool(self._wanted[device])

    def job(self, place: Place) -> LatencyJob | None:
        """What is to be measured there, now that nothing runs there; None if another machine is
        measuring it."""
        device = place.device
        if device in self._measuring:
            return None
        return self._job(place, tuple(self._wanted[device]))

    def _shapes(self) -> list[ModelShape]:
        """Of all students that may be trained, as far as they can be listed, and of teachers."""
        space = self._sweep.plan.space
        teachers = [ModelShape.of_teacher(settings) for settings in space.teachers()]
        return [*shapes_of_students(space), *teachers]

    def _is_missing(self, shape: ModelShape, device: Device) -> bool:
        if not self._is_used or shape in self._unmeasured:
            return False
        return self._file.find(shape, device) is None

    # --- at the end of the sweep -----------------------------------------------------------------

    def trial_ended(self) -> None:
        """What was measured at an earlier end of the sweep is measured again at the next one."""
        self._again = {one.device for one in self._file.architectures}

    def is_left(self, places: Collection[Place] | None = None) -> bool:
        """Whether something is to be measured again.

        places: of all slots; None where there are none yet.
        """
        if not self._is_used or not self._again:
            return False
        if places is None:
            return True
        if not places:
            now = time.monotonic()
            self._waiting_since = self._waiting_since or now
            return now - self._waiting_since < MOST_SECONDS_FOR_A_SLOT
        return any(place.device in self._again for place in places)

    def last_job(self, place: Place) -> LatencyJob | None:
        """The architectures of this kind of device once more."""
        if not self._is_used or place.device not in self._again:
            return None
        shapes = tuple(one.asked[0] for one in self._file.on(place.device))
        return self._job(place, shapes, again=True)

    # --- how it went -----------------------------------------------------------------------------

    def _job(
        self, place: Place, shapes: tuple[ModelShape, ...], *, again: bool = False
    ) -> LatencyJob:
        self._measuring.add(place.device)
        return LatencyJob(
            f"latency on {place.host}",
            self._sweep.plan.space.task,
            shapes,
            () if again else self._file.on(place.device),
            self._sweep.home.cache,
            again,
        )

    def add(self, job: LatencyJob, measured: MeasuredShapes) -> None:
        """Write what was measured."""
        say = self._sweep.observer.say
        self._file.add(measured.found, again=job.again)
        for shape, reason in measured.unmeasured:
            self._unmeasured.add(shape)
            say(f"latency: {shown(shape.model)} can't be measured before its trials: {reason}")
        if measured.found:
            figures = ", ".join(milliseconds(one.first.latency_ms) for one in measured.found)
            again = " again" if job.again else ""
            architectures = count(len(measured.found), "architecture")
            say(f"latency: {architectures} measured{again}, each alone: {figures}")

    def ended(self, job: LatencyJob, place: Place, event: Ended) -> KdsweepError | None:
        """Returns the error that ends the sweep."""
        device = place.device
        self._measuring.discard(device)
        if event.outcome == "complete":
            del self._worker_failures[device]
            if job.again:
                self._again.discard(device)
            for shape in job.shapes:
                self._wanted.get(device, {}).pop(shape, None)
            return None
        if event.outcome not in ("failed", "diverged"):
            return None
        if job.again:
            self._give_up(device, event.reason)
            return None
        if (trace := event.trace) is not None:
            file = self._sweep.folder.root / "error.txt"
            write_atomically(file, lambda stream: stream.write(trace.encode()))
        return KdsweepError(f"latency can't be measured: {event.reason}")

    def lost(self, job: LatencyJob, place: Place, event: WorkerLost) -> KdsweepError | None:
        """The worker is gone. Returns the error that ends the sweep, or None."""
        reason = event.reason
        self._measuring.discard(place.device)
        if not event.counts:
            self._sweep.observer.say(f"latency: {reason}; it starts again")
            return None
        self._worker_failures[place.device] += 1
        failures = WorkerFailures(self._worker_failures[place.device])
        self._sweep.observer.say(f"latency: {reason} ({failures})")
        if not failures.are_too_many:
            return None
        if job.again:
            self._give_up(place.device, reason)
            return None
        return KdsweepError(f"latency can't be measured: the process {failures.died}: {reason}")

    def _give_up(self, device: Device, reason: str | None) -> None:
        """Keep the results of the sweep without the last measurement."""
        self._again.discard(device)
        self._sweep.observer.say(f"latency can't be measured again: {reason}")
