"""An MLflow server that goes away and comes back: it has everything once in the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from servers import SIX, MlflowServer, free_port
from sweep_processes import Sweep, assert_same_sweep, metrics_of, runs_of

from kdsweep.sweep import run
from kdsweep.sweep.folders import Home

Start = Callable[..., Sweep]


def assert_whole(home: Home, six_trials: Home, uri: str, folder: Path) -> None:
    """MLflow has the whole sweep, everything once.

    That is: the numbers, the kept students and no others, and the best one registered.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert_same_sweep(home, six_trials, uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    expected = {one.info.run_name: one for one in runs_of(six_trials)}
    for one in runs_of(home, uri):
        assert_same_run(one, expected[one.info.run_name], client, client_of(six_trials))
        artifacts = [entry.path for entry in client.list_artifacts(one.info.run_id)]
        is_kept = one.data.tags.get("kdsweep.student") == "kept"
        assert ("student" in artifacts) == is_kept, one.info.run_name
        if is_kept:
            student = download_artifacts(
                run_id=one.info.run_id,
                artifact_path="student",
                dst_path=str(folder / one.info.run_name),
                tracking_uri=uri,
            )
            model = AutoModelForSequenceClassification.from_pretrained(student)
            assert model.config.num_labels == 2
            assert AutoTokenizer.from_pretrained(student)("a fine film")["input_ids"]
    kept = [
        name for name, one in expected.items() if one.data.tags.get("kdsweep.student") == "kept"
    ]
    assert len(kept) == 2
    best = client.get_model_version_by_alias("tiny", "best")
    versions = client.search_model_versions("name = 'tiny'")
    assert [version.version for version in versions] == [best.version]
    assert client.get_run(best.run_id).info.run_name in kept
    assert not list(home.sweep("tiny").trials.glob("*/student"))


def assert_same_run(one: Run, other: Run, client: MlflowClient, other_client: MlflowClient) -> None:
    """The same params, tags and metrics, with each value of a metric once."""
    assert one.data.params == other.data.params
    # Which of the other students were uploaded and removed again depends on when MLflow answered.
    timed = {"kdsweep.attempts", "kdsweep.student"}
    assert one.data.tags.keys() - timed == other.data.tags.keys() - timed
    is_kept = [run.data.tags.get("kdsweep.student") == "kept" for run in (one, other)]
    assert is_kept[0] == is_kept[1]
    assert one.data.tags["mlflow.user"] == other.data.tags["mlflow.user"]
    assert one.data.metrics.keys() == other.data.metrics.keys()
    for name in one.data.metrics:
        history = client.get_metric_history(one.info.run_id, name)
        expected = other_client.get_metric_history(other.info.run_id, name)
        points = {(point.step, point.timestamp) for point in history}
        assert len(points) == len(history) == len(expected), (one.info.run_name, name)


def client_of(home: Home) -> MlflowClient:
    return MlflowClient(tracking_uri=home.tracking_uri("sqlite"))


@pytest.mark.slow
def test_a_server_that_was_killed_has_everything_once_in_the_end(
    tmp_path: Path, server: MlflowServer, sweep: Start, six_trials: Home
) -> None:
    one = sweep(tmp_path / "home", *SIX, f"tracking={server.uri}")
    assert one.wait_for(lambda: one.evaluations() >= 8), one.end()
    server.kill()
    time.sleep(3)
    server.start()
    status, output, errors = one.end()
    assert status == 0, errors
    assert "registered model tiny: version 1" in output, output
    assert not (tmp_path / "home" / "mlflow.db").exists()
    assert_whole(Home(tmp_path / "home"), six_trials, server.uri, tmp_path)


@pytest.mark.slow
def test_a_server_that_stays_away_costs_no_trial_and_gets_everything_later(
    space: Path,
    tmp_path: Path,
    server: MlflowServer,
    sweep: Start,
    six_trials: Home,
) -> None:
    home = Home(tmp_path / "home")
    one = sweep(home.root, *SIX, f"tracking={server.uri}")
    assert one.wait_for(lambda: one.evaluations() >= 12), one.end()
    server.kill()
    status, output, errors = one.end()
    assert status == 0, errors
    assert output.count(f"tracking: MLflow at {server.uri} doesn't answer: ") == 1
    assert "the next `kdsweep run` sends what is missing" in output
    assert metrics_of(home) == metrics_of(six_trials)
    assert "the best trial of each strategy" in output
    trained = modified(home)
    server.start()
    report = run(space, home=home.root, assignments=(*SIX, f"tracking={server.uri}"))
    assert report.state == "done"
    assert modified(home) == trained
    assert_whole(home, six_trials, server.uri, tmp_path)


def modified(home: Home) -> dict[Path, int]:
    """When training last wrote to each trial's folder."""
    files = home.sweep("tiny").trials.glob("*/metrics.jsonl")
    return {file: file.stat().st_mtime_ns for file in files}


def test_without_a_server_no_sweep_starts(tmp_path: Path, sweep: Start) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    status, output, errors = sweep(tmp_path, *SIX, f"tracking={uri}").end(180)
    assert (status, output) == (1, "")
    assert errors.startswith(f"error: tracking: MLflow at {uri} doesn't answer: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "cache" / "teachers").exists()
    assert not (tmp_path / "sweeps" / "tiny" / "trials").exists()
