"""A sweep with tens of thousands of ended trials, as a driver would have left it.

A short sweep is really run. Its trials' folders and its rows in both databases are then copied
under new numbers and ids.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
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
        after = max(ids.values()) + 1
        new = {number: after + i for i, number in enumerate(number_of)}
        connection.executemany(
            "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, "
            "datetime_complete) SELECT ?, ?, study_id, state, datetime_start, datetime_complete "
            "FROM trials WHERE trial_id = ?",
            [(new[number], number, ids[original]) for number, original in number_of.items()],
        )
        pairs = [(new[number], ids[original]) for number, original in number_of.items()]
        for table in OPTUNA_TABLES:
            _copy_rows(connection, table, "trial_id", pairs)
    connection.close()


def _copy_runs(
    file: Path, number_of: dict[int, int], run_ids: dict[int, str], originals: dict[int, str]
) -> None:
    pairs = [(run_ids[number], originals[original]) for number, original in number_of.items()]
    with sqlite3.connect(file) as connection:
        _copy_rows(connection, "runs", "run_uuid", pairs)
        connection.executemany(
            "UPDATE runs SET name = ? WHERE run_uuid = ?",
            [(f"finetune-{number}", run_id) for number, run_id in run_ids.items()],
        )
        for table in MLFLOW_TABLES:
            _copy_rows(connection, table, "run_uuid", pairs)
        connection.executemany(
            "UPDATE tags SET value = ? WHERE key = 'kdsweep.trial' AND run_uuid = ?",
            [(str(number), run_id) for number, run_id in run_ids.items()],
        )
    connection.close()


def _copy_rows(
    connection: sqlite3.Connection, table: str, key: str, pairs: list[tuple[object, object]]
) -> None:
    """Copy rows of the table for pairs of (new key, old key). SQLite numbers the rest anew."""
    own = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[5] == 1]
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    is_numbered = own != [key] and len(own) == 1 and own[0].endswith("_id")
    copied = [name for name in columns if name != key and not (is_numbered and name in own)]
    connection.executemany(
        f"INSERT INTO {table} ({key}, {', '.join(copied)}) "
        f"SELECT ?, {', '.join(copied)} FROM {table} WHERE {key} = ?",
        pairs,
    )
