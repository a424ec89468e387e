"""MLflow's client for one sweep: finds the experiment and the sweep's runs, and says whether
MLflow can be reached."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import requests
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from kdsweep.core.standing import check_standing
from kdsweep.databases import (
    damage_in,
    is_damage,
    made_alone,
    may_write_ahead,
    set_aside,
    shown_database,
    sqlite_file,
    url_to_open,
    write_ahead,
)
from kdsweep.errors import (
    KdsweepError,
    TrackingDamaged,
    TrackingRefused,
    TrackingUnreachable,
    first_line,
    without_password,
)
from kdsweep.tracking.base import RunKey
from kdsweep.tracking.home_database import follow_home
from kdsweep.tracking.mlflow_database import RunDatabase

warnings.filterwarnings("ignore", module="mlflow")
# It logs each table that it creates, and a stack trace for each error that it raises as well.
logging.getLogger("mlflow.store.db").setLevel(logging.CRITICAL)

MLFLOW_ERRORS = (MlflowException, OSError, SQLAlchemyError, sqlite3.Error)
# MLflow's codes for what it will refuse again.
REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")


class RunTags(NamedTuple):
    """The tags by which a run is found again: `kdsweep.phase`, `.strategy` and `.trial`.

    Where a sweep has several teachers, a teacher's run has the strategy `teacher`.
    """

    phase: str
    strategy: str = ""
    trial: str = ""

    @classmethod
    def of(cls, key: RunKey) -> RunTags:
        if key.trial is not None:
            return cls(key.phase, key.trial.strategy, key.trial.number_and_seed)
        if key.teacher:
            return cls(key.phase, "teacher", key.teacher)
        return cls(key.phase)

    @classmethod
    def of_run(cls, run: Run) -> RunTags:
        found = run.data.tags
        return cls(*(found.get(f"kdsweep.{field}", "") for field in cls._fields))


@dataclass
class KnownRun:
    """What is known of a run without asking MLflow. `status` is MLflow's word. is_deleted: by a
    user, in MLflow's UI; it can be restored."""

    run_id: str
    status: str
    is_deleted: bool = False

    @classmethod
    def of(cls, run: Run) -> KnownRun:
        return cls(run.info.run_id, run.info.status, run.info.lifecycle_stage == "deleted")


class MlflowConnection:
    """The experiment and the runs of one sweep, found by their tags.

    uri: of a server or a database. artifacts: the folder for files where `uri` is a database.
    """

    def __init__(self, uri: str, *, experiment: str, sweep: str, artifacts: Path) -> None:
        self.uri = uri
        self.name = f"MLflow at {shown_database(uri)}"
        self.experiment_name = experiment
        self.sweep = sweep
        self.runs: dict[RunTags, KnownRun] = {}
        # Where the files of runs are; None where a server knows.
        self.artifacts = artifacts if _is_database(uri) else None
        self.say: Callable[[str], None] = lambda line: None
        self._experiment_id: str | None = None
        self._was_found = False
        if (file := sqlite_file(uri)) is not None:
            _write_ahead(file)

    @property
    def experiment_id(self) -> str:
        assert self._experiment_id is not None
        return self._experiment_id

    @property
    def is_open(self) -> bool:
        """Whether the runs are known. They are looked for again after MLflow was away."""
        return self._experiment_id is not None

    def run_id(self, key: RunKey) -> str:
        """MLflow's id of a run of this sweep. Raises KdsweepError where there is none."""
        if (known := self.runs.get(RunTags.of(key))) is None:
            raise KdsweepError(
                f"tracking: {self.name} has no run {key.name} of sweep {self.sweep!r}"
            )
        return known.run_id

    def connect(self) -> None:
        """Find MLflow. Raises KdsweepError where it can't be used, now or ever."""
        try:
            with self.client():
                pass
        except (*MLFLOW_ERRORS, ImportError) as error:
            raise KdsweepError(
                f"tracking: {self.name} can't be used: {shown_error(error)}"
            ) from error

    def check_home(self) -> None:
        """Raises FolderGone where files go to a home that was removed: MLflow would make it."""
        if self.artifacts is not None:
            check_standing(self.artifacts)

    @contextlib.contextmanager
    def client(self) -> Iterator[MlflowClient]:
        """The client, with the experiment and this sweep's runs found.

        Raises TrackingUnreachable where MLflow doesn't answer, in the block too, TrackingRefused
        where it refuses what it was sent, and TrackingDamaged where its database is damaged.
        """
        self.check_home()
        # MLflow would try for 100 seconds to open another connection to a damaged file.
        damage = damage_in(sqlite_file(self.uri), read_all=False) if self._was_found else None
        if damage is not None:
            raise self._damaged(damage)
        try:
            if self._experiment_id is None:
                self._connect()
            yield self._client
        except MLFLOW_ERRORS as error:
            if (damage := self._damage(error)) is not None:
                raise self._damaged(damage) from error
            if is_refused(error):
                raise TrackingRefused(
                    f"tracking: {self.name} refuses it: {shown_error(error)}"
                ) from error
            if not is_unreachable(error):
                raise
            # A call that was cut off may have reached MLflow: look again before anything is made.
            self._experiment_id = None
            raise TrackingUnreachable(
                f"tracking: {self.name} doesn't answer: {shown_error(error)}"
            ) from error

    @contextlib.contextmanager
    def reader(self) -> Iterator[MlflowClient]:
        """A client that creates nothing. Raises KdsweepError where there is no MLflow to read."""
        database = sqlite_file(self.uri)
        if database is not None and not database.exists():
            # MLflow would create an empty one.
            raise KdsweepError(f"tracking: there is no MLflow database {database}")
        if (damage := damage_in(database)) is not None:
            raise self._damaged(damage)
        try:
            check_database_server(self.uri)
            uri = url_to_open(self.uri)
            yield MlflowClient(tracking_uri=uri, registry_uri=uri)
        except MLFLOW_ERRORS as error:
            if not is_unreachable(error):
                raise
            raise TrackingUnreachable(
                f"tracking: {self.name} doesn't answer: {shown_error(error)}"
            ) from error

    def _damage(self, error: Exception) -> str | None:
        """What is damaged in the database after this error; None if nothing is."""
        if (found := damage_in(sqlite_file(self.uri))) is not None:
            return found
        return shown_error(error) if is_damage(error) else None

    def _damaged(self, damage: str) -> TrackingDamaged:
        what = "repair it, or move it away; the next `kdsweep run` sends everything"
        if self._is_of_home:
            what = (
                "repair it, or leave it: the next `kdsweep run` gives it another name and sends "
                "everything to a new one"
            )
        shown = shown_database(self.uri)
        return TrackingDamaged(f"tracking: {shown} is damaged ({damage}); {what}")

    @property
    def _is_of_home(self) -> bool:
        """Whether the database is home's own, which lies beside the folder for files."""
        file = sqlite_file(self.uri)
        if file is None or self.artifacts is None:
            return False
        return file.absolute().parent == self.artifacts.parent

    def _check_database(self) -> None:
        """Give home's damaged database another name, unless it was whole when the sweep started."""
        file = sqlite_file(self.uri)
        if file is None or (damage := damage_in(file)) is None:
            return
        if self._was_found or not self._is_of_home:
            raise self._damaged(damage)
        if (aside := set_aside(file)) is not None:
            self.say(
                f"tracking: {file} was damaged ({damage}) and is now called {aside.name}; a new "
                "one gets all runs of this sweep, and those of each other sweep once it runs again"
            )

    def _connect(self) -> None:
        check_database_server(self.uri)
        self._check_database()
        with made_alone(self.uri):
            if self.artifacts is not None:
                follow_home(self.uri, self.artifacts)
            self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            experiment_id = self._find_or_create_experiment().experiment_id
        self.runs = self._find_runs(experiment_id)
        self._experiment_id = experiment_id
        self._was_found = True

    def _find_runs(self, experiment_id: str) -> dict[RunTags, KnownRun]:
        """The runs of this sweep. Of two with the same tags, the one that isn't deleted."""
        if RunDatabase.can_write(self.uri):
            # Through its client, MLflow would read all metrics too, which takes minutes for tens
            # of thousands of runs.
            database = RunDatabase(self.uri, experiment_id, location="")
            tagged = [
                (RunTags(*(one.tags.get(f"kdsweep.{name}", "") for name in RunTags._fields)), one)
                for one in database.find("kdsweep.sweep", self.sweep)
            ]
            found = [
                (tags, KnownRun(one.run_id, one.status, one.is_deleted)) for tags, one in tagged
            ]
        else:
            runs = search_runs(
                self._client, experiment_id, f"tags.`kdsweep.sweep` = '{self.sweep}'"
            )
            found = [(RunTags.of_run(run), KnownRun.of(run)) for run in runs]
        found.sort(key=lambda pair: not pair[1].is_deleted)
        return dict(found)

    def _find_or_create_experiment(self) -> Experiment:
        found = self._client.get_experiment_by_name(self.experiment_name)
        if found is None:
            location = None if self.artifacts is None else self.artifacts.as_uri()
            created = self._client.create_experiment(self.experiment_name, location)
            return self._client.get_experiment(created)
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return found


def search_runs(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    """All runs that MLflow's search finds, page by page; deleted ones that can be restored too."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string=query,
            run_view_type=ViewType.ALL,
            max_results=1000,
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def is_unreachable(error: BaseException | None) -> bool:
    """Whether MLflow may answer later, since nothing is wrong with what was sent.

    MLflow gives most of its errors the code INTERNAL_ERROR, so their causes have to tell.
    """
    if getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE":
        return True
    while error is not None:
        if isinstance(error, requests.exceptions.RequestException):
            # A ValueError among them is a URL that can't be one.
            return not isinstance(error, ValueError | requests.exceptions.SSLError)
        if isinstance(error, OperationalError | InterfaceError | sqlite3.OperationalError):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_refused(error: BaseException) -> bool:
    """Whether MLflow will never accept what was sent, such as a name that it doesn't allow."""
    return getattr(error, "error_code", None) in REFUSED and not is_damage(error)


def shown_error(error: Exception) -> str:
    """An error's first line, without a password."""
    return without_password(first_line(error))


def check_database_server(uri: str) -> None:
    """Raises OperationalError at once where a database server doesn't answer.

    MLflow itself would try for 100 seconds, with pages of warnings.
    """
    if _is_database(uri) and not uri.startswith("sqlite"):
        with create_engine(uri, poolclass=NullPool).connect():
            pass


def _is_database(uri: str) -> bool:
    return re.split("[:+]", uri)[0] in DATABASE_ENGINES


def _write_ahead(file: Path) -> None:
    """Let MLflow's connections to this SQLite file use a write-ahead log.

    MLflow opens them itself and has no setting for it, so SQLAlchemy tells us of each.
    """
    if not may_write_ahead(file.parent):
        return

    def on_connect(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            opened = connection.execute("PRAGMA database_list").fetchone()[2]
            if opened and Path(opened) == file:
                write_ahead(connection)

    event.listen(Engine, "connect", on_connect)
