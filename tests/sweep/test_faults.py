"""Real signals stop or kill a driver at many moments; the same command must resume it.

The resumed sweep ends with the same trials and numbers as one that was never stopped.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from conftest import SPACE
from mlflow import MlflowClient
from terminals import Terminal

from kdsweep.cli import main
from kdsweep.sweep import run
from kdsweep.sweep.engines.process_reaper import session_processes
from kdsweep.sweep.folders import Home

CHANGES = (
    "confirm.seeds=0",
    "trials=6",
    "strategies.finetune=",
    "training.epochs=3",
    "training.evaluations_per_epoch=3",
)
TRIALS = [part for change in CHANGES for part in ("--set", change)]


@pytest.fixture(scope="module")
def space(
    tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., str], review_csv: Path
) -> Path:
    path = tmp_path_factory.mktemp("faults") / "tiny.yaml"
    path.write_text(
        SPACE.format(
            data=review_csv, teacher=tiny("bert", layers=2), student=tiny("bert", layers=2)
        ),
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def undisturbed(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = tmp_path_factory.mktemp("undisturbed")
    run(space, home=home, assignments=CHANGES)
    return Home(home)


def start(space: Path, home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kdsweep", "run", str(space), "--home", str(home), *TRIALS]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it never came so far"
        time.sleep(0.002)


def evaluations(home: Path) -> int:
    return sum(
        len(file.read_text().splitlines())
        for file in (home / "sweeps" / "tiny" / "trials").glob("*/metrics.jsonl")
    )


def has_evaluations(home: Path, count: int) -> bool:
    return evaluations(home) >= count


def assert_as_if_nothing_had_happened(home: Home, undisturbed: Home) -> None:
    found, expected = [load_trials(one) for one in (home, undisturbed)]
    assert found == expected
    for file in sorted(undisturbed.sweep("tiny").trials.glob("*/metrics.jsonl")):
        again = home.sweep("tiny").trials / file.parent.name / file.name
        assert [json.loads(line)["metrics"] for line in again.read_text().splitlines()] == [
            json.loads(line)["metrics"] for line in file.read_text().splitlines()
        ]
    client = MlflowClient(tracking_uri=home.tracking_uri("sqlite"))
    runs = list(
        client.search_runs([client.get_experiment_by_name("tiny").experiment_id], max_results=1000)
    )
    assert sorted(run.data.tags["kdsweep.phase"] for run in runs) == ["search"] * 12 + [
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
    leftovers = [file for file in home.root.rglob("*.tmp") if "teachers" not in str(file)]
    assert not [
        file for file in leftovers if file.parent.name != "checkpoint" and "trials" in str(file)
    ]


def load_trials(home: Home) -> dict[str, list[tuple]]:
    url = home.storage_url("sqlite")
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


@pytest.mark.slow
def test_kill_9_at_random_moments_loses_and_repeats_nothing(
    space: Path, tmp_path: Path, undisturbed: Home
) -> None:
    draw, kills = random.Random(1), 0
    for _ in range(2):
        process = start(space, tmp_path)
        target = evaluations(tmp_path) + draw.randint(1, 9)
        try:
            wait_for(partial(has_evaluations, tmp_path, target), process)
        except AssertionError:
            if process.returncode == 0:
                break  # it was done before the moment came
            raise
        time.sleep(draw.uniform(0, 0.15))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills == 2
    assert run(space, home=tmp_path, assignments=CHANGES).state == "done"
    assert_as_if_nothing_had_happened(Home(tmp_path), undisturbed)


@pytest.mark.slow
def test_kill_9_while_the_teacher_trains_resumes_the_teacher(
    space: Path, tmp_path: Path, undisturbed: Home
) -> None:
    process = start(space, tmp_path)
    wait_for(
        lambda: bool(
            list((tmp_path / "cache" / "teachers").glob("*-training/checkpoint/state.pt"))
        ),
        process,
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert run(space, home=tmp_path, assignments=CHANGES).state == "done"
    assert_as_if_nothing_had_happened(Home(tmp_path), undisturbed)


def test_ctrl_c_saves_says_how_to_resume_and_the_same_command_ends_with_identical_numbers(
    space: Path, tmp_path: Path, undisturbed: Home
) -> None:
    process = start(space, tmp_path)
    wait_for(lambda: evaluations(tmp_path) >= 4, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 130
    assert errors.count("\n") == 1
    assert "run the same command again" in errors
    client = MlflowClient(tracking_uri=f"sqlite:///{Home(tmp_path).mlflow_db}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert "RUNNING" not in {run.info.status for run in runs}
    assert run(space, home=tmp_path, assignments=CHANGES).state == "done"
    assert_as_if_nothing_had_happened(Home(tmp_path), undisturbed)


def test_a_second_driver_is_refused_while_the_first_runs(space: Path, tmp_path: Path) -> None:
    first = start(space, tmp_path)
    try:
        wait_for((tmp_path / "sweeps" / "tiny" / "sweep.json").exists, first)
        first.send_signal(
            signal.SIGSTOP
        )  # or such a small sweep ends before the second driver starts
        second = CliRunner().invoke(main, ["run", str(space), "--home", str(tmp_path), *TRIALS])
        assert second.exit_code == 1
        assert str(first.pid) in second.stderr
        assert second.stderr.count("\n") == 1
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()


@pytest.mark.slow
def test_ui_serves_this_home_on_this_machine_alone_and_leaves_no_process(undisturbed: Home) -> None:
    command = [
        sys.executable,
        "-m",
        "kdsweep",
        "ui",
        "tiny",
        "--home",
        str(undisturbed.root),
        "--no-open",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    link = lines[1].split()[-1]
    assert link.startswith("http://127.0.0.1:")
    assert "workflowType=machine_learning" in link
    address = link.split("/#")[0]
    with urllib.request.urlopen(f"{address}/health") as answer:
        assert answer.read() == b"OK"
    body = json.dumps({"name": "tiny"}).encode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search",
        json.dumps({"max_results": 10}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        names = [experiment["name"] for experiment in json.load(answer)["experiments"]]
    assert "tiny" in names, body
    view = next(part for part in link.split("&") if part.startswith("viewStateShareKey=")).split(
        "="
    )[1]
    tags = (
        MlflowClient(tracking_uri=undisturbed.tracking_uri("sqlite"))
        .get_experiment_by_name("tiny")
        .tags
    )
    assert "best/validation/accuracy" in tags[f"mlflow.sharedViewState.{view}"]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0
    assert not errors
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{address}/health", timeout=2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["its terminal closes", "kill -9"])
def test_ui_takes_its_server_with_it(how: str, undisturbed: Home) -> None:
    command = [sys.executable, "-m", "kdsweep", "ui", "tiny", "--home", str(undisturbed.root)]
    terminal = Terminal([*command, "--no-open"])
    terminal.wait_for(lambda: "press Ctrl-C to stop" in terminal.text)
    pid = terminal.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in children]
    session = next(one[-2].decode() for one in commands if b"kdsweep-ui-" in one[-2])
    # MLflow's server starts another process.
    assert len(session_processes(session)) >= 2
    if how == "kill -9":
        os.kill(pid, signal.SIGKILL)
    else:
        terminal.close()
    terminal.end()
    until = time.monotonic() + 60
    while session_processes(session) or Path(session).exists():
        assert time.monotonic() < until
        time.sleep(0.05)
