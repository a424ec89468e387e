"""Students on their way to MLflow when it goes away."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from kdsweep.core.settings import TrialSettings
from kdsweep.sweep.folders import Home
from kdsweep.sweep.swept_trial import Tracked
from kdsweep.sweep.tracked_students import Students, TrackedStudents
from kdsweep.tracking.base import RunKey, RunUpdate
from kdsweep.tracking.opening import open_tracking
from kdsweep.trial_id import TrialId

SETTINGS = TrialSettings(
    task={"dataset": "x.csv", "text": "review", "label": "label"},
    student={"model": "m"},
    alpha=1.0,
    learning_rate=1e-3,
    training={"max_length": 12},
)


def test_a_student_that_mlflow_got_in_part_is_removed_there_once_another_one_is_kept(
    tmp_path: Path, empty_mlflow_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_mlflow_db, tmp_path / "mlflow.db")
    home = Home(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracking = open_tracking(uri, experiment="task", sweep="one", artifacts=home.artifacts)
    folder = home.sweep("one")
    trials = [TrialId("finetune", 0), TrialId("finetune", 1)]
    runs = {}
    for trial in trials:
        runs[trial] = tracking.runs.update(RunKey.of(trial), RunUpdate(state="complete"))
        files = folder.trial(trial)
        files.student.mkdir(parents=True)
        (files.student / "config.json").write_text("{}")
        files.settings.write_text(SETTINGS.model_dump_json())
        files.result.write_text("{}")
        files.write_tracked(Tracked(runs[trial], state="complete"))

    def go_away(*_: object, **__: object) -> None:
        raise ConnectionError

    students = Students("finetune", "search")
    with monkeypatch.context() as away, pytest.raises(ConnectionError):
        away.setattr(MlflowClient, "log_batch", go_away)
        TrackedStudents(tracking.students, folder, print).send(students, trials[:1])
    sent = home.artifacts / runs[trials[0]] / "artifacts" / "student"
    assert sent.is_dir()
    TrackedStudents(tracking.students, folder, print).send(students, trials[1:])
    assert not sent.exists()
    assert [folder.trial(trial).read_tracked().student for trial in trials] == ["removed", "kept"]
