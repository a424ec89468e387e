"""A database is opened by the path that its user sees, whatever characters that path has."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from kdsweep.databases import (
    made_alone,
    shown_database,
    sqlite_file,
    sqlite_url,
    url_to_open,
    write_ahead,
)
from kdsweep.sweep.folders import Home

ODD = ["a?b", "feature%2Fx", "100%", "a#b", "a b+c", "été 1", "a:b@c", 'it\'s "x"&y=1;[z]', "a\\b"]


@pytest.mark.parametrize("name", ODD)
def test_optuna_and_mlflow_write_to_the_file_and_leave_nothing_beside_home(
    name: str, tmp_path: Path, empty_mlflow_db: Path
) -> None:
    home = Home(tmp_path / name)
    home.root.mkdir()
    storage, tracking = home.storage_url("sqlite"), home.tracking_uri("sqlite")
    with sqlite3.connect(home.optuna_db) as connection:
        connection.execute("CREATE TABLE mine (x)")
    optuna.create_study(storage=optuna.storages.RDBStorage(storage), study_name="x")
    shutil.copy(empty_mlflow_db, home.mlflow_db)
    client = MlflowClient(tracking_uri=tracking, registry_uri=tracking)
    experiment = client.create_experiment("e", home.artifacts.as_uri())
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "a text", "text.txt")
    with sqlite3.connect(home.optuna_db) as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("x",)]
    with sqlite3.connect(home.mlflow_db) as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(run.info.run_id,)]
    assert (home.artifacts / run.info.run_id / "artifacts" / "text.txt").read_text() == "a text"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sqlite_file(storage) == home.optuna_db
    assert shown_database(tracking) == str(home.mlflow_db)


@pytest.mark.parametrize("name", ODD)
def test_a_database_that_can_only_be_read_is_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / name / "optuna.db"
    file.parent.mkdir()
    storage = optuna.storages.RDBStorage(sqlite_url(file))
    optuna.create_study(storage=storage, study_name="x")
    storage.engine.dispose()
    # Root may write everywhere, so that the answer is given here.
    monkeypatch.setattr("kdsweep.databases.is_only_read", lambda one: one == file)
    opened = optuna.storages.RDBStorage(url_to_open(sqlite_url(file)))
    assert [study.study_name for study in opened.get_all_studies()] == ["x"]
    with pytest.raises(optuna.exceptions.StorageInternalError):
        optuna.create_study(storage=opened, study_name="y")
    with made_alone(sqlite_url(file)):
        assert [path.name for path in file.parent.iterdir()] == ["optuna.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_only_a_plain_sqlite_url_means_a_file() -> None:
    assert sqlite_file("sqlite:////home/a.db") == Path("/home/a.db")
    assert sqlite_file("sqlite:///a%3Fb.db") == Path("a?b.db")
    for url in (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:a.db?uri=true",
        "sqlite:nonsense",
        "postgresql://me:secret@host/db",
        "http://host:5000",
    ):
        assert sqlite_file(url) is None
    assert shown_database("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_a_group_may_write_a_database_that_one_of_it_has_made(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        for made in ("optuna.db", "mlflow.db"):
            with made_alone(url := sqlite_url(tmp_path / made)):
                optuna.storages.RDBStorage(
                    url, engine_kwargs={"pool_events": [(write_ahead, "connect")]}
                )
    finally:
        os.umask(before)
    for file in tmp_path.iterdir():
        # Who may only read could hold a lock.
        mode = 0o660 if file.suffix == ".lock" else 0o664
        assert stat.S_IMODE(file.stat().st_mode) == mode, file
