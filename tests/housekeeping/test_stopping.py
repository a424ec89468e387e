"""`kdsweep stop`: the driver saves and stops, wherever it runs, and no later run is touched."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sweep_processes import INLINE, ON_RAY, PLAIN, metrics_of, trials_of

from kdsweep.cli import main
from kdsweep.core.files import write_json
from kdsweep.errors import Interrupted, SweepLocked
from kdsweep.housekeeping.listing import Counts, ListedSweep, describe
from kdsweep.housekeeping.stopping import _how_far
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.stop_file import Request, ask_to_stop, listening_for_stop, withdraw
from kdsweep.sweep.sweep_lock import Holder

# Holds the lock as a driver does, and ends when it is asked to stop.
DRIVER = """
import sys, threading
from kdsweep.sweep.folders import Home
from kdsweep.sweep.stop_file import listening_for_stop

asked = threading.Event()
folder = Home(sys.argv[1]).sweep("tiny")
def note(by):
    print("asked by", by, flush=True)
    asked.set()
with folder.locked(), listening_for_stop(folder.stop_file, folder.lock_file, note):
    print("locked", flush=True)
    asked.wait(60)
"""
Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def start_driver(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", DRIVER, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stop(home: Path, *arguments: str) -> Any:
    return CliRunner().invoke(main, ["stop", "tiny", "--home", str(home), *arguments])


def test_a_driver_that_is_asked_stops_and_the_request_is_gone(
    tmp_path: Path, start_driver: Start
) -> None:
    process = start_driver()
    done = stop(tmp_path)
    assert done.exit_code == 0, done.output
    assert f"asked process {process.pid} on " in done.stdout
    assert "tiny: stopped after" in done.stdout
    output, _ = process.communicate(timeout=10)
    assert "asked by" in output
    assert not Home(tmp_path).sweep("tiny").stop_file.exists()


def test_a_request_to_an_earlier_run_stops_no_later_one(
    tmp_path: Path, start_driver: Start
) -> None:
    folder = Home(tmp_path).sweep("tiny")
    first = start_driver()
    before = folder.holder()
    assert before is not None
    assert before.pid == first.pid
    first.kill()
    first.wait()
    ask_to_stop(folder.stop_file, before)
    second = start_driver()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1.5)
    # Asked for while it runs, it doesn't stop it either.
    ask_to_stop(folder.stop_file, before)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1.5)
    withdraw(folder.stop_file, before)
    assert stop(tmp_path).exit_code == 0
    assert second.wait(timeout=10) == 0


def test_a_process_whose_number_is_in_a_lock_that_nobody_holds_is_left_alone(
    tmp_path: Path,
) -> None:
    folder = Home(tmp_path).sweep("tiny")
    write_json(folder.facts, {"kdsweep": "0.2.0", "identity": {}, "experiment": "", "sweep": {}})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        write_json(folder.lock_file, {"host": "here", "pid": other.pid, "run": "x"})
        done = stop(tmp_path)
        assert other.poll() is None
    assert done.exit_code == 0
    assert done.stdout == "tiny isn't running\n"


def test_a_driver_that_does_not_stop_in_time_is_one_line(tmp_path: Path) -> None:
    folder = Home(tmp_path).sweep("tiny")
    with folder.locked():
        done = stop(tmp_path, "--wait", "0.005")
        assert done.exit_code == 1
        assert "hasn't stopped within" in done.stderr
        assert Request.read(folder.stop_file).run
        done = stop(tmp_path, "--wait", "0", "--json")
        assert json.loads(done.stdout)["outcome"] == "asked"


def test_what_can_not_be_asked_is_one_line(tmp_path: Path) -> None:
    folder = Home(tmp_path).sweep("tiny")
    assert stop(tmp_path).exit_code == 1
    with folder.locked("remove"):
        assert "is being removed by process" in stop(tmp_path).stderr
        with pytest.raises(SweepLocked, match="is being removed by"), folder.locked():
            pass
    with folder.locked():
        folder.lock_file.write_text('{"host": "gpu1", "pid": 7}')
        assert "process 7 on gpu1 with an earlier version" in stop(tmp_path).stderr


def test_who_holds_no_lock_listens_to_nobody(tmp_path: Path) -> None:
    folder = Home(tmp_path).sweep("tiny")
    with listening_for_stop(folder.stop_file, folder.lock_file, lambda by: None):
        assert not folder.stop_file.exists()
    ask_to_stop(folder.stop_file, Holder("gpu1", 7, "one"))
    withdraw(folder.stop_file, Holder("gpu1", 7, "another"))
    assert folder.stop_file.exists()


def test_a_sweep_that_trains_saves_and_stops(tmp_path: Path, space: Path) -> None:
    folder = Home(tmp_path).sweep("tiny")
    outputs: list[Any] = []

    def stop_soon() -> None:
        while not list(folder.trials.glob("*/metrics.jsonl")):
            time.sleep(0.02)
        outputs.append(stop(tmp_path))

    thread = threading.Thread(target=stop_soon)
    thread.start()
    with pytest.raises(Interrupted):
        run(space, home=tmp_path, assignments=(*PLAIN, "trials=8", "engine={type: inline}"))
    thread.join()
    assert outputs[0].exit_code == 0, outputs[0].output
    assert "run the same command again to resume" in outputs[0].stdout
    found = describe(folder)
    assert found.state == "stopped"
    assert found.counts is not None
    assert found.counts.ended < found.counts.trials
    assert not folder.stop_file.exists()


FEW = (*PLAIN, "trials=2", "strategies.combined=")


@pytest.fixture(scope="module")
def never_stopped(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("never-stopped"))
    assert run(space, home=home.root, assignments=(*FEW, INLINE)).state == "done"
    return home


@pytest.mark.slow
@pytest.mark.parametrize("engine", [INLINE, ON_RAY], ids=["inline", "ray"])
def test_a_stopped_sweep_resumes_with_the_numbers_of_one_that_was_never_stopped(
    tmp_path: Path, space: Path, sweep: Any, engine: str, never_stopped: Home
) -> None:
    running = sweep(tmp_path / "stopped", *FEW, engine)
    assert running.wait_for(lambda: running.evaluations() >= 2)
    done = stop(tmp_path / "stopped")
    assert done.exit_code == 0, done.output
    assert "run the same command again to resume" in done.stdout
    status, output, errors = running.end()
    assert status == 130, errors
    assert "asks: what runs is saved at its next step" in output
    listed = json.loads(
        CliRunner().invoke(main, ["list", "--home", str(tmp_path / "stopped"), "--json"]).stdout
    )["sweeps"][0]
    assert listed["state"] == "stopped"
    assert listed["counts"]["trials"] == 4
    stopped = Home(tmp_path / "stopped")
    assert run(space, home=stopped.root, assignments=(*FEW, INLINE)).state == "done"
    assert trials_of(stopped) == trials_of(never_stopped)
    assert metrics_of(stopped) == metrics_of(never_stopped)


@pytest.mark.parametrize(("at_most", "said"), [(16, "5 of 6 to 16 confirm"), (6, "5 of 6 confirm")])
def test_a_stopped_sweep_says_between_how_many_confirm_runs_it_has(at_most: int, said: str) -> None:
    counts = Counts(4, 4, confirmed=5, to_confirm=6, to_confirm_at_most=at_most)
    found = ListedSweep("sst2", "stopped", 0.0, phase="confirm", counts=counts)
    assert f", {said} runs; run the same command again" in _how_far(found)
