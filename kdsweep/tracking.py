"""MLflow: one parent run a sweep, a child run for the teacher and each trial. The only file that imports it.

Runs are found by their tags and every value is sent with the time at which it was measured, so that sending something again
(after a driver died between two writes) changes nothing.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # or making the database tells of each of its tables
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from kdsweep.core.checkpoint import Evaluation
from kdsweep.core.files import fingerprint
from kdsweep.core.schedules import Constant
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import KdsweepError, without_password

warnings.filterwarnings("ignore", module="mlflow")

RUNNING, FINISHED, PAUSED = "RUNNING", "FINISHED", "SCHEDULED"
# MLflow's own word for how a run ended, for each state of a trial.
STATUS = {"complete": FINISHED, "pruned": "KILLED", "diverged": "FAILED", "failed": "FAILED"}
MOST_PARAMS_A_CALL = 100
# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")


class Tracker:
    """One sweep's runs. Raises KdsweepError where the tracking store can't be reached."""

    def __init__(self, uri: str, *, experiment: str, sweep: str, artifacts: Path) -> None:
        self.sweep = sweep
        local = uri.startswith("sqlite:")
        try:
            self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            self.experiment = self._experiment(experiment, artifacts.as_uri() if local else None)
            self._runs = {self._key(run): run for run in self._search()}
        except (MlflowException, OSError) as error:
            raise KdsweepError(f"tracking: MLflow at {without_password(uri)} doesn't answer: {str(error).splitlines()[0]}") from error

    def _experiment(self, name: str, artifact_location: str | None) -> Experiment:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return self.client.get_experiment(self.client.create_experiment(name, artifact_location))
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found

    def _search(self) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment.experiment_id],
                filter_string=f"tags.`kdsweep.sweep` = '{self.sweep}'",
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            runs += page
            token = page.token
            if not token:
                return runs

    @staticmethod
    def _key(run: Run) -> tuple[str, ...]:
        return tuple(run.data.tags.get(f"kdsweep.{part}", "") for part in ("phase", "strategy", "trial"))

    # --- runs --------------------------------------------------------------------------------------------------------

    def start_sweep(self, params: Mapping[str, Any]) -> str:
        """The parent run, made or gone on with."""
        return self._start(("sweep", "", ""), self.sweep, params)

    def start_teacher(self, params: Mapping[str, Any], started: int) -> str:
        """The teacher's run; it was trained before, from `started` (milliseconds since 1970) on."""
        return self._start(("teacher", "", ""), "teacher", params, started)

    def start_trial(self, strategy: str, number: int, settings: TrialSettings) -> str:
        return self._start(("search", strategy, str(number)), f"{strategy}-{number}", trial_params(settings))

    def _start(self, key: tuple[str, str, str], name: str, params: Mapping[str, Any], started: int | None = None) -> str:
        run = self._runs.get(key)
        if run is None:
            tags = {"kdsweep.phase": key[0], "kdsweep.sweep": self.sweep, "mlflow.user": _user(), "mlflow.source.name": "kdsweep"}
            tags |= {f"kdsweep.{part}": value for part, value in (("strategy", key[1]), ("trial", key[2])) if value}
            parent = self._runs.get(("sweep", "", ""))
            if parent is not None:
                tags["mlflow.parentRunId"] = parent.info.run_id
            if key[1]:
                tags["mlflow.runColor"] = self._color(key[1])
            run = self.client.create_run(self.experiment.experiment_id, start_time=started, tags=tags, run_name=name)
            self._runs[key] = run
        elif run.info.status != RUNNING:
            self.client.update_run(run.info.run_id, status=RUNNING)
        run_id: str = run.info.run_id
        entries = [Param(name, str(value)[:6000]) for name, value in params.items()]
        for start in range(0, len(entries), MOST_PARAMS_A_CALL):
            self.client.log_batch(run_id, params=entries[start : start + MOST_PARAMS_A_CALL])
        return run_id

    def _color(self, strategy: str) -> str:
        """One colour a strategy in MLflow's charts, in the order in which strategies appear."""
        strategies = list(dict.fromkeys([key[1] for key in self._runs if key[1]] + [strategy]))
        return COLORS[strategies.index(strategy) % len(COLORS)]

    def log(self, run_id: str, evaluation: Evaluation) -> None:
        metrics = [Metric(name, value, evaluation.timestamp, evaluation.step) for name, value in evaluation.metrics.items()]
        self.client.log_batch(run_id, metrics=metrics)

    def finish(self, run_id: str, state: str, *, metrics: Mapping[str, float], timestamp: int, tags: Mapping[str, str] | None = None) -> None:
        """End a run with its state and its final numbers."""
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, timestamp, 0) for name, value in metrics.items()],
            tags=[RunTag(name, value) for name, value in ({"kdsweep.state": state} | dict(tags or {})).items()],
        )
        self.client.set_terminated(run_id, STATUS[state], end_time=timestamp)

    def pause(self, run_id: str) -> None:
        """A run that is saved and will go on."""
        self.client.update_run(run_id, status=PAUSED)

    def fail(self, run_id: str) -> None:
        """A run that an error ended; the next start of the sweep takes it up again."""
        self.client.set_terminated(run_id, "FAILED")

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def rename_sweep(self, name: str) -> None:
        """Give all runs of this sweep to the name `name`."""
        for key, run in self._runs.items():
            self.client.set_tag(run.info.run_id, "kdsweep.sweep", name)
            if key[0] == "sweep":
                self.client.update_run(run.info.run_id, name=name)
            if run.info.status in (RUNNING, PAUSED):
                self.client.set_terminated(run.info.run_id, "KILLED")
        self._runs = {}

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
            "selectedColumns": ["tags.`kdsweep.strategy`", "tags.`kdsweep.state`", "params.`alpha`", "params.`temperature`", "params.`learning_rate`", best],
        }
        chart: dict[str, Any] = {"runsCountToCompare": 100, "metricSectionId": "kdsweep", "deleted": False, "isGenerated": False}
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
            "compareRunSections": [{"uuid": "kdsweep", "name": self.sweep, "display": True, "isReordered": False}],
            "compareRunCharts": [
                chart | {"uuid": "curves", "type": "LINE", "metricKey": value, "selectedMetricKeys": [value]} | axes,
                chart | {"uuid": "best", "type": "BAR", "metricKey": f"best/{value}"},
                chart | {"uuid": "values", "type": "PARALLEL", "selectedMetrics": [value], "selectedParams": names, "showAllRuns": False},
            ],
        }
        for kind, shown in (("table", state), ("charts", charts)):
            view = {"name": f"{self.sweep}: {kind}", "createdAt": 0, "updatedAt": 0, "state": json.dumps(shown)}
            self.client.set_experiment_tag(self.experiment.experiment_id, f"mlflow.sharedViewState.{view_key(self.sweep, kind)}", json.dumps(view))

    # --- artifacts ---------------------------------------------------------------------------------------------------

    def upload(self, run_id: str, path: Path, name: str | None = None) -> None:
        """A file, or the files of a folder under `name`."""
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), name)
        else:
            self.client.log_artifact(run_id, str(path), name)

    def drop_student(self, strategy: str, number: int) -> None:
        """Remove the checkpoint of a trial that isn't among the best any more; its numbers stay."""
        run = self._runs.get(("search", strategy, str(number)))
        if run is None or self.client.get_run(run.info.run_id).data.tags.get("kdsweep.student") != "kept":
            return
        get_artifact_repository(run.info.artifact_uri, tracking_uri=self.client.tracking_uri).delete_artifacts("student")
        self.client.set_tag(run.info.run_id, "kdsweep.student", "removed")

    # --- the registry ------------------------------------------------------------------------------------------------

    def register_best(self, model: str, strategy: str, number: int, metric: str, value: float) -> str:
        """Let the trial's student be version `best` of the registered model, if it beats the one that is; what was done, in a line."""
        run = self._runs[("search", strategy, str(number))]
        try:
            self.client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        try:
            best = self.client.get_model_version_by_alias(model, "best")
        except MlflowException:
            best = None
        if best is not None and best.run_id == run.info.run_id:
            return f"registered model {model}: version {best.version} is this sweep's best already"
        if best is not None and float(best.tags.get(f"kdsweep.{metric}", "-inf")) >= value:
            return f"registered model {model}: version {best.version} of an earlier sweep stays the best ({metric} {best.tags[f'kdsweep.{metric}']})"
        tags = {f"kdsweep.{metric}": repr(value), "kdsweep.sweep": self.sweep, "kdsweep.strategy": strategy}
        made = self.client.create_model_version(model, f"runs:/{run.info.run_id}/student", run_id=run.info.run_id, tags=tags)
        self.client.set_registered_model_alias(model, "best", made.version)
        return f"registered model {model}: version {made.version} ({strategy}-{number}) is 'best'"


def view_key(sweep: str, kind: str) -> str:
    return fingerprint("view", sweep, kind)


def view_links(tracking_uri: str, experiment: str, sweep: str) -> dict[str, str]:
    """The paths in MLflow's UI of the sweep's `table` and `charts`. Raises KdsweepError where the store can't be read."""
    try:
        found = MlflowClient(tracking_uri=tracking_uri).get_experiment_by_name(experiment)
    except (MlflowException, OSError) as error:
        raise KdsweepError(f"tracking: MLflow at {without_password(tracking_uri)} doesn't answer: {str(error).splitlines()[0]}") from error
    if found is None:
        raise KdsweepError(f"tracking: MLflow has no experiment {experiment!r} yet; run the sweep first")
    runs = f"/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning&viewStateShareKey="
    return {"table": runs + view_key(sweep, "table"), "charts": runs + view_key(sweep, "charts") + "&compareRunsMode=CHART"}


def trial_params(settings: TrialSettings) -> dict[str, Any]:
    """The settled values, flat, with dots. A constant schedule is its number, so that it can be charted."""
    out: dict[str, Any] = {}
    for name in ("alpha", "temperature", "learning_rate"):
        schedule = getattr(settings, name)
        if isinstance(schedule, Constant):
            out[name] = schedule.value
        else:
            out |= {f"{name}.{field}": value for field, value in schedule.model_dump(mode="json").items() if value is not None}
    out |= {f"student.{field}": value for field, value in settings.student.model_dump().items() if value is not None}
    if settings.teacher is not None:
        out["teacher.model"] = settings.teacher.model or settings.teacher.checkpoint
    return out | {field: value for field, value in settings.training.model_dump().items() if value is not None} | {"seed": settings.seed}


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
