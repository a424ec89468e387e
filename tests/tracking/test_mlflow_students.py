"""MLflow as a store for students: what is kept, and which version of the model is the best one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from kdsweep.core.settings import TrialSettings
from kdsweep.errors import KdsweepError, TrackingUnreachable
from kdsweep.sweep.folders import Home
from kdsweep.sweep.swept_trial import Tracked
from kdsweep.sweep.tracked_students import Students, TrackedStudents
from kdsweep.tracking.base import RunKey, RunUpdate, Tracking
from kdsweep.tracking.opening import open_tracking
from kdsweep.trial_id import TrialId

METRIC = "validation/accuracy"
CONFIRMED = TrialId("distill", 3, 1)
SETTINGS = TrialSettings(
    task={"dataset": "x.csv", "text": "review", "label": "label"},
    student={"model": "m"},
    alpha=1.0,
    learning_rate=1e-3,
    training={"max_length": 12},
)
MODEL_FILES = {"MLmodel", "kdsweep.json", "requirements.txt", "python_env.yaml"}

# offer(sweep, trial, value) -> the line
Offer = Callable[[str, TrialId, float], str]


@pytest.fixture
def uri(tmp_path: Path, empty_mlflow_db: Path) -> str:
    shutil.copy(empty_mlflow_db, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def tracking(uri: str, tmp_path: Path) -> Callable[[str], Tracking]:
    """tracking(sweep): where the sweep keeps its runs and students."""

    def opened(sweep: str) -> Tracking:
        artifacts = tmp_path / "artifacts"
        return open_tracking(uri, experiment="task", sweep=sweep, artifacts=artifacts)

    return opened


@pytest.fixture
def offer(tracking: Callable[[str], Tracking]) -> Offer:
    """Register the student of this trial of this sweep as the best one, if it is."""

    def register(sweep: str, trial: TrialId, value: float) -> str:
        opened = tracking(sweep)
        opened.runs.update(RunKey.of(trial), RunUpdate(state="complete"))
        return opened.students.register_best("task", RunKey.of(trial), METRIC, value)

    return register


def best(uri: str) -> tuple[str, str]:
    """(version, sweep) of the alias."""
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.get_model_version_by_alias("task", "best")
    return str(found.version), found.tags["kdsweep.sweep"]


def test_only_a_better_student_becomes_the_best(offer: Offer, uri: str) -> None:
    assert offer("first", CONFIRMED, 0.8) == (
        "registered model task: version 1 (distill-3-seed-1, validation/accuracy 0.8000) is 'best'"
    )
    for sweep, value in (("worse", 0.7), ("equal", 0.8)):
        assert offer(sweep, TrialId("finetune", 0), value) == (
            "registered model task: version 1 of sweep first stays 'best' "
            f"(validation/accuracy 0.8000, finetune-0 has {value:.4f})"
        )
        assert best(uri) == ("1", "first")
    assert offer("better", CONFIRMED, 0.9) == (
        "registered model task: version 2 (distill-3-seed-1, validation/accuracy 0.9000) is "
        "'best', instead of version 1 of sweep first (0.8000)"
    )
    assert best(uri) == ("2", "better")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    assert client.get_registered_model("task").description.startswith(
        "Students of the experiment task, trained by kdsweep."
    )
    assert client.get_model_version("task", "2").description.startswith(
        "distill-3-seed-1 of sweep better, validation/accuracy 0.9000."
    )


def test_the_same_student_changes_nothing_and_a_better_one_of_the_same_sweep_does(
    offer: Offer, uri: str
) -> None:
    offer("one", CONFIRMED, 0.8)
    line = offer("one", CONFIRMED, 0.8)
    assert line == "registered model task: version 1 (distill-3-seed-1) is already 'best'"
    line = offer("one", TrialId("distill", 4, 0), 0.75)
    assert "version 1 of this sweep stays 'best'" in line
    line = offer("one", TrialId("distill", 5, 0), 0.85)
    assert "is 'best', instead of version 1 of this sweep" in line
    assert best(uri) == ("2", "one")


def test_a_version_that_a_killed_driver_left_without_its_alias_is_used(
    offer: Offer, uri: str
) -> None:
    offer("one", CONFIRMED, 0.8)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.delete_registered_model_alias("task", "best")
    offer("one", CONFIRMED, 0.8)
    assert best(uri) == ("1", "one")
    assert len(client.search_model_versions("name = 'task'")) == 1


def test_students_are_kept_fetched_and_dropped_but_a_registered_one_stays(
    tracking: Callable[[str], Tracking], tiny: Callable[..., str], uri: str, tmp_path: Path
) -> None:
    folder = Path(tiny("bert", labels=3))
    before = sorted(folder.iterdir())
    opened = tracking("one")
    runs = [RunKey.of(TrialId("distill", number)) for number in range(2)]
    ids = [opened.runs.update(run, RunUpdate(state="complete")) for run in runs]
    for run in runs:
        opened.students.keep(run, folder, SETTINGS)
    # What else MLflow needs is written to MLflow only.
    assert sorted(folder.iterdir()) == before

    # By its key, in another process that has not tracked this sweep.
    tracking("one").students.fetch(runs[1], tmp_path)
    names = {file.name for file in folder.iterdir()}
    assert {file.name for file in tmp_path.iterdir()} >= names | MODEL_FILES

    opened.students.register_best("task", runs[0], METRIC, 0.8)
    assert [opened.students.drop(run) for run in runs] == ["registered", "removed"]
    client = MlflowClient(tracking_uri=uri)
    left = [client.list_artifacts(run_id, "student") for run_id in ids]
    assert {Path(file.path).name for file in left[0]} == names | MODEL_FILES
    assert not left[1]
    with pytest.raises(KdsweepError, match="has no student of distill-1: "):
        tracking("one").students.fetch(runs[1], tmp_path)


def test_a_student_that_mlflow_got_in_part_is_removed_there_once_another_one_is_kept(
    tracking: Callable[[str], Tracking], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, home = tracking("one"), Home(tmp_path)
    folder = home.sweep("one")
    trials = [TrialId("finetune", 0), TrialId("finetune", 1)]
    runs = {}
    for trial in trials:
        runs[trial] = opened.runs.update(RunKey.of(trial), RunUpdate(state="complete"))
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
        TrackedStudents(opened.students, folder, print).send(students, trials[:1])
    sent = home.artifacts / runs[trials[0]] / "artifacts" / "student"
    assert sent.is_dir()
    TrackedStudents(opened.students, folder, print).send(students, trials[1:])
    assert not sent.exists()
    assert [folder.trial(trial).read_tracked().student for trial in trials] == ["removed", "kept"]


def test_a_student_whose_removal_begins_while_it_is_downloaded_is_not_taken_for_whole(
    uri: str, tiny: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(artifacts: Path) -> Tracking:
        return open_tracking(uri, experiment="task", sweep="one", artifacts=artifacts)

    store = opened(tmp_path / "artifacts")
    key = RunKey.of(CONFIRMED)
    store.runs.update(key, RunUpdate(state="complete"))
    store.students.keep(key, Path(tiny("bert", labels=3)), SETTINGS)
    download = MlflowClient.download_artifacts

    def removed_meanwhile(*arguments: Any) -> str:
        found = download(*arguments)
        store.students.drop(key)
        return found

    monkeypatch.setattr(MlflowClient, "download_artifacts", removed_meanwhile)
    # Another home: there it isn't a copy of files, but a download.
    with pytest.raises(KdsweepError, match="distill-3-seed-1 was removed meanwhile"):
        opened(tmp_path / "elsewhere").students.fetch(key, tmp_path)


def test_a_run_that_mlflow_lacks_is_one_line(tracking: Callable[[str], Tracking]) -> None:
    opened = tracking("one")
    opened.runs.update(RunKey("sweep"), RunUpdate(state="running"))
    with pytest.raises(KdsweepError, match="has no run distill-3-seed-1 of sweep 'one'"):
        opened.students.fetch(RunKey.of(CONFIRMED), Path("nowhere"))


def test_a_server_that_is_away_is_unreachable(tmp_path: Path) -> None:
    opened = open_tracking("http://127.0.0.1:9", experiment="task", sweep="one", artifacts=tmp_path)
    with pytest.raises(TrackingUnreachable, match="MLflow at http://127.0.0.1:9 doesn't answer"):
        opened.students.register_best("task", RunKey.of(CONFIRMED), METRIC, 0.8)


def test_a_home_that_was_moved_keeps_its_students_and_writes_nothing_where_it_was(
    tmp_path: Path, empty_mlflow_db: Path
) -> None:
    student = tmp_path / "student"
    student.mkdir()
    (student / "config.json").write_text("{}", encoding="utf-8")
    before, after = tmp_path / "a home", tmp_path / "moved"
    before.mkdir()
    shutil.copy(empty_mlflow_db, before / "mlflow.db")

    def opened(home: Path) -> Tracking:
        uri = f"sqlite:///{home}/mlflow.db"
        return open_tracking(uri, experiment="task", sweep="s", artifacts=home / "artifacts")

    def keep(home: Path, key: RunKey) -> None:
        tracking = opened(home)
        tracking.runs.update(key, RunUpdate(state="complete"))
        tracking.students.keep(key, student, SETTINGS)

    first, second = (RunKey.of(TrialId("distill", number)) for number in (0, 1))
    keep(before, first)
    before.rename(after)
    # Nothing is written by reading: the home may be on a disk that can only be read.
    read_before = (after / "mlflow.db").read_bytes()
    opened(after).students.fetch(first, tmp_path / "fetched")
    assert (tmp_path / "fetched" / "config.json").exists()
    assert (after / "mlflow.db").read_bytes() == read_before
    keep(after, second)
    assert not before.exists()
    for key in (first, second):
        opened(after).students.fetch(key, tmp_path / f"again {key.name}")
    assert opened(after).students.drop(first) == "removed"
    with pytest.raises(KdsweepError, match="has no student of distill-0"):
        opened(after).students.fetch(first, tmp_path / "gone")
