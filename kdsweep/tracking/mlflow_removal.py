"""Removing a sweep from MLflow: its runs with their files, its registered students, and its
experiment if nothing else is in it.

In a database that this home uses, runs are deleted for good. A server keeps deleted runs, and their
files, until somebody runs `mlflow gc` there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from kdsweep.errors import KdsweepError
from kdsweep.tracking.base import KeptRuns, MadeHere
from kdsweep.tracking.mlflow_connection import (
    MLFLOW_ERRORS,
    MlflowConnection,
    RunTags,
    search_runs,
    shown_error,
)
from kdsweep.tracking.mlflow_names import NOTE
from kdsweep.tracking.mlflow_students import BEST, value_of
from kdsweep.tracking.mlflow_views import remove_views
from kdsweep.trial_id import PHASES

RUNS_PER_QUERY = 100
# A run's description may be cut, the experiment's isn't.
NOTE_COMPARED = 1000
Say = Callable[[str], None]


def find_kept(connection: MlflowConnection, made_here: MadeHere | None) -> KeptRuns:
    """What MLflow has of the sweep.

    made_here: says which runs of trials this home made; None if all are its own. Raises
    KdsweepError where MLflow can't be asked.
    """
    with _client_of(connection) as client:
        found = _find(connection, client, made_here)
        needs_gc = not hasattr(client._tracking_client.store, "_hard_delete_run")
    artifacts = connection.artifacts
    folders = [artifacts / run.info.run_id for run in found.runs] if artifacts else []
    own_name = connection.experiment_name
    return KeptRuns(
        runs=len(found.runs),
        versions=tuple(_in_words(one) for one in found.versions if one.name == own_name),
        folders=tuple(folder for folder in folders if folder.is_dir()),
        not_made_here=found.foreign,
        by_hand=tuple(_in_words(one) for one in found.versions if one.name != own_name),
        needs_gc=needs_gc,
        experiment=connection.experiment_name if found.is_whole_experiment else None,
    )


def remove_kept(
    connection: MlflowConnection, made_here: MadeHere | None, metric: str, say: Say
) -> None:
    """Remove it. What is gone already is no error. metric: that students are compared by."""
    with _client_of(connection) as client:
        found = _find(connection, client, made_here)
        _unregister(connection, client, found.versions, metric, say)
        purge = _purge_of(client)
        for run in found.runs:
            run_id = run.info.run_id
            if connection.artifacts is not None:
                # Before the run: files without one would never be found again.
                shutil.rmtree(connection.artifacts / run_id, ignore_errors=True)
            if run.info.lifecycle_stage == "active":
                client.delete_run(run_id)
            purge("run", run_id)
        if found.experiment_id is None:
            return
        if not found.is_whole_experiment:
            remove_views(client, found.experiment_id, connection.sweep)
            notes = {run.data.tags.get(NOTE, "")[:NOTE_COMPARED] for run in found.runs}
            if found.note and found.note[:NOTE_COMPARED] in notes:
                client.delete_experiment_tag(found.experiment_id, NOTE)
            return
        if found.experiment_is_active:
            client.delete_experiment(found.experiment_id)
        purge("experiment", found.experiment_id)


def _in_words(version: ModelVersion) -> str:
    aliases = ", ".join(sorted(version.aliases))
    return f"{version.name} version {version.version}" + (f" ({aliases})" if aliases else "")


@contextlib.contextmanager
def _client_of(connection: MlflowConnection) -> Iterator[MlflowClient]:
    """A client that creates nothing. Raises KdsweepError for any error of MLflow."""
    try:
        with connection.reader() as client:
            yield client
    except MLFLOW_ERRORS as error:
        raise KdsweepError(
            f"tracking: {connection.name} can't be used: {shown_error(error)}"
        ) from error


@dataclass(frozen=True)
class _Found:
    """note: the experiment's description, of the sweep that ended last. foreign: how many of the
    sweep's runs another home made.
    """

    experiment_id: str | None
    experiment_is_active: bool
    note: str
    is_whole_experiment: bool
    runs: Sequence[Run]
    foreign: int
    versions: Sequence[ModelVersion]


def _find(connection: MlflowConnection, client: MlflowClient, made_here: MadeHere | None) -> _Found:
    experiment = client.get_experiment_by_name(connection.experiment_name)
    if experiment is None:
        return _Found(None, False, "", False, (), 0, ())
    found = search_runs(client, experiment.experiment_id, "")
    of_sweep = [run for run in found if run.data.tags.get("kdsweep.sweep") == connection.sweep]
    foreign = [run for run in of_sweep if _is_foreign(run, made_here)]
    own: list[Run] = []
    if not foreign:
        # Trials first: the sweep's own run is what the others are found by in MLflow's UI.
        own = sorted(of_sweep, key=lambda run: RunTags.of_run(run).phase == "sweep")
    elif made_here is not None:
        is_trial = [run for run in of_sweep if RunTags.of_run(run).phase in PHASES]
        own = [run for run in is_trial if run not in foreign]
    return _Found(
        experiment.experiment_id,
        experiment.lifecycle_stage == "active",
        experiment.tags.get(NOTE, ""),
        len(own) == len(found),
        own,
        len(of_sweep) - len(own),
        _versions_of(client, own),
    )


def _is_foreign(run: Run, made_here: MadeHere | None) -> bool:
    tags = RunTags.of_run(run)
    if made_here is None or tags.phase not in PHASES:
        return False
    return not made_here(f"{tags.strategy}-{tags.trial}", run.info.run_id)


def _versions_of(client: MlflowClient, runs: Iterable[Run]) -> list[ModelVersion]:
    """The registered students of these runs."""
    ids = [run.info.run_id for run in runs]
    versions: list[ModelVersion] = []
    for start in range(0, len(ids), RUNS_PER_QUERY):
        listed = ",".join(f"'{one}'" for one in ids[start : start + RUNS_PER_QUERY])
        versions += client.search_model_versions(f"run_id IN ({listed})")
    return [
        client.get_model_version(one.name, one.version)
        for one in sorted(versions, key=lambda one: int(one.version))
    ]


def _unregister(
    connection: MlflowConnection,
    client: MlflowClient,
    versions: Sequence[ModelVersion],
    metric: str,
    say: Say,
) -> None:
    """Remove the versions, and a registered model that has none then. If one of them is `best`, the
    best of the others is so from now on.
    """
    name = connection.experiment_name
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    numbers = {str(one.version) for one in versions}
    found = client.search_model_versions(f"name = '{name}'")
    others = {str(one.version): one for one in found if str(one.version) not in numbers}
    values = {
        number: value
        for number, one in others.items()
        if (value := value_of(one, metric)) is not None
    }
    if values and any(BEST in one.aliases for one in versions):
        best = max(values, key=lambda number: (values[number], -int(number)))
        client.set_registered_model_alias(name, BEST, best)
        say(f"registered model {name}: version {best} is 'best' now")
    for version in versions:
        client.delete_model_version(version.name, version.version)
    # In this home's own database an empty model is left from a removal that was interrupted.
    if not others and (versions or connection.artifacts is not None):
        client.delete_registered_model(name)


def _purge_of(client: MlflowClient) -> Callable[[str, str], None]:
    """What deletes a run or an experiment for good, as `mlflow gc` does; nothing on a server."""
    store = client._tracking_client.store

    def purge(kind: str, id: str) -> None:
        delete = getattr(store, f"_hard_delete_{kind}", None)
        if delete is not None:
            delete(id)

    return purge


def experiments_of(uri: str, sweep: str) -> list[str]:
    """The names of the experiments with runs of this sweep; asked where none is recorded."""
    connection = MlflowConnection(uri, experiment="", sweep=sweep, artifacts=Path())
    query = f"tags.`kdsweep.sweep` = '{sweep}'"
    with _client_of(connection) as client:
        return [
            one.name
            for one in client.search_experiments(view_type=ViewType.ALL)
            if search_runs(client, one.experiment_id, query)
        ]
