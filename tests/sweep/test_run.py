"""A whole sweep, read back through Optuna's, MLflow's and transformers' own clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from conftest import file_times
from mlflow import MlflowClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.core import train as core_train
from kdsweep.core.files import read_json
from kdsweep.errors import BudgetSpent, KdsweepError, SettingsConflict, TeacherError
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.results import report as read_report
from kdsweep.sweep.status import status
from kdsweep.trial_id import TrialId

SEARCH = "confirm={seeds: 0}"
TRIALS = ("trials=4", "keep={students: 2}", SEARCH)


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def done(
    space: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Home, dict[str, Any], list[str]]:
    """One finished sweep: its home, its report, and what was said."""
    home, observer = tmp_path_factory.mktemp("home") / "runs's «home»", Lines()
    report = run(space, home=home, assignments=TRIALS, observer=observer).to_json()
    return Home(home), report, observer.lines


def studies(home: Home, sweep: str = "tiny") -> dict[str, optuna.Study]:
    url = home.storage_url("sqlite")
    names = [name for name in optuna.get_all_study_names(url) if name.startswith(f"{sweep}/")]
    return {name.split("/")[1]: optuna.load_study(study_name=name, storage=url) for name in names}


def runs(home: Home, experiment: str = "tiny") -> list[Any]:
    client = MlflowClient(tracking_uri=home.tracking_uri("sqlite"))
    return list(
        client.search_runs(
            [client.get_experiment_by_name(experiment).experiment_id], max_results=1000
        )
    )


def identity_of_trials(home: Home) -> dict[str, list[Any]]:
    return {
        name: [
            (trial.params, trial.state, trial.value, trial.intermediate_values)
            for trial in study.trials
        ]
        for name, study in sorted(studies(home).items())
    }


def curves(home: Home, name: str = "tiny") -> dict[str, list[Any]]:
    """Every metric of every evaluation of every trial."""
    found = {}
    for file in sorted(home.sweep(name).trials.glob("*/metrics.jsonl")):
        found[file.parent.name] = [
            json.loads(line)["metrics"] for line in file.read_text().splitlines()
        ]
    assert found
    return found


def test_the_report_has_the_best_trial_of_each_strategy_and_the_teacher(
    done: tuple[Home, dict[str, Any], list[str]],
) -> None:
    home, report, _ = done
    assert report["teacher"]["validation"] > 0.75
    assert set(report["strategies"]) == {"finetune", "distill", "combined"}
    for strategy, found in report["strategies"].items():
        assert sum(found["trials"].values()) == 4
        study = studies(home)[strategy]
        assert found["best"]["validation"] == study.best_value
        assert found["best"]["trial"] == study.best_trial.number
        assert found["best"]["student"]["parameters"] < report["teacher"]["parameters"]
    assert read_json(home.sweep("tiny").report) == report
    assert read_report(home, "tiny").to_json()["strategies"] == report["strategies"]


def test_the_strategies_start_with_the_settings_of_the_space(
    done: tuple[Home, dict[str, Any], list[str]],
) -> None:
    assert studies(done[0])["finetune"].trials[0].params == {"learning_rate": 1e-3}
    assert studies(done[0])["distill"].trials[0].params == {
        "alpha": 0.5,
        "temperature": 4.0,
        "learning_rate": 1e-3,
    }


def test_conditional_parameters_exist_only_when_their_option_is_taken(
    done: tuple[Home, dict[str, Any], list[str]],
) -> None:
    for trial in studies(done[0])["combined"].trials:
        assert ("alpha.start" in trial.params) == (trial.params["alpha.any_of"] == "linear_rising")
        assert ("temperature.start" in trial.params) == (
            trial.params["temperature.any_of"] == "linear_falling"
        )


def test_mlflow_has_a_parent_run_a_teacher_and_every_trial_with_tags_params_and_curves(
    done: tuple[Home, dict[str, Any], list[str]],
) -> None:
    home, _, _ = done
    found = [run for run in runs(home) if run.data.tags["kdsweep.sweep"] == "tiny"]
    by_phase = {
        phase: [run for run in found if run.data.tags["kdsweep.phase"] == phase]
        for phase in ("sweep", "teacher", "search")
    }
    assert [len(by_phase[phase]) for phase in ("sweep", "teacher", "search")] == [1, 1, 12]
    parent = by_phase["sweep"][0]
    assert parent.info.status == "FINISHED"
    teacher = by_phase["teacher"][0]
    assert teacher.info.start_time < teacher.info.end_time
    assert teacher.data.metrics["best/validation/accuracy"] == done[1]["teacher"]["validation"]
    client = MlflowClient(tracking_uri=home.tracking_uri("sqlite"))
    for one in by_phase["search"]:
        tags, params, metrics = one.data.tags, one.data.params, one.data.metrics
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["kdsweep.sweep"] == "tiny"
        trial = studies(home)[tags["kdsweep.strategy"]].trials[int(tags["kdsweep.trial"])]
        assert (
            tags["kdsweep.state"] == {"COMPLETE": "complete", "PRUNED": "pruned"}[trial.state.name]
        )
        assert float(params["learning_rate"]) == trial.params["learning_rate"]
        assert ("alpha" in params) != ("alpha.shape" in params)
        for name in ("loss", "task_loss", "distill_loss", "alpha", "temperature", "learning_rate"):
            history = client.get_metric_history(one.info.run_id, f"train/{name}")
            assert len(history) == len(trial.intermediate_values)
            assert len({point.step for point in history}) == len(history)
        assert {"validation/accuracy", "validation/loss", "seconds"} <= metrics.keys()
        if tags["kdsweep.state"] == "complete":
            assert {"student/parameters", "student/size_mb", "student/latency_ms"} <= metrics.keys()
            assert metrics["best/validation/accuracy"] == trial.value
    assert [artifact.path for artifact in client.list_artifacts(parent.info.run_id)] == [
        "report.html",
        "report.json",
    ]


def test_the_best_students_are_kept_and_load_and_score_what_was_logged(
    done: tuple[Home, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    home, report, _ = done
    client = MlflowClient(tracking_uri=home.tracking_uri("sqlite"))
    kept: dict[str, set[int]] = {}
    for one in runs(home):
        if one.data.tags["kdsweep.sweep"] == "tiny" and client.list_artifacts(
            one.info.run_id, "student"
        ):
            kept.setdefault(one.data.tags["kdsweep.strategy"], set()).add(
                int(one.data.tags["kdsweep.trial"])
            )
            assert one.data.tags["kdsweep.student"] == "kept"
    for strategy, study in studies(home).items():
        complete = sorted(
            (trial for trial in study.trials if trial.state.name == "COMPLETE"),
            key=lambda trial: (-trial.value, trial.number),
        )
        assert kept[strategy] == {trial.number for trial in complete[:2]}
    best = report["strategies"]["distill"]["best"]
    chosen = next(
        run
        for run in runs(home)
        if (
            run.data.tags["kdsweep.sweep"],
            run.data.tags.get("kdsweep.strategy"),
            run.data.tags.get("kdsweep.trial"),
        )
        == ("tiny", "distill", str(best["trial"]))
    )
    folder = client.download_artifacts(chosen.info.run_id, "student", str(tmp_path))
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    assert model.config.id2label == {0: "neg", 1: "pos"}
    from kdsweep.core.data.loading import load_task
    from kdsweep.core.settings import TrialSettings

    validation = load_task(TrialSettings.model_validate(best["settings"]).task).validation
    with torch.inference_mode():
        logits = model(
            **tokenizer(*validation.texts, padding=True, return_tensors="pt")
        ).logits.numpy()
    assert float(np.mean(logits.argmax(axis=1) == validation.labels)) == pytest.approx(
        best["validation"]
    )


def test_the_best_student_of_all_is_registered(
    done: tuple[Home, dict[str, Any], list[str]],
) -> None:
    home, report, _ = done
    version = MlflowClient(tracking_uri=home.tracking_uri("sqlite")).get_model_version_by_alias(
        "tiny", "best"
    )
    top = max(found["best"]["validation"] for found in report["strategies"].values())
    assert float(version.tags["kdsweep.validation/accuracy"]) == top


def test_run_twice_does_nothing_the_second_time(
    space: Path, done: tuple[Home, dict[str, Any], list[str]]
) -> None:
    home, report, _ = done
    trials = home.sweep("tiny").trials
    before, written, observer = identity_of_trials(home), file_times(trials, home.cache), Lines()
    assert run(space, home=home.root, assignments=TRIALS, observer=observer).to_json() == report
    assert identity_of_trials(home) == before
    assert file_times(trials, home.cache) == written
    assert observer.lines == ["tiny: all trials are done; nothing to run"]


def test_status_counts_what_is_done_and_left(done: tuple[Home, dict[str, Any], list[str]]) -> None:
    whole = status(done[0], "tiny")
    assert whole.state == "done"
    assert whole.seconds_spent > 0
    for found in whole.strategies.values():
        assert found.complete + found.pruned + found.failed == 4
        assert found.left == found.running == 0


def test_the_same_space_and_seed_in_another_home_give_identical_trials_and_metrics(
    space: Path, done: tuple[Home, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    run(space, home=tmp_path, assignments=TRIALS)
    assert identity_of_trials(Home(tmp_path)) == identity_of_trials(done[0])
    assert curves(Home(tmp_path)) == curves(done[0])


def test_a_second_sweep_uses_the_teacher_and_logits_of_the_first_and_says_so(
    space: Path, done: tuple[Home, dict[str, Any], list[str]]
) -> None:
    home, _, said = done
    assert any("fine-tuning" in line for line in said)
    observer = Lines()
    written = file_times(home.cache / "teachers", home.cache / "logits")
    run(
        space,
        home=home.root,
        name="other",
        assignments=(SEARCH, "trials=1", "strategies.distill.temperature={low: 2.0, high: 5.0}"),
        observer=observer,
    )
    assert any("from the cache" in line for line in observer.lines)
    assert not any("fine-tuning" in line for line in observer.lines)
    costs = [read_report(home, name).questions[-1].answer for name in ("tiny", "other")]
    assert all(words.startswith("the teacher ") for words in costs)
    assert ["which came from the cache; its fine-tuning had taken" in words for words in costs] == [
        False,
        True,
    ]
    assert file_times(home.cache / "teachers", home.cache / "logits") == written


class DiesAfterTheTeacher(Lines):
    """Ends the driver when the teacher is trained and nothing of it is recorded yet."""

    def say(self, line: str) -> None:
        if line.startswith("teacher: validation"):
            raise OSError("the driver dies")
        super().say(line)


def test_a_teacher_that_the_sweep_made_before_it_died_is_not_called_one_from_the_cache(
    tiny_space: Path, tmp_path: Path
) -> None:
    chosen = (SEARCH, "trials=1", "confirm={seeds: 0}", "strategies.combined=null")
    home = tmp_path / "home"
    with pytest.raises(KdsweepError, match="the driver dies"):
        run(tiny_space, home=home, assignments=chosen, observer=DiesAfterTheTeacher())
    assert not Home(home).sweep("tiny").read_facts().teachers
    report = run(tiny_space, home=home, assignments=chosen)
    (teacher,) = Home(home).sweep("tiny").read_facts().teachers
    assert teacher.from_cache is False
    assert "from the cache" not in report.questions[-1].answer


def test_an_extended_sweep_keeps_its_trials(
    space: Path, tmp_path: Path, done: tuple[Home, dict[str, Any], list[str]]
) -> None:
    run(space, home=tmp_path, assignments=(SEARCH, "trials=2", "keep={students: 2}"))
    report = run(space, home=tmp_path, assignments=TRIALS).to_json()
    assert all(sum(found["trials"].values()) == 4 for found in report["strategies"].values())
    assert identity_of_trials(Home(tmp_path)) == identity_of_trials(done[0])


def test_other_settings_are_refused_with_the_difference_and_fresh_keeps_the_old_sweep(
    space: Path, tmp_path: Path
) -> None:
    one = (SEARCH, "trials=1", "strategies.combined=", "strategies.distill=")
    run(space, home=tmp_path, assignments=one)
    with pytest.raises(SettingsConflict, match=r"space\.training\.epochs: 2 -> 1.*--fresh"):
        run(space, home=tmp_path, assignments=(*one, "training.epochs=1"))
    run(space, home=tmp_path, assignments=(*one, "training.epochs=1"), fresh=True)
    home = Home(tmp_path)
    assert set(home.names()) == {"tiny", "tiny.1"}
    assert set(optuna.get_all_study_names(home.storage_url("sqlite"))) == {
        "tiny/finetune",
        "tiny.1/finetune",
    }
    assert sorted(run.data.tags["kdsweep.sweep"] for run in runs(home)) == [
        "tiny",
        "tiny",
        "tiny.1",
        "tiny.1",
    ]
    assert (
        read_report(home, "tiny.1").to_json()["strategies"]["finetune"]["best"]["settings"][
            "training"
        ]["epochs"]
        == 2
    )


def test_a_sweep_of_pure_fine_tuning_makes_no_teacher(space: Path, tmp_path: Path) -> None:
    report = run(
        space,
        home=tmp_path,
        assignments=(SEARCH, "trials=1", "strategies.combined=", "strategies.distill="),
    ).to_json()
    assert report["teacher"] is None
    assert not (Home(tmp_path).cache / "teachers").exists()


def test_a_diverging_trial_and_a_failing_one_leave_the_sweep_going(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(settings: Any, *arguments: Any, **options: Any) -> Any:
        if settings.training.batch_size == 8:
            raise RuntimeError("the device is on fire\nand more")
        return core_train(settings, *arguments, **options)

    monkeypatch.setattr("kdsweep.core.trial.train", failing)
    one = (
        SEARCH,
        "trials=3",
        "strategies.combined=",
        "strategies.distill=",
        "sampler={type: grid}",
        "pruner={type: none}",
        "strategies.finetune.start_with=",
    )
    both = (
        "strategies.finetune.learning_rate={choices: [1.0e-3, 1.0e+30]}",
        "training.batch_size={choices: [8, 16]}",
        "trials=9",
    )
    report = run(space, home=tmp_path, assignments=(*one, *both)).to_json()
    assert report["strategies"]["finetune"]["trials"] == {"complete": 1, "pruned": 0, "failed": 3}
    states = sorted(
        run.data.tags.get("kdsweep.state", "")
        for run in runs(Home(tmp_path))
        if run.data.tags["kdsweep.phase"] == "search"
    )
    assert states == ["complete", "diverged", "failed", "failed"]
    diverged = next(
        run for run in runs(Home(tmp_path)) if run.data.tags.get("kdsweep.state") == "diverged"
    )
    assert "step" in diverged.data.tags["kdsweep.reason"]
    trials = studies(Home(tmp_path))["finetune"].trials
    number = next(trial.number for trial in trials if trial.state.name == "FAIL")
    assert Home(tmp_path).sweep("tiny").trial(TrialId("finetune", number)).error.exists()


def test_a_teacher_that_knows_nothing_is_an_error_with_its_accuracy(
    space: Path, tmp_path: Path
) -> None:
    with pytest.raises(TeacherError, match=r"accuracy 0\.\d+"):
        run(
            space,
            home=tmp_path,
            assignments=("teacher.training.learning_rate=1e-12", "teacher.training.epochs=1"),
        )
    assert [run.info.status for run in runs(Home(tmp_path))] == ["FAILED"]


TPE = "{type: tpe, startup_trials: 1}"


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("{type: random}", "{type: none}"),
        (TPE, "{type: hyperband}"),
        *(
            pytest.param(sampler, pruner, marks=pytest.mark.slow)
            for sampler, pruner in [
                ("{type: gp, startup_trials: 1}", "{type: asha}"),
                (TPE, "{type: none}"),
                (TPE, "{type: asha}"),
                (TPE, "{type: median, startup_trials: 1}"),
                ("{type: random}", "{type: asha}"),
                ("{type: random}", "{type: hyperband}"),
            ]
        ),
    ],
)
def test_every_sampler_and_pruner_runs(
    sampler: str,
    pruner: str,
    space: Path,
    tmp_path: Path,
    done: tuple[Home, dict[str, Any], list[str]],
) -> None:
    (tmp_path / "cache").symlink_to(done[0].cache)
    one = (SEARCH, "trials=3", "strategies.combined=", "strategies.finetune=", "training.epochs=1")
    report = run(
        space, home=tmp_path, assignments=(*one, f"sampler={sampler}", f"pruner={pruner}")
    ).to_json()
    assert sum(report["strategies"]["distill"]["trials"].values()) == 3
    assert ("none" not in pruner) or report["strategies"]["distill"]["trials"]["complete"] == 3


def test_time_that_is_up_ends_a_sweep_without_losing_the_open_trial(
    space: Path, tmp_path: Path, done: tuple[Home, dict[str, Any], list[str]]
) -> None:
    (tmp_path / "cache").symlink_to(done[0].cache)
    with pytest.raises(BudgetSpent):
        run(space, home=tmp_path, assignments=(*TRIALS, "budget={hours: 1.0e-9}"))
    run(space, home=tmp_path, assignments=TRIALS)
    assert identity_of_trials(Home(tmp_path)) == identity_of_trials(done[0])
    assert curves(Home(tmp_path)) == curves(done[0])
