"""Sweeps as processes, and what must be equal when nothing was lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from mlflow import MlflowClient

from kdsweep.sweep.folders import Home

# Which trial is asked for doesn't depend on which one ends first, so two sweeps can be compared
# trial by trial.
PLAIN = ("sampler={type: random}", "pruner={type: none}", "confirm={seeds: 0}")
ON_RAY = "engine={type: ray, cpus_per_trial: 1, cpus: 2}"
# The same numbers as on Ray, without the time that Ray takes to start.
INLINE = "engine={type: inline}"


class Sweep:
    """`kdsweep run` as a separate process, in a separate session."""

    def __init__(self, space: Path, home: Path, assignments: tuple[str, ...]) -> None:
        self.home = Home(home)
        sets = [part for text in assignments for part in ("--set", text)]
        command = [sys.executable, "-m", "kdsweep", "run", str(space), "--home", str(home), *sets]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, condition: Callable[[], Any], seconds: float = 300) -> bool:
        """Wait until it holds. False if the process ended first."""
        until = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < until, "the condition never held"
            time.sleep(0.005)
        return True

    def evaluations(self) -> int:
        return sum(
            len(file.read_text().splitlines())
            for file in self.home.sweep("tiny").trials.glob("*/metrics.jsonl")
        )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def end(self, seconds: float = 300) -> tuple[int, str, str]:
        """Wait for its end: status, output and errors."""
        output, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, output, errors


def trials_of(home: Home, storage: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
    url = storage or home.storage_url("sqlite")
    studies = {
        name: optuna.load_study(study_name=name, storage=url)
        for name in optuna.get_all_study_names(url)
    }
    return {
        name.split("/")[1]: [
            (trial.params, trial.state, trial.value, trial.intermediate_values)
            for trial in study.trials
        ]
        for name, study in studies.items()
    }


def metrics_of(home: Home) -> dict[str, list[dict[str, float]]]:
    files = sorted(home.sweep("tiny").trials.glob("*/metrics.jsonl"))
    assert files
    return {
        file.parent.name: [json.loads(line)["metrics"] for line in file.read_text().splitlines()]
        for file in files
    }


def runs_of(home: Home, uri: str | None = None) -> list[Any]:
    client = MlflowClient(tracking_uri=uri or home.tracking_uri("sqlite"))
    return list(
        client.search_runs([client.get_experiment_by_name("tiny").experiment_id], max_results=1000)
    )


def assert_same_sweep(
    home: Home, undisturbed: Home, uri: str | None = None, storage: str | None = None
) -> None:
    """The same trials and numbers in Optuna, on disk and in MLflow, each of them once."""
    found = trials_of(home, storage)
    assert found == trials_of(undisturbed)
    assert metrics_of(home) == metrics_of(undisturbed)
    client = MlflowClient(tracking_uri=uri or home.tracking_uri("sqlite"))
    runs = runs_of(home, uri)
    count = sum(len(trials) for trials in found.values())
    assert sorted(run.data.tags["kdsweep.phase"] for run in runs) == ["search"] * count + [
        "sweep",
        "teacher",
    ]
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}
    for one in runs:
        if one.data.tags["kdsweep.phase"] == "search":
            trial = found[one.data.tags["kdsweep.strategy"]][int(one.data.tags["kdsweep.trial"])]
            history = client.get_metric_history(one.info.run_id, "validation/accuracy")
            assert [point.value for point in sorted(history, key=lambda point: point.step)] == list(
                trial[3].values()
            )  # each value, none of them twice
    assert not list(home.sweep("tiny").trials.rglob("*.tmp"))


def processes_of(home: Path) -> list[int]:
    """Processes that a sweep of this home started, and that are alive."""
    from kdsweep.sweep.engines.process_reaper import session_processes
    from kdsweep.sweep.engines.session_folder import session_folder

    return [
        process
        for process in session_processes(str(session_folder(Home(home).sweep("tiny"), "head")))
        if _lives(process)
    ]


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:  # it ended meanwhile
        return False
