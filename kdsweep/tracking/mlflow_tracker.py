"""MLflow: one parent run a sweep, a child run for the teacher and each trial. The only file that imports it.

Runs are found by their tags and every value is sent with the time at which it was measured, so that sending something again
(after a driver died between two writes) changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault(
    "MLFLOW_LOGGING_LEVEL", "WARNING"
)  # or making the database tells of each of its tables
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# An outage is waited for by whoever calls, with everything kept: one call must not block for the four minutes of the defaults.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import requests
from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import Engine, NullPool, create_engine, event
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from kdsweep.compare.records import COLORS
from kdsweep.core.files import fingerprint, on_network_file_system, write_ahead
from kdsweep.core.settings import TrialSettings, Truncation
from kdsweep.errors import KdsweepError, TrackingUnreachable, first_line, without_password
from kdsweep.serving import write_settings
from kdsweep.trial_id import Phase, TrialId

warnings.filterwarnings("ignore", module="mlflow")
logging.getLogger("mlflow.store.db").setLevel(
    logging.CRITICAL
)  # every table that is made, and a stack trace for each error that is raised too

RUNNING, FINISHED, PAUSED = "RUNNING", "FINISHED", "SCHEDULED"
# MLflow's own word for how a run ended, for each state of a trial or a sweep.
STATUS = {
    "running": RUNNING,
    "paused": PAUSED,
    "complete": FINISHED,
    "pruned": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}


@dataclass(frozen=True)
class RunKey:
    """One of a sweep's runs: its own, a teacher's or a trial's.

    teacher: which one, where a sweep has several.
    """

    phase: Literal["sweep", "teacher"] | Phase
    trial: TrialId | None = None
    teacher: str = ""

    @classmethod
    def of(cls, trial: TrialId) -> RunKey:
        return cls(trial.phase, trial)

    @property
    def name(self) -> str:
        if self.trial is not None:
            return self.trial.name
        return f"{self.phase}-{self.teacher}" if self.teacher else self.phase

    @property
    def tags(self) -> dict[str, str]:
        """What MLflow's tags say of it."""
        tags: dict[str, str] = {"kdsweep.phase": self.phase}
        if self.trial is not None:
            tags["kdsweep.strategy"] = self.trial.strategy
            tags["kdsweep.trial"] = self.trial.number_and_seed
        elif self.teacher:
            tags["kdsweep.strategy"] = self.phase
            tags["kdsweep.trial"] = self.teacher
        return tags

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> RunKey | None:
        """The run that has these tags; None where it isn't one of a sweep's."""
        strategy = tags.get("kdsweep.strategy", "")
        trial = tags.get("kdsweep.trial", "")
        match tags.get("kdsweep.phase"):
            case "sweep":
                return cls("sweep")
            case "teacher":
                return cls("teacher", teacher=trial)
            case "search" | "confirm" as phase:
                with contextlib.suppress(ValueError):
                    return cls.of(TrialId.parse(f"{strategy}-{trial}", phase))
        return None


@dataclass(frozen=True)
class Point:
    """A metric's value, measured at `timestamp` (milliseconds since 1970) after `step` steps."""

    name: str
    value: float
    timestamp: int
    step: int


@dataclass
class _Known:
    """What is known of a run without asking."""

    run_id: str
    status: str


class Tracker:
    """One sweep's runs. Every method may raise TrackingUnreachable, and can be called again then."""

    def __init__(self, uri: str, *, experiment: str, sweep: str, artifacts: Path) -> None:
        self.uri, self.experiment_name, self.sweep = uri, experiment, sweep
        self.artifacts = (
            artifacts.as_uri() if re.split("[:+]", uri)[0] in DATABASE_ENGINES else None
        )  # a server has a place of its own
        self._runs: dict[RunKey, _Known] = {}
        self._experiment_id: str | None = None
        if uri.startswith("sqlite:///"):
            _write_ahead(Path(uri.removeprefix("sqlite:///")))

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[MlflowClient]:
        """MLflow's client, with the experiment and this sweep's runs found."""
        try:
            if self._experiment_id is None:
                _knock(self.uri)
                self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
                experiment_id = self._experiment().experiment_id
                self._runs = {
                    key: _Known(run.info.run_id, run.info.status)
                    for run in self._search(experiment_id)
                    if (key := RunKey.from_tags(run.data.tags)) is not None
                }
                self._experiment_id = experiment_id
            yield self.client
        except (MlflowException, OSError, SQLAlchemyError) as error:
            if not is_unreachable(error):
                raise
            self._experiment_id = (
                None  # what was cut off may have been done: look again before making anything
            )
            raise TrackingUnreachable(
                f"tracking: MLflow at {without_password(self.uri)} doesn't answer: {_first_line(error)}"
            ) from error

    def connect(self) -> None:
        """Find MLflow. Raises KdsweepError where it can't be used, now or ever."""
        try:
            with self._reaching():
                pass
        except (MlflowException, OSError, SQLAlchemyError, ImportError) as error:
            raise KdsweepError(
                f"tracking: MLflow at {without_password(self.uri)} can't be used: {_first_line(error)}"
            ) from error

    @property
    def experiment_id(self) -> str:
        assert self._experiment_id is not None
        return self._experiment_id

    def _experiment(self) -> Experiment:
        found = self.client.get_experiment_by_name(self.experiment_name)
        if found is None:
            return self.client.get_experiment(
                self.client.create_experiment(self.experiment_name, self.artifacts)
            )
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found

    def _search(self, experiment_id: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [experiment_id],
                filter_string=f"tags.`kdsweep.sweep` = '{self.sweep}'",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    # --- runs --------------------------------------------------------------------------------------------------------

    def write(
        self,
        key: RunKey,
        *,
        state: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        points: Sequence[Point] = (),
        started: int | None = None,
        ended: int | None = None,
    ) -> str:
        """Bring a run up to date, made if it isn't there; its id. `state`: running, paused, or how it ended.

        In as few calls as MLflow allows. Sending something again changes nothing: runs are found by their tags, and the same
        value at the same time is one point.
        """
        with self._reaching() as client:
            known = self._runs.get(key)
            if known is None:
                name = self.sweep if key.phase == "sweep" else key.name
                made = client.create_run(
                    self.experiment_id, start_time=started, tags=self._own_tags(key), run_name=name
                )
                known = self._runs[key] = _Known(made.info.run_id, made.info.status)
            all_params = [Param(name, str(value)[:6000]) for name, value in (params or {}).items()]
            all_tags = [RunTag(name, value[:5000]) for name, value in (tags or {}).items()]
            all_metrics = [
                Metric(point.name, point.value, point.timestamp, point.step) for point in points
            ]
            while all_params or all_tags or all_metrics:
                client.log_batch(
                    known.run_id,
                    metrics=all_metrics[:800],
                    params=all_params[:100],
                    tags=all_tags[:100],
                )
                all_params, all_tags, all_metrics = (
                    all_params[100:],
                    all_tags[100:],
                    all_metrics[800:],
                )
            status = STATUS[state]
            if status != known.status:
                if status in (RUNNING, PAUSED):
                    client.update_run(known.run_id, status=status)
                else:
                    client.set_terminated(known.run_id, status, end_time=ended)
                known.status = status
            return known.run_id

    def _own_tags(self, key: RunKey) -> dict[str, str]:
        tags = key.tags | {
            "kdsweep.sweep": self.sweep,
            "mlflow.user": _user(),
            "mlflow.source.name": "kdsweep",
        }
        if "kdsweep.strategy" in tags:
            tags["mlflow.runColor"] = self._color(tags["kdsweep.strategy"])
        parent = self._runs.get(RunKey("sweep"))
        return tags | ({"mlflow.parentRunId": parent.run_id} if parent else {})

    def _color(self, strategy: str) -> str:
        """One colour a strategy in MLflow's charts, in the order in which strategies appear."""
        known = [key.tags.get("kdsweep.strategy") for key in self._runs]
        strategies = list(dict.fromkeys([*filter(None, known), strategy]))
        return COLORS[strategies.index(strategy) % len(COLORS)]

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        with self._reaching() as client:
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def rename_sweep(self, name: str) -> None:
        """Give all runs of this sweep to the name `name`."""
        with self._reaching() as client:
            for key, known in self._runs.items():
                client.set_tag(known.run_id, "kdsweep.sweep", name)
                if key.phase == "sweep":
                    client.update_run(known.run_id, name=name)
                if known.status in (RUNNING, PAUSED):
                    client.set_terminated(known.run_id, "KILLED")
        self._runs = {}

    def describe_experiment(self, text: str) -> None:
        """What the experiment's page shows first, as Markdown."""
        with self._reaching() as client:
            client.set_experiment_tag(self.experiment_id, "mlflow.note.content", text)

    # --- how it looks in MLflow's UI ---------------------------------------------------------------------------------

    def save_views(self, metric: str) -> None:
        """Keep two views of this sweep in the experiment, as the UI's own "share" does: a table, best first, and charts.

        A link can't name columns or charts, and without a view the UI opens an experiment in its GenAI mode.
        """
        best, value = f"metrics.`best/validation/{metric}`", f"validation/{metric}"
        state: dict[str, Any] = {
            "searchFilter": f"tags.`kdsweep.sweep` = '{self.sweep}' and tags.`kdsweep.phase` != 'sweep'",
            "orderByKey": best,
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "runsHiddenMode": "SHOW_ALL",
            "selectedColumns": [
                "tags.`kdsweep.strategy`",
                "tags.`kdsweep.state`",
                "params.`alpha`",
                "params.`temperature`",
                "params.`learning_rate`",
                best,
            ],
        }
        chart: dict[str, Any] = {
            "runsCountToCompare": 100,
            "metricSectionId": "kdsweep",
            "deleted": False,
            "isGenerated": False,
        }
        axes: dict[str, Any] = {
            "scaleType": "linear",
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "range": {},
        }
        axes |= {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
        names = ["alpha", "temperature", "learning_rate"]
        charts = state | {
            "compareRunsMode": "CHART",
            "compareRunSections": [
                {"uuid": "kdsweep", "name": self.sweep, "display": True, "isReordered": False}
            ],
            "compareRunCharts": [
                chart
                | {
                    "uuid": "curves",
                    "type": "LINE",
                    "metricKey": value,
                    "selectedMetricKeys": [value],
                }
                | axes,
                chart | {"uuid": "best", "type": "BAR", "metricKey": f"best/{value}"},
                chart
                | {
                    "uuid": "values",
                    "type": "PARALLEL",
                    "selectedMetrics": [value],
                    "selectedParams": names,
                    "showAllRuns": False,
                },
            ],
        }
        with self._reaching() as client:
            for kind, shown in (("table", state), ("charts", charts)):
                view = {
                    "name": f"{self.sweep}: {kind}",
                    "createdAt": 0,
                    "updatedAt": 0,
                    "state": json.dumps(shown),
                }
                client.set_experiment_tag(
                    self.experiment_id,
                    f"mlflow.sharedViewState.{view_key(self.sweep, kind)}",
                    json.dumps(view),
                )

    # --- artifacts ---------------------------------------------------------------------------------------------------

    def upload(self, run_id: str, path: Path, name: str | None = None) -> None:
        """A file, or the files of a folder under `name`."""
        with self._reaching() as client:
            if path.is_dir():
                client.log_artifacts(run_id, str(path), name)
            else:
                client.log_artifact(run_id, str(path), name)

    def upload_student(
        self,
        run_id: str,
        folder: Path,
        *,
        text: Sequence[str],
        max_length: int,
        truncation: Truncation = "head",
    ) -> None:
        """A student's Hugging Face folder as artifact `student/`, with what makes it a model that MLflow loads and serves.

        text: the task's text columns. max_length: how many tokens of a row are read, `truncation`: which. What is added never stands in `folder` itself.
        """
        with self._reaching() as client, tempfile.TemporaryDirectory() as beside:
            client.log_artifacts(run_id, str(folder), "student")
            _write_model_files(Path(beside), run_id, text, max_length, truncation)
            client.log_artifacts(run_id, beside, "student")

    def drop_student(self, run_id: str) -> str:
        """Remove the checkpoint of a trial that isn't among the best any more; its numbers stay. What became of it, in a word.

        `registered` where it is a version of a registered model: that one needs its files.
        """
        with self._reaching() as client:
            state = (
                "registered" if client.search_model_versions(f"run_id = '{run_id}'") else "removed"
            )
            if state == "removed":
                get_artifact_repository(
                    client.get_run(run_id).info.artifact_uri, tracking_uri=self.uri
                ).delete_artifacts("student")
            client.set_tag(run_id, "kdsweep.student", state)
            return state

    # --- the registry ------------------------------------------------------------------------------------------------

    def register_best(self, model: str, trial: TrialId, metric: str, value: float) -> str:
        """Let the student of this run (of the search, or one that confirms it) be version `best` of the registered model, if it
        beats the one that is; what was done, in a line.

        value: what it reaches on validation, as the earlier versions' were; of two that are level the earlier one stays.
        """
        with self._reaching() as client:
            key = RunKey.of(trial)
            run_id, tag = self._runs[key].run_id, f"kdsweep.{metric}"
            self._make_registered_model(model)
            best = self._best_version(model)
            reached = None if best is None else best.tags.get(tag)
            if best is not None and best.run_id == run_id:
                return f"registered model {model}: version {best.version} ({key.name}) is 'best' already"
            if best is not None and reached is not None and float(reached) >= value:
                theirs = f"version {best.version} of {_whose(best, self.sweep)} stays 'best' ({metric} {float(reached):.4f}"
                return f"registered model {model}: {theirs}, {key.name} has {value:.4f})"
            tags = {
                tag: repr(value),
                "kdsweep.sweep": self.sweep,
                "kdsweep.strategy": trial.strategy,
                "kdsweep.trial": trial.number_and_seed,
            }
            made_before = client.search_model_versions(
                f"name = '{model}' and run_id = '{run_id}'"
            )  # by a driver that died then, or for an earlier best
            made = (
                made_before[0]
                if made_before
                else client.create_model_version(
                    model, f"runs:/{run_id}/student", run_id=run_id, tags=tags
                )
            )
            client.set_registered_model_alias(model, "best", made.version)
            said = f"registered model {model}: version {made.version} ({key.name}, {metric} {value:.4f}) is 'best'"
            if best is None:
                return said
            return f"{said} now, no longer version {best.version} of {_whose(best, self.sweep)}" + (
                f" ({float(reached):.4f})" if reached is not None else ""
            )

    def _make_registered_model(self, model: str) -> None:
        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _best_version(self, model: str) -> ModelVersion | None:
        try:
            return self.client.get_model_version_by_alias(model, "best")
        except MlflowException as error:
            if is_unreachable(error):
                raise
            return None


def _whose(version: ModelVersion, sweep: str) -> str:
    made_by = version.tags.get("kdsweep.sweep", "?")
    return "this sweep" if made_by == sweep else f"sweep {made_by}"


def _write_model_files(
    folder: Path, run_id: str, text: Sequence[str], max_length: int, truncation: Truncation
) -> None:
    """What beside a student's own files lets MLflow load it by `kdsweep.serving`.

    The signature has no input: MLflow would hold callers to one of the forms that the model reads.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, DataType, Schema

    outputs = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")])
    described = Model(
        artifact_path="student",
        run_id=run_id,
        signature=ModelSignature(outputs=outputs),
        metadata={"text": list(text)},
    )
    add_to_model(described, loader_module="kdsweep.serving", python_env="python_env.yaml")
    described.save(str(folder / "MLmodel"))
    versions = {
        name: version(name).split("+")[0] for name in ("kdsweep", "mlflow", "torch", "transformers")
    }
    (folder / "requirements.txt").write_text(
        "".join(f"{name}=={number}\n" for name, number in versions.items()), encoding="utf-8"
    )
    environment = f'python: "{platform.python_version()}"\nbuild_dependencies: [pip, setuptools, wheel]\ndependencies: [-r requirements.txt]\n'
    (folder / "python_env.yaml").write_text(environment, encoding="utf-8")
    write_settings(folder, text=text, max_length=max_length, truncation=truncation)


def download(uri: str, run_id: str, name: str, folder: Path) -> None:
    """Put the files of a run's artifact folder `name` into `folder`.

    Raises TrackingUnreachable where MLflow at `uri` doesn't answer, KdsweepError where it has no such artifact.
    """
    shown = without_password(uri)
    database = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not database.exists():  # or MLflow would make an empty one
        raise KdsweepError(f"tracking: there is no MLflow database {database}")
    try:
        _knock(uri)
        found = Path(
            MlflowClient(tracking_uri=uri, registry_uri=uri).download_artifacts(
                run_id, name, str(folder)
            )
        )
    except (MlflowException, OSError, SQLAlchemyError) as error:
        if is_unreachable(error):
            raise TrackingUnreachable(
                f"tracking: MLflow at {shown} doesn't answer, and it has the {name}: {_first_line(error)}"
            ) from error
        raise KdsweepError(
            f"tracking: MLflow at {shown} has no {name} of run {run_id}: {_first_line(error)}"
        ) from error
    for file in list(found.iterdir()):
        file.rename(folder / file.name)
    found.rmdir()


def _knock(uri: str) -> None:
    """Raise OperationalError at once where a database server is away: MLflow would try for 100 seconds, with pages of warnings."""
    if re.split("[:+]", uri)[0] in DATABASE_ENGINES and not uri.startswith("sqlite"):
        with create_engine(uri, poolclass=NullPool).connect():
            pass


def _write_ahead(file: Path) -> None:
    """Let MLflow's connections to this database write ahead: MLflow makes them and has no setting for it."""
    if on_network_file_system(file.parent):
        return

    def on_connect(connection: Any, record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            opened = connection.execute("PRAGMA database_list").fetchone()[2]
            if opened and Path(opened) == file:
                write_ahead(connection)

    event.listen(Engine, "connect", on_connect)


def is_unreachable(error: BaseException | None) -> bool:
    """Whether MLflow may answer later: nothing is wrong with what was sent.

    MLflow gives most of it the code INTERNAL_ERROR; what is behind it tells.
    """
    if getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE":
        return True
    while error is not None:
        if isinstance(error, requests.exceptions.RequestException):
            return not isinstance(
                error, ValueError | requests.exceptions.SSLError
            )  # ValueError: no URL
        if isinstance(error, OperationalError | InterfaceError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return without_password(first_line(error))


def view_key(sweep: str, kind: str) -> str:
    return fingerprint("view", sweep, kind)


def view_links(tracking_uri: str, experiment: str, sweep: str) -> dict[str, str]:
    """The paths in MLflow's UI of the sweep's `table` and `charts`. Raises KdsweepError where the store can't be read."""
    try:
        _knock(tracking_uri)
        found = MlflowClient(tracking_uri=tracking_uri).get_experiment_by_name(experiment)
    except (MlflowException, OSError, SQLAlchemyError) as error:
        raise KdsweepError(
            f"tracking: MLflow at {without_password(tracking_uri)} doesn't answer: {_first_line(error)}"
        ) from error
    if found is None:
        raise KdsweepError(
            f"tracking: MLflow has no experiment {experiment!r} yet; run the sweep first"
        )
    runs = f"/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey="
    return {
        "table": runs + view_key(sweep, "table"),
        "charts": runs + view_key(sweep, "charts") + "&compareRunsMode=CHART",
    }


def trial_params(settings: TrialSettings) -> dict[str, Any]:
    """The settled values, flat, with dots. A constant schedule is its number, so that it can be charted."""
    out: dict[str, Any] = {}
    for name, value in settings.model_dump(
        mode="json", include={"alpha", "temperature", "learning_rate", "student", "distill"}
    ).items():
        out |= flat(name, value)
    if settings.teacher is not None:
        teachers = (settings.teacher, *settings.further_teachers)
        out["teacher.model"] = " + ".join(one.source for one in teachers)
        for number, one in enumerate(teachers):
            prefix = f"teacher.{number}." if number else "teacher."
            out |= {
                f"{prefix}{name}": value
                for name, value in one.model_dump(
                    include={"epoch", "seeds", "folds", "weight"}
                ).items()
            }
    return (
        out
        | {
            field: value
            for field, value in settings.training.model_dump().items()
            if value is not None
        }
        | {"seed": settings.seed}
    )


def flat(name: str, value: Any) -> dict[str, Any]:
    """What `value` holds, by dotted names; nothing where there is nothing."""
    if isinstance(value, dict) and value.get("shape") == "constant":
        return {name: value["value"]}
    if isinstance(value, dict):
        return {
            key: inner
            for part, found in value.items()
            for key, inner in flat(f"{name}.{part}", found).items()
        }
    return {} if value is None else {name: value}


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
