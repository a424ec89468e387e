"""MLflow's database in a home: the paths in it follow the home."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection
from pathlib import Path
from urllib.parse import unquote, urlparse

from kdsweep.databases import damage_in, is_only_read, sqlite_file

# Where MLflow keeps the path of a run's files, by the run's id.
PATHS_OF_RUNS = (
    ("runs", "artifact_uri", "run_uuid"),
    ("model_versions", "storage_location", "run_id"),
    ("logged_models", "artifact_location", "source_run_id"),
)


def follow_home(uri: str, artifacts: Path) -> None:
    """Let a home that was moved or copied keep its students: MLflow's paths are absolute.

    Only where the database lies beside the folder `artifacts`. A run whose files stayed at the
    earlier place keeps its path.
    """
    database = sqlite_file(uri)
    if database is None or database.absolute().parent != artifacts.parent:
        return
    if not database.exists() or is_only_read(database):
        return
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        # MLflow may not have made its tables yet.
        if "artifact_location" not in _columns(connection, "experiments"):
            return
        found = connection.execute("SELECT DISTINCT artifact_location FROM experiments")
        now = artifacts.as_uri()
        for before in [one for (one,) in found.fetchall() if _is_other_home(one, now)]:
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?",
                (now, before),
            )
            _move_runs(connection, before, artifacts)


def lacks_runs(uri: str, run_ids: Collection[str]) -> bool:
    """Whether the SQLite file at `uri` lacks one of these runs, for good: it is damaged, gone or
    another one. False for a server, which would have to be asked.
    """
    file = sqlite_file(uri)
    if file is None or is_only_read(file):
        return False
    if not file.exists() or damage_in(file) is not None:
        return True
    with contextlib.closing(sqlite3.connect(file)) as connection:
        if "run_uuid" not in _columns(connection, "runs"):
            return True
        found = {one for (one,) in connection.execute("SELECT run_uuid FROM runs")}
    return not found.issuperset(run_ids)


def _is_other_home(location: str | None, now: str) -> bool:
    is_file = location is not None and location.startswith("file:")
    return is_file and location != now and str(location).endswith("/artifacts")


def _move_runs(connection: sqlite3.Connection, before: str, artifacts: Path) -> None:
    earlier = Path(unquote(urlparse(before).path))
    start = f"{before}/"
    for table, column, run_column in PATHS_OF_RUNS:
        if not {column, run_column} <= _columns(connection, table):
            continue
        rows = connection.execute(
            f"SELECT rowid, {column}, {run_column} FROM {table} WHERE substr({column}, 1, ?) = ?",
            (len(start), start),
        ).fetchall()
        for number, path, run_id in rows:
            if (earlier / run_id).exists() and not (artifacts / run_id).exists():
                continue
            moved = f"{artifacts.as_uri()}/{path.removeprefix(start)}"
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (moved, number))


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
