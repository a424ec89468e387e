"""MLflow's database is damaged, gone or another one, or a user deleted runs in it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from servers import SIX, Lines
from sweep_processes import Sweep, metrics_of, runs_of

from kdsweep.export import export
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report
from kdsweep.sweep.status import status


def damage(file: Path) -> None:
    for log in file.parent.glob(f"{file.name}-*"):
        log.unlink()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture
def home(tmp_path: Path, six_trials: Home) -> Home:
    """A copy of the home of a finished sweep of six trials."""
    with contextlib.closing(sqlite3.connect(six_trials.mlflow_db)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copied = Home(tmp_path / "copied")
    shutil.copytree(six_trials.root, copied.root)
    return copied


def again(space: Path, home: Home, *more: str) -> list[str]:
    """Run the sweep again; returns what it says."""
    lines = Lines()
    run(space, home=home.root, assignments=(*SIX, *more), observer=lines)
    return lines.lines


def described(home: Home) -> dict[str, object]:
    """What a user sees of each run, without MLflow's own ids."""
    return {one.info.run_name: _described(home, one) for one in runs_of(home)}


def _described(home: Home, run: Run) -> object:
    client = MlflowClient(tracking_uri=f"sqlite:///{home.mlflow_db}")
    histories = {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
        if name.startswith(("train/", "validation/"))
    }
    files = sorted(one.path for one in client.list_artifacts(run.info.run_id, "student"))
    return run.info.status, run.data.params, histories, files


def test_a_new_database_gets_everything_in_place_of_the_damaged_one(
    space: Path, home: Home, six_trials: Home, tmp_path: Path
) -> None:
    before = described(six_trials)
    damage(home.mlflow_db)
    assert report(home, "tiny").verdict == report(six_trials, "tiny").verdict
    assert status(home, "tiny").state == "done"
    export(home, "tiny", tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").exists()

    lines = again(space, home)
    said = [line for line in lines if line.startswith("tracking: ")]
    assert said[0].startswith(f"tracking: {home.mlflow_db} was damaged (database disk image is ")
    assert "is now called mlflow.db.damaged-1; a new one gets all runs" in said[0]
    assert (home.root / "mlflow.db.damaged-1").exists()
    assert not any(": complete" in line for line in lines)
    assert described(home) == before
    assert any("registered model tiny: version 1" in line for line in lines)
    assert "nothing to run" in again(space, home)[0]
    assert metrics_of(home) == metrics_of(six_trials)


def test_a_database_damaged_while_the_sweep_runs_costs_one_line_at_once(
    tmp_path: Path, sweep: type[Sweep], space: Path, six_trials: Home
) -> None:
    one = sweep(tmp_path / "home", *SIX)
    assert one.wait_for(lambda: one.evaluations() >= 3), one.end()
    damage(one.home.mlflow_db)
    code, output, errors = one.end()
    assert code == 0, errors
    assert metrics_of(one.home) == metrics_of(six_trials)
    said = [line for line in output.splitlines() if "is damaged" in line]
    assert len(said) == 1, output
    assert "Training continues without it" in said[0]
    # It is noticed with the next run that is sent, not after all have ended.
    assert output.index(said[0]) < output.index(": complete", output.index(": complete") + 1)
    assert "Traceback" not in output + errors
    again(space, one.home)
    assert described(one.home) == described(six_trials)


def client_of(home: Home) -> MlflowClient:
    uri = f"sqlite:///{home.mlflow_db}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def deleted(home: Home) -> set[str]:
    client = client_of(home)
    experiment = client.get_experiment_by_name("tiny")
    found = client.search_runs([experiment.experiment_id], run_view_type=2)
    return {one.info.run_name for one in found}


def test_deleted_runs_stay_deleted_unless_the_sweep_writes_to_them(
    space: Path, home: Home, six_trials: Home, tmp_path: Path
) -> None:
    client = client_of(home)
    for one in runs_of(home):
        client.delete_run(one.info.run_id)
    assert "nothing to run" in again(space, home)[0]
    assert report(home, "tiny").verdict == report(six_trials, "tiny").verdict
    export(home, "tiny", tmp_path / "exported")
    lines = again(space, home, "trials=4")
    restored = [line.split(" was deleted in MLflow")[0] for line in lines if "restored" in line]
    assert set(restored) == {"tracking: the run sweep", "tracking: the run teacher"}
    trials = {one.name for one in home.sweep("tiny").trials.iterdir()}
    assert deleted(home) == {name for name in trials if not name.endswith("-3")}


def test_runs_that_were_removed_for_good_are_sent_again(
    space: Path, home: Home, six_trials: Home
) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    client = client_of(home)
    gone = [one for one in runs_of(home) if one.info.run_name in ("distill-0", "finetune-1")]
    uri = f"sqlite:///{home.mlflow_db}"
    store = SqlAlchemyStore(uri, home.artifacts.as_uri())
    for one in gone:
        client.delete_run(one.info.run_id)
        store._hard_delete_run(one.info.run_id)
    lines = again(space, home)
    assert f"tracking: MLflow at {home.mlflow_db} lacks 2 runs that it had; sending again" in lines
    assert described(home) == described(six_trials)
    assert "nothing to run" in again(space, home)[0]


def test_a_deleted_experiment_and_model_are_there_again_after_the_next_trials(
    space: Path, home: Home
) -> None:
    client = client_of(home)
    client.delete_registered_model("tiny")
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    lines = again(space, home, "trials=4")
    assert any("registered model tiny: version 1" in line for line in lines)
    assert client.get_experiment_by_name("tiny").lifecycle_stage == "active"
    assert len(runs_of(home)) == 8 + 2
