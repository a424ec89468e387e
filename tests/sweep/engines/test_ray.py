"""Slots on Ray, for real: where trials run, and what is left when processes are killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from sweep_processes import processes_of

from kdsweep.config.sweep import RayEngine, SweepConfig
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.events import Ended, Evaluated, Event
from kdsweep.sweep.engines.jobs import TrialJob
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.engines.ray_engine import OnRay
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.folders import Home
from kdsweep.trial_id import TrialId

# Ray's processes can't import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# --- where trials run ---------------------------------------------------------------------------


def report_process(settings: TrialSettings, folder: Path, **options: Any) -> Iterator[Any]:
    """Replaces the core: reports its process and the GPUs that it sees, and takes some time.

    Without torch, which each slot would import.
    """
    yield os.getpid()
    time.sleep(0.5)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))


@dataclass
class Placed:
    """Where trials ran. gpus: what each of them saw. slots: how many there were at most."""

    gpus: list[str]
    slots: int
    events: list[Event]


def run_trials(engine: dict[str, Any], trials: int, tmp_path: Path, slots: int = 1) -> Placed:
    """Run trials that are started once `slots` slots are there."""
    events: list[Event] = []
    settings = TrialSettings(
        task={"dataset": "x.csv", "text": "a", "label": "b"},
        student={"model": "m"},
        alpha=1.0,
        learning_rate=1e-3,
    )
    sweep = SweepConfig.model_validate({"engine": {"type": "ray", **engine}})
    folder = Home(tmp_path).sweep("tiny")
    ids = [TrialId("finetune", number) for number in range(trials)]
    left = [TrialJob(one, settings, tmp_path / one.name, tmp_path) for one in ids]
    most = 0
    until = time.monotonic() + 180
    with open_engine(
        sweep, folder, events.append, lambda line: None, train=report_process
    ) as opened:
        while sum(isinstance(event, Ended) for event in events) < trials:
            while (free := opened.free_places) and left and most >= slots:
                opened.start(left.pop(0), free[0])
            opened.request_slots(trials)
            opened.wait(1.0)
            most = max(most, opened.slots)
            assert time.monotonic() < until
    gpus = [(tmp_path / one.name / "gpus").read_text() for one in ids]
    return Placed(gpus, most, events)


def test_each_trial_sees_its_own_gpu_and_trials_spread_over_all(tmp_path: Path) -> None:
    placed = run_trials({"gpus": 2, "cpus": 2}, 6, tmp_path, slots=2)
    assert placed.slots == 2
    assert sorted(set(placed.gpus)) == ["0", "1"]
    ended = [event for event in placed.events if isinstance(event, Ended)]
    assert {event.outcome for event in ended} == {"complete"}
    # One warm process for each slot, not for each trial.
    processes = {event.evaluation for event in placed.events if isinstance(event, Evaluated)}
    assert len(processes) == 2


@pytest.mark.slow
def test_a_quarter_of_a_gpu_packs_four_trials_on_each(tmp_path: Path) -> None:
    engine = {"gpus": 2, "gpus_per_trial": 0.25, "cpus": 8}
    placed = run_trials(engine, 8, tmp_path, slots=8)
    assert placed.slots == 8
    assert sorted(placed.gpus) == ["0"] * 4 + ["1"] * 4


@pytest.mark.slow
def test_no_more_slots_than_the_sweep_says(tmp_path: Path) -> None:
    assert run_trials({"cpus": 8, "slots": 3}, 6, tmp_path, slots=3).slots == 3


def test_a_sigterm_while_ray_starts_is_the_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    wait = OnRay.wait

    def terminated(engine: OnRay, timeout: float | None) -> None:
        if not received:
            # As a scheduler does: every process of a job.
            for process in (os.getpid(), *processes_of(tmp_path)):
                os.kill(process, signal.SIGTERM)
        wait(engine, timeout)

    monkeypatch.setattr(OnRay, "wait", terminated)
    try:
        run_trials({"gpus": 0, "cpus": 1}, 1, tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]


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
        run_trials(engine, 1, tmp_path)
    assert not processes_of(tmp_path)


def test_a_cluster_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `auto` finds any cluster on this machine, such as that of another test.
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    session = RaySession(Home(tmp_path).sweep("tiny"), RayEngine(type="ray", address="auto"))
    with pytest.raises(KdsweepError, match=r"engine: Ray at auto can't be used"):
        session.open()
