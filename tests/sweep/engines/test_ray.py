"""Slots on Ray, for real: where trials are placed, and what is left when processes are killed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from sweep_processes import (
    ON_RAY,
    PLAIN,
    Sweep,
    assert_same_sweep,
    processes_of,
    runs_of,
    trials_of,
)

from kdsweep.config.sweep import SweepConfig
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.errors import KdsweepError
from kdsweep.sweep import run
from kdsweep.sweep.budget import SweepClock
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.engines.ray_cluster import check_place
from kdsweep.sweep.engines.worker import Ended, Evaluated, Event, Place, TrialJob
from kdsweep.sweep.folders import Home
from kdsweep.trial_id import TrialId

ray.cloudpickle.register_pickle_by_value(
    sys.modules[__name__]
)  # Ray's processes can't import a test
SIX = (
    *PLAIN,
    ON_RAY,
    "trials=3",
    "strategies.combined=",
    "training.epochs=12",
    "training.evaluations_per_epoch=4",
)


@pytest.fixture(scope="module")
def undisturbed(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = tmp_path_factory.mktemp("undisturbed")
    run(space, home=home, assignments=SIX)
    return Home(home)


# --- placement -------------------------------------------------------------------------------------------------------


def where_am_i(settings: TrialSettings, folder: Path, **options: Any) -> Iterator[Any]:
    """Stands in the core's place: tells which process it is and which GPUs it sees, and takes its time. Without torch, which each slot would import."""
    yield os.getpid()
    time.sleep(0.5)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))


def place_trials(
    engine: dict[str, Any], trials: int, tmp_path: Path, slots: int = 1
) -> tuple[list[str], int, list[Event]]:
    """The GPUs that each of `trials` trials saw, begun when `slots` slots were there; how many there were in the end; all events."""
    heard: list[Event] = []
    settings = TrialSettings(
        task={"dataset": "x.csv", "text": "a", "label": "b"},
        student={"model": "m"},
        alpha=1.0,
        learning_rate=1e-3,
    )
    sweep = SweepConfig.model_validate({"engine": {"type": "ray", **engine}})
    left = [
        TrialJob(TrialId("finetune", i), settings, tmp_path / f"finetune-{i}", tmp_path)
        for i in range(trials)
    ]
    with open_engine(
        sweep, Home(tmp_path).sweep("tiny"), heard.append, lambda line: None, train=where_am_i
    ) as opened:
        until = time.monotonic() + 180
        most = 0
        while sum(isinstance(event, Ended) for event in heard) < trials:
            while opened.free and left and most >= slots:
                opened.begin(left.pop(0))
            opened.want(trials)
            opened.wait(1.0)
            most = max(most, opened.slots)
            assert time.monotonic() < until
    return [(tmp_path / f"finetune-{i}" / "gpus").read_text() for i in range(trials)], most, heard


def test_each_trial_sees_its_own_gpu_and_trials_spread_over_all(tmp_path: Path) -> None:
    gpus, slots, heard = place_trials({"gpus": 2, "cpus": 2}, 6, tmp_path, slots=2)
    assert slots == 2
    assert sorted(set(gpus)) == ["0", "1"]
    assert all(event.how == "complete" for event in heard if isinstance(event, Ended))
    assert (
        len({event.evaluation for event in heard if isinstance(event, Evaluated)}) == 2
    )  # warm: a process a slot, not a trial


def test_a_quarter_of_a_gpu_packs_four_trials_on_each(tmp_path: Path) -> None:
    gpus, slots, _ = place_trials(
        {"gpus": 2, "gpus_per_trial": 0.25, "cpus": 8}, 8, tmp_path, slots=8
    )
    assert slots == 8
    assert sorted(gpus) == ["0"] * 4 + ["1"] * 4


def test_no_more_slots_than_the_sweep_says(tmp_path: Path) -> None:
    assert place_trials({"cpus": 8, "slots": 3}, 6, tmp_path, slots=3)[1] == 3


@pytest.mark.parametrize(
    ("engine", "rule"),
    [
        ({"gpus": 0, "gpus_per_trial": 1}, "this machine has no GPU"),
        ({"cpus": 2, "cpus_per_trial": 3}, "cpus_per_trial is 3, but this machine gives 2"),
    ],
)
def test_a_machine_that_cannot_hold_one_slot_is_an_error(
    engine: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    with pytest.raises(KdsweepError, match=rule):
        place_trials(engine, 1, tmp_path)
    assert not processes_of(tmp_path)


def test_a_cluster_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ray._private.services.find_gcs_addresses", frozenset
    )  # `auto` takes whatever runs on this machine: another test's
    with pytest.raises(KdsweepError, match=r"engine: Ray at auto can't be used"):
        place_trials({"address": "auto"}, 1, tmp_path)


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


# --- machines that can't be used -------------------------------------------------------------------------------------


def test_a_machine_that_does_not_share_home_is_refused(tmp_path: Path) -> None:
    probe = Home(tmp_path).sweep("tiny").root / "probe"
    with pytest.raises(KdsweepError, match=r"home: a worker on far doesn't see .*--home"):
        check_place(Place("far", 1, "", shares_home=False), probe, "x", local_tracking=False)


def test_sqlite_tracking_is_refused_with_workers_on_other_machines(tmp_path: Path) -> None:
    probe = Home(tmp_path).sweep("tiny").root / "probe"
    probe.parent.mkdir(parents=True)
    probe.with_name("probe-far-1").write_text("x")
    place = Place("far", 1, "", shares_home=True)
    with pytest.raises(
        KdsweepError, match=r"tracking: sqlite is for one machine.*mlflow server.*--set tracking"
    ):
        check_place(place, probe, "x", local_tracking=True)
    check_place(place, probe, "x", local_tracking=False)


# --- faults ----------------------------------------------------------------------------------------------------------


def workers_of(home: Path) -> list[int]:
    return [
        process
        for process in processes_of(home)
        if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::Worker")
    ]


def both_slots_train(sweep: Sweep) -> bool:
    begun = list(sweep.home.sweep("tiny").trials.glob("*/metrics.jsonl"))
    return sum(not file.with_name("result.json").exists() for file in begun) == 2


def assert_gone(home: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while processes_of(home):
        assert time.monotonic() < until, [
            Path(f"/proc/{process}/cmdline").read_text() for process in processes_of(home)
        ]
        time.sleep(0.05)


def test_kill_9_of_a_worker_costs_no_number_and_the_trial_goes_on_soon(
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
    assert "goes on from its last checkpoint (death 1 of 3)" in output
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
    assert min(later) - killed < 60  # one to six on a quiet machine; here other tests run beside it
    attempts = {
        run.info.run_name: run.data.tags.get("kdsweep.attempts") for run in runs_of(Home(tmp_path))
    }
    assert attempts[lost[0].parent.name] == "2"
    assert_gone(tmp_path)


def test_sigterm_and_sigusr1_to_a_worker_save_its_trial_which_goes_on_on_another_slot(
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
    assert not list(Home(tmp_path).sweep("tiny").trials.glob("*/lost.json"))  # no death
    assert_same_sweep(Home(tmp_path), undisturbed)


def deadly(settings: TrialSettings, folder: Path, **options: Any) -> Iterator[Evaluation]:
    """Stands in the core's place: one learning rate kills the process that runs it."""
    if settings.learning_rate.value > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    evaluation = Evaluation(1, 1.0, {"validation/accuracy": 0.5}, 0.1, time.time_ns() // 1_000_000)
    TrialFolder(folder).write_evaluations([evaluation])
    TrialFolder(folder).write_result(
        TrialResult(
            "complete", 1, 0.1, evaluation, {"parameters": 1.0, "size_mb": 1.0, "latency_ms": 1.0}
        )
    )
    yield evaluation


def test_a_trial_that_kills_its_worker_three_times_fails_with_the_reason_and_the_sweep_goes_on(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_deadly_core(*arguments: Any) -> Engine:
        return open_engine(*arguments, train=deadly)

    monkeypatch.setattr("kdsweep.sweep.driver.open_engine", with_deadly_core)
    rates = "strategies={finetune: {alpha: 1.0, learning_rate: {choices: [1.0e-3, 1.0]}}}"
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
    assert report["strategies"]["finetune"]["trials"] == {"complete": 1, "pruned": 0, "failed": 1}
    failed = next(
        run for run in runs_of(Home(tmp_path)) if run.data.tags.get("kdsweep.state") == "failed"
    )
    assert failed.data.tags["kdsweep.reason"].startswith("the process that ran it died 3 times")
    assert failed.data.tags["kdsweep.attempts"] == "3"


KILLS = int(os.environ.get("KDSWEEP_TEST_KILLS", "2"))


def test_kill_9_of_the_driver_at_random_moments_loses_and_repeats_nothing_and_leaves_no_process(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep], undisturbed: Home
) -> None:
    draw, kills = random.Random(KILLS), 0
    for _ in range(KILLS):
        one = sweep(tmp_path, *SIX)
        target = one.evaluations() + draw.randint(0, 240 // KILLS)
        began, longest = time.monotonic(), draw.uniform(2, 20)
        if not one.wait_for(
            lambda: one.evaluations() > target or time.monotonic() - began > longest
        ):
            break  # it was done before the moment came
        time.sleep(draw.uniform(0, 0.15))
        one.kill()
        kills += 1
        assert_gone(tmp_path)
    assert kills >= min(2, KILLS)
    assert run(space, home=tmp_path, assignments=SIX)["state"] == "done"
    assert_same_sweep(Home(tmp_path), undisturbed)
    assert not list(
        Home(tmp_path).sweep("tiny").trials.glob("*/lost.json")
    )  # a driver's death is no fault of a trial


def test_ctrl_c_twice_stops_at_once_and_once_saves_and_neither_leaves_a_process(
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
    assert run(space, home=tmp_path, assignments=SIX)["state"] == "done"
    assert_same_sweep(Home(tmp_path), undisturbed)


def test_time_that_is_up_saves_every_running_trial_and_more_time_goes_on_with_them(
    space: Path, tmp_path: Path, undisturbed: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = tmp_path / "sweeps" / "tiny" / "trials"
    with monkeypatch.context() as patched:

        def is_over(clock: SweepClock) -> bool:
            clock.over |= (
                sum(
                    len(file.read_text().splitlines()) for file in evaluated.glob("*/metrics.jsonl")
                )
                >= 110
            )  # of 48 a trial
            return clock.over

        patched.setattr(SweepClock, "is_over", is_over)
        assert run(space, home=tmp_path, assignments=SIX)["state"] == "stopped"
    running = [
        trial
        for trials in trials_of(Home(tmp_path)).values()
        for trial in trials
        if trial[1].name == "RUNNING"
    ]
    assert 1 <= len(running) <= 2
    assert "RUNNING" not in {run.info.status for run in runs_of(Home(tmp_path))}
    assert run(space, home=tmp_path, assignments=SIX)["state"] == "done"
    assert_same_sweep(Home(tmp_path), undisturbed)
