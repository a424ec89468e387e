"""Confirm: fresh seeds for each strategy's best trial, judged once on the test split."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import file_times, sentences, write_csv
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from sweep_processes import Sweep, runs_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.compare.statistics import compare
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.files import read_json
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import TrackingUnreachable
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import report as read_report
from kdsweep.sweep.status import status
from kdsweep.sweep.tracking_sync import TrackingSync
from kdsweep.trial_id import TrialId

SEEDS = 3
THREE = (
    "sampler={type: random}",
    "pruner={type: none}",
    "trials=2",
    f"confirm={{seeds: {SEEDS}, finalists: 1}}",
    "keep={students: 1}",
)
Done = tuple[Home, dict[str, Any]]


@pytest.fixture(scope="module")
def done(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    home = tmp_path_factory.mktemp("confirmed")
    return Home(home), run(space, home=home, assignments=THREE).to_json()


def confirm_runs(home: Home) -> dict[str, TrialFolder]:
    return {
        folder.name: TrialFolder(folder) for folder in sorted(home.sweep("tiny").confirm.glob("*"))
    }


def test_the_report_says_which_settings_may_be_the_best(done: Done) -> None:
    for found in done[1]["strategies"].values():
        compared = found["settings_comparison"]
        # All trials of the search and all runs of confirm kept what they predict for validation.
        assert (compared["complete"], compared["compared"], compared["seeds"]) == (2, 2, SEEDS)
        assert compared["alike"][0] == found["best"]["trial"]


@pytest.mark.slow
def test_the_teachers_predictions_on_further_splits_are_kept_for_its_interval(
    space: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for seed, (name, rows) in enumerate({"train": 200, "test": 60, "other-kind": 40}.items()):
        write_csv(folder / f"{name}.csv", sentences(rows, seed=seed))
    chosen = (
        f"task.dataset={folder}",
        "task.splits={train: train, test: test, more_tests: [other-kind]}",
        "confirm={seeds: 2, finalists: 1}",
        "trials=1",
    )
    home = Home(tmp_path / "home")
    report = run(space, home=home.root, assignments=chosen)
    shutil.rmtree(home.cache)
    again = read_report(home, "tiny")
    assert again.more_tests == report.more_tests
    found = again.more_tests["other-kind"]
    assert found.teacher is not None
    assert found.teacher_ci95 is not None
    assert found.teacher_ci95[0] <= found.teacher <= found.teacher_ci95[1]
    assert set(found.strategies) == {"finetune", "distill", "combined"}


def test_the_best_trial_of_each_strategy_is_trained_again_with_the_same_seeds_for_all(
    done: Done,
) -> None:
    home, report = done
    seeds: dict[str, list[int]] = {}
    for strategy, found in report["strategies"].items():
        best = found["best"]
        for i in range(SEEDS):
            settings = read_json(
                home.sweep("tiny").confirm
                / f"{strategy}-{best['trial']}-seed-{i}"
                / "settings.json"
            )
            seeds.setdefault(strategy, []).append(settings.pop("seed"))
            assert settings.pop("judge_test") is True
            assert settings == {
                name: value for name, value in best["settings"].items() if name != "seed"
            }
    assert len(confirm_runs(home)) == 3 * SEEDS
    assert seeds["finetune"] == seeds["distill"] == seeds["combined"]
    assert len(set(seeds["finetune"])) == SEEDS
    searched = {
        read_json(file)["seed"] for file in home.sweep("tiny").trials.glob("*/settings.json")
    }
    assert not searched & set(seeds["finetune"])


def test_the_report_can_be_computed_again_from_the_logits_that_are_kept(done: Done) -> None:
    home, report = done
    data = load_task_of(home)
    answers = {
        strategy: {
            i: home.sweep("tiny")
            .trial(TrialId(strategy, found["best"]["trial"], i))
            .read_test_logits()
            .argmax(axis=1)
            for i in range(SEEDS)
        }
        for strategy, found in report["strategies"].items()
    }
    teacher = np.load(home.sweep("tiny").teacher_test_logits(0)).argmax(axis=1)
    compared = compare("accuracy", data.test.labels, answers, [teacher])
    for strategy, found in report["strategies"].items():
        accuracies = [
            float((answers[strategy][i] == data.test.labels).mean()) for i in range(SEEDS)
        ]
        assert found["confirm"]["test"] == pytest.approx(accuracies)
        mean = compared.means[strategy]
        assert found["confirm"]["mean"] == mean.value == pytest.approx(np.mean(accuracies))
        assert found["confirm"]["ci95"] == [mean.low, mean.high]
        assert found["confirm"]["retention"] == pytest.approx(
            mean.value / report["teacher"]["test"]
        )
        assert compared.against_teacher is not None
        against = compared.against_teacher[strategy]
        assert found["confirm"]["against_teacher"] == {
            "difference": against.difference,
            "ci95": list(against.ci95 or ()),
            "state": against.state,
        }
    (own,) = compared.teachers
    assert own is not None
    assert report["teacher"]["ci95"] == [own.low, own.high]
    assert report["teacher"]["test"] == own.value
    pairs = compared.pairs
    assert [
        (pair["a"], pair["b"], pair["difference"], pair["p"], pair["verdict"])
        for pair in report["pairs"]
    ] == [(pair.a, pair.b, pair.difference, pair.p, pair.verdict) for pair in pairs]
    assert json.loads(json.dumps(report)) == json.loads(home.sweep("tiny").report.read_text())
    again = read_report(home, "tiny").to_json()
    assert {key: again[key] for key in report} == json.loads(json.dumps(report)) | {
        "pairs": again["pairs"]
    }


def load_task_of(home: Home) -> Any:
    from kdsweep.sweep.results import recorded

    return load_task(recorded(home, "tiny")[0].space.task)


def test_search_reads_no_test_split_and_the_teacher_is_judged_on_it_once(done: Done) -> None:
    home, report = done
    assert not list(home.sweep("tiny").trials.glob("*/test_logits.npy"))
    assert all(
        "test/accuracy" not in one.data.metrics
        for one in runs_of(home)
        if one.data.tags["kdsweep.phase"] == "search"
    )
    teacher = next(one for one in runs_of(home) if one.data.tags["kdsweep.phase"] == "teacher")
    assert teacher.data.metrics["test/accuracy"] == report["teacher"]["test"]


def test_mlflow_has_every_confirm_run_with_its_test_score_and_the_best_student_by_validation(
    done: Done, tmp_path: Path
) -> None:
    home, report = done
    client = MlflowClient(
        tracking_uri=home.tracking_uri("sqlite"), registry_uri=home.tracking_uri("sqlite")
    )
    found = {
        one.info.run_name: one
        for one in runs_of(home)
        if one.data.tags["kdsweep.phase"] == "confirm"
    }
    files_of = confirm_runs(home)
    assert found.keys() == files_of.keys()
    for name, files in files_of.items():
        result = files.read_result()
        assert result is not None
        assert result.test is not None
        assert found[name].data.metrics["test/accuracy"] == result.test["accuracy"]
        assert found[name].info.status == "FINISHED"
        assert found[name].data.tags["kdsweep.state"] == "complete"
    for strategy, entry in report["strategies"].items():
        kept = [
            name
            for name, one in found.items()
            if one.data.tags["kdsweep.strategy"] == strategy
            and one.data.tags.get("kdsweep.student") == "kept"
        ]
        best = int(np.argmax(entry["confirm"]["validation"]))
        assert kept == [f"{strategy}-{entry['best']['trial']}-seed-{best}"]
        assert not any(
            client.list_artifacts(one.info.run_id, "student")
            for name, one in found.items()
            if name not in kept and name.startswith(strategy)
        )
    winner = report["winner"]
    name = f"{winner['strategy']}-{winner['trial']}-seed-{winner['seed_index']}"
    assert winner["strategy"] == max(
        report["strategies"],
        key=lambda one: np.mean(report["strategies"][one]["confirm"]["validation"]),
    )
    registered = client.get_model_version_by_alias("tiny", "best")
    assert registered.run_id == found[name].info.run_id
    student = download_artifacts(
        run_id=registered.run_id,
        artifact_path="student",
        dst_path=str(tmp_path),
        tracking_uri=home.tracking_uri("sqlite"),
    )
    data = load_task_of(home)
    tokenizer = AutoTokenizer.from_pretrained(student)
    tokens = tokenize_split(
        data.test, tokenizer, InputFormat(24, token_types=True), cache=tmp_path / "cache"
    )
    logits = predict(
        AutoModelForSequenceClassification.from_pretrained(student), tokens, torch.float32
    )
    np.testing.assert_allclose(logits, files_of[name].read_test_logits(), atol=1e-5)


def test_the_same_command_again_does_nothing_and_more_seeds_only_add_runs(
    space: Path, done: Done
) -> None:
    home, report = done
    folder = home.sweep("tiny")
    written = file_times(folder.trials, folder.confirm, home.cache)
    assert run(space, home=home.root, assignments=THREE).to_json() == json.loads(json.dumps(report))
    assert file_times(folder.trials, folder.confirm, home.cache) == written
    before = {name: files.result.stat().st_mtime_ns for name, files in confirm_runs(home).items()}
    more = run(space, home=home.root, assignments=(*THREE, f"confirm.seeds={SEEDS + 1}")).to_json()
    after = {name: files.result.stat().st_mtime_ns for name, files in confirm_runs(home).items()}
    assert len(after) == 3 * (SEEDS + 1)
    assert {name: after[name] for name in before} == before
    for strategy, found in more["strategies"].items():
        assert found["confirm"]["test"][:SEEDS] == report["strategies"][strategy]["confirm"]["test"]
    found = status(home, "tiny")
    assert found.state == "done"
    assert {
        strategy: (one.confirmed, one.to_confirm) for strategy, one in found.strategies.items()
    } == dict.fromkeys(found.strategies, (SEEDS + 1, 0))


@pytest.mark.slow
def test_kill_9_while_confirming_loses_and_repeats_nothing(
    space: Path, tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    draw, changes = (
        random.Random(3),
        (*THREE, "training.epochs=4", "strategies.combined=", "engine={type: inline}"),
    )
    finished: dict[str, int] = {}
    for _ in range(2):
        one = sweep(tmp_path, *changes)
        had = len(list(one.home.sweep("tiny").confirm.glob("*/result.json")))
        if not one.wait_for(
            lambda: len(list(one.home.sweep("tiny").confirm.glob("*/metrics.jsonl"))) > had + 1
        ):
            break
        time.sleep(draw.uniform(0, 0.3))
        one.kill()
        ended = {
            file.parent.name: file.stat().st_mtime_ns
            for file in one.home.sweep("tiny").confirm.glob("*/result.json")
        }
        assert finished.items() <= ended.items()
        finished = ended
    assert run(space, home=tmp_path, assignments=changes).state == "done"
    ended = {
        file.parent.name: file.stat().st_mtime_ns
        for file in one.home.sweep("tiny").confirm.glob("*/result.json")
    }
    assert finished.items() <= ended.items()
    assert len(ended) == 2 * SEEDS
    phases = [run_.data.tags["kdsweep.phase"] for run_ in runs_of(Home(tmp_path))]
    assert (phases.count("confirm"), phases.count("search")) == (2 * SEEDS, 4)
    confirmed = [
        run_ for run_ in runs_of(Home(tmp_path)) if run_.data.tags["kdsweep.phase"] == "confirm"
    ]
    assert {run_.info.status for run_ in confirmed} == {"FINISHED"}
    assert all("test/accuracy" in run_.data.metrics for run_ in confirmed)
    assert "RUNNING" not in {run_.info.status for run_ in runs_of(Home(tmp_path))}
    assert one.home.sweep("tiny").report.exists()


def test_a_confirm_run_whose_end_mlflow_lacks_is_sent_by_the_same_command(
    space: Path, tmp_path: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (
        "trials=1",
        "confirm={seeds: 2, finalists: 1}",
        "strategies.combined=",
        "strategies.distill=",
        "training.epochs=1",
    )
    original = TrackingSync._send_trial

    def send(sync: TrackingSync, trial: TrialId) -> None:
        if trial.seed_index == 1:
            raise TrackingUnreachable("tracking: away")
        original(sync, trial)

    with monkeypatch.context() as patched:
        patched.setattr(TrackingSync, "_send_trial", send)
        seconds_of_patience = 1.0
        patched.setattr(TrackingSync.close, "__defaults__", (seconds_of_patience,))
        run(space, home=tmp_path, assignments=few)
    assert [
        one.info.run_name
        for one in runs_of(Home(tmp_path))
        if one.data.tags["kdsweep.phase"] == "confirm"
    ] == ["finetune-0-seed-0"]
    run(space, home=tmp_path, assignments=few)
    found = {
        one.info.run_name: one
        for one in runs_of(Home(tmp_path))
        if one.data.tags["kdsweep.phase"] == "confirm"
    }
    assert found.keys() == {"finetune-0-seed-0", "finetune-0-seed-1"}
    assert all(
        "test/accuracy" in one.data.metrics and one.info.status == "FINISHED"
        for one in found.values()
    )


@pytest.mark.slow
def test_ctrl_c_while_confirming_saves_and_says_how_to_resume(
    tmp_path: Path, sweep: Callable[..., Sweep]
) -> None:
    changes = (*THREE, "training.epochs=12", "strategies.combined=", "engine={type: inline}")
    one = sweep(tmp_path, *changes)
    assert one.wait_for(lambda: list(one.home.sweep("tiny").confirm.glob("*/metrics.jsonl")))
    one.process.send_signal(signal.SIGINT)
    status_, _, errors = one.end()
    assert status_ == 130
    assert errors.count("\n") == 1
    found = status(Home(tmp_path), "tiny")
    assert found.state == "stopped"
    assert sum(one.to_confirm for one in found.strategies.values()) > 0
    assert read_report(Home(tmp_path), "tiny").state == "stopped"
    assert "RUNNING" not in {run_.info.status for run_ in runs_of(Home(tmp_path))}


def test_one_strategy_one_seed_and_a_strategy_that_failed_are_reported_as_what_they_are(
    space: Path, tmp_path: Path
) -> None:
    one = (
        "trials=1",
        "confirm={seeds: 1, finalists: 1}",
        "strategies.combined=",
        "training.epochs=1",
        "pruner={type: none}",
    )
    report = run(
        space,
        home=tmp_path,
        assignments=(
            *one,
            "strategies.distill.learning_rate=1.0e+30",
            "strategies.distill.start_with=",
        ),
    ).to_json()
    assert report["strategies"]["distill"]["confirm"] is None
    assert report["strategies"]["distill"]["best"] is None
    confirm = report["strategies"]["finetune"]["confirm"]
    assert (confirm["seeds"], confirm["ci95"]) == (1, None)
    assert report["pairs"] == []
    assert "one seed" in str(report["rests_on"])
    assert "nothing to compare" in report["verdict"]
    assert report["winner"] == {"strategy": "finetune", "trial": 0, "seed_index": 0}


def test_without_confirm_the_report_shows_the_search_and_says_that_it_proves_nothing(
    space: Path, tmp_path: Path
) -> None:
    report = run(
        space,
        home=tmp_path,
        assignments=("trials=1", "confirm={seeds: 0}", "strategies.combined=", "training.epochs=1"),
    ).to_json()
    assert report["pairs"] == []
    assert report["teacher"]["test"] is None
    assert "may be chance" in str(report["rests_on"])
    assert not Home(tmp_path).sweep("tiny").confirm.exists()
