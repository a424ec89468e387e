"""A sweep uses one version of everything on the Hub, from its first run to its last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import make_model, sentences, write_csv
from hub.server import Hub
from mlflow import MlflowClient

from kdsweep.cli import main
from kdsweep.core.files import read_json
from kdsweep.core.hub import client, fetching

SPACE = """
name: hub
task: {dataset: someone/reviews, text: text, label: label, metric: accuracy}
student: {model: someone/small}
training: {epochs: 1, batch_size: 32, max_length: 16, precision: fp32}
strategies:
  finetune: {alpha: 1.0, learning_rate: {low: 1.0e-3, high: 3.0e-3, log: true}}
"""
SETS = ("trials=1", "pruner={type: none}", "confirm={seeds: 0}", "engine={type: inline}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of the rows and of the model."""
    root = tmp_path_factory.mktemp("versions")
    found = {}
    for number, version in enumerate(("first", "second")):
        rows = sentences(120, seed=number)
        folder = root / version
        (folder / "data").mkdir(parents=True)
        write_csv(folder / "data" / "train.csv", rows)
        make_model(folder / "model", layers=number + 1)
        found[version] = folder
    return found


@pytest.fixture
def hub_with_two(hub_here: Hub, files: dict[str, Path]) -> Hub:
    for version, folder in files.items():
        hub_here.add_dataset("someone/reviews", folder / "data", commit=version)
        hub_here.add_model("someone/small", folder / "model", commit=version)
    return hub_here


@pytest.fixture
def kdsweep(
    tmp_path: Path, empty_mlflow_db: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """kdsweep("run", sets...) -> what the command did, with a home in `tmp_path`."""
    # A Hub that is gone is waited for seconds.
    monkeypatch.setattr(client, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(client, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(fetching, "SECONDS_BETWEEN_TRIES", 0.05)
    space = tmp_path / "hub.yaml"
    space.write_text(SPACE)

    def do(command: str, *sets: str, options: tuple[str, ...] = (), home: str = "home") -> Result:
        place = tmp_path / home
        if not (place / "mlflow.db").exists():
            place.mkdir(exist_ok=True)
            shutil.copy(empty_mlflow_db, place / "mlflow.db")
        words = [word for one in (*SETS, *sets) for word in ("--set", one)]
        result = CliRunner().invoke(
            main, [command, str(space), "--home", str(place), *words, *options]
        )
        # As in a new process.
        from kdsweep.core.data import loading
        from kdsweep.core.hub import snapshots

        loading._LOADED.clear()
        snapshots._SCOPE = snapshots._Scope()
        return result

    return do


def facts(tmp_path: Path, home: str = "home") -> Any:
    return read_json(tmp_path / home / "sweeps" / "hub" / "sweep.json")


def settings(tmp_path: Path, number: int = 0) -> Any:
    file = tmp_path / "home/sweeps/hub/trials" / f"finetune-{number}" / "settings.json"
    return read_json(file)


def test_the_commits_are_in_every_record(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    assert kdsweep("run").exit_code == 0
    rows, model = (hub_with_two.commit(f"someone/{name}") for name in ("reviews", "small"))
    kept = {one["of"]["name"]: one["commit"] for one in facts(tmp_path)["commits"]}
    assert kept == {"someone/reviews": rows, "someone/small": model}
    assert settings(tmp_path)["task"]["revision"] == rows
    assert settings(tmp_path)["student"]["revision"] == model
    report = read_json(tmp_path / "home/sweeps/hub/report.json")
    assert report["reproduce"]["commits"] == {
        "datasets/someone/reviews": rows,
        "someone/small": model,
    }
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hub").experiment_id
    params = [run.data.params for run in client.search_runs([experiment])]
    assert model in [one.get("student.revision") for one in params]
    assert rows in [one.get("commit/datasets/someone/reviews") for one in params]
    # The space as resolved says what the user said.
    assert "revision" not in (tmp_path / "home/sweeps/hub/space.yaml").read_text()


def test_a_resume_uses_the_stored_commits_and_says_where_main_has_moved(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    assert kdsweep("run").exit_code == 0
    first = settings(tmp_path)
    for name in ("someone/reviews", "someone/small"):
        hub_with_two.move_main(name, "second")
    resumed = kdsweep("run", "trials=2")
    assert resumed.exit_code == 0, resumed.output
    moved = [line for line in resumed.output.splitlines() if "main has moved" in line]
    assert len(moved) == 2
    commit = hub_with_two.commit("someone/small", "first")
    assert any(f"goes on with {commit[:7]}" in line for line in moved)
    assert settings(tmp_path, 1)["student"] == first["student"]
    assert settings(tmp_path, 1)["task"] == first["task"]
    # A sweep that starts now has the new versions.
    assert kdsweep("run", home="other").exit_code == 0
    kept = {one["commit"] for one in facts(tmp_path, "other")["commits"]}
    assert kept == {hub_with_two.commit(f"someone/{one}", "second") for one in ("reviews", "small")}


def test_a_revision_that_means_another_commit_is_refused_with_both(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    first, second = (hub_with_two.commit("someone/small", one) for one in ("first", "second"))
    hub_with_two.branch("someone/small", "stable", "first")
    assert kdsweep("run", "student.revision=stable").exit_code == 0
    # The commit that it uses may be named, and so may nothing as long as that is the same one.
    assert kdsweep("run", f"student.revision={first}").exit_code == 0
    assert kdsweep("run").exit_code == 0
    hub_with_two.branch("someone/small", "stable", "second")
    refused = kdsweep("run", "student.revision=stable", "trials=2")
    assert refused.exit_code == 1
    assert first in refused.output
    assert second in refused.output
    assert "--fresh" in refused.output
    assert kdsweep("run", f"student.revision={second}", "trials=2").exit_code == 1
    assert kdsweep("run", f"student.revision={first}", "trials=2").exit_code == 0


def test_a_stored_commit_that_is_gone_is_refused_with_both(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    assert kdsweep("run").exit_code == 0
    repository = hub_with_two.repository("someone/small")
    hub_with_two.move_main("someone/small", "second")
    # In the cache it is as good as on the Hub.
    del repository.versions[repository.commits["first"]]
    assert kdsweep("run", "trials=2").exit_code == 0
    shutil.rmtree(tmp_path / "home" / "cache" / "hub")
    refused = kdsweep("run", "trials=3")
    assert refused.exit_code == 1
    for version in ("first", "second"):
        assert repository.commits[version] in refused.output


def test_two_revisions_of_a_repository_are_two_models(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    hub_with_two.tag("someone/small", "v2", "second")
    teacher = "{model: someone/small, revision: v2, training: {learning_rate: 3.0e-3, epochs: 6}}"
    added = f"strategies.distill={{alpha: 0.5, learning_rate: 1.0e-3, teacher: {teacher}}}"
    for trials in (1, 2):
        result = kdsweep("run", added, f"trials={trials}")
        assert result.exit_code == 0, result.output
    kept = [one["commit"] for one in facts(tmp_path)["commits"]]
    assert len(kept) == len(set(kept)) == 3
    trained = read_json(tmp_path / "home/sweeps/hub/trials/distill-1/settings.json")
    assert trained["teacher"]["revision"] == hub_with_two.commit("someone/small", "second")
    assert trained["student"]["revision"] == hub_with_two.commit("someone/small", "first")


def test_a_hash_of_digits_alone_is_a_text(
    hub_here: Hub, files: dict[str, Path], kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    digits = "1234567890" * 4
    hub_here.add_dataset("someone/reviews", files["first"] / "data")
    hub_here.add_model("someone/small", files["first"] / "model", sha=digits)
    result = kdsweep("run", f"student.revision={digits}")
    assert result.exit_code == 0, result.output
    assert settings(tmp_path)["student"]["revision"] == digits
    space = tmp_path / "hub.yaml"
    text = space.read_text().replace("model: someone/small", "model: someone/small, revision: 1e40")
    space.write_text(text)
    assert "no revision '1e40'" in kdsweep("plan", home="plan").output


def test_no_trial_needs_the_hub(
    hub_with_two: Hub,
    kdsweep: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kdsweep.sweep import driver

    run = driver.Driver.run

    def hub_goes_away(self: driver.Driver) -> Any:
        hub_with_two.stop()
        return run(self)

    monkeypatch.setattr(driver.Driver, "run", hub_goes_away)
    result = kdsweep("run", "trials=2")
    hub_with_two.start()
    assert result.exit_code == 0, result.output
    counts = read_json(tmp_path / "home/sweeps/hub/report.json")["strategies"]["finetune"]["trials"]
    assert counts["complete"] == 2


def test_plan_fetch_brings_all_that_run_needs_without_a_network(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    assert kdsweep("plan").exit_code == 0
    assert not hub_with_two.asked("GET .*model.safetensors")
    hub_with_two.stop()
    away = kdsweep("run")
    assert away.exit_code == 1
    assert "model.safetensors missing" in away.output or "can't be reached" in away.output
    assert "someone/small" in away.output
    assert not (tmp_path / "home" / "sweeps").exists()
    hub_with_two.start()
    assert kdsweep("plan", options=("--fetch",)).exit_code == 0
    hub_with_two.stop()
    result = kdsweep("run")
    assert result.exit_code == 0, result.output
    hub_with_two.start()


def test_a_replay_after_main_has_moved_is_bit_identical(
    hub_with_two: Hub, kdsweep: Callable[..., Result], tmp_path: Path
) -> None:
    assert kdsweep("run").exit_code == 0
    for name in ("someone/reviews", "someone/small"):
        hub_with_two.move_main(name, "second")
    arguments = ["replay", "hub", "finetune-0", "--home", str(tmp_path / "home"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verdict"] == "identical"
