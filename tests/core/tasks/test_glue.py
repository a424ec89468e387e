"""The search spaces of GLUE and of film reviews, on rows as their datasets have them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
from conftest import BAD, GOOD, PLAIN, others_slow

from kdsweep.config import load_space
from kdsweep.core import train
from kdsweep.core.data.loading import load_task
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.teachers.logits import teacher_logits, teacher_test
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial_folder import TrialFolder

SPACES = Path(__file__).parents[3] / "search_spaces"


class Glue(NamedTuple):
    """A task as `nyu-mll/glue` has it.

    classes: in the order of their numbers; None if the label is a number. reported: the metrics.
    labelled_splits: the splits other than train that have labels.
    """

    text: tuple[str, ...]
    classes: tuple[str, ...] | None
    reported: set[str]
    labelled_splits: tuple[str, ...] = ("validation",)


TASKS = {
    "cola": Glue(("sentence",), ("unacceptable", "acceptable"), {"matthews", "accuracy"}),
    "sst2": Glue(("sentence",), ("negative", "positive"), {"accuracy"}),
    "mrpc": Glue(
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        {"accuracy", "f1", "accuracy_and_f1"},
    ),
    "stsb": Glue(("sentence1", "sentence2"), None, {"pearson", "spearman", "pearson_and_spearman"}),
    "qqp": Glue(
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        {"accuracy", "f1", "accuracy_and_f1"},
    ),
    "mnli": Glue(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        {"accuracy"},
        ("validation_matched", "validation_mismatched"),
    ),
    "qnli": Glue(("question", "sentence"), ("entailment", "not_entailment"), {"accuracy"}),
    "rte": Glue(("sentence1", "sentence2"), ("entailment", "not_entailment"), {"accuracy"}),
    "wnli": Glue(("sentence1", "sentence2"), ("not_entailment", "entailment"), {"accuracy"}),
}
WORDS_OF_A_CLASS = (BAD, GOOD, ["yes", "no"])


def split(task: Glue, count: int, seed: int, *, labelled: bool = True) -> datasets.Dataset:
    """Rows whose words give the label away; GLUE's hidden labels are -1."""
    draw, columns = random.Random(seed), {name: [] for name in (*task.text, "label", "idx")}
    for i in range(count):
        if task.classes is None:
            good = draw.randint(0, 5)
            label: float = float(good)
            words = [draw.choice(GOOD) for _ in range(good)] + [
                draw.choice(BAD) for _ in range(5 - good)
            ]
        else:
            label = i % len(task.classes)
            words = [draw.choice(WORDS_OF_A_CLASS[label]) for _ in range(3)]
        texts = [[draw.choice(PLAIN) for _ in range(draw.randint(2, 6))] for _ in task.text]
        texts[-1] += words
        draw.shuffle(texts[-1])
        for name, text in zip(task.text, texts, strict=True):
            columns[name].append(" ".join(text))
        columns["label"].append(label if labelled else -1)
        columns["idx"].append(i)
    label_type = (
        datasets.Value("float32")
        if task.classes is None
        else datasets.ClassLabel(names=list(task.classes))
    )
    kinds = {
        **dict.fromkeys(task.text, datasets.Value("string")),
        "label": label_type,
        "idx": datasets.Value("int32"),
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def saved(task: Glue, folder: Path) -> Path:
    made = {"train": split(task, 240, 0)} | {
        name: split(task, 60, i + 1) for i, name in enumerate(task.labelled_splits)
    }
    made |= {
        name.replace("validation", "test"): split(task, 30, 9, labelled=False)
        for name in task.labelled_splits
    }
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder


def small(folder: Path, model: str) -> list[str]:
    """Assignments that make a search space run in seconds."""
    training = "{epochs: 10, batch_size: 16, max_length: 32, evaluations_per_epoch: 1"
    teacher = f"teacher={{model: '{model}', training: {training}, learning_rate: 2.0e-3}}}}"
    return [
        f"task.dataset={folder}",
        "task.holdout=0.2",
        f"student={{model: '{model}', layers: 1}}",
        f"training={training}}}",
        teacher,
    ]


def test_every_glue_task_has_a_search_space() -> None:
    for name in TASKS:
        space = load_space(SPACES / f"{name}.yaml")
        assert (space.name, space.task.dataset, space.task.subset) == (name, "nyu-mll/glue", name)
        assert space.task.labels is None or space.task.labels == TASKS[name].classes
        assert space.task.splits.named == {
            "train": "train",
            "test": TASKS[name].labelled_splits[0],
        } | {more: more for more in TASKS[name].labelled_splits[1:]}


@pytest.mark.parametrize("name", others_slow(list(TASKS)))
def test_a_glue_space_trains_on_the_columns_and_labels_of_its_dataset(
    name: str, tiny: Callable[..., str], tmp_path: Path
) -> None:
    glue = TASKS[name]
    space = load_space(
        SPACES / f"{name}.yaml", assignments=small(saved(glue, tmp_path / "a folder"), tiny("bert"))
    )
    task = space.task
    data = load_task(task, tmp_path)
    assert data.label_names == (glue.classes or ("label",))
    assert task.text == glue.text
    strategy = "distill" if "distill" in space.strategies else "finetune"
    values = {"learning_rate": 3e-3, "alpha": 0.5}
    settled = space.settle(strategy, lambda parameter: values.get(parameter.name, 2.0), 0)
    settings = settled.model_copy(update={"judge_test": True})
    *_, last = train(settings, tmp_path / "trial", cache=tmp_path)
    assert {metric for metric in last.metrics if metric.startswith("validation/")} >= {
        f"validation/{metric}" for metric in glue.reported
    }
    result = TrialFolder(tmp_path / "trial").read_result()
    assert result is not None and result.test is not None
    reported = set(result.test) - {"loss", "ece"}
    assert reported >= glue.reported
    assert {metric for metric in reported if "/" not in metric} == glue.reported
    assert result.test[task.metric] > 0.5
    assert result.test == pytest.approx(
        metrics_of_kept_logits(task.metric, tmp_path / "trial", data)
        | {k: v for k, v in result.test.items() if "/" in k},
        abs=1e-6,
    )


def metrics_of_kept_logits(metric: Any, folder: Path, data: Any) -> dict[str, float]:
    """The test metrics, computed again from the logits that the trial kept."""
    return score_logits(metric, data.test.labels, TrialFolder(folder).read_test_logits(), data.kind)


def test_mnli_reports_matched_and_mismatched_separately(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    """Labels of the mismatched split are rotated: what is right on one split is wrong there."""
    glue = TASKS["mnli"]
    folder = saved(glue, tmp_path / "mnli")
    rotated = datasets.load_from_disk(str(folder))
    wrong = rotated["validation_mismatched"].map(
        lambda row: row | {"label": (row["label"] + 1) % 3}
    )
    datasets.DatasetDict({**rotated, "validation_mismatched": wrong}).save_to_disk(
        str(tmp_path / "rotated")
    )
    space = load_space(SPACES / "mnli.yaml", assignments=small(tmp_path / "rotated", tiny("bert")))
    data = load_task(space.task, tmp_path)
    assert list(data.splits) == ["train", "validation", "test", "validation_mismatched"]
    assert load_task(space.task, tmp_path).more_tests.keys() == {"validation_mismatched"}
    texts = [set(zip(*part.texts, strict=True)) for part in data.splits.values()]
    assert all(not texts[i] & texts[j] for i in range(4) for j in range(i))
    teacher = prepare_teacher(space.task, space.teachers()[0], tmp_path)
    # Its logits for test are not computed yet.
    assert teacher_test(teacher, data, "accuracy", cache=tmp_path) is None
    for name in data.splits:
        teacher_logits(teacher, data, cache=tmp_path, split=name)
    reached = teacher_test(teacher, data, "accuracy", cache=tmp_path)
    assert reached is not None
    assert reached["accuracy"] > 0.9 and reached["validation_mismatched/accuracy"] < 0.1
    settings = space.settle("finetune", lambda parameter: 3e-3, 0).model_copy(
        update={"judge_test": True}
    )
    *_, _ = train(settings, tmp_path / "trial", cache=tmp_path)
    result = TrialFolder(tmp_path / "trial").read_result()
    assert result is not None and result.test is not None
    assert result.test["accuracy"] > 0.9 and result.test["validation_mismatched/accuracy"] < 0.1
    assert len(TrialFolder(tmp_path / "trial").read_test_logits()) == len(data.test)


@pytest.mark.parametrize(("name", "rows"), [("imdb", 25_000), ("rotten-tomatoes", 8_530)])
def test_review_datasets_load_from_the_embedded_package(name: str, rows: int) -> None:
    space = load_space(SPACES / f"{name}.yaml", embedded=True)
    data = load_task(space.task)
    assert data.label_names == ("negative", "positive")
    assert 0.97 * rows < sum(len(part) for part in data.splits.values()) <= rows
    shares = [np.asarray(part.labels).mean() for part in data.splits.values()]
    assert all(0.45 < share < 0.55 for share in shares)
    assert load_space(SPACES / "imdb.yaml").task.truncation == "head_tail"
