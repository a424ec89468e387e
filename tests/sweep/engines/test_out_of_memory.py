"""Slots that take more memory than their container or job has, with real kills by the kernel."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from cgroups import being_in, cgroup
from sweep_processes import PLAIN

from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.sweep import run
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.memory import REMEDY
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer

# Ray's processes can't import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
LIMIT = 4_000_000_000
# One fits beside the driver and Ray, two don't.
HALF = 1_900_000_000


def greedy(settings: TrialSettings, folder: Path, **options: Any) -> Iterator[Evaluation]:
    """Replaces the core: trials 0 and 1 take too much together, and trial 2 takes too much alone.

    The first two run at the same time, until one of them is killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pid").write_text(str(os.getpid()))
    strategy, number = folder.name.split("-")
    held = []
    if number == "2":
        while len(held) * 50_000_000 < 2 * LIMIT:
            held.append(b"x" * 50_000_000)
    other = folder.with_name(f"{strategy}-{1 - int(number)}")
    while not (other / "pid").exists():
        time.sleep(0.02)
    held.append(b"x" * HALF)
    while Path("/proc", (other / "pid").read_text()).exists() and not (
        (other / "result.json").exists()
    ):
        time.sleep(0.02)
    evaluation = Evaluation(1, 1.0, {"validation/accuracy": 0.5}, 0.1, time.time_ns() // 1_000_000)
    TrialFolder(folder).write_evaluations([evaluation])
    student = {"parameters": 1.0, "size_mb": 1.0, "latency_ms": 1.0}
    TrialFolder(folder).write_result(TrialResult("complete", 1, 0.1, evaluation, student))
    yield evaluation


class Lines(Observer):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@contextlib.contextmanager
def working_in(
    group: Path, space: Path, home: Path, assignments: tuple[str, ...]
) -> Iterator[None]:
    """`kdsweep worker` runs in the cgroup."""
    command = [sys.executable, "-m", "kdsweep", "worker", str(space), "--home", str(home)]
    command += [part for one in assignments for part in ("--set", one)]
    enter = f'echo 0 > {group}/cgroup.procs; exec "$0" "$@"'
    resources = ["--cpus", "2", "--gpus", "0"]
    worker = subprocess.Popen(
        ["bash", "-c", enter, *command, *resources], stdout=subprocess.DEVNULL
    )
    try:
        yield
        assert worker.wait(120) == 0
    finally:
        worker.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("address", "trials"), [("local", 3), ("head", 2)])
def test_slots_without_enough_memory_become_fewer_and_only_a_trial_that_is_alone_fails_of_it(
    address: str, trials: int, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_greedy_core(*arguments: Any, **options: Any) -> Engine:
        return open_engine(*arguments, train=greedy, **options)

    monkeypatch.setattr("kdsweep.sweep.driver.open_engine", with_greedy_core)
    cpus = "cpus: 2" if address == "local" else "address: head, listen: 127.0.0.1"
    assignments = (
        *PLAIN,
        f"engine={{type: ray, gpus_per_trial: 0, cpus_per_trial: 1, {cpus}}}",
        f"trials={trials}",
        "strategies={finetune: {alpha: 1.0, learning_rate: 1.0e-3}}",
    )
    lines = Lines()
    with cgroup(LIMIT) as group:
        there = (
            being_in(group)
            if address == "local"
            else working_in(group, space, tmp_path, assignments)
        )
        with there:
            report = run(space, home=tmp_path, assignments=assignments, observer=lines)
    ended = report.to_json()["strategies"]["finetune"]["trials"]
    assert ended == {"complete": 2, "pruned": 0, "failed": trials - 2}
    lowered = [line for line in lines.said if "from now on" in line]
    assert len(lowered) == 1
    assert "memory (4 GB) ran out with 2 slots, so it has 1 from now on" in lowered[0]
    assert any(
        "memory ran out on" in line and line.endswith("; resumes from its last checkpoint")
        for line in lines.said
    )
    folders = [Home(tmp_path).sweep("tiny").trials / f"finetune-{number}" for number in range(3)]
    # Only the kills of a trial that had the machine for itself count.
    assert [(folder / "lost.json").exists() for folder in folders] == [False, False, trials == 3]
    if trials == 3:
        result = TrialFolder(folders[2]).read_result()
        assert result is not None
        assert result.reason is not None
        assert result.reason.startswith("the process that ran it died 3 times")
        assert "memory ran out" in result.reason
        assert result.reason.endswith(f"though it had no other slot; {REMEDY}")
