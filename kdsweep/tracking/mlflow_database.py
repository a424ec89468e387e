"""Finds runs in MLflow's own database, and writes what is new about many in one transaction.

MLflow's client takes 15 to 20 ms of a core for each call, and three calls for a run. Hundreds of
slots end dozens of trials a second. What is written here is what the client would write, row for
row. Where MLflow is a server, its client is used.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow.entities import Metric, Param, RunTag
from mlflow.store.tracking.dbmodels.models import (
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy import (
    BigInteger,
    Connection,
    NullPool,
    Table,
    bindparam,
    create_engine,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

RUNS: Table = SqlRun.__table__
TAGS: Table = SqlTag.__table__
PARAMS: Table = SqlParam.__table__
METRICS: Table = SqlMetric.__table__
LATEST: Table = SqlLatestMetric.__table__
# Databases whose `insert` can leave out, or replace, the rows that are there.
DATABASES = ("sqlite", "postgresql")
LARGEST = 1.7976931348623157e308
RUN_NAME = "mlflow.runName"
Row = dict[str, object]


@dataclass(frozen=True)
class NewRun:
    """A run that MLflow lacks. started: milliseconds since 1970; None: now."""

    name: str
    tags: Mapping[str, str]
    started: int | None


@dataclass(frozen=True)
class RunRows:
    """What is new about one run, in MLflow's words. status: None where it stays as it is."""

    run_id: str
    new: NewRun | None
    status: str | None
    ended: int | None
    params: Sequence[Param]
    tags: Sequence[RunTag]
    metrics: Sequence[Metric]


@dataclass(frozen=True)
class FoundRun:
    """A run that MLflow has. tags: kdsweep's own."""

    run_id: str
    status: str
    is_deleted: bool
    tags: dict[str, str]


def new_run_id() -> str:
    return uuid.uuid4().hex


class RunDatabase:
    """The runs of one experiment in MLflow's database.

    location: of the experiment's files.
    """

    def __init__(self, uri: str, experiment_id: str, location: str) -> None:
        # No connection outlives a file that is replaced.
        self._engine = create_engine(uri, poolclass=NullPool)
        self.experiment_id = experiment_id
        self._location = location

    @classmethod
    def can_write(cls, uri: str) -> bool:
        return uri.startswith(DATABASES)

    def find(self, tag: str, value: str) -> list[FoundRun]:
        """The runs of the experiment that have this tag, newest first, as MLflow orders them."""
        asked = TAGS.alias("asked")
        theirs = (
            select(RUNS.c.run_uuid, RUNS.c.status, RUNS.c.lifecycle_stage)
            .join(asked, asked.c.run_uuid == RUNS.c.run_uuid)
            .where(RUNS.c.experiment_id == int(self.experiment_id))
            .where(asked.c.key == tag, asked.c.value == value)
        )
        ordered = theirs.order_by(RUNS.c.start_time.desc(), RUNS.c.run_uuid)
        tags = select(TAGS.c.run_uuid, TAGS.c.key, TAGS.c.value).where(
            TAGS.c.key.startswith("kdsweep."),
            TAGS.c.run_uuid.in_(theirs.with_only_columns(RUNS.c.run_uuid)),
        )
        with self._engine.connect() as connection:
            of: dict[str, dict[str, str]] = {}
            for run_id, name, text in connection.execute(tags):
                of.setdefault(run_id, {})[name] = text
            return [
                FoundRun(run_id, status, stage == "deleted", of.get(run_id, {}))
                for run_id, status, stage in connection.execute(ordered)
            ]

    def write(self, runs: Sequence[RunRows]) -> bool:
        """Write all of them, or nothing and return False: a run is deleted or gone."""
        with self._engine.begin() as connection:
            known = [run.run_id for run in runs if run.new is None]
            if not _are_active(connection, known):
                return False
            if new := [self._new_row(run, run.new) for run in runs if run.new is not None]:
                connection.execute(self._insert(RUNS), new)
            _set_status(connection, [run for run in runs if run.new is None])
            tags: list[Row] = [
                {"key": one.key, "value": one.value, "run_uuid": run.run_id}
                for run in runs
                for one in run.tags
            ]
            tags += [
                {"key": name, "value": value, "run_uuid": run.run_id}
                for run in runs
                if run.new is not None
                for name, value in ({RUN_NAME: run.new.name} | dict(run.new.tags)).items()
            ]
            self._replace_tags(connection, tags)
            params: list[Row] = [
                {"key": one.key, "value": one.value, "run_uuid": run.run_id}
                for run in runs
                for one in run.params
            ]
            self._add(connection, PARAMS, params)
            self._write_metrics(connection, runs)
        return True

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        is_sqlite = self._engine.dialect.name == "sqlite"
        return sqlite.insert(table) if is_sqlite else postgresql.insert(table)

    def _add(self, connection: Connection, table: Table, rows: list[Row]) -> None:
        """Insert the rows that aren't there."""
        if rows:
            connection.execute(self._insert(table).on_conflict_do_nothing(), rows)

    def _replace_tags(self, connection: Connection, rows: list[Row]) -> None:
        """Insert the tags, or give those that are there these values."""
        if rows:
            insert = self._insert(TAGS)
            values = {"value": insert.excluded["value"]}
            chosen = insert.on_conflict_do_update(index_elements=["key", "run_uuid"], set_=values)
            connection.execute(chosen, rows)

    def _new_row(self, run: RunRows, new: NewRun) -> Row:
        """As MLflow's `create_run` makes it."""
        return {
            "run_uuid": run.run_id,
            "name": new.name,
            "artifact_uri": append_to_uri_path(self._location, run.run_id, "artifacts"),
            "experiment_id": int(self.experiment_id),
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "source_version": "",
            "user_id": new.tags.get("mlflow.user", "unknown"),
            "status": run.status or "RUNNING",
            "start_time": new.started or get_current_time_millis(),
            "end_time": run.ended,
            "deleted_time": None,
            "lifecycle_stage": "active",
        }

    def _write_metrics(self, connection: Connection, runs: Sequence[RunRows]) -> None:
        found = [(run.run_id, one) for run in runs for one in run.metrics]
        if not found:
            return
        self._add(connection, METRICS, [_metric_row(*one) for one in found])
        latest: dict[tuple[str, str], Metric] = {}
        for run_id, one in found:
            before = latest.setdefault((run_id, one.key), one)
            if _age(one) > _age(before):
                latest[run_id, one.key] = one
        insert = self._insert(LATEST)
        names = ("step", "timestamp", "value")
        newer = tuple_(*(insert.excluded[name] for name in names)) > tuple_(
            *(LATEST.c[name] for name in names)
        )
        changed = {name: insert.excluded[name] for name in (*names, "is_nan")}
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["key", "run_uuid"], set_=changed, where=newer
            ),
            [_metric_row(run_id, one) for (run_id, _), one in latest.items()],
        )


def _are_active(connection: Connection, run_ids: Sequence[str]) -> bool:
    found = connection.execute(
        select(RUNS.c.run_uuid).where(
            RUNS.c.run_uuid.in_(run_ids), RUNS.c.lifecycle_stage == "active"
        )
    )
    return len(found.all()) == len(run_ids)


def _set_status(connection: Connection, runs: Sequence[RunRows]) -> None:
    changed = [
        {"id": run.run_id, "status": run.status, "ended": run.ended}
        for run in runs
        if run.status is not None
    ]
    if changed:
        # An end that is there stays, as with MLflow's client.
        ended = func.coalesce(bindparam("ended", type_=BigInteger), RUNS.c.end_time)
        values = {"status": bindparam("status"), "end_time": ended}
        chosen = update(RUNS).where(RUNS.c.run_uuid == bindparam("id")).values(values)
        connection.execute(chosen, changed)


def _metric_row(run_id: str, metric: Metric) -> Row:
    """A database's column can't hold NaN and infinity."""
    is_nan = math.isnan(metric.value)
    return {
        "key": metric.key,
        "value": 0.0 if is_nan else max(-LARGEST, min(LARGEST, metric.value)),
        "timestamp": metric.timestamp,
        "step": metric.step,
        "is_nan": is_nan,
        "run_uuid": run_id,
    }


def _age(metric: Metric) -> tuple[int, int, float]:
    """Of two values of a metric, MLflow shows the one for which this is greater."""
    return metric.step, metric.timestamp, 0.0 if math.isnan(metric.value) else metric.value
