"""Latency in a sweep: each architecture is measured once, while nothing else runs there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import optuna
import pytest
from sweep_processes import ON_RAY, PLAIN, Sweep

from kdsweep.core.evaluation.latency_figures import (
    ArchitectureLatency,
    Device,
    Latency,
    MeasuredShapes,
)
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.report.model import Report
from kdsweep.sweep import run
from kdsweep.sweep.engines.events import Ended, Evaluated, LatencyMeasured, OnEvent
from kdsweep.sweep.engines.jobs import Job, LatencyJob, TrialJob
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer

LAYERS = "student.layers={choices: [1, 2]}"
BOTH = "objective=[accuracy, latency]"
SHORT = (
    "trials=4",
    "sampler={type: random}",
    "pruner={type: none}",
    "confirm={seeds: 0}",
    "training.epochs=1",
    "strategies.combined=",
)
NOT_LISTED = "student.layers={low: 1, high: 2, log: true}"


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def measured_in(home: Home, name: str = "tiny") -> dict[int | None, dict[str, Any]]:
    """Number of layers -> what `latency.json` holds of it."""
    found = json.loads(home.sweep(name).latency.read_text())["architectures"]
    assert len({one["layers"] for one in found}) == len(found)
    return {one["layers"]: one for one in found}


def trials_of(home: Home, name: str = "tiny") -> list[tuple[int | None, dict[str, float]]]:
    """(layers, measured costs) of each complete trial."""
    found = []
    for file in sorted(home.sweep(name).root.glob("*/*/result.json")):
        settings = json.loads((file.parent / "settings.json").read_text())
        found.append((settings["student"]["layers"], json.loads(file.read_text())["student"]))
    assert found
    return found


def told(home: Home, strategy: str = "distill") -> list[float]:
    study = optuna.load_study(study_name=f"tiny/{strategy}", storage=home.storage_url("sqlite"))
    return [trial.values[1] for trial in study.trials]


def test_students_of_one_architecture_have_one_figure_everywhere(
    tmp_path: Path, tiny_space: Path
) -> None:
    observer = Lines()
    report = run(tiny_space, home=tmp_path, assignments=(BOTH, LAYERS, *SHORT), observer=observer)
    home = Home(tmp_path)
    measured = measured_in(home)
    # The teacher has two layers too: one architecture.
    assert measured.keys() == {1, 2}
    for layers, costs in trials_of(home):
        assert layers is not None
        first = measured[layers]["first"]
        assert costs["latency_ms"] == first["latency_ms"]
        assert costs["latency_p95_ms"] == first["latency_p95_ms"]
    assert set(told(home)) <= {one["first"]["latency_ms"] for one in measured.values()}
    assert report.teacher is not None
    assert report.teacher.latency_ms == measured[2]["first"]["latency_ms"]
    # At the end of the sweep once more.
    assert all(one["last"]["measured"] > one["first"]["measured"] for one in measured.values())
    assert {one.layers for one in report.latencies} == {1, 2}
    assert report.latency_note is not None
    assert "measured alone" in report.latency_note
    # Nothing is trained before the first measurement, the teacher included.
    lines = observer.lines
    first = next(i for i, line in enumerate(lines) if line.startswith("latency: 2 architectures"))
    assert not any(line.startswith(("teacher: fine", "distill-0")) for line in lines[:first])
    assert Report.from_json(report.to_json()) == report


def test_students_that_cost_the_same_have_no_front(
    tmp_path: Path, tiny_space: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kdsweep.terminal.report import show_report

    report = run(tiny_space, home=tmp_path, assignments=(BOTH, *SHORT))
    assert report.pareto == ()
    show_report(report, tmp_path)
    shown = capsys.readouterr().out
    assert "Pareto front: none, because all students cost the same." in shown
    assert "no other student beats" not in shown


def test_an_older_sweep_keeps_its_rule_each_trial_measures_its_own(
    tmp_path: Path, tiny_space: Path
) -> None:
    run(tiny_space, home=tmp_path, assignments=(BOTH, LAYERS, *SHORT[1:], "trials=1"))
    folder = Home(tmp_path).sweep("tiny")
    # As a version without this rule left it.
    facts = json.loads(folder.facts.read_text())
    assert facts.pop("latency") == "once"
    folder.facts.write_text(json.dumps(facts))
    folder.latency.unlink()
    report = run(tiny_space, home=tmp_path, assignments=(BOTH, LAYERS, *SHORT))
    assert not folder.latency.exists()
    assert "latency" not in json.loads(folder.facts.read_text())
    figures = [costs["latency_ms"] for _, costs in trials_of(Home(tmp_path))]
    assert len(set(figures)) > len({layers for layers, _ in trials_of(Home(tmp_path))})
    assert report.latencies == ()
    assert report.latency_note is not None
    assert report.latency_note.startswith("Each trial measured its own latency")


# --- several slots -------------------------------------------------------------------------------


@dataclass
class Slots:
    """An engine whose jobs take one `wait` each, three for a trial. It stands in for machines.

    seen: what ran when a job started: (the job, the names of the jobs on its machine).
    """

    places: tuple[Place, ...]
    on_event: OnEvent
    gpus_per_slot: float = 0.0
    running: list[tuple[Job, Place, int]] = field(default_factory=list)
    seen: list[tuple[Job, list[str]]] = field(default_factory=list)

    @property
    def slots(self) -> int:
        return len(self.places)

    @property
    def free_places(self) -> tuple[Place, ...]:
        left = list(self.places)
        for _, place, _ in self.running:
            left.remove(place)
        return tuple(left)

    def start(self, job: Job, place: Place) -> None:
        there = [one.name for one, where, _ in self.running if where.host == place.host]
        self.seen.append((job, there))
        waits = 3 if isinstance(job, TrialJob) else 1
        self.running.append((job, place, waits + len(self.seen) % 2))

    def wait(self, timeout: float | None) -> None:
        assert self.running
        due = [one for one in self.running if one[2] == 0]
        self.running = [(job, place, n - 1) for job, place, n in self.running if n > 0]
        for job, place, _ in due:
            for event in perform(job, place):
                self.on_event(event)

    def stop(self, name: str, *, save: bool) -> None:
        raise AssertionError("nothing is stopped here")

    def request_slots(self, count: int) -> None:
        pass

    def announce_end(self, *, resuming: bool) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def perform(job: Job, place: Place) -> Iterable[Any]:
    if isinstance(job, LatencyJob):
        yield LatencyMeasured(job.name, made_up(job, place))
    if isinstance(job, TrialJob):
        folder = TrialFolder(job.folder)
        evaluation = Evaluation(1, 1.0, {"validation/accuracy": 0.5}, 0.1, 0)
        assert job.latency is not None
        costs = {"parameters": 1.0, "size_mb": 1.0, **job.latency}
        folder.write_evaluations([evaluation])
        folder.write_result(TrialResult("complete", 1, 0.1, evaluation, costs))
        yield Evaluated(job.name, evaluation)
    yield Ended(job.name, "complete")


def made_up(job: LatencyJob, place: Place) -> MeasuredShapes:
    known = {one.key for one in job.known}
    found = []
    for shape in job.shapes:
        value = float(shape.layers or 9)
        first = Latency(
            latency_ms=value,
            latency_p95_ms=value,
            low_ms=value,
            high_ms=value,
            rounds=9,
            measured=len(known),
        )
        found.append(
            ArchitectureLatency(
                model=shape.model,
                layers=shape.layers or 9,
                width=32,
                tokens=9,
                device=place.device,
                asked=(shape,),
                first=first,
            )
        )
    return MeasuredShapes(tuple(found))


def place(host: str, name: str = "a processor") -> Place:
    return Place(host, Device(name=name, threads=1))


@pytest.fixture
def run_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_space: Path
) -> Callable[..., Slots]:
    opened: list[Slots] = []

    def call(places: tuple[Place, ...], *assignments: str) -> Slots:
        def open_slots(
            sweep: object, folder: object, on_event: OnEvent, *rest: Any, **more: Any
        ) -> Slots:
            opened.append(Slots(places, on_event))
            return opened[-1]

        monkeypatch.setattr("kdsweep.sweep.driver.open_engine", open_slots)
        finetune = "strategies={finetune: {alpha: 1.0, learning_rate: {low: 1.0e-4, high: 1.0e-2}}}"
        sets = (BOTH, *SHORT[1:5], finetune, "trials=12", *assignments)
        run(tiny_space, home=tmp_path, assignments=sets)
        return opened[-1]

    return call


def measurements(engine: Slots) -> list[tuple[LatencyJob, list[str]]]:
    return [(job, there) for job, there in engine.seen if isinstance(job, LatencyJob)]


@pytest.mark.parametrize("layers", [LAYERS, NOT_LISTED])
def test_nothing_else_runs_on_a_machine_that_measures(
    run_on: Callable[..., Slots], tmp_path: Path, layers: str
) -> None:
    engine = run_on((place("here"), place("here"), place("here")), layers)
    trials = [job for job, _ in engine.seen if isinstance(job, TrialJob)]
    assert len(trials) == 12
    assert {job.settings.student.layers for job in trials} == {1, 2}
    found = measurements(engine)
    # Nothing was running when one started, and nothing started while one ran.
    assert [there for _, there in found] == [[] for _ in found]
    for job, there in engine.seen:
        assert not any(name.startswith("latency") for name in there), job.name
    # Other trials ran beside each other.
    assert max(len(there) for job, there in engine.seen) == 2
    # Each architecture once before its first trial, and all of them at the end.
    before = [shape for job, _ in found if not job.again for shape in job.shapes]
    assert len(before) == len(set(before))
    assert [job.again for job, _ in found].count(True) == 1
    assert found[-1][0].again
    assert {shape.layers for shape in found[-1][0].shapes} == {1, 2}
    assert isinstance(engine.seen[-1][0], LatencyJob)
    for job in trials:
        assert job.latency is not None
        assert job.latency["latency_ms"] == job.settings.student.layers


def test_each_kind_of_device_measures_and_machines_of_one_kind_share_a_figure(
    run_on: Callable[..., Slots], tmp_path: Path
) -> None:
    places = (place("a"), place("b"), place("b"), place("c", "another"))
    engine = run_on(places, LAYERS)
    first = [job.name for job, _ in measurements(engine) if not job.again]
    assert sorted(first) == ["latency on a", "latency on c"]
    devices = [
        (one["device"]["name"], one["layers"])
        for one in json.loads(Home(tmp_path).sweep("tiny").latency.read_text())["architectures"]
    ]
    assert sorted(devices) == [
        (name, layers) for name in ("a processor", "another") for layers in (1, 2)
    ]


def test_a_longer_sweep_measures_nothing_twice_before_its_trials(
    run_on: Callable[..., Slots], tmp_path: Path
) -> None:
    two = (place("here"), place("here"))
    run_on(two, LAYERS)
    before = measured_in(Home(tmp_path))
    engine = run_on(two, LAYERS, "trials=14")
    assert [job.again for job, _ in measurements(engine)] == [True]
    after = measured_in(Home(tmp_path))
    assert {key: one["first"] for key, one in after.items()} == {
        key: one["first"] for key, one in before.items()
    }


# --- kill -9 -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["engine={type: inline}", ON_RAY])
def test_a_sweep_that_was_killed_keeps_its_figures(
    tmp_path: Path, sweep: Callable[..., Sweep], space: Path, engine: str
) -> None:
    short = ("trials=2", "strategies.combined=", "training.epochs=3")
    sets = (*PLAIN, BOTH, LAYERS, engine, *short)
    one = sweep(tmp_path, *sets)
    assert one.wait_for(lambda: one.evaluations() > 1), one.end()
    one.kill()
    home = Home(tmp_path)
    before = measured_in(home)
    assert all(found["last"] is None for found in before.values())
    report = run(space, home=tmp_path, assignments=sets)
    assert report.state == "done"
    after = measured_in(home)
    assert {key: found["first"] for key, found in after.items()} == {
        key: found["first"] for key, found in before.items()
    }
    assert all(found["last"] is not None for found in after.values())
    for layers, costs in trials_of(home):
        assert costs["latency_ms"] == after[layers]["first"]["latency_ms"]
