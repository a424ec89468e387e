"""MLflow as a store for students: artifacts that MLflow loads and serves, and its registry.

Here MLflow's registered model has the experiment's name, and its alias `best` names the version.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from kdsweep.core.evaluation.file_costs import ONNX_PACKAGES
from kdsweep.core.files import remove_at_once
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import KdsweepError
from kdsweep.serving import write_settings
from kdsweep.tracking.base import RunKey
from kdsweep.tracking.mlflow_connection import (
    MLFLOW_ERRORS,
    MlflowConnection,
    RunTags,
    is_unreachable,
    search_runs,
    shown_error,
)
from kdsweep.tracking.mlflow_names import accepted_name

STUDENT = "student"  # the artifact's folder
STATE = "kdsweep.student"  # the tag: kept, removed or registered
BEST = "best"  # the alias
WRITTEN_WITH = ("kdsweep", "mlflow", "torch", "transformers")


class MlflowStudents:
    """The students of one sweep in MLflow. Implements `StudentStore`."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._connection = connection

    def keep(self, run: RunKey, folder: Path, settings: TrialSettings) -> None:
        """Upload the folder as artifact `student/`, with what lets MLflow load and serve it."""
        with self._connection.client() as client, tempfile.TemporaryDirectory() as beside:
            run_id = self._connection.run_id(run)
            _write_model_files(Path(beside), run_id, settings)
            for part in (str(folder), beside):
                self._connection.check_home()
                client.log_artifacts(run_id, part, STUDENT)
            client.log_batch(run_id, tags=[RunTag(STATE, "kept")])

    def fetch(self, run: RunKey, folder: Path, run_id: str | None = None) -> None:
        if run_id is not None and (kept := self._in_home(run_id)) is not None:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            return
        try:
            with self._connection.reader() as client:
                run_id = self._find(client, run)
                if (kept := self._in_home(run_id)) is not None:
                    _copy(kept, folder)
                    return
                found = Path(client.download_artifacts(run_id, STUDENT, str(folder)))
                if client.get_run(run_id).data.tags.get(STATE) == "removed":
                    raise KdsweepError(f"the student of {run.name} was removed meanwhile")
        except MLFLOW_ERRORS as error:
            raise KdsweepError(
                f"tracking: {self._connection.name} has no student of {run.name}: "
                f"{shown_error(error)}"
            ) from error
        for file in list(found.iterdir()):
            file.rename(folder / file.name)
        found.rmdir()

    def _in_home(self, run_id: str) -> Path | None:
        """The student's folder in this home. MLflow's own path may be where the home was before."""
        if self._connection.artifacts is None:
            return None
        folder = self._connection.artifacts / run_id / "artifacts" / STUDENT
        return folder if folder.is_dir() else None

    def left_behind(self, run_id: str) -> Path | None:
        return self._in_home(run_id)

    def drop(self, run: RunKey) -> Literal["removed", "registered"]:
        """A student that is a version of a registered model keeps its files."""
        with self._connection.client() as client:
            run_id = self._connection.run_id(run)
            registered = bool(client.search_model_versions(f"run_id = '{run_id}'"))
            state: Literal["removed", "registered"] = "registered" if registered else "removed"
            # Before its files go, so that `fetch` knows whether it got all of them.
            client.set_tag(run_id, STATE, state)
            if registered:
                return state
            if (kept := self._in_home(run_id)) is not None:
                remove_at_once(kept)
            else:
                uri = client.get_run(run_id).info.artifact_uri
                files = get_artifact_repository(uri, tracking_uri=self._connection.uri)
                files.delete_artifacts(STUDENT)
            return state

    def register_best(self, model: str, run: RunKey, metric: str, value: float) -> str:
        """Give the alias `best` to this run's student, unless the version that has it is as good.

        The version's tag `kdsweep.METRIC` holds the value that later students are compared with.
        """
        with self._connection.client() as client:
            _create_registered_model(client, model)
            best = _best_version(client, model)
            if best is not None and (why := self._why_it_stays(best, run, metric, value)):
                return f"registered model {model}: version {best.version} {why}"
            tags = {_value_tag(metric): repr(value)}
            description = (
                f"{run.name} of sweep {self._connection.sweep}, {metric} {value:.4f}. "
                "The run has its settings, learning curve and test scores."
            )
            new = self._find_or_create_version(client, model, run, tags, description)
            client.set_registered_model_alias(model, BEST, new)
            line = (
                f"registered model {model}: version {new} ({run.name}, {metric} {value:.4f}) "
                "is 'best'"
            )
            if best is None:
                return line
            line += f", instead of version {best.version} of {self._sweep_of(best)}"
            before = value_of(best, metric)
            return line if before is None else f"{line} ({before:.4f})"

    def _why_it_stays(
        self, best: ModelVersion, run: RunKey, metric: str, value: float
    ) -> str | None:
        """Why the best version stays the best, or None where this run's student is better."""
        if best.run_id == self._connection.run_id(run):
            return f"({run.name}) is already 'best'"
        reached = value_of(best, metric)
        if reached is None or reached < value:
            return None
        return (
            f"of {self._sweep_of(best)} stays 'best' ({metric} {reached:.4f}, "
            f"{run.name} has {value:.4f})"
        )

    def _find(self, client: MlflowClient, run: RunKey) -> str:
        """The id of a run, found by its tags."""
        name = self._connection.experiment_name
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise KdsweepError(f"tracking: {self._connection.name} has no experiment {name!r}")
        query = [f"tags.`kdsweep.sweep` = '{self._connection.sweep}'"]
        for field, value in RunTags.of(run)._asdict().items():
            if value:
                query.append(f"tags.`kdsweep.{field}` = '{value}'")
        found = search_runs(client, experiment.experiment_id, " and ".join(query))
        if not found:
            raise KdsweepError(
                f"tracking: {self._connection.name} has no run {run.name} of sweep "
                f"{self._connection.sweep!r}"
            )
        found.sort(key=lambda one: one.info.lifecycle_stage == "deleted")
        return str(found[0].info.run_id)

    def _find_or_create_version(
        self, client: MlflowClient, model: str, run: RunKey, tags: dict[str, str], description: str
    ) -> str:
        """The model's version of this run: one that an earlier driver created, or a new one."""
        run_id = self._connection.run_id(run)
        found = client.search_model_versions(f"name = '{model}' and run_id = '{run_id}'")
        if found:
            return str(found[0].version)
        own = RunTags.of(run)
        tags |= {
            "kdsweep.sweep": self._connection.sweep,
            "kdsweep.strategy": own.strategy,
            "kdsweep.trial": own.trial,
        }
        source = f"runs:/{run_id}/{STUDENT}"
        created = client.create_model_version(
            model, source, run_id=run_id, tags=tags, description=description
        )
        return str(created.version)

    def _sweep_of(self, best: ModelVersion) -> str:
        """Which sweep the version comes from, in words."""
        sweep = best.tags.get("kdsweep.sweep", "?")
        return "this sweep" if sweep == self._connection.sweep else f"sweep {sweep}"


def _copy(source: Path, folder: Path) -> None:
    try:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    except shutil.Error as error:
        # It has a list of (source, destination, reason).
        raise OSError(error.args[0][0][2]) from error


def _create_registered_model(client: MlflowClient, model: str) -> None:
    try:
        client.create_registered_model(
            model,
            description=f"Students of the experiment {model}, trained by kdsweep. The alias "
            f"`{BEST}` is the one with the best metric on validation, of all its sweeps.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _best_version(client: MlflowClient, model: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(model, BEST)
    except MlflowException as error:
        if is_unreachable(error):
            raise
        return None


def value_of(version: ModelVersion, metric: str) -> float | None:
    """What the version's student reaches; None if nobody noted it."""
    value = version.tags.get(_value_tag(metric))
    return None if value is None else float(value)


def _value_tag(metric: str) -> str:
    """The tag of a version that holds the value of this metric."""
    return accepted_name(f"kdsweep.{metric}")


def _write_model_files(folder: Path, run_id: str, settings: TrialSettings) -> None:
    """What MLflow needs, in addition to the student's files, to load it with `kdsweep.serving`.

    The signature has no input: MLflow would allow only one of the forms that the model reads.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, DataType, Schema

    task = settings.task
    outputs = Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "score")])
    model = Model(
        artifact_path=STUDENT,
        run_id=run_id,
        signature=ModelSignature(outputs=outputs),
        metadata={"text": list(task.text)},
    )
    add_to_model(model, loader_module="kdsweep.serving", python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))
    is_quantized = settings.student.quantize != "none"
    needed = [*WRITTEN_WITH, *(ONNX_PACKAGES if is_quantized else ())]
    requirements = "".join(f"{_requirement(name)}\n" for name in needed)
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    environment = (
        f'python: "{platform.python_version()}"\n'
        "build_dependencies: [pip, setuptools, wheel]\n"
        "dependencies: [-r requirements.txt]\n"
    )
    (folder / "python_env.yaml").write_text(environment, encoding="utf-8")
    write_settings(
        folder,
        text=task.text,
        max_length=settings.training.max_length,
        truncation=task.truncation,
        trust_remote_code=settings.student.trust_remote_code,
        quantize=settings.student.quantize,
    )


def _requirement(package: str) -> str:
    """The installed version; for one in development any later version, since it isn't published."""
    installed = version(package).split("+")[0]
    return f"{package}>={installed}" if ".dev" in installed else f"{package}=={installed}"
