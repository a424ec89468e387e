"""Many runs are written to MLflow's database at once, as MLflow's own client would write them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import Postgres
from sqlalchemy import create_engine, text
from statements import counting_statements

from kdsweep.tracking.base import MetricValue, RunKey, RunUpdate, Tracking
from kdsweep.tracking.mlflow_connection import KnownRun, MlflowConnection, RunTags
from kdsweep.tracking.mlflow_database import RunDatabase
from kdsweep.tracking.opening import open_tracking
from kdsweep.trial_id import TrialId

TABLES = {
    "runs": "name, source_type, source_name, entry_point_name, user_id, status, start_time, "
    "end_time, deleted_time, source_version, lifecycle_stage, experiment_id",
    "params": "key, params.value",
    "tags": "key, tags.value",
    "metrics": "key, metrics.value, timestamp, step, is_nan",
    "latest_metrics": "key, latest_metrics.value, timestamp, step, is_nan",
}
Updates = Sequence[tuple[RunKey, RunUpdate]]


def at(step: int, *values: float) -> list[MetricValue]:
    return [MetricValue(f"m{i}", value, 1000 + step, step) for i, value in enumerate(values)]


def key(number: int) -> RunKey:
    return RunKey.of(TrialId("distill", number))


STARTED = {"params": {"task.where.is it?": "é" * 700, "rate": 0.1}, "started": 500}
FIRST: Updates = [
    (key(0), RunUpdate("running", metrics=at(1, 0.5, math.nan), **STARTED)),
    (key(1), RunUpdate("running", metrics=at(1, math.inf, -math.inf), **STARTED)),
    (key(2), RunUpdate("paused", tags={"kdsweep.attempts": "2"}, **STARTED)),
]
SECOND: Updates = [
    # The first evaluation once more, as after a driver that died, and an older value after it.
    (key(0), RunUpdate("running", metrics=[*at(2, 0.7, 0.7), *at(1, 0.5, math.nan)])),
    (key(1), RunUpdate("complete", tags={"kdsweep.state": "complete"}, ended=9000)),
    (key(2), RunUpdate("running", tags={"kdsweep.attempts": "3"}, metrics=at(1, 0.25))),
    (key(3), RunUpdate("pruned", metrics=at(1, 0.1), ended=8000, **STARTED)),
]


def tracking_in(home: Path, url: str | None = None) -> Tracking:
    found = open_tracking(
        url or f"sqlite:///{home}/mlflow.db",
        experiment="films",
        sweep="films",
        artifacts=home / "artifacts",
        say=lambda line: None,
    )
    found.runs.connect()
    found.runs.update(RunKey("sweep"), RunUpdate("running", started=1))
    return found


def connection_to(home: Path) -> MlflowConnection:
    artifacts = home / "artifacts"
    url = f"sqlite:///{home}/mlflow.db"
    return MlflowConnection(url, experiment="films", sweep="films", artifacts=artifacts)


def content(home: Path, url: str | None = None) -> dict[str, list[tuple[object, ...]]]:
    """The rows of each table, sorted, with the names of runs instead of their ids."""
    found = {}
    with create_engine(url or f"sqlite:///{home}/mlflow.db").connect() as connection:
        for table, columns in TABLES.items():
            joined = "" if table == "runs" else "JOIN runs USING (run_uuid)"
            rows = connection.execute(text(f"SELECT runs.name, {columns} FROM {table} {joined}"))
            # The parent's id differs.
            shown = (tuple(row) for row in rows if "mlflow.parentRunId" not in row)
            found[table] = sorted(shown, key=repr)
    return found


@pytest.fixture
def homes(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    folders = tmp_path / "together", tmp_path / "alone"
    for folder in folders:
        folder.mkdir()
    yield folders


def test_the_rows_are_those_of_mlflows_client(homes: tuple[Path, Path]) -> None:
    together, alone = homes
    tracking = tracking_in(together)
    for updates in (FIRST, SECOND):
        ids = tracking.runs.update_all(updates)
        assert ids == [tracking.runs.find(run) for run, _ in updates]
    tracking = tracking_in(alone)
    for updates in (FIRST, SECOND):
        for run, update in updates:
            tracking.runs.update(run, update)
    assert content(together) == content(alone)
    client = MlflowClient(f"sqlite:///{together}/mlflow.db")
    run = client.get_run(ids[1])
    assert run.info.artifact_uri == f"{(together / 'artifacts').as_uri()}/{ids[1]}/artifacts"


@pytest.mark.slow
def test_they_are_the_same_in_postgresql(homes: tuple[Path, Path], postgres: Postgres) -> None:
    together, alone = homes
    url = postgres.database("together")
    tracking = tracking_in(together, url)
    for updates in (FIRST, SECOND):
        tracking.runs.update_all(updates)
    other = postgres.database("alone")
    tracking = tracking_in(alone, other)
    for run, update in [*FIRST, *SECOND]:
        tracking.runs.update(run, update)
    assert content(together, url) == content(alone, other)


def test_a_run_that_was_deleted_meanwhile_is_left_to_mlflows_client(
    homes: tuple[Path, Path],
) -> None:
    tracking = tracking_in(homes[0])
    ids = tracking.runs.update_all(FIRST)
    MlflowClient(f"sqlite:///{homes[0]}/mlflow.db").delete_run(ids[0])
    before = content(homes[0])
    with pytest.raises(Exception, match="must be in the 'active' state"):
        tracking.runs.update_all(SECOND)
    assert content(homes[0]) == before


def test_the_runs_of_a_sweep_are_found_as_mlflows_client_finds_them(
    homes: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tracking_in(homes[0]).runs.update_all([*FIRST, SECOND[3]])
    client = MlflowClient(f"sqlite:///{homes[0]}/mlflow.db")
    client.delete_run(ids[1])
    # Another sweep's run, and one by hand that has no tags of a sweep.
    experiment = client.get_run(ids[0]).info.experiment_id
    client.set_tag(ids[2], "kdsweep.sweep", "another")
    client.create_run(experiment)

    def found() -> dict[RunTags, KnownRun]:
        runs = connection_to(homes[0])
        runs.connect()
        return runs.runs

    directly = found()
    assert {tags.trial for tags in directly} == {"", "0", "1", "3"}
    monkeypatch.setattr(RunDatabase, "can_write", lambda uri: False)
    assert found() == directly


def test_the_number_of_statements_does_not_grow_with_the_number_of_runs(
    homes: tuple[Path, Path],
) -> None:
    found = []
    for home, count in zip(homes, (3, 30), strict=True):
        tracking = tracking_in(home)
        with counting_statements() as statements:
            for updates in (FIRST[0], SECOND[1]):
                tracking.runs.update_all([(key(number), updates[1]) for number in range(count)])
            runs = connection_to(home)
            runs.connect()
        assert len(runs.runs) == count + 1
        found.append(statements)
    few, many = found
    assert len(few) == len(many) > 0


def test_what_mlflow_refuses_is_named_and_the_rest_is_sent(homes: tuple[Path, Path]) -> None:
    tracking = tracking_in(homes[0])
    refused = RunUpdate("running", metrics=[MetricValue("m", "no number", 1, 1), *at(1, 0.5)])  # type: ignore[arg-type]
    with pytest.raises(Exception, match="metric 'm'"):
        tracking.runs.update_all([(key(0), refused), (key(1), RunUpdate("running"))])
    names = {row[1] for row in content(homes[0])["metrics"]}
    assert names == {"m0"}


def test_a_server_is_never_written_to_directly() -> None:
    assert RunDatabase.can_write("sqlite:////home/mlflow.db")
    assert RunDatabase.can_write("postgresql://user@host/db")
    assert not RunDatabase.can_write("http://gpu1:5000")
    assert not RunDatabase.can_write("mysql://user@host/db")
