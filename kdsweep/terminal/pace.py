"""How fast a running sweep is: what its jobs took so far, and what is left, in words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import NamedTuple

from kdsweep.formatting import count, count_range, duration
from kdsweep.sweep.progress import SweepProgress
from kdsweep.sweep.time_left import Durations, JobsLeft, time_left

# Of TrialId.name: a trial, and a run with a fresh seed.
TRIAL, SEED_RUN = re.compile(r".*-\d+"), re.compile(r".*-\d+-(seed|finalist)-\d+")
# The last step that is reported before a job's end may be a little earlier.
NEARLY_ALL_STEPS = 0.9


class _Job(NamedTuple):
    """A trial or a run that runs. since: by the clock. share: of its steps that are done."""

    since: float
    share: float


class Pace:
    """Counts what an observer hears of. clock: seconds, as `time.monotonic`.

    A separate thread may read it, so attributes are replaced, never changed in place.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, _Job] = {}
        self._durations = Durations()
        self._most_at_once = 1
        self.sweep, self._told_at = SweepProgress(), clock()

    def step(self, name: str, step: int, total_steps: int) -> None:
        if TRIAL.fullmatch(name):
            before = self._running.get(name)
            since = self._clock() if before is None else before.since
            self._running = self._running | {name: _Job(since, step / max(1, total_steps))}
            self._most_at_once = max(self._most_at_once, len(self._running))

    def over(self, name: str) -> None:
        if (job := self._running.get(name)) is None:
            return
        seconds = self._clock() - job.since
        if SEED_RUN.fullmatch(name):
            self._durations.runs.append(seconds)
        elif job.share >= NEARLY_ALL_STEPS:
            self._durations.full.append(seconds)
        else:
            self._durations.pruned.append(seconds)
            if job.share > 0:
                self._durations.projected.append(seconds / job.share)
        self._running = {other: one for other, one in self._running.items() if other != name}

    def progress(self, sweep: SweepProgress) -> None:
        self.sweep, self._told_at = sweep, self._clock()

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        """(least, most), as `time_left` says."""
        now, runs = self._clock(), self.sweep.seed_runs
        running = [now - job.since for job in self._running.values()]
        more = max(0, runs.planned_at_most - runs.planned)
        left = JobsLeft(self.sweep.trials_left, max(0, runs.planned - runs.ended), more, running)
        return time_left(self._durations, left, self._most_at_once)

    @property
    def words(self) -> str:
        """`12 min 3 s spent, about 4 min 0 s to 7 min 0 s left, 3 trials and 4 to 12 runs`."""
        spent = f"{duration(self.sweep.seconds + self._clock() - self._told_at)} spent"
        jobs = self._jobs_left()
        if not jobs:
            return spent
        if (found := self.seconds_left) is None:
            return f"{spent}, {jobs} left"
        least, most = (duration(seconds) for seconds in found)
        between = least if found[1] < 1.1 * found[0] else f"{least} to {most}"
        return f"{spent}, about {between} left, {jobs}"

    def _jobs_left(self) -> str:
        """`3 trials and 4 to 12 runs`; empty where nothing is left, or nothing is known yet."""
        trials, runs = self.sweep.trials_left, self.sweep.seed_runs
        least = runs.planned - runs.ended
        most = max(least, runs.planned_at_most - runs.ended)
        parts = [count(trials, "trial")] if trials else []
        if most and self.sweep.strategies:
            parts.append(count_range(least, most, "run"))
        return " and ".join(parts)
