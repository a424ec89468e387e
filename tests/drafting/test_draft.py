"""A draft: which columns, splits, metric and models are guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import sentences, write_csv
from hub.server import Hub
from made_up_rows import Ask, comments, drafted, drafts_in, tickets

from kdsweep.config import load_space
from kdsweep.errors import DataError


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    return drafts_in(tmp_path, monkeypatch)


def test_text_and_label_are_found_among_other_columns_and_the_file_has_the_reasons(
    ask: Ask,
) -> None:
    facts = ask(tickets())
    assert (facts["task"]["text"], facts["task"]["label"]) == ("message", "team")
    written = comments()
    assert "label: `team`, 3 values; `urgent` could be the label too: 2 values" in written
    assert "`id` is skipped: every value differs" in written
    assert "`opened` is skipped: dates" in written
    assert facts["rows"]["train"] + facts["rows"]["validation"] + facts["rows"]["test"] == 200
    assert facts["task"]["holdout"] == 0.2


def test_requested_columns_are_used(ask: Ask) -> None:
    facts = ask(tickets(), label=("urgent",), text=("message", "team"))
    assert (facts["task"]["text"], facts["task"]["label"]) == (["message", "team"], "urgent")
    with pytest.raises(DataError, match=r"no column 'tema'.*did you mean 'team'"):
        ask(tickets(), label=("tema",))


@pytest.mark.parametrize(
    ("first", "second"),
    [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question_a", "question_b")],
)
def test_sentence_pairs_are_found_and_an_explanation_is_no_part_of_one(
    first: str, second: str, ask: Ask
) -> None:
    rows = [
        {
            "why": f"since the man who sings in row {i} is a singer of songs",
            first: f"a man sings song {i}",
            second: f"music {i}",
            "y": i % 3,
        }
        for i in range(150)
    ]
    facts = ask(rows)
    assert facts["task"]["text"] == [first, second]
    assert facts["task"]["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("teams", "weights", "metric"),
    [
        (("no", "yes"), (50, 50), "accuracy"),
        (("no", "yes"), (90, 10), "f1"),
        (("no", "yes"), (10, 90), "matthews"),
        (("a", "b", "c"), (30, 30, 30), "accuracy"),
        (("a", "b", "c"), (80, 10, 10), "f1_macro"),
        (tuple("abcdefghijkl"), None, "f1_macro"),
    ],
)
def test_the_metric_does_not_reward_always_predicting_the_most_frequent_class(
    teams: tuple[str, ...],
    weights: tuple[float, ...] | None,
    metric: str,
    ask: Ask,
) -> None:
    rows = [{"text": row["message"], "label": row["team"]} for row in tickets(2400, teams, weights)]
    assert ask(rows)["task"]["metric"] == metric
    assert load_space("space.yaml").task.metric == metric


def test_a_test_split_without_labels_is_replaced_by_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue").mkdir()
    for name, rows in (
        ("train", sentences(200)),
        ("validation", sentences(60, seed=1)),
        ("test", [(text, "-1") for text, _ in sentences(60, seed=2)]),
    ):
        write_csv(tmp_path / "glue" / f"{name}.csv", rows)
    facts = drafted("glue", None)
    assert facts["file"] == "glue.yaml"
    assert facts["task"]["splits"] == {"train": "train", "test": "validation"}
    assert "`test` has no labels" in facts["reasons"]["splits"]


def test_texts_in_other_letters_get_multilingual_models(
    ask: Ask,
) -> None:
    ask(
        [
            {
                "отзыв": f"очень хороший фильм номер {i} и прекрасная игра",
                "оценка": ["плохо", "хорошо"][i % 2],
            }
            for i in range(100)
        ]
    )
    assert "multilingual" in str(load_space("space.yaml").teacher)


def test_a_dataset_on_the_hub_is_drafted_like_any_other(
    tmp_path: Path, hub_here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        f"{i},the film was {word} {i},{i % 2}\n" for i, word in enumerate(["fine", "dull"] * 100)
    ]
    splits = {"train": rows[:150], "test": rows[150:]}
    files = {f"short/{name}.csv": "idx,sentence,label\n" + "".join(splits[name]) for name in splits}
    card = """---
configs:
- config_name: short
  data_files:
  - {split: train, path: short/train.csv}
  - {split: test, path: short/test.csv}
- config_name: long
  data_files: long/*.csv
dataset_info:
- config_name: short
  features:
  - {name: idx, dtype: int64}
  - {name: sentence, dtype: string}
  - name: label
    dtype: {class_label: {names: {"0": negative, "1": positive}}}
---
"""
    hub_here.add_dataset("someone/films", files | {"README.md": card})
    monkeypatch.chdir(tmp_path)
    facts = drafted("someone/films", subset="short")
    assert facts["task"] == {
        "dataset": "someone/films",
        "subset": "short",
        "text": "sentence",
        "label": "label",
        "splits": {"train": "train", "test": "test"},
        "holdout": 0.2,
        "metric": "accuracy",
    }
    assert facts["labels"] == ["negative", "positive"]
