"""A home that kdsweep 0.1.0 wrote: it opens, and its sweeps are compared, exported and resumed.

tests/fixtures/make_home.py says what is in it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from this_machine import machine

from kdsweep.cli import main
from kdsweep.core.versions import Versions

FINISHED = ("reviews", "scores", "scores-kl", "scores-either", "tags")
# What a later driver may change in a trial that has ended: what MLflow has of it, and its student.
SENT_LATER = ("tracked.json", "student")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The home was made with one thread, and sums in another order have other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kdsweep(old: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--home", str(old / "home")])


def facts(old: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints with --json."""
    done = kdsweep(old, *arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(old: Path, name: str) -> Result:
    return kdsweep(old, "run", str(old / f"{name}.yaml"), "--sweep", str(old / "sweep.yaml"))


def files(folder: Path, *without: str) -> dict[str, tuple[int, bytes]]:
    """Name -> time and content of each file in the folder."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes())
        for file in folder.rglob("*")
        if file.is_file() and not set(file.relative_to(folder).parts) & set(without)
    }


def trials(old: Path, name: str) -> dict[str, tuple[int, bytes]]:
    sweep = old / "home" / "sweeps" / name
    both = {part: files(sweep / part, *SENT_LATER) for part in ("trials", "confirm")}
    found = {f"{part}/{file}": content for part in both for file, content in both[part].items()}
    assert found
    return found


def weights_of_teachers(old: Path) -> dict[str, tuple[int, bytes]]:
    """Every model in the cache: a teacher that is trained again adds one, or changes one."""
    cached = files(old / "home" / "cache")
    found = {file: content for file, content in cached.items() if file.endswith(".safetensors")}
    assert found
    return found


def evaluations(trial: Path) -> list[dict[str, float]]:
    lines = (trial / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{"step": one["step"], **one["metrics"]} for one in map(json.loads, lines)]


def keys(value: Any, path: str = "") -> set[str]:
    """The paths of all keys in a JSON value; entries of a list share theirs."""
    if isinstance(value, list):
        return {key for inner in value for key in keys(inner, f"{path}[]")}
    if not isinstance(value, dict):
        return set()
    found = {f"{path}.{key}" for key in value}
    return found.union(*(keys(inner, f"{path}.{key}") for key, inner in value.items()))


def same_bits(old: Path) -> bool:
    """Whether this machine computes to the last bit as the one that made the home."""
    made = json.loads((old / "made.json").read_text(encoding="utf-8"))
    return machine().items() <= made.items()


def assert_same_numbers(old: Path, found: list[Any], expected: list[Any]) -> None:
    assert [one.keys() for one in found] == [one.keys() for one in expected]
    if same_bits(old):
        assert found == expected
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", FINISHED)
def test_status_says_that_the_sweep_is_done(old_home: Path, name: str) -> None:
    found = facts(old_home, "status", name)
    assert found["state"] == "done"
    for strategy in found["strategies"].values():
        assert strategy["complete"] + strategy["pruned"] == 2
        assert strategy["failed"] == strategy["left"] == strategy["to_confirm"] == 0
        assert strategy["confirmed"] == 2


@pytest.mark.parametrize("name", FINISHED)
def test_the_report_keeps_its_keys_and_numbers(old_home: Path, name: str) -> None:
    report_file = old_home / "home" / "sweeps" / name / "report.json"
    recorded = json.loads(report_file.read_text(encoding="utf-8"))
    found = facts(old_home, "compare", name)
    assert keys(recorded) - keys(found) == set()
    for one in found["strategies"].values():
        # These trials kept no predictions for validation.
        compared = one.get("settings_comparison")
        assert (compared is None) == (one["trials"]["complete"] < 2)
        assert compared is None or compared["alike"] is None
    assert found["state"] == "done"
    assert found["teacher"]["validation"] == recorded["teacher"]["validation"]
    assert found["teacher"]["test"] == recorded["teacher"]["test"]
    for strategy, before in recorded["strategies"].items():
        now = found["strategies"][strategy]
        assert now["trials"] == before["trials"]
        assert now["best"]["trial"] == before["best"]["trial"]
        assert now["best"]["validation"] == before["best"]["validation"]
        assert now["confirm"]["test"] == before["confirm"]["test"]


def test_several_sweeps_are_compared_in_words(old_home: Path) -> None:
    done = kdsweep(old_home, "compare", *FINISHED)
    assert done.exit_code == 0, done.output
    assert "finetune" in done.stdout
    assert "Ranks: " in done.stdout


@pytest.mark.parametrize("name", FINISHED)
def test_a_student_is_exported(old_home: Path, name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    facts(old_home, "export", name, str(tmp_path / "student"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "student")
    outputs = {"reviews": 2, "tags": 3}.get(name, 1)
    logits = model(**tokenizer(["the film was superb"], return_tensors="pt")).logits
    assert logits.shape == (1, outputs)


def test_mlflow_loads_a_student(old_home: Path) -> None:
    import mlflow

    folders = [file.parent for file in (old_home / "home" / "artifacts").rglob("MLmodel")]
    assert folders
    served = mlflow.pyfunc.load_model(str(folders[0]))
    assert served.predict(["the film was superb"]).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "trial"),
    [
        ("reviews", "combined-1"),
        ("scores", "hidden-0"),
        ("tags", "hidden-1"),
        pytest.param("reviews", "finetune-0", marks=pytest.mark.slow),
        pytest.param("scores-kl", "kl-0", marks=pytest.mark.slow),
        pytest.param("scores-either", "either-1", marks=pytest.mark.slow),
    ],
)
def test_a_replayed_trial_gives_the_same_numbers(old_home: Path, name: str, trial: str) -> None:
    done = kdsweep(old_home, "replay", name, trial, "--json")
    assert done.stdout, done.output
    found = json.loads(done.stdout)
    if same_bits(old_home):
        assert (found["verdict"], done.exit_code) == ("identical", 0)
    else:
        assert found["differences"] == 0 or found["largest"]["size"] < 1e-3
    replayed = evaluations(Path(found["folder"]))
    recorded = evaluations(old_home / "home" / "sweeps" / name / "trials" / trial)
    assert_same_numbers(old_home, replayed[: len(recorded)], recorded)


def test_a_replay_of_a_confirming_run_gives_the_same_test_scores(old_home: Path) -> None:
    confirmed = sorted((old_home / "home" / "sweeps" / "reviews" / "confirm").glob("distill-*"))
    done = kdsweep(old_home, "replay", "reviews", confirmed[0].name, "--json")
    found = json.loads(done.stdout)
    if same_bits(old_home):
        assert (found["verdict"], done.exit_code) == ("identical", 0)
    else:
        assert found["largest"]["size"] < 1e-5


@pytest.mark.parametrize("name", ["reviews", "scores", "tags"])
def test_a_finished_sweep_that_is_run_again_changes_nothing(old_home: Path, name: str) -> None:
    before, teachers = trials(old_home, name), weights_of_teachers(old_home)
    done = run(old_home, name)
    assert done.exit_code == 0, done.output
    assert "nothing to run" in done.output
    assert trials(old_home, name) == before
    assert weights_of_teachers(old_home) == teachers


def test_a_sweep_that_was_killed_is_resumed_to_its_end(old_home: Path) -> None:
    sweep = old_home / "home" / "sweeps" / "stopped"
    ended = [file.parent.name for file in sweep.glob("trials/*/result.json")]
    before, teachers = trials(old_home, "stopped"), weights_of_teachers(old_home)
    killed = evaluations(sweep / "trials" / "distill-1")
    assert ended and killed
    assert "distill-1" not in ended

    done = run(old_home, "stopped")
    assert done.exit_code == 0, done.output
    assert facts(old_home, "status", "stopped")["state"] == "done"
    assert weights_of_teachers(old_home) == teachers
    after = trials(old_home, "stopped")
    for file, content in before.items():
        if file.split("/")[1] in ended:
            assert after[file] == content

    resumed = evaluations(sweep / "trials" / "distill-1")
    assert resumed[: len(killed)] == killed
    expected = sorted((old_home / "expected").glob("*/*"))
    folders = [one.relative_to(old_home / "expected") for one in expected]
    assert folders == sorted(
        one.relative_to(sweep) for part in ("trials", "confirm") for one in (sweep / part).iterdir()
    )
    for folder in folders:
        numbers = evaluations(old_home / "expected" / folder)
        assert_same_numbers(old_home, evaluations(sweep / folder), numbers)
    assert_versions_are_told(old_home, earlier=len(ended))


def assert_versions_are_told(old: Path, earlier: int) -> None:
    """Of `stopped`, once it is resumed: in the report, and by a replay of the resumed trial.

    earlier: the trials that had ended with 0.1.0.
    """
    sweep = old / "home" / "sweeps" / "stopped"
    now = Versions.now().kdsweep
    report = json.loads((sweep / "report.json").read_text(encoding="utf-8"))
    groups = {
        tuple(version["kdsweep"] for version in group["versions"]): group["trials"]
        for group in report["reproduce"]["trained_by"]
    }
    assert (groups["0.1.0",], groups["0.1.0", now]) == (earlier, 1)
    shown = kdsweep(old, "compare", "stopped").stdout
    assert "Versions: " in shown
    assert f"1 trial by kdsweep 0.1.0, then {now}" in " ".join(shown.split())
    assert "kdsweep 0.1.0, then" in (sweep / "report.html").read_text(encoding="utf-8")
    # Its numbers are the same only on the machine that made the home.
    replayed = json.loads(kdsweep(old, "replay", "stopped", "distill-1", "--json").stdout)
    assert replayed["other_versions"] == f"other versions: kdsweep 0.1.0, then {now}, now {now}"
    assert replayed["other_versions"] in replayed["says"]
    # A report of one version names none.
    assert "Versions: " not in kdsweep(old, "compare", "reviews").stdout


def test_the_runs_of_the_home_are_in_mlflow(old_home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{old_home / 'home' / 'mlflow.db'}")
    version = client.get_model_version_by_alias("reviews", "best")
    run = client.get_run(version.run_id)
    assert run.data.tags["kdsweep.sweep"] == "reviews"
    assert Path(run.info.artifact_uri.removeprefix("file://"), "student", "MLmodel").exists()


def test_a_home_that_can_only_be_read_is_shown_compared_and_exported(
    old_home: Path, tmp_path: Path
) -> None:
    seen = tmp_path / "read only"
    seen.mkdir()
    mount = ["mount", "--bind", str(old_home), str(seen)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a folder read-only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(seen)], check=True)
        before = files(seen / "home")
        started = time.monotonic()
        for arguments in (("status",), ("compare",)):
            done = kdsweep(seen, *arguments, "reviews")
            assert done.exit_code == 0, done.output
        done = kdsweep(seen, "export", "reviews", str(tmp_path / "student"))
        assert done.exit_code == 0, done.output
        assert (tmp_path / "student" / "model.safetensors").exists()
        # A database that can't be written isn't one that may answer later.
        assert time.monotonic() - started < 120
        assert files(seen / "home") == before
    finally:
        # Databases may still be open.
        subprocess.run(["umount", "-l", str(seen)], check=True)


def test_a_damaged_file_is_named_in_one_line_by_every_command_that_reads_it(old_home: Path) -> None:
    sweep = old_home / "home" / "sweeps" / "reviews"
    trial = next(iter(sorted((sweep / "trials").iterdir())))
    confirmed = next(iter(sorted((sweep / "confirm").iterdir())))
    damaged = [sweep / "clock.json", trial / "result.json", confirmed / "test_logits.npy"]
    for file in damaged:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        named = [kdsweep(old_home, command, "reviews") for command in ("status", "compare")]
        lines = [done.stderr.strip() for done in named if done.exit_code == 1]
        assert lines and all(f"{file} can't be read" in line for line in lines)
        assert all(done.exit_code == 0 or isinstance(done.exception, SystemExit) for done in named)
        file.write_bytes(whole)
    shutil.rmtree(trial)
    line = kdsweep(old_home, "status", "reviews").stderr.strip()
    assert f"{trial / 'settings.json'} can't be read: No such file" in line
