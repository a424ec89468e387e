"""How fast a running sweep is: what its jobs took so far, and what is left, in words."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from kdsweep.formatting import count, duration
from kdsweep.sweep.progress import Progress, SeedRunCounts
from kdsweep.sweep.time_left import Durations, JobsLeft, time_left

# Of TrialId.name: a trial, and a run with a fresh seed.
TRIAL, SEED_RUN = re.compile(r".*-\d+"), re.compile(r".*-\d+-(seed|finalist)-\d+")
# The last step that is reported before a job's end may be a little earlier.
NEARLY_ALL_STEPS = 0.9


class Pace:
    """Counts what an observer hears of. clock: seconds, as `time.monotonic`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._steps: dict[str, float] = {}
        self._durations = Durations()
        self._most_at_once = 1
        self._strategies: dict[str, Progress] = {}
        self._trials: dict[str, int] = {}
        self._runs = SeedRunCounts()
        self._spent, self._spent_at = 0.0, clock()

    def step(self, name: str, step: int, total_steps: int) -> None:
        if TRIAL.fullmatch(name):
            self._since = {name: self._clock()} | self._since
            self._steps = self._steps | {name: step / max(1, total_steps)}
            self._most_at_once = max(self._most_at_once, len(self._since))

    def over(self, name: str) -> None:
        if name not in self._since:
            return
        seconds = self._clock() - self._since[name]
        if SEED_RUN.fullmatch(name):
            self._durations.runs.append(seconds)
        elif self._steps[name] >= NEARLY_ALL_STEPS:
            self._durations.full.append(seconds)
        else:
            self._durations.pruned.append(seconds)
            if self._steps[name] > 0:
                self._durations.projected.append(seconds / self._steps[name])
        self._since = {other: since for other, since in self._since.items() if other != name}

    def progress(
        self,
        strategies: dict[str, Progress],
        trials: dict[str, int],
        seed_runs: SeedRunCounts,
        seconds: float,
    ) -> None:
        self._strategies, self._trials, self._runs = strategies, trials, seed_runs
        self._spent, self._spent_at = seconds, self._clock()

    @property
    def seconds_left(self) -> tuple[float, float] | None:
        """(least, most), as `time_left` says."""
        now = self._clock()
        running = [now - since for since in self._since.values()]
        more = self._runs.planned_at_most - self._runs.planned
        runs = self._runs.planned - self._runs.ended
        left = JobsLeft(self._trials_left(), max(0, runs), max(0, more), running)
        return time_left(self._durations, left, self._most_at_once)

    @property
    def words(self) -> str:
        """`12 min 3 s spent, about 4 min 0 s to 7 min 0 s left (3 trials, 4 to 12 runs)`."""
        spent = f"{duration(self._spent + self._clock() - self._spent_at)} spent"
        if not self._strategies:
            return spent
        runs = self._runs.planned - self._runs.ended
        at_most = max(runs, self._runs.planned_at_most - self._runs.ended)
        parts = [count(self._trials_left(), "trial")] if self._trials_left() else []
        if at_most:
            parts.append(
                f"{runs} to {count(at_most, 'run')}" if at_most > runs else count(runs, "run")
            )
        jobs = f", {' and '.join(parts)} left" if parts else ""
        if not parts or (found := self.seconds_left) is None:
            return spent + jobs
        least, most = (duration(seconds) for seconds in found)
        between = least if found[1] < 1.1 * found[0] else f"{least} to {most}"
        return f"{spent}, about {between} left{jobs.removesuffix(' left')}"

    def _trials_left(self) -> int:
        return sum(
            self._trials[strategy] - progress.finished
            for strategy, progress in self._strategies.items()
        )
