"""`kdsweep remove`: all that belongs to a sweep goes, in any order of faults, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import ViewType
from servers import SIX, MlflowServer, Postgres, free_port
from sweep_processes import PLAIN, runs_of, trials_of

from kdsweep.cli import main
from kdsweep.errors import UnknownSweep
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home


@pytest.fixture
def home(old_home: Path) -> Home:
    """Six small sweeps, of which `reviews` is alone in its experiment."""
    return Home(old_home / "home")


def remove(home: Home, name: str, *arguments: str, answer: str | None = None) -> Any:
    command = ["remove", name, "--home", str(home.root), *arguments]
    return CliRunner().invoke(main, command, input=answer)


def client_of(home: Home) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{home.mlflow_db}")


def kept_runs(home: Home, name: str) -> list[str]:
    """The ids of all runs that MLflow has of a sweep, deleted ones too."""
    client = client_of(home)
    experiments = [one.experiment_id for one in client.search_experiments(ViewType.ALL)]
    found = client.search_runs(
        experiments, f"tags.`kdsweep.sweep` = '{name}'", ViewType.ALL, max_results=1000
    )
    return [one.info.run_id for one in found]


def studies(home: Home) -> set[str]:
    return {
        name.split("/")[0] for name in optuna.get_all_study_names(f"sqlite:///{home.optuna_db}")
    }


def assert_gone(home: Home, name: str, run_ids: list[str]) -> None:
    assert kept_runs(home, name) == []
    assert name not in studies(home)
    assert not any((home.artifacts / one).exists() for one in run_ids)
    assert not [one for one in home.sweeps.iterdir() if name in one.name.split(".")]


def test_what_belongs_to_a_sweep_is_shown_and_removed_and_nothing_else(home: Home) -> None:
    run_ids = kept_runs(home, "reviews")
    others = {name: kept_runs(home, name) for name in ("scores", "tags", "stopped")}
    files = {
        path: path.stat().st_mtime_ns
        for folder in (home.cache, home.sweep("scores").root, home.sweep("tags").root)
        for path in folder.rglob("*")
        if path.is_file()
    }
    done = remove(home, "reviews", answer="y\n")
    assert done.exit_code == 0, done.output
    for line in (
        f"folder   {home.sweep('reviews').root}",
        "studies  reviews/finetune, reviews/distill, reviews/combined (6 trials)",
        f"runs     {len(run_ids)} in",
        "and experiment reviews, in which nothing else is",
        "model    registered model reviews version 1 (best)",
        "reviews: removed; ",
    ):
        assert line in done.stdout
    assert_gone(home, "reviews", run_ids)
    client = client_of(home)
    assert client.get_experiment_by_name("reviews") is None
    assert not [one for one in client.search_registered_models() if one.name == "reviews"]
    assert {name: kept_runs(home, name) for name in others} == others
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert studies(home) == {"scores", "scores-either", "scores-kl", "stopped", "tags"}


def test_without_a_yes_nothing_is_removed(home: Home) -> None:
    before = sorted(home.root.rglob("*"))
    assert remove(home, "reviews", answer="n\n").exit_code == 1
    done = remove(home, "reviews", answer="")
    assert done.exit_code == 1
    assert "nobody answered; add --yes" in done.stderr
    assert len(kept_runs(home, "reviews")) == 14
    # Looking made the lock of a database at most.
    new = set(home.root.rglob("*")) - set(before)
    assert not [path for path in new if not path.name.startswith((".", "mlflow.db", "optuna.db"))]


def test_a_sweep_that_runs_is_not_removed_and_its_driver_is_named(home: Home) -> None:
    folder = home.sweep("reviews")
    with folder.locked() as holder:
        done = remove(home, "reviews", "--yes")
        assert f"is being run by process {holder.pid} on" in done.stderr
        assert "kdsweep stop reviews stops it" in done.stderr
    with folder.locked("remove"):
        assert "is being removed by process" in remove(home, "reviews", "--yes").stderr
    assert done.exit_code == 1
    assert folder.exists()
    assert len(kept_runs(home, "reviews")) == 14


@pytest.mark.parametrize("name", ["../home", "..", ".", "", "nosuch", "sweeps/reviews", "/tmp"])
def test_what_is_no_sweep_is_one_line(home: Home, name: str) -> None:
    done = remove(home, name, "--yes")
    assert done.exit_code == 1
    assert "no sweep" in done.stderr
    assert len(home.names()) == 6


HALF_WAY: dict[str, Callable[[Home], bool]] = {
    "begun": lambda home: home.sweep("reviews").removing.exists(),
    "some runs": lambda home: len(list(home.artifacts.iterdir())) < 23,
    "no studies": lambda home: not home.sweep("reviews").root.exists(),
}


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("begun", marks=pytest.mark.slow),
        "some runs",
        pytest.param("no studies", marks=pytest.mark.slow),
    ],
)
def test_a_removal_that_is_killed_is_finished_by_the_same_command(home: Home, when: str) -> None:
    run_ids = kept_runs(home, "reviews")
    command = [sys.executable, "-m", "kdsweep", "remove", "reviews", "--yes"]
    with subprocess.Popen([*command, "--home", str(home.root)]) as process:
        while process.poll() is None and not HALF_WAY[when](home):
            time.sleep(0.0005)
        process.kill()
    if home.sweep("reviews").removing.exists():
        with pytest.raises(UnknownSweep, match="half removed"):
            home.existing("reviews")
        with pytest.raises(UnknownSweep, match="half removed"):
            run(home.root.parent / "reviews.yaml", home=home.root)
    again = remove(home, "reviews", "--yes")
    # It may have come to its end before it was killed.
    assert again.exit_code == 0 or "no sweep 'reviews'" in again.stderr
    assert_gone(home, "reviews", run_ids)


@pytest.mark.slow
def test_two_removals_at_once_remove_it_once(home: Home) -> None:
    run_ids = kept_runs(home, "reviews")
    command = [sys.executable, "-m", "kdsweep", "remove", "reviews", "--yes"]
    command += ["--home", str(home.root)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [(*one.communicate(), one.returncode) for one in both]
    assert 0 in [status for _, _, status in ends], ends
    assert not any("Traceback" in errors for _, errors, _ in ends)
    assert_gone(home, "reviews", run_ids)


def test_a_damaged_sweep_is_removed_and_what_is_not_known_is_said(home: Home) -> None:
    run_ids = kept_runs(home, "reviews")
    home.sweep("reviews").facts.write_text('{"kdsweep"')
    done = remove(home, "reviews", "--yes")
    assert done.exit_code == 0, done.output
    assert "stays: what it has outside of this home" in done.stdout
    assert "sweep.json can't be read" in done.stdout
    assert_gone(home, "reviews", run_ids)


def test_a_folder_without_a_sweep_and_one_behind_a_link_are_removed_alone(
    home: Home, tmp_path: Path
) -> None:
    (home.sweeps / "it's [not] one").mkdir()
    assert remove(home, "it's [not] one", "--yes").exit_code == 0
    elsewhere = tmp_path / "elsewhere"
    home.sweep("reviews").root.rename(elsewhere)
    home.sweep("reviews").root.symlink_to(elsewhere)
    done = remove(home, "reviews", "--yes")
    assert done.exit_code == 0, done.output
    assert f"stays: the files in {elsewhere}" in done.stdout
    assert (elsewhere / "trials").is_dir()
    assert not home.sweep("reviews").root.is_symlink()


def test_a_users_own_runs_keep_their_experiment_and_the_next_best_student_is_best(
    home: Home,
) -> None:
    client = client_of(home)
    experiment = client.get_experiment_by_name("reviews").experiment_id
    own = client.create_run(experiment).info.run_id
    client.create_model_version(
        "reviews", f"runs:/{own}/model", tags={"kdsweep.validation/accuracy": "0.5"}
    )
    worse = client.create_model_version(
        "reviews", f"runs:/{own}/model", tags={"kdsweep.validation/accuracy": "0.25"}
    )
    assert client.get_model_version_by_alias("reviews", "best").version == 1
    done = remove(home, "reviews", "--yes")
    assert "registered model reviews: version 2 is 'best' now" in done.stdout
    found = client.get_experiment_by_name("reviews")
    assert found.lifecycle_stage == "active"
    assert not [tag for tag in found.tags if "sharedView" in tag or "note" in tag]
    assert client.get_run(own).info.lifecycle_stage == "active"
    assert client.get_model_version_by_alias("reviews", "best").version == 2
    assert client.get_model_version("reviews", worse.version)


def test_a_student_that_a_user_registered_by_hand_is_not_removed(home: Home) -> None:
    client = client_of(home)
    student = client.get_model_version("reviews", "1")
    client.create_registered_model("production")
    client.create_model_version("production", student.source, run_id=student.run_id)
    done = remove(home, "reviews", "--yes")
    assert done.exit_code == 1
    assert "models that kdsweep didn't make (production version 1)" in done.stderr
    assert home.sweep("reviews").exists()


def test_without_its_tracker_nothing_is_removed_unless_asked(home: Home) -> None:
    folder = home.sweep("reviews")
    facts = json.loads(folder.facts.read_text())
    facts["sweep"]["tracking"] = f"http://127.0.0.1:{free_port()}"
    folder.facts.write_text(json.dumps(facts))
    done = remove(home, "reviews", "--yes")
    assert done.exit_code == 1
    assert "nothing was removed: run the same command again later" in done.stderr
    assert folder.exists()
    assert "reviews" in studies(home)
    done = remove(home, "reviews", "--yes", "--leave-unreachable")
    assert done.exit_code == 0, done.output
    assert "stays: tracking: MLflow at http://127.0.0.1" in done.stdout
    assert not folder.root.exists()
    assert "reviews" not in studies(home)


@pytest.mark.slow
def test_a_sweep_of_the_same_name_starts_new(tmp_path: Path, space: Path) -> None:
    home = Home(tmp_path)
    assignments = (*PLAIN, "trials=2", "engine={type: inline}")
    run(space, home=tmp_path, assignments=assignments)
    first = trials_of(home)
    before = {run.info.run_id for run in runs_of(home)}
    assert remove(home, "tiny", "--yes").exit_code == 0
    assert list(home.artifacts.iterdir()) == []
    run(space, home=tmp_path, assignments=assignments)
    assert trials_of(home) == first
    after = {run.info.run_id for run in runs_of(home)}
    assert len(after) == len(before)
    assert not after & before


@pytest.mark.slow
def test_a_sweep_on_postgresql_and_an_mlflow_server_is_removed_there(
    tmp_path: Path, space: Path, postgres: Postgres, server: MlflowServer
) -> None:
    home = Home(tmp_path)
    url = postgres.database("removed")
    run(space, home=tmp_path, assignments=(*SIX, f"storage={url}", f"tracking={server.uri}"))
    client = MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    tags = {"kdsweep.sweep": "tiny", "kdsweep.phase": "search"}
    foreign = client.create_run(
        experiment, tags=tags | {"kdsweep.strategy": "finetune", "kdsweep.trial": "7"}
    ).info.run_id
    done = remove(home, "tiny", "--yes")
    assert done.exit_code == 0, done.output
    assert "which another home made" in done.stdout
    assert "until somebody runs `mlflow gc`" in done.stdout
    left = client.search_runs([experiment])
    phases = {run.data.tags["kdsweep.phase"] for run in left}
    assert foreign in {run.info.run_id for run in left}
    assert phases == {"search", "sweep", "teacher"}
    assert [run.info.run_id for run in left if run.data.tags["kdsweep.phase"] == "search"] == [
        foreign
    ]
    assert optuna.get_all_study_names(postgres.sqlalchemy_url("removed")) == []
    assert not home.sweep("tiny").root.exists()
