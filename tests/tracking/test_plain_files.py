"""A sweep needs nothing of its tracker but the two protocols: here both are plain files."""

from __future__ import annotations

from pathlib import Path

import pytest
from plain_files import PlainFiles

from kdsweep.config import load
from kdsweep.core.files import read_json
from kdsweep.errors import KdsweepError
from kdsweep.sweep.driver import Driver
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer
from kdsweep.tracking.base import RunKey
from kdsweep.trial_id import TrialId

FEW = (
    "trials=2",
    "confirm={seeds: 1, finalists: 1}",
    "strategies.combined=",
    "training.epochs=1",
    "pruner={type: none}",
    "engine={type: inline}",
    "keep={students: 1}",
)


def run_sweep(space: Path, home: Home, tracker: PlainFiles) -> None:
    plan = load(space, assignments=FEW)
    with home.sweep(plan.name).locked():
        Driver(plan, home, Observer(), tracking=tracker.tracking).run()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def tracker(space: Path, home: Home) -> PlainFiles:
    """The files of a finished sweep."""
    tracker = PlainFiles(home.root / "tracked")
    run_sweep(space, home, tracker)
    return tracker


def test_every_run_is_there_with_its_state_and_params(tracker: PlainFiles) -> None:
    runs = tracker.runs()
    trials = {f"{strategy}-{number}" for strategy in ("finetune", "distill") for number in (0, 1)}
    confirmed = {name for name in runs if name.endswith("-seed-0")}
    assert runs.keys() == {"sweep", "teacher"} | trials | confirmed
    assert len(confirmed) == 2
    assert {run["state"] for run in runs.values()} == {"complete"}
    assert runs["distill-0"]["params"].keys() >= {"alpha", "temperature", "learning_rate", "seed"}
    assert runs["distill-0"]["tags"] == {"kdsweep.state": "complete"}


def test_metrics_have_their_values_steps_and_times(tracker: PlainFiles, home: Home) -> None:
    trial = TrialId("distill", 0)
    evaluations = home.sweep("tiny").trial(trial).read_evaluations()
    sent = [
        one for one in tracker.runs()[trial.name]["metrics"] if one["name"] == "validation/accuracy"
    ]
    assert [(one["step"], one["value"], one["timestamp"]) for one in sent] == [
        (one.step, one.metrics["validation/accuracy"], one.timestamp) for one in evaluations
    ]


def test_the_report_is_shown_with_the_sweep(tracker: PlainFiles, home: Home) -> None:
    report = read_json(home.sweep("tiny").report)
    assert report["verdict"] in (tracker.folder / "sweep.md").read_text()
    assert (tracker.folder / "runs" / "sweep" / "report.html").exists()


def test_the_best_students_are_kept_and_the_winner_is_registered(
    tracker: PlainFiles, home: Home, tmp_path: Path
) -> None:
    winner = read_json(home.sweep("tiny").report)["winner"]
    best = TrialId(winner["strategy"], winner["trial"], winner["seed_index"])
    assert tracker.best("tiny")["run"] == best.name
    # One of each strategy's search and one of each confirm.
    assert len(tracker.students()) == 4
    tracker.fetch(RunKey.of(best), tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    with pytest.raises(KdsweepError, match="has no student"):
        tracker.fetch(RunKey("teacher"), tmp_path)


def test_what_a_tracker_that_is_away_missed_is_sent_by_the_next_run(
    tracker: PlainFiles, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds_of_patience = 0.5
    monkeypatch.setattr(
        "kdsweep.sweep.tracking_sync.TrackingSync.close.__defaults__", (seconds_of_patience,)
    )
    home = Home(tmp_path / "home")
    away = PlainFiles(tmp_path / "away")

    class Leaves(PlainFiles):
        def connect(self) -> None:
            super().connect()
            self.is_away = True

    run_sweep(space, home, Leaves(tmp_path / "away"))
    assert not (away.folder / "runs").exists()
    run_sweep(space, home, away)
    assert {name: len(run["metrics"]) for name, run in away.runs().items()} == {
        name: len(run["metrics"]) for name, run in tracker.runs().items()
    }
    assert away.students() == tracker.students()
