"""Two saved views of a sweep in MLflow's UI: a table, best trial first, and charts.

They are written as the UI's own "share" button does. A link can't name columns or charts, and
without a view the UI opens an experiment in its GenAI mode.
"""

from __future__ import annotations

import json
from typing import Any

from mlflow import MlflowClient

from kdsweep import metric_names
from kdsweep.core.files import fingerprint
from kdsweep.databases import damage_in, shown_database, sqlite_file, url_to_open
from kdsweep.errors import KdsweepError
from kdsweep.tracking.mlflow_connection import MLFLOW_ERRORS, check_database_server, shown_error
from kdsweep.tracking.mlflow_names import accepted_name

SETTLED = ("alpha", "temperature", "learning_rate")
# JSON that only MLflow's UI reads.
View = dict[str, Any]


def save_views(client: MlflowClient, experiment_id: str, sweep: str, metric: str) -> None:
    """Keep both views of the sweep in its experiment."""
    for kind, state in (("table", _table(sweep, metric)), ("charts", _charts(sweep, metric))):
        view = {
            "name": f"{sweep}: {kind}",
            "createdAt": 0,
            "updatedAt": 0,
            "state": json.dumps(state),
        }
        client.set_experiment_tag(experiment_id, _view_tag(sweep, kind), json.dumps(view))


def remove_views(client: MlflowClient, experiment_id: str, sweep: str) -> None:
    """Remove both views from the experiment."""
    tags = client.get_experiment(experiment_id).tags
    for kind in ("table", "charts"):
        if (tag := _view_tag(sweep, kind)) in tags:
            client.delete_experiment_tag(experiment_id, tag)


def view_links(tracking_uri: str, experiment: str, sweep: str) -> dict[str, str]:
    """The paths in MLflow's UI of the sweep's `table` and `charts`.

    Raises KdsweepError where the store can't be read.
    """
    shown = shown_database(tracking_uri)
    if (damage := damage_in(sqlite_file(tracking_uri))) is not None:
        raise KdsweepError(
            f"tracking: {shown} is damaged ({damage}); repair it, or run the sweep again: it then "
            "sends everything to a new one"
        )
    try:
        check_database_server(tracking_uri)
        client = MlflowClient(tracking_uri=url_to_open(tracking_uri))
        found = client.get_experiment_by_name(experiment)
    except MLFLOW_ERRORS as error:
        raise KdsweepError(
            f"tracking: MLflow at {shown} doesn't answer: {shown_error(error)}"
        ) from error
    if found is None:
        raise KdsweepError(
            f"tracking: MLflow has no experiment {experiment!r} yet; run the sweep first"
        )
    runs = f"/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"
    table = _view_key(sweep, "table")
    charts = _view_key(sweep, "charts")
    return {
        "table": f"{runs}&viewStateShareKey={table}",
        "charts": f"{runs}&viewStateShareKey={charts}&compareRunsMode=CHART",
    }


def _view_key(sweep: str, kind: str) -> str:
    return fingerprint("view", sweep, kind)


def _view_tag(sweep: str, kind: str) -> str:
    return f"mlflow.sharedViewState.{_view_key(sweep, kind)}"


def _table(sweep: str, metric: str) -> View:
    """Every run of the sweep but its own, best first."""
    best = f"metrics.`{_best(metric)}`"
    return {
        "searchFilter": f"tags.`kdsweep.sweep` = '{sweep}' and tags.`kdsweep.phase` != 'sweep'",
        "orderByKey": best,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": [
            "tags.`kdsweep.phase`",
            "tags.`kdsweep.strategy`",
            "tags.`kdsweep.state`",
            *(f"params.`{name}`" for name in SETTLED),
            best,
        ],
    }


def _charts(sweep: str, metric: str) -> View:
    """The table's runs as curves, as bars, and as lines from their values to the metric."""
    section = {"uuid": "kdsweep", "name": sweep, "display": True, "isReordered": False}
    value = accepted_name(metric_names.validation(metric))
    return _table(sweep, metric) | {
        "compareRunsMode": "CHART",
        "compareRunSections": [section],
        "compareRunCharts": [
            _curves(value),
            _chart("best", "BAR") | {"metricKey": _best(metric)},
            _chart("values", "PARALLEL")
            | {
                "selectedMetrics": [value],
                "selectedParams": list(SETTLED),
                "showAllRuns": False,
            },
        ],
    }


def _best(metric: str) -> str:
    return accepted_name(metric_names.best(metric_names.validation(metric)))


def _chart(name: str, kind: str) -> View:
    return {
        "runsCountToCompare": 100,
        "metricSectionId": "kdsweep",
        "deleted": False,
        "isGenerated": False,
        "uuid": name,
        "type": kind,
    }


def _curves(value: str) -> View:
    """The metric `value` over optimizer steps."""
    axes = {
        "scaleType": "linear",
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
    return _chart("curves", "LINE") | {"metricKey": value, "selectedMetricKeys": [value]} | axes
