"""A sweep whose strategies learn from different teachers.

All are made first, each is recorded, and students are compared with the best one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from kdsweep.report.model import Report
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.terminal.report import show_report
from kdsweep.trial_id import TrialId

FEW = (
    "trials=1",
    "confirm={seeds: 1, finalists: 1}",
    "engine={type: inline}",
    "keep={students: 1}",
    "strategies.combined.teacher={seeds: 2}",
    "training.epochs=1",
)


def test_every_teacher_is_made_before_its_trials_and_recorded(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, teacher = space.read_text(encoding="utf-8").partition("teacher:")
    model = json.dumps(teacher.split('"')[1])
    training = "training: {epochs: 4, batch_size: 16, learning_rate: 2.0e-3, max_length: 24}"
    first = f"{{model: {model}, {training}}}"
    second = f"{{model: {model}, {training}, epoch: 4, weight: 2.0}}"
    two = f"strategies.distill.teacher=[{first}, {second}]"
    report = run(space, home=tmp_path, assignments=(*FEW, two)).to_json()
    assert report["state"] == "done"
    words = [one["name"].rpartition("/")[2].partition(" ")[2] for one in report["teachers"]]
    assert sorted(words) == ["", "(best of 2 seeds)", "(epoch 4)"]
    reached = [one["validation"] for one in report["teachers"]]
    assert report["teacher"]["validation"] == max(reached) == reached[0]
    assert all(one["test"] is not None for one in report["teachers"])
    assert next(one for one in report["teachers"] if one["selected"])["selected"].keys() == {
        "0",
        "1",
    }
    show_report(Report.from_json(report), tmp_path)
    told = " ".join(capsys.readouterr().out.split())
    assert "All teachers: " in told and all(f"validation {value:.4f}" in told for value in reached)
    together = report["strategies"]["distill"]["best"]["teachers"]
    assert f"those of distill, as its best trial weighs them, {together:.4f}" in told
    assert report["strategies"]["finetune"]["best"]["teachers"] is None
    assert "Seeds of the teacher: " in told and ": seed 0 " in told
    settings = json.loads(
        Home(tmp_path).sweep("tiny").trial(TrialId("distill", 0)).settings.read_text()
    )
    assert [one["weight"] for one in settings["further_teachers"]] == [2.0]
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs(
        [one.experiment_id for one in client.search_experiments()],
        filter_string="tags.`kdsweep.phase` = 'teacher'",
    )
    assert sorted(one.data.metrics["best/validation/accuracy"] for one in runs) == sorted(reached)
