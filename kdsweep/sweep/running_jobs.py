"""The jobs that are on slots now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdsweep.core.trial_folder import Evaluation
from kdsweep.sweep.engines.jobs import Job, LatencyJob
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.work_queue import Work


@dataclass
class RunningJob:
    """A job on a slot at `place`.

    work: the trial that it trains; None for other jobs. last: its last evaluation. pruned_at: the
    evaluation after which it was pruned. It may run a few more steps before the stop arrives.
    """

    job: Job
    place: Place
    work: Work | None = None
    evaluations: int = 0
    last: Evaluation | None = None
    pruned_at: Evaluation | None = None

    def how_far(self) -> tuple[int, float]:
        """(steps, seconds) at the evaluation that counts."""
        at = self.pruned_at or self.last
        return (at.step, at.seconds) if at else (0, 0.0)


class RunningJobs:
    """Jobs by name. None of its questions looks at all of them, unless it says so."""

    def __init__(self) -> None:
        self._jobs: dict[str, RunningJob] = {}
        self._measuring: set[str] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, name: str) -> RunningJob:
        return self._jobs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def add(self, running: RunningJob) -> None:
        self._jobs[running.job.name] = running
        if isinstance(running.job, LatencyJob):
            self._measuring.add(running.place.host)

    def pop(self, name: str) -> RunningJob:
        running = self._jobs.pop(name)
        if isinstance(running.job, LatencyJob):
            self._measuring.discard(running.place.host)
        return running

    def is_measuring(self, host: str) -> bool:
        """Whether latency is measured on this machine, which nothing may disturb."""
        return host in self._measuring

    def uses(self, host: str) -> bool:
        """Whether a job runs on this machine. Looks at all of them."""
        return any(one.place.host == host for one in self._jobs.values())
