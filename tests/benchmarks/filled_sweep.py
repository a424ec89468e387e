"""A sweep with tens of thousands of ended trials, as a driver would have left it.

A short sweep is really run. Its trials' folders and its rows in both databases are then copied
under new numbers and ids.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path

from null_core import NullCore, Swept, make_plan, sweep

from kdsweep.sweep.folders import Home

COPIED = ("settings.json", "drawn.json", "metrics.jsonl", "result.json")
OPTUNA_TABLES = (
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_user_attributes",
    "trial_system_attributes",
)
MLFLOW_TABLES = ("params", "tags", "metrics", "latest_metrics")


def fill(folder: Path, home: Home, trials: int, *assignments: str, really: int = 100) -> None:
    """Give the home a sweep with so many trials; `really` of them ran."""
    plan = make_plan(folder, f"trials={min(really, trials)}", *assignments)
    sweep(plan, home, NullCore(0.0, 3), Swept())
    if trials <= really:
        return
    number_of = {number: number % really for number in range(really, trials)}
    run_ids = {number: uuid.uuid4().hex for number in number_of}
    originals = _copy_folders(home.sweep(plan.name).trials, number_of, run_ids)
    _copy_studies(home.optuna_db, number_of)
    _copy_runs(home.mlflow_db, number_of, run_ids, originals)


def _copy_folders(root: Path, number_of: dict[int, int], run_ids: dict[int, str]) -> dict[int, str]:
    """Returns the run ids of the trials that are copied."""
    contents: dict[int, dict[str, bytes]] = {}
    tracked: dict[int, dict[str, object]] = {}
    for original in sorted(set(number_of.values())):
        there = root / f"finetune-{original}"
        contents[original] = {name: (there / name).read_bytes() for name in COPIED}
        tracked[original] = json.loads((there / "tracked.json").read_bytes())
    for number, original in number_of.items():
        made = root / f"finetune-{number}"
        made.mkdir()
        for name, content in contents[original].items():
            (made / name).write_bytes(content)
        new = tracked[original] | {"run_id": run_ids[number]}
        (made / "tracked.json").write_text(json.dumps(new))
    return {original: str(one["run_id"]) for original, one in tracked.items()}


def _copy_studies(file: Path, number_of: dict[int, int]) -> None:
    with sqlite3.connect(file) as connection:
        ids = dict(connection.execute("SELECT number, trial_id FROM trials"))
        new = list(enumerate(number_of, start=max(ids.values()) + 1))
        pairs = [(trial_id, ids[number_of[number]]) for trial_id, number in new]
        with _copying(connection, pairs):
            for table in ("trials", *OPTUNA_TABLES):
                _copy_rows(connection, table, "trial_id")
        connection.executemany(
            "UPDATE trials SET number = ? WHERE trial_id = ?",
            [(number, trial_id) for trial_id, number in new],
        )
    connection.close()


def _copy_runs(
    file: Path, number_of: dict[int, int], run_ids: dict[int, str], originals: dict[int, str]
) -> None:
    pairs = [(run_ids[number], originals[original]) for number, original in number_of.items()]
    with sqlite3.connect(file) as connection:
        with _copying(connection, pairs):
            for table in ("runs", *MLFLOW_TABLES):
                _copy_rows(connection, table, "run_uuid")
        connection.executemany(
            "UPDATE runs SET name = ?, artifact_uri = replace(artifact_uri, ?, run_uuid) "
            "WHERE run_uuid = ?",
            [
                (f"finetune-{number}", originals[number_of[number]], run_id)
                for number, run_id in run_ids.items()
            ],
        )
        connection.executemany(
            "UPDATE tags SET value = ? WHERE key = ? AND run_uuid = ?",
            [
                (value, key, run_id)
                for number, run_id in run_ids.items()
                for key, value in (
                    ("kdsweep.trial", str(number)),
                    ("mlflow.runName", f"finetune-{number}"),
                )
            ],
        )
    # What a real sweep has written long ago isn't in the log any more.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@contextlib.contextmanager
def _copying(connection: sqlite3.Connection, pairs: list[tuple[object, object]]) -> Iterator[None]:
    """Let `_copy_rows` copy what belongs to the second of each pair for the first.

    All rows of a table are copied by one statement: tens of thousands take a minute each.
    """
    # In KB: without it, SQLite would write each page of an index many times.
    connection.execute("PRAGMA cache_size = -500000")
    connection.execute("CREATE TEMP TABLE copied (new PRIMARY KEY, old)")
    # In the order of the keys, pages are filled one after the other.
    connection.executemany("INSERT INTO copied VALUES (?, ?)", sorted(pairs))
    yield
    connection.execute("DROP TABLE copied")


def _copy_rows(connection: sqlite3.Connection, table: str, key: str) -> None:
    """SQLite numbers rows that have an id of their own anew."""
    found = connection.execute(f"PRAGMA table_info({table})").fetchall()
    own = [row[1] for row in found if row[5]]
    is_numbered = len(own) == 1 and own[0] != key and own[0].endswith("_id")
    names = [row[1] for row in found if row[1] != key and not (is_numbered and row[1] in own)]
    columns = ", ".join(names)
    taken = ", ".join(f"theirs.{name}" for name in names)
    connection.execute(
        f"INSERT INTO {table} ({key}, {columns}) SELECT copied.new, {taken} "
        f"FROM copied CROSS JOIN {table} AS theirs ON theirs.{key} = copied.old "
        "ORDER BY copied.new"
    )
