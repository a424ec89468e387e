"""MLflow as a tracker: one parent run per sweep, a child run for each teacher and each trial.

Runs are found by their tags, and every value is sent with the time at which it was measured. So
sending something twice (a driver died between two writes) changes nothing.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.validation import _validate_batch_log_data

from kdsweep.compare.records import COLORS
from kdsweep.errors import TrackingRefused, first_few
from kdsweep.tracking import mlflow_removal as removal
from kdsweep.tracking.base import KeptRuns, MadeHere, RunKey, RunUpdate
from kdsweep.tracking.mlflow_connection import (
    KnownRun,
    MlflowConnection,
    RunTags,
    is_refused,
    shown_error,
)
from kdsweep.tracking.mlflow_database import NewRun, RunDatabase, RunRows, new_run_id
from kdsweep.tracking.mlflow_names import (
    NOTE,
    PARAM_LENGTH,
    TAG_LENGTH,
    accepted_name,
    accepted_value,
    original_names,
)
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
# What MLflow takes in one call.
METRICS_PER_CALL = 800
PARAMS_PER_CALL = 100
TAGS_PER_CALL = 100


class MlflowTracker:
    """The runs of one sweep in MLflow. Implements `Tracker`."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._connection = connection
        self._strategies: list[str] = []
        self._opened: RunDatabase | None = None

    @property
    def name(self) -> str:
        return self._connection.name

    def connect(self) -> None:
        self._connection.connect()

    def update(self, run: RunKey, update: RunUpdate) -> str:
        """As few calls as MLflow allows."""
        with self._connection.client() as client:
            known = self._find_or_create(client, run, update.started)
            refused = _log(client, known.run_id, update)
            _set_status(client, known, STATUS[update.state], update.ended)
        if refused:
            # No run is named: what one refuses, all of them do, and one line is enough.
            raise TrackingRefused(
                f"tracking: {self.name} refuses {first_few(refused)}; runs are sent without that",
                known.run_id,
            )
        return known.run_id

    def update_all(self, updates: Sequence[tuple[RunKey, RunUpdate]]) -> list[str]:
        """In one transaction where MLflow is a database and nothing is refused."""
        with self._connection.client() as client:
            found = self._write_together(client, updates)
        return found or [self.update(run, update) for run, update in updates]

    def find(self, run: RunKey) -> str | None:
        if not self._connection.is_open:
            with self._connection.client():
                pass
        known = self._connection.runs.get(RunTags.of(run))
        return None if known is None else known.run_id

    def prepare_views(self, metric: str) -> None:
        with self._connection.client() as client:
            save_views(client, self._connection.experiment_id, self._connection.sweep, metric)

    def describe_sweep(self, text: str) -> None:
        """Shown on the sweep's run, and first on the experiment's page."""
        with self._connection.client() as client:
            sweep = self._connection.run_id(RunKey("sweep"))
            client.log_batch(sweep, tags=[RunTag(NOTE, accepted_value(text, TAG_LENGTH))])
            client.set_experiment_tag(self._connection.experiment_id, NOTE, text)

    def add_file(self, run: RunKey, file: Path) -> None:
        with self._connection.client() as client:
            client.log_artifact(self._connection.run_id(run), str(file))

    def rename_sweep(self, name: str) -> None:
        with self._connection.client() as client:
            for tags, known in self._connection.runs.items():
                if known.is_deleted:
                    continue
                client.set_tag(known.run_id, "kdsweep.sweep", name)
                if tags.phase == "sweep":
                    client.update_run(known.run_id, name=name)
                if known.status in (RUNNING, PAUSED):
                    client.set_terminated(known.run_id, "KILLED")
        self._connection.runs = {}

    def find_kept(self, made_here: MadeHere | None) -> KeptRuns:
        return removal.find_kept(self._connection, made_here)

    def remove_kept(
        self, made_here: MadeHere | None, metric: str, say: Callable[[str], None]
    ) -> None:
        removal.remove_kept(self._connection, made_here, metric, say)

    def _write_together(
        self, client: MlflowClient, updates: Sequence[tuple[RunKey, RunUpdate]]
    ) -> list[str] | None:
        """None where MLflow's client has to do it, one by one."""
        database = self._database(client)
        if database is None:
            return None
        rows = [self._rows(run, update) for run, update in updates]
        if any(one is None for one in rows):
            return None
        written = [one for one in rows if one is not None]
        if not database.write(written):
            return None
        for (run, update), one in zip(updates, written, strict=True):
            self._connection.runs[RunTags.of(run)] = KnownRun(one.run_id, STATUS[update.state])
        return [one.run_id for one in written]

    def _database(self, client: MlflowClient) -> RunDatabase | None:
        """What writes directly to MLflow's database; None where MLflow is a server."""
        experiment = self._connection.experiment_id
        if not RunDatabase.can_write(self._connection.uri):
            return None
        if self._opened is None or self._opened.experiment_id != experiment:
            location = client.get_experiment(experiment).artifact_location
            self._opened = RunDatabase(self._connection.uri, experiment, location)
        return self._opened

    def _rows(self, run: RunKey, update: RunUpdate) -> RunRows | None:
        """What is new about the run; None where MLflow's client has to restore it, or refuses a
        part of it."""
        tags = RunTags.of(run)
        known = self._connection.runs.get(tags)
        if known is not None and known.is_deleted:
            return None
        everything = _Batch.of(update)
        try:
            metrics, params, more_tags = _validate_batch_log_data(
                everything.metrics, everything.params, everything.tags
            )
        except MlflowException as error:
            if not is_refused(error):
                raise
            return None
        new = None
        if known is None:
            new = NewRun(run.name, self._creation_tags(tags), update.started)
        status = STATUS[update.state]
        ended = update.ended
        if status not in (RUNNING, PAUSED):
            ended = ended or get_current_time_millis()
        return RunRows(
            new_run_id() if known is None else known.run_id,
            new,
            status if known is None or known.status != status else None,
            ended,
            params,
            more_tags,
            metrics,
        )

    def _find_or_create(self, client: MlflowClient, run: RunKey, started: int | None) -> KnownRun:
        tags = RunTags.of(run)
        if (known := self._connection.runs.get(tags)) is not None:
            if known.is_deleted:
                client.restore_run(known.run_id)
                known.is_deleted = False
                self._connection.say(
                    f"tracking: the run {run.name} was deleted in {self.name}; it is restored, "
                    "since the sweep still writes to it"
                )
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
        if strategy not in self._strategies:
            known = [tags.strategy for tags in self._connection.runs if tags.strategy]
            self._strategies = list(dict.fromkeys([*known, strategy]))
        return COLORS[self._strategies.index(strategy) % len(COLORS)]


def _log(client: MlflowClient, run_id: str, update: RunUpdate) -> list[str]:
    """Log all that MLflow accepts; returns what it refused, in words."""
    batches = _batches(update)
    refused: list[str] = []
    for batch in batches:
        try:
            batch.log(client, run_id)
        except MlflowException as error:
            if not is_refused(error):
                raise
            for one in batch.single():
                try:
                    one.log(client, run_id)
                except MlflowException as own:
                    if not is_refused(own):
                        raise
                    refused.append(f"{one.what} ({shown_error(own)})")
    return list(dict.fromkeys(refused))


@dataclass(frozen=True)
class _Batch:
    """What is logged in one call."""

    params: Sequence[Param] = ()
    tags: Sequence[RunTag] = ()
    metrics: Sequence[Metric] = ()

    @classmethod
    def of(cls, update: RunUpdate) -> _Batch:
        """All of the update, under names that MLflow accepts."""
        params = [
            Param(accepted_name(name), accepted_value(value, PARAM_LENGTH))
            for name, value in update.params.items()
        ]
        named = [*update.params, *(one.name for one in update.metrics)]
        tags = [
            RunTag(name, accepted_value(value, TAG_LENGTH))
            for name, value in (original_names(named) | dict(update.tags)).items()
        ]
        metrics = [
            Metric(accepted_name(one.name), one.value, one.timestamp, one.step)
            for one in update.metrics
        ]
        return cls(params, tags, metrics)

    def log(self, client: MlflowClient, run_id: str) -> None:
        client.log_batch(run_id, metrics=self.metrics, params=self.params, tags=self.tags)

    def single(self) -> Iterator[_Batch]:
        """Each param, each tag, and all values of each metric alone."""
        yield from (_Batch(params=[one]) for one in self.params)
        yield from (_Batch(tags=[one]) for one in self.tags)
        for name in dict.fromkeys(one.key for one in self.metrics):
            yield _Batch(metrics=[one for one in self.metrics if one.key == name])

    @property
    def what(self) -> str:
        """A batch of `single` in words."""
        for kind, items in (("param", self.params), ("tag", self.tags), ("metric", self.metrics)):
            for one in items:
                return f"{kind} {one.key!r}"
        return "nothing"


def _batches(update: RunUpdate) -> list[_Batch]:
    """All of the update, in as few calls as MLflow allows."""
    everything = _Batch.of(update)
    params, tags, metrics = everything.params, everything.tags, everything.metrics
    batches: list[_Batch] = []
    while params or tags or metrics:
        batches.append(
            _Batch(params[:PARAMS_PER_CALL], tags[:TAGS_PER_CALL], metrics[:METRICS_PER_CALL])
        )
        params = params[PARAMS_PER_CALL:]
        tags = tags[TAGS_PER_CALL:]
        metrics = metrics[METRICS_PER_CALL:]
    return batches


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
