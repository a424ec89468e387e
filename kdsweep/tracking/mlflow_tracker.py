"""MLflow as a tracker: one parent run per sweep, a child run for each teacher and each trial.

Runs are found by their tags, and every value is sent with the time at which it was measured. So
sending something twice (a driver died between two writes) changes nothing.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from kdsweep.compare.records import COLORS
from kdsweep.tracking.base import RunKey, RunUpdate
from kdsweep.tracking.mlflow_connection import KnownRun, MlflowConnection, RunTags
from kdsweep.tracking.mlflow_views import save_views

RUNNING = "RUNNING"
PAUSED = "SCHEDULED"
# MLflow's word for each state of a run.
STATUS = {
    "running": RUNNING,
    "paused": PAUSED,
    "complete": "FINISHED",
    "pruned": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
# What MLflow takes in one call, and how long a value may be.
METRICS_PER_CALL = 800
PARAMS_PER_CALL = 100
TAGS_PER_CALL = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 5000
NAME_LENGTH = 250
NOTE = "mlflow.note.content"  # what the UI shows as a description, as Markdown


class MlflowTracker:
    """The runs of one sweep in MLflow. Implements `Tracker`."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._connection = connection

    @property
    def name(self) -> str:
        return self._connection.name

    def connect(self) -> None:
        self._connection.connect()

    def update(self, run: RunKey, update: RunUpdate) -> str:
        """As few calls as MLflow allows."""
        with self._connection.client() as client:
            known = self._find_or_create(client, run, update.started)
            _log(client, known.run_id, update)
            _set_status(client, known, STATUS[update.state], update.ended)
            return known.run_id

    def prepare_views(self, metric: str) -> None:
        with self._connection.client() as client:
            save_views(client, self._connection.experiment_id, self._connection.sweep, metric)

    def describe_sweep(self, text: str) -> None:
        """Shown on the sweep's run, and first on the experiment's page."""
        with self._connection.client() as client:
            sweep = self._connection.run_id(RunKey("sweep"))
            client.log_batch(sweep, tags=[RunTag(NOTE, text[:TAG_LENGTH])])
            client.set_experiment_tag(self._connection.experiment_id, NOTE, text)

    def add_file(self, run: RunKey, file: Path) -> None:
        with self._connection.client() as client:
            client.log_artifact(self._connection.run_id(run), str(file))

    def rename_sweep(self, name: str) -> None:
        with self._connection.client() as client:
            for tags, known in self._connection.runs.items():
                client.set_tag(known.run_id, "kdsweep.sweep", name)
                if tags.phase == "sweep":
                    client.update_run(known.run_id, name=name)
                if known.status in (RUNNING, PAUSED):
                    client.set_terminated(known.run_id, "KILLED")
        self._connection.runs = {}

    def _find_or_create(self, client: MlflowClient, run: RunKey, started: int | None) -> KnownRun:
        tags = RunTags.of(run)
        if (known := self._connection.runs.get(tags)) is not None:
            return known
        created = client.create_run(
            self._connection.experiment_id,
            start_time=started,
            tags=self._creation_tags(tags),
            run_name=self._connection.sweep if run.phase == "sweep" else run.name,
        )
        known = KnownRun(created.info.run_id, created.info.status)
        self._connection.runs[tags] = known
        return known

    def _creation_tags(self, tags: RunTags) -> dict[str, str]:
        written = {
            "kdsweep.phase": tags.phase,
            "kdsweep.sweep": self._connection.sweep,
            "mlflow.user": _user(),
            "mlflow.source.name": "kdsweep",
        }
        if tags.strategy:
            written["kdsweep.strategy"] = tags.strategy
            written["kdsweep.trial"] = tags.trial
            written["mlflow.runColor"] = self._color(tags.strategy)
        if (parent := self._connection.runs.get(RunTags("sweep"))) is not None:
            written["mlflow.parentRunId"] = parent.run_id
        return written

    def _color(self, strategy: str) -> str:
        """One color per strategy in MLflow's charts, in the order in which strategies appear."""
        known = [tags.strategy for tags in self._connection.runs if tags.strategy]
        strategies = list(dict.fromkeys([*known, strategy]))
        return COLORS[strategies.index(strategy) % len(COLORS)]


def _log(client: MlflowClient, run_id: str, update: RunUpdate) -> None:
    params = _params(update.params)
    tags = [RunTag(name, value[:TAG_LENGTH]) for name, value in update.tags.items()]
    metrics = [
        Metric(mlflow_name(one.name), one.value, one.timestamp, one.step) for one in update.metrics
    ]
    while params or tags or metrics:
        client.log_batch(
            run_id,
            metrics=metrics[:METRICS_PER_CALL],
            params=params[:PARAMS_PER_CALL],
            tags=tags[:TAGS_PER_CALL],
        )
        params = params[PARAMS_PER_CALL:]
        tags = tags[TAGS_PER_CALL:]
        metrics = metrics[METRICS_PER_CALL:]


def _params(params: Mapping[str, object]) -> list[Param]:
    """Names that are the same one for MLflow get numbers."""
    values: dict[str, str] = {}
    for name, value in params.items():
        taken = unique = mlflow_name(name)
        number = 1
        while unique in values:
            number += 1
            unique = f"{taken}_{number}"
        values[unique] = str(value)[:PARAM_LENGTH]
    return [Param(name, value) for name, value in values.items()]


def mlflow_name(name: str) -> str:
    """The name of a parameter or a metric as MLflow takes it.

    It may hold the name of a user's column or split: `task.where.source (site), %`. MLflow takes
    letters, digits, blanks and _ . / -, and reads it as a path.
    """
    plain = re.sub(r"[^\w./ -]", "_", name)
    return "/".join(part for part in plain.split("/") if part.strip("."))[:NAME_LENGTH]


def _set_status(client: MlflowClient, known: KnownRun, status: str, ended: int | None) -> None:
    if status == known.status:
        return
    if status in (RUNNING, PAUSED):
        client.update_run(known.run_id, status=status)
    else:
        client.set_terminated(known.run_id, status, end_time=ended)
    known.status = status


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
