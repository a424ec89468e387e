"""Regression and multi-label tasks: how labels are read, trials, and settings that don't fit."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import BAD, GOOD, PLAIN
from pydantic import ValidationError
from scipy.stats import pearsonr, spearmanr

from kdsweep.config import SpaceError, load_space
from kdsweep.core import train
from kdsweep.core.data.loading import load_task
from kdsweep.core.evaluation.metric_table import metric_named, metrics_for
from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings
from kdsweep.core.tasks import KINDS, MULTI_LABEL, REGRESSION
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import DataError
from kdsweep.serving import load


def test_a_metric_that_does_not_fit_the_kind_is_refused() -> None:
    base: dict[str, Any] = {"dataset": "x", "text": "t", "label": "l"}
    for kind in KINDS.values():
        for metric in metrics_for(kind):
            TaskSettings(**base, kind=kind, metric=metric)
    with pytest.raises(
        ValidationError,
        match="pearson is for kind: regression; a task of kind: classification has accuracy",
    ):
        TaskSettings(**base, metric="pearson")
    with pytest.raises(
        ValidationError,
        match="accuracy is for kind: classification; a task of kind: regression has pearson",
    ):
        TaskSettings(**base, kind="regression")
    with pytest.raises(ValidationError, match="for kind: multi_label"):
        TaskSettings(**base | {"label": ["a", "b"]})
    with pytest.raises(ValidationError, match="a regression has none"):
        TaskSettings(**base, kind="regression", metric="pearson", labels=["a", "b"])
    # A stored default would invalidate what earlier versions cached.
    assert "kind" not in json.loads(TaskSettings(**base).model_dump_json())


# --- data ---


def scored(count: int, seed: int = 0) -> pd.DataFrame:
    """Texts with a score and the labels good, bad and long.

    The score is the number of good words, 0 to 5, or 0.25 more.
    """
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        good = i % 6
        words = (
            [draw.choice(GOOD) for _ in range(good)]
            + [draw.choice(BAD) for _ in range(5 - good)]
            + [draw.choice(PLAIN) for _ in range(draw.randint(0, 6))]
        )
        draw.shuffle(words)
        sets = [
            name
            for name, there in (("good", good > 0), ("bad", good < 5), ("long", len(words) > 8))
            if there
        ]
        rows.append(
            (
                " ".join(words),
                good + draw.choice([0.0, 0.25]),
                sets,
                *(int(name in sets) for name in ("good", "bad", "long")),
            )
        )
    return pd.DataFrame(rows, columns=["text", "score", "sets", "good", "bad", "long"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("kinds") / "rows.parquet"
    scored(240).to_parquet(file)
    return file


def regression(table: Path) -> TaskSettings:
    return TaskSettings(
        dataset=str(table),
        text="text",
        label="score",
        kind="regression",
        metric="pearson",
        holdout=0.2,
    )


def test_a_regression_reads_numbers_as_labels_and_has_one_output(
    table: Path, tmp_path: Path
) -> None:
    data = load_task(regression(table), tmp_path)
    assert data.label_names == ("score",)
    assert data.kind is REGRESSION and data.train.labels.dtype == np.float32
    expected = dict(zip(*(scored(240)[name] for name in ("text", "score")), strict=True))
    assert {
        text: float(label)
        for text, label in zip(data.train.texts[0], data.train.labels, strict=True)
    }.items() <= expected.items()
    with pytest.raises(DataError, match="set task.kind: regression"):
        load_task(TaskSettings(dataset=str(table), text="text", label="score"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1.5", "x", "2"], "has 'x'"),
        (["1.5", "1e60", "2"], "has '1e60': .* below 3.4e"),
        (["1.5", "", "2"], "1 of .* rows .* have no label"),
        (["-1", "-1", "-1.0"], "every row of the train split has the same label"),
    ],
)
def test_regression_labels_that_are_no_numbers_or_all_equal_are_refused(
    tmp_path: Path, values: list[str], message: str
) -> None:
    for name in ("train", "validation", "test"):
        labels = values if name == "train" else ["0.5", "1", "2"]
        pd.DataFrame(
            {"text": [f"{name} {word}" for word in ("a", "b", "c")], "score": labels}
        ).to_csv(tmp_path / f"{name}.csv", index=False)
    task = regression(tmp_path).model_dump() | {
        "splits": {"validation": "validation", "test": "test"}
    }
    with pytest.raises(DataError, match=message):
        load_task(TaskSettings.model_validate(task))


def test_lists_of_labels_and_one_column_per_label_give_equal_labels(
    table: Path, tmp_path: Path
) -> None:
    base: dict[str, Any] = {
        "dataset": str(table),
        "text": "text",
        "kind": "multi_label",
        "metric": "f1_micro",
        "holdout": 0.2,
    }
    lists = load_task(TaskSettings(**base, label="sets", labels=["good", "bad", "long"]), tmp_path)
    columns = load_task(TaskSettings(**base, label=["good", "bad", "long"]), tmp_path)
    reordered = load_task(
        TaskSettings(**base, label=["long", "good", "bad"], labels=["good", "bad", "long"]),
        tmp_path,
    )
    assert (
        lists.label_names == columns.label_names == reordered.label_names == ("good", "bad", "long")
    )
    assert lists.kind is MULTI_LABEL and lists.train.labels.shape == (len(lists.train), 3)
    for split in lists.splits:
        np.testing.assert_array_equal(lists.splits[split].labels, columns.splits[split].labels)
        np.testing.assert_array_equal(lists.splits[split].labels, reordered.splits[split].labels)
    expected = dict(
        zip(
            scored(240)["text"],
            scored(240)[["good", "bad", "long"]].to_numpy().tolist(),
            strict=True,
        )
    )
    assert all(
        expected[text] == label.tolist()
        for text, label in zip(lists.test.texts[0], lists.test.labels, strict=True)
    )


def test_a_column_without_multi_label_values_is_refused(table: Path) -> None:
    base: dict[str, Any] = {
        "dataset": str(table),
        "text": "text",
        "metric": "f1_micro",
        "kind": "multi_label",
    }
    with pytest.raises(DataError, match="must have a list of labels"):
        load_task(TaskSettings(**base, label="score"))
    with pytest.raises(DataError, match=r"score of train has \d\.\d+: .* must have 0 or 1"):
        load_task(TaskSettings(**base, label=["good", "score"]))
    with pytest.raises(DataError, match="set task.kind: multi_label"):
        load_task(TaskSettings(dataset=str(table), text="text", label="sets"))


def test_columns_of_booleans_and_of_0_and_1_give_equal_labels(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(60)]
    pd.DataFrame({"text": texts, "a": [True, False] * 30, "b": [0, 1] * 30}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    data = load_task(
        TaskSettings(
            dataset=str(tmp_path / "rows.csv"),
            text="text",
            label=("a", "b"),
            kind="multi_label",
            metric="f1_micro",
        )
    )
    assert all(
        label == ([1, 0] if int(text.split()[1]) % 2 == 0 else [0, 1])
        for text, label in zip(*data.train.texts, data.train.labels.tolist(), strict=True)
    )


@pytest.mark.parametrize("sets", [[[1], [-1]], [["a"], ["b", None]], [["a"], ["b", ""]]])
def test_a_missing_value_in_a_list_of_labels_is_refused(
    tmp_path: Path, sets: list[list[Any]]
) -> None:
    rows = [json.dumps({"text": f"text {i}", "sets": sets[i % 2]}) for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    with pytest.raises(
        DataError, match="which is no label; give a row without labels an empty list"
    ):
        load_task(
            TaskSettings(
                dataset=str(tmp_path / "rows.jsonl"),
                text="text",
                label="sets",
                kind="multi_label",
                metric="f1_micro",
            )
        )


def test_numbers_in_lists_of_labels_index_the_names_of_the_dataset(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["red", "green", "blue"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "colors": datasets.Sequence(names)}
    )
    rows = {"text": [f"text {i}" for i in range(60)], "colors": [[], [0, 2], [1]] * 20}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": dataset}).save_to_disk(str(tmp_path / "data"))
    data = load_task(
        TaskSettings(
            dataset=str(tmp_path / "data"),
            text="text",
            label="colors",
            kind="multi_label",
            metric="subset_accuracy",
        )
    )
    assert data.label_names == ("red", "green", "blue")
    assert {tuple(row) for row in data.train.labels.tolist()} == {(0, 0, 0), (1, 0, 1), (0, 1, 0)}


# --- from rows to a student ---


def trial(task: TaskSettings, model: str, **keys: Any) -> TrialSettings:
    training = {"epochs": 12, "batch_size": 16, "max_length": 24, "evaluations_per_epoch": 1}
    teacher_training = {"learning_rate": 3e-3, **training}
    return TrialSettings.model_validate(
        {
            "task": task,
            "teacher": TeacherSettings(model=model, training=teacher_training),
            "student": {"model": model, "layers": 1},
            "training": training,
        }
        | {"alpha": 0.5, "learning_rate": 3e-3, "judge_test": True}
        | keys
    )


def assert_validation_is_kept(folder: TrialFolder, metric: str) -> None:
    """The predictions beside the labels give the metric of the best evaluation."""
    found, result = folder.read_validation_predictions(), folder.read_result()
    assert found is not None and found.predictions.shape == found.labels.shape
    assert result is not None and result.best is not None
    reached = metric_named(metric).score(found.labels, found.predictions)
    assert reached == pytest.approx(result.best.metrics[f"validation/{metric}"], abs=1e-12)


def test_a_regression_is_distilled_evaluated_and_served(
    table: Path, tiny: Callable[..., str], tmp_path: Path
) -> None:
    task = regression(table)
    settings = trial(task, tiny("bert"))
    teacher = prepare_teacher(task, settings.teacher, tmp_path)  # type: ignore[arg-type]
    assert teacher.margin is None and teacher.entropy is None
    *_, last = train(settings, tmp_path / "trial", cache=tmp_path)
    assert {
        "validation/pearson",
        "validation/spearman",
        "validation/teacher_mse",
        "validation/loss",
    } <= set(last.metrics)
    assert not {"validation/accuracy", "validation/ece", "validation/agreement"} & set(last.metrics)
    result = TrialFolder(tmp_path / "trial").read_result()
    assert result is not None and result.test is not None and result.test["pearson"] > 0.5
    data = load_task(task, tmp_path)
    config = json.loads((tmp_path / "trial" / "student" / "config.json").read_text())
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "score"})
    served = load(tmp_path / "trial" / "student")
    served.max_length = 24
    predictions = served.predict(list(data.test.texts[0]))
    assert_validation_is_kept(TrialFolder(tmp_path / "trial"), "pearson")
    logits = TrialFolder(tmp_path / "trial").read_test_logits()
    np.testing.assert_allclose(predictions["score"], logits[:, 0], atol=1e-4)
    assert set(predictions["label"]) == {"score"}
    assert pearsonr(data.test.labels, predictions["score"]).statistic == pytest.approx(
        result.test["pearson"], abs=1e-4
    )
    assert spearmanr(data.test.labels, logits[:, 0]).statistic == pytest.approx(
        result.test["spearman"], abs=1e-6
    )


def test_a_multi_label_task_is_distilled_evaluated_and_served(
    table: Path, tiny: Callable[..., str], tmp_path: Path
) -> None:
    task = TaskSettings(
        dataset=str(table),
        text="text",
        label=("good", "bad", "long"),
        kind="multi_label",
        metric="f1_macro",
        holdout=0.2,
    )
    *_, last = train(trial(task, tiny("bert"), temperature=2.0), tmp_path / "trial", cache=tmp_path)
    assert {
        "validation/f1_macro",
        "validation/f1_micro",
        "validation/subset_accuracy",
        "validation/ece",
        "validation/agreement",
    } <= set(last.metrics)
    assert_validation_is_kept(TrialFolder(tmp_path / "trial"), "f1_macro")
    served = load(tmp_path / "trial" / "student")
    served.max_length = 24
    texts = list(load_task(task, tmp_path).test.texts[0])
    predictions = served.predict(texts)
    logits = TrialFolder(tmp_path / "trial").read_test_logits()
    names = np.array(["good", "bad", "long"])
    assert predictions["label"].tolist() == [", ".join(names[row >= 0]) for row in logits]
    np.testing.assert_allclose(
        predictions["score"], (1 / (1 + np.exp(-np.abs(logits)))).min(axis=1), atol=1e-4
    )


# --- settings that don't fit the kind ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("distill: reverse_kl", r"own\.yaml:10: strategies\.s\.distill: .*compares probabilities"),
        (
            "distill: {temperature_follows: confidence}",
            r"own\.yaml:10: strategies\.s\.distill\.temperature_follows: .*kind: regression",
        ),
        (
            "label_smoothing: {low: 0.0, high: 0.2}",
            r"own\.yaml:10: strategies\.s\.label_smoothing: .*no classes to smooth",
        ),
    ],
)
def test_a_setting_that_does_not_fit_a_regression_is_refused_with_its_line(
    tmp_path: Path, line: str, message: str
) -> None:
    text = """\
name: own
task: {dataset: x/y, text: t, label: l, kind: regression, metric: pearson}
teacher: {model: a/b}
student: {model: c/d}
strategies:
  s:
    alpha: 0.5
    temperature: 1.0
    learning_rate: 1.0e-4
    %s
"""
    (tmp_path / "own.yaml").write_text(text % line, encoding="utf-8")
    with pytest.raises(SpaceError, match=message):
        load_space(tmp_path / "own.yaml")
    (tmp_path / "own.yaml").write_text(text % "distill: mse", encoding="utf-8")
    assert load_space(tmp_path / "own.yaml").task.kind is REGRESSION
    broken = {"distill": {"logits": "soft_ce"}}
    with pytest.raises(ValidationError, match="compares probabilities"):
        trial(
            TaskSettings(dataset="x", text="t", label="l", kind="regression", metric="pearson"),
            "x/y",
            **broken,
        )


def test_names_with_commas_survive_serving() -> None:
    names = ["a", "b, c", 'say "no"']
    logits = np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])
    labels, _ = MULTI_LABEL.serve(logits, names)
    rows = csv.reader(labels, skipinitialspace=True)
    assert list(rows) == [["a", "b, c", 'say "no"'], ["b, c"]]
