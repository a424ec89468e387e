"""`kdsweep replay` on trials of a real sweep: the same numbers bit for bit, or what differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import file_times, sentences, write_csv
from transformers import pipeline

from kdsweep.cli import main
from kdsweep.config.sweep import InlineEngine
from kdsweep.core.files import read_json, write_json
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial import train
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.errors import DataError, KdsweepError, TrialDiverged, UnknownSweep
from kdsweep.replay import Difference, compare, replay, threads_of
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer
from kdsweep.trial_id import TrialId

ASSIGNMENTS = (
    "trials=1",
    "confirm={seeds: 1, finalists: 1}",
    "keep={students: 1}",
    "engine={type: inline}",
    "training.epochs=1",
)


@pytest.fixture(scope="module")
def swept(finished_sweep: Callable[..., Any], two_strategies: Callable[[str, int], Path]) -> Home:
    """A finished sweep of two strategies with one trial and one run of confirm each."""
    home: Home = finished_sweep(two_strategies("replay", 200), *ASSIGNMENTS)
    return home


@pytest.fixture
def copied(swept: Home, tmp_path: Path) -> Home:
    """A copy of the sweep that a test may break."""
    shutil.copytree(swept.root, tmp_path / "home", ignore=shutil.ignore_patterns("replays"))
    return Home(tmp_path / "home")


def rewrite(folder: TrialFolder, change: Callable[[list[Evaluation]], list[Evaluation]]) -> None:
    folder.write_evaluations(change(folder.read_evaluations()))


def replayed(home: Home, trial: str) -> tuple[int, str, dict[str, Any]]:
    done = CliRunner().invoke(main, ["replay", "tiny", trial, "--home", str(home.root), "--json"])
    return done.exit_code, done.stderr, json.loads(done.stdout) if done.stdout else {}


def test_a_trial_with_a_teacher_is_the_same_bit_for_bit_in_another_process(
    swept: Home,
) -> None:
    command = [
        sys.executable,
        "-m",
        "kdsweep",
        "replay",
        "tiny",
        "distill-0",
        "--home",
        str(swept.root),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-2] == "distill-0: the same numbers, bit for bit (2 evaluations)"
    student = swept.sweep("tiny").root / "replays" / "trials" / "distill-0" / "student"
    assert lines[-1].endswith(str(student))
    classify = pipeline("text-classification", model=str(student), device="cpu")
    assert classify("the film was superb")[0]["label"] in ("pos", "neg")


def test_a_trial_of_a_home_that_can_only_be_read_is_replayed_elsewhere(
    copied: Home, only_readable: Callable[[Path], None]
) -> None:
    only_readable(copied.root)
    before = file_times(copied.root)
    status, errors, facts = replayed(copied, "distill-0")
    assert (status, facts.get("verdict")) == (0, "identical"), errors
    assert not Path(facts["folder"]).is_relative_to(copied.root)
    assert file_times(copied.root) == before
    shutil.rmtree(Path(facts["folder"]).parents[1])


def test_a_run_of_confirm_is_replayed_with_its_logits_on_test(swept: Home) -> None:
    status, _, facts = replayed(swept, "finetune-0-seed-0")
    assert (status, facts["verdict"], facts["differences"]) == (0, "identical", 0)
    folder = swept.sweep("tiny")
    recorded, again = (
        TrialFolder(folder.confirm / "finetune-0-seed-0"),
        TrialFolder(Path(facts["folder"])),
    )
    assert (result := again.read_result()) is not None
    assert result.test is not None
    assert np.array_equal(recorded.read_test_logits(), again.read_test_logits())
    assert facts["numbers"] > len(result.test)


def test_a_number_that_differs_is_named_with_step_size_and_possible_reasons(
    copied: Home,
) -> None:
    trial = copied.sweep("tiny").trial(TrialId("finetune", 0))
    rewrite(
        trial, lambda evaluations: [evaluations[0], _changed(evaluations[1], "train/loss", 2**-12)]
    )
    status, _, facts = replayed(copied, "finetune-0")
    assert (status, facts["verdict"], facts["differences"]) == (1, "different", 1)
    step = trial.read_evaluations()[1].step
    assert (facts["largest"]["step"], facts["largest"]["metric"]) == (step, "train/loss")
    assert facts["largest"]["size"] == pytest.approx(2**-12, rel=1e-6)
    assert "number of threads" in facts["why"][-1]
    shown = CliRunner().invoke(main, ["replay", "tiny", "finetune-0", "--home", str(copied.root)])
    assert shown.exit_code == 1
    assert f"the largest difference is 0.000244, in train/loss at step {step}" in shown.stdout


def _changed(evaluation: Evaluation, name: str, by: float) -> Evaluation:
    return Evaluation(
        **(
            vars(evaluation)
            | {"metrics": evaluation.metrics | {name: evaluation.metrics[name] + by}}
        )
    )


def test_other_versions_come_first_among_the_reasons(copied: Home) -> None:
    folder = copied.sweep("tiny")
    trial = folder.trial(TrialId("finetune", 0))
    noted = read_json(trial.versions)
    write_json(trial.versions, [one | {"torch": "1.0"} for one in noted])
    rewrite(
        trial,
        lambda evaluations: [_changed(one, "validation/accuracy", 0.5) for one in evaluations],
    )
    why = replay(copied, "tiny", "finetune-0").why
    assert why[0] == f"other versions: torch 1.0, now {torch.__version__}"


def test_a_pruned_trial_is_trained_as_far_as_it_went(copied: Home) -> None:
    trial = copied.sweep("tiny").trial(TrialId("distill", 0))
    first = trial.read_evaluations()[0]
    trial.write_evaluations([first])
    trial.write_result(TrialResult("pruned", first.step, first.seconds))
    found = replay(copied, "tiny", "distill-0")
    assert found.verdict == "identical"
    assert (found.evaluations, found.replayed) == (1, 1)
    assert found.student is None


def test_a_trial_that_diverged_diverges_again_at_the_same_step(
    copied: Home, tmp_path: Path
) -> None:
    folder = copied.sweep("tiny")
    settings = read_json(folder.trial(TrialId("finetune", 0)).settings) | {"learning_rate": 1e30}
    with pytest.raises(TrialDiverged):
        list(
            train(
                TrialSettings.model_validate(settings),
                folder.trial(TrialId("finetune", 7)).root,
                cache=copied.cache,
            )
        )
    assert replay(copied, "tiny", "finetune-7").verdict == "identical"
    result = folder.trial(TrialId("finetune", 7)).read_result()
    assert result is not None
    folder.trial(TrialId("finetune", 7)).write_result(
        TrialResult("diverged", result.steps + 1, 0.0)
    )
    found = replay(copied, "tiny", "finetune-7")
    assert found.verdict == "different"
    assert "the end (diverged, now diverged at step" in found.words


def test_changed_rows_are_refused_before_any_training(copied: Home, tmp_path: Path) -> None:
    trial = copied.sweep("tiny").trial(TrialId("finetune", 0))
    settings = read_json(trial.settings)
    other = write_csv(tmp_path / "other.csv", sentences(200, seed=5))
    write_json(trial.settings, settings | {"task": settings["task"] | {"dataset": str(other)}})
    with pytest.raises(
        DataError,
        match="the rows of train, validation and test have changed since the sweep was started",
    ):
        replay(copied, "tiny", "finetune-0")
    assert not (copied.sweep("tiny").root / "replays").exists()


def test_an_unknown_trial_is_one_line_with_the_known_ones(swept: Home) -> None:
    for name, words in (
        ("distil-0", "did you mean 'distill-0'"),
        ("../trials/distill-0", "STRATEGY-NUMBER"),
        ("x", "there are distill-0, finetune-0"),
    ):
        done = CliRunner().invoke(main, ["replay", "tiny", name, "--home", str(swept.root)])
        assert done.exit_code == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    with pytest.raises(UnknownSweep, match="no sweep 'tinny'"):
        replay(swept, "tinny", "distill-0")


def test_a_trial_that_was_never_evaluated_is_one_line(copied: Home) -> None:
    trial = copied.sweep("tiny").trial(TrialId("finetune", 0))
    trial.write_evaluations([])
    trial.write_result(TrialResult("failed", 0, 0.0, reason="out of luck"))
    with pytest.raises(KdsweepError, match="it was never evaluated"):
        replay(copied, "tiny", "finetune-0")


def test_threads_and_devices_are_those_of_the_sweeps_engine(
    copied: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert threads_of(InlineEngine(type="inline")) == torch.get_num_threads()
    folder = copied.sweep("tiny")
    facts, before = read_json(folder.facts), torch.get_num_threads()
    facts["sweep"]["engine"] = {"type": "ray", "cpus_per_trial": 3, "gpus_per_trial": 0}
    write_json(folder.facts, facts)
    seen = []
    monkeypatch.setattr(
        Observer,
        "step",
        lambda *_: seen.append((torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"])),
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert replay(copied, "tiny", "finetune-0").threads == 3
    assert set(seen) == {(3, "")}
    assert (torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"]) == (before, "5")


def test_a_folder_that_can_not_be_written_is_one_line(copied: Home) -> None:
    (copied.sweep("tiny").root / "replays").touch()
    with pytest.raises(KdsweepError, match="replays"):
        replay(copied, "tiny", "finetune-0")


def test_a_replay_starts_over_and_leaves_the_recorded_trial_alone(copied: Home) -> None:
    trial = copied.sweep("tiny").trial(TrialId("finetune", 0))
    before = {file.name: file.read_bytes() for file in trial.root.glob("*.json*")}
    folder = replay(copied, "tiny", "finetune-0").folder
    (folder / "leftover").touch()
    assert replay(copied, "tiny", "finetune-0").folder == folder
    assert not (folder / "leftover").exists()
    assert {file.name: file.read_bytes() for file in trial.root.glob("*.json*")} == before


def test_a_missing_number_is_a_difference_a_new_one_is_none_and_nan_equals_nan() -> None:
    recorded = [
        Evaluation(3, 1.0, {"a": 1.0, "b": float("nan"), "c": float("inf")}, 0.0, 0),
        Evaluation(6, 2.0, {"a": 1.0}, 0.0, 0),
    ]
    again = [
        Evaluation(3, 1.0, {"a": 1.0, "b": float("nan"), "c": float("inf"), "new": 2.0}, 0.0, 0)
    ]
    assert compare(recorded, again, None, None) == [Difference(6, "a", 1.0, None)]
    assert compare(recorded[:1], again, None, None) == []
