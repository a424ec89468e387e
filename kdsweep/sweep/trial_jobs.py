"""The jobs that train a sweep's trials."""

from __future__ import annotations

from collections.abc import Mapping

from kdsweep.sweep.engines.jobs import TrialJob
from kdsweep.sweep.open_sweep import OpenSweep
from kdsweep.sweep.teacher_threads import kept_threads
from kdsweep.sweep.work_queue import Work


class TrialJobs:
    """Makes the job of each trial. What all of them are given is read once, when the rows are."""

    def __init__(self, sweep: OpenSweep) -> None:
        self._sweep = sweep
        self._pins = sweep.folder.read_facts().pins
        self._teacher_threads = kept_threads(sweep.plan, sweep.folder)

    def job(self, work: Work, latency: Mapping[str, float] | None) -> TrialJob:
        """latency: of its architecture, as of a `TrialJob`."""
        return TrialJob(
            work.id,
            work.settings,
            self._sweep.folder.trial(work.id).root,
            self._sweep.home.cache,
            latency,
            sweep=self._sweep.plan.name,
            pins=self._pins,
            teacher_threads=self._teacher_threads,
        )
