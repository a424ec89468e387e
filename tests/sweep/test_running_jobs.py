"""What the driver asks about the jobs that are on slots."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from kdsweep.core.evaluation.latency_figures import Device
from kdsweep.core.settings import TaskSettings
from kdsweep.sweep.engines.jobs import LatencyJob
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.running_jobs import RunningJob, RunningJobs

HERE = Place("here", Device(name="a processor", threads=1))


def test_a_machine_is_measuring_while_its_job_runs() -> None:
    job = LatencyJob("latency on here", cast(TaskSettings, None), (), (), Path("cache"))
    jobs = RunningJobs()
    jobs.add(RunningJob(job, HERE))
    assert jobs.is_measuring("here") and jobs.uses("here")
    assert not jobs.is_measuring("there") and not jobs.uses("there")
    jobs.pop(job.name)
    assert not jobs.is_measuring("here") and not jobs.uses("here")
