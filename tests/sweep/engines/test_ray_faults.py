"""Slots on Ray whose processes are killed: what is left, and what the next run makes of it."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from sweep_processes import (
    INLINE,
    ON_RAY,
    PLAIN,
    Sweep,
    assert_same_sweep,
    processes_of,
    runs_of,
    trials_of,
)

from kdsweep.core.files import read_json
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.progress import last_saved_step
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.sweep import run
from kdsweep.sweep.budget import SweepClock
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.folders import Home

# Ray's processes can't import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
SIX = (
    *PLAIN,
    ON_RAY,
    "trials=3",
    "strategies.combined=",
    "training.epochs=8",
    "training.evaluations_per_epoch=4",
)


@pytest.fixture(scope="module")
def undisturbed(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = tmp_path_factory.mktemp("undisturbed")
    run(space, home=home, assignments=(*SIX, INLINE))
    return Home(home)


def assert_listens_on_this_machine_alone(home: Path) -> None:
    inodes = {link for process in processes_of(home) for link in sockets_of(process)}
    listening = [
        line.split()
        for file in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(file).read_text().splitlines()[1:]
    ]
    ours = [fields[1] for fields in listening if fields[3] == "0A" and fields[9] in inodes]
    assert ours
    assert {address.split(":")[0] for address in ours} <= {
        "0100007F",
        "0000000000000000FFFF00000100007F",
        "00000000000000000000000001000000",
    }


def sockets_of(process: int) -> list[str]:
    links = []
    for handle in Path(f"/proc/{process}/fd").iterdir():
        try:
            link = str(handle.readlink())
        except OSError:
            continue
        if link.startswith("socket:["):
            links.append(link.removeprefix("socket:[").removesuffix("]"))
    return links


def workers_of(home: Path) -> list[int]:
    return [
        process
        for process in processes_of(home)
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::Worker")
    ]


def both_slots_train(sweep: Sweep) -> bool:
    started = list(sweep.home.sweep("tiny").trials.glob("*/metrics.jsonl"))
    return sum(not file.with_name("result.json").exists() for file in started) == 2


def assert_gone(home: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while processes_of(home):
        assert time.monotonic() < until, [
            Path(f"/proc/{process}/cmdline").read_text() for process in processes_of(home)
        ]
        time.sleep(0.05)


@pytest.mark.slow
def test_kill_9_of_a_worker_changes_no_number_and_the_trial_resumes_soon(
    tmp_path: Path, sweep: Callable[..., Sweep], undisturbed: Home
) -> None:
    one = sweep(tmp_path, *SIX)
    assert one.wait_for(lambda: both_slots_train(one)), one.end()
    victim = workers_of(tmp_path)[0]
    os.kill(victim, signal.SIGKILL)
    killed = time.time()
    status, output, errors = one.end()
    assert status == 0, errors
    assert not errors
    assert "resumes from its last checkpoint (worker failure 1 of 3 after step " in output
    assert "(raylet)" not in output
    assert output.count("first step after ") == 1
    assert_same_sweep(Home(tmp_path), undisturbed)
    lost = list(Home(tmp_path).sweep("tiny").trials.glob("*/lost.json"))
    assert len(lost) == 1
    later = [
        one.timestamp / 1000
        for one in TrialFolder(lost[0].parent).read_evaluations()
        if one.timestamp / 1000 > killed
    ]
    assert later
    # One to six seconds on a quiet machine. Other tests run at the same time.
    assert min(later) - killed < 60
    attempts = {
        run.info.run_name: run.data.tags.get("kdsweep.attempts") for run in runs_of(Home(tmp_path))
    }
    assert attempts[lost[0].parent.name] == "2"
    assert_gone(tmp_path)


@pytest.mark.slow
def test_sigterm_and_sigusr1_to_a_worker_save_its_trial_which_resumes_on_another_slot(
    tmp_path: Path, sweep: Callable[..., Sweep], undisturbed: Home
) -> None:
    one = sweep(tmp_path, *SIX)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        assert one.wait_for(lambda: both_slots_train(one)), one.end()
        victim = workers_of(tmp_path)[0]
        os.kill(victim, number)
        assert one.wait_for(lambda: victim not in workers_of(tmp_path)), one.end()
    status, output, errors = one.end()
    assert status == 0, errors
    assert output.count("leaves") == 2
    # It doesn't count as a failure of the worker.
    assert not list(Home(tmp_path).sweep("tiny").trials.glob("*/lost.json"))
    assert_same_sweep(Home(tmp_path), undisturbed)


def deadly(settings: TrialSettings, folder: Path, **options: Any) -> Iterator[Evaluation]:
    """Replaces the core: two learning rates kill the process that runs them, one always after its
    first checkpoint, and the other one after a further checkpoint each time, until the third."""
    step = TrialFolder(folder).saved_step() or 0
    rate = settings.learning_rate.value
    if step < {1.0: 1, 0.4: 3}.get(rate, 0):
        TrialFolder(folder).save_state({"step": step + 1})
        os.kill(os.getpid(), signal.SIGKILL)
    if rate == 1.0:
        os.kill(os.getpid(), signal.SIGKILL)
    evaluation = Evaluation(1, 1.0, {"validation/accuracy": 0.5}, 0.1, time.time_ns() // 1_000_000)
    TrialFolder(folder).write_evaluations([evaluation])
    TrialFolder(folder).write_result(
        TrialResult(
            "complete", 1, 0.1, evaluation, {"parameters": 1.0, "size_mb": 1.0, "latency_ms": 1.0}
        )
    )
    yield evaluation


@pytest.mark.slow
def test_only_a_trial_that_kills_its_worker_three_times_at_one_place_fails_and_others_go_on(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_deadly_core(*arguments: Any, **options: Any) -> Engine:
        return open_engine(*arguments, train=deadly, **options)

    monkeypatch.setattr("kdsweep.sweep.driver.open_engine", with_deadly_core)
    choices = "{choices: [1.0e-3, 0.4, 1.0]}"
    rates = f"strategies={{finetune: {{alpha: 1.0, learning_rate: {choices}}}}}"
    report = run(
        space,
        home=tmp_path,
        assignments=(
            "pruner={type: none}",
            "confirm={seeds: 0}",
            ON_RAY,
            "sampler={type: grid}",
            rates,
        ),
    )
    trials = report.to_json()["strategies"]["finetune"]["trials"]
    assert trials == {"complete": 2, "pruned": 0, "failed": 1}
    found = {}
    for one in runs_of(Home(tmp_path)):
        if (tags := one.data.tags)["kdsweep.phase"] == "search":
            reason = tags.get("kdsweep.reason", "").split(":")[0]
            found[float(one.data.params["learning_rate"])] = (tags.get("kdsweep.attempts"), reason)
    assert found == {
        1.0e-3: (None, ""),
        0.4: ("4", ""),
        1.0: ("3", "the process that ran it died 3 times after step 1"),
    }


@pytest.mark.slow
def test_a_teacher_whose_process_is_killed_as_often_as_it_gets_further_is_made(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    one_slot = "engine={type: ray, cpus_per_trial: 1, cpus: 1}"
    small = ("trials=1", "strategies.combined=", "strategies.finetune=", one_slot)
    one = sweep(tmp_path, *PLAIN, *small, "teacher.training.epochs=16")
    cache, steps = tmp_path / "cache", [0]
    for _ in range(3):
        assert one.wait_for(partial(has_got_further, cache, steps[-1])), one.end()
        os.kill(workers_of(tmp_path)[0], signal.SIGKILL)
        steps.append(last_saved_step(cache))
    status, output, errors = one.end()
    assert (status, errors) == (0, ""), errors
    lines = [line for line in output.splitlines() if "worker failure" in line]
    assert len(lines) == 3
    assert all("(worker failure 1 of 3 after step " in line for line in lines), lines
    lost = read_json(Home(tmp_path).sweep("tiny").teacher_lost)
    assert len(lost) == 3


def has_got_further(cache: Path, step: int) -> bool:
    return last_saved_step(cache) > step


KILLS = int(os.environ.get("KDSWEEP_TEST_KILLS", "2"))


@pytest.mark.slow
def test_kill_9_of_the_driver_at_random_moments_loses_nothing_and_leaves_no_process(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep], undisturbed: Home
) -> None:
    draw, kills = random.Random(KILLS), 0
    for _ in range(KILLS):
        one = sweep(tmp_path, *SIX)
        target = one.evaluations() + draw.randint(0, 160 // KILLS)
        began, longest = time.monotonic(), draw.uniform(2, 20)
        if not one.wait_for(
            lambda: one.evaluations() > target or time.monotonic() - began > longest
        ):
            # It was done before the moment came.
            break
        time.sleep(draw.uniform(0, 0.15))
        one.kill()
        kills += 1
        assert_gone(tmp_path)
    assert kills >= min(2, KILLS)
    assert run(space, home=tmp_path, assignments=(*SIX, INLINE)).state == "done"
    assert_same_sweep(Home(tmp_path), undisturbed)
    # The end of a driver doesn't count against a trial.
    assert not list(Home(tmp_path).sweep("tiny").trials.glob("*/lost.json"))


@pytest.mark.slow
def test_ctrl_c_saves_or_stops_at_once_when_pressed_twice_and_leaves_no_process(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep], undisturbed: Home
) -> None:
    for times in (2, 1):
        one = sweep(tmp_path, *SIX)
        before = one.evaluations()
        assert one.wait_for(lambda: one.evaluations() >= before + 3), one.end()
        assert_listens_on_this_machine_alone(tmp_path)
        for _ in range(times):
            one.process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        status, _, errors = one.end()
        assert status == 130
        assert errors.count("\n") == 1
        assert "run the same command again" in errors
        assert_gone(tmp_path)
    assert "RUNNING" not in {run.info.status for run in runs_of(Home(tmp_path))}
    assert run(space, home=tmp_path, assignments=(*SIX, INLINE)).state == "done"
    assert_same_sweep(Home(tmp_path), undisturbed)


@pytest.mark.slow
def test_when_time_is_up_running_trials_are_saved_and_resume_with_more_time(
    space: Path, tmp_path: Path, undisturbed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = tmp_path / "sweeps" / "tiny" / "trials"
    with monkeypatch.context() as patched:

        def is_over(clock: SweepClock) -> bool:
            files = evaluated.glob("*/metrics.jsonl")
            # Of 32 in each trial.
            clock.over |= sum(len(file.read_text().splitlines()) for file in files) >= 73
            return clock.over

        patched.setattr(SweepClock, "is_over", is_over)
        assert run(space, home=tmp_path, assignments=SIX).state == "stopped"
    running = [
        trial
        for trials in trials_of(Home(tmp_path)).values()
        for trial in trials
        if trial[1].name == "RUNNING"
    ]
    assert 1 <= len(running) <= 2
    assert "RUNNING" not in {run.info.status for run in runs_of(Home(tmp_path))}
    assert run(space, home=tmp_path, assignments=SIX).state == "done"
    assert_same_sweep(Home(tmp_path), undisturbed)
