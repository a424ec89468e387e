"""Labels: which column, or which several, and what kind of task that makes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from click.testing import CliRunner
from made_up_rows import (
    TAGS,
    Ask,
    Make,
    amount,
    comments,
    drafted,
    drafts_in,
    flag,
    one_of,
    rows,
    tags,
    task_of,
)

from kdsweep.cli import main
from kdsweep.config import load_space
from kdsweep.errors import DataError


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    return drafts_in(tmp_path, monkeypatch)


@pytest.fixture
def ask_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    return drafts_in(tmp_path, monkeypatch, "jsonl")


def test_a_column_of_fractions_becomes_a_regression(
    ask: Ask,
) -> None:
    facts = ask(rows(score=amount))
    assert task_of(facts) == ("score", "regression")
    assert facts["task"]["metric"] == "pearson_and_spearman"
    assert "numbers from 0" in facts["reasons"]["label"]
    assert "with a fraction" in facts["reasons"]["label"]


def test_a_regression_says_that_minus_one_is_a_number(ask: Ask) -> None:
    assert (
        "-1 counts as a number"
        in ask(rows(score=one_of(-1.0, -0.5, 0.25, 1.0)))["reasons"]["label"]
    )
    assert "-1" not in ask(rows(score=amount))["reasons"]["label"]


def test_a_regression_searches_no_temperature(ask: Ask) -> None:
    ask(rows(score=amount))
    space = load_space("space.yaml")
    assert set(space.strategies) == {"finetune", "distill", "combined", "distill_then_finetune"}
    names = {
        name: [parameter.name for parameter in space.parameters(name)] for name in space.strategies
    }
    assert not any("temperature" in name for found in names.values() for name in found)
    assert names["distill"] == ["alpha", "learning_rate"]
    assert "CE(" not in Path("space.yaml").read_text()


CANDIDATES: list[tuple[dict[str, Make], str | list[str], str]] = [
    ({"label": one_of(0, 1), "confidence": amount}, "label", "classification"),
    ({"verdict": one_of("fine", "bad"), "certainty": amount}, "verdict", "classification"),
    (
        {"verdict": one_of("fine", "bad"), "label_confidence": amount},
        "verdict",
        "classification",
    ),
    ({"score": amount, "source": one_of("news", "web")}, "score", "regression"),
    ({"score": amount, "user_id": one_of(*range(9))}, "score", "regression"),
    ({"split": one_of("train", "test"), "mean": amount}, "mean", "regression"),
    (
        {"genre": one_of("news", "captions"), "year": one_of(2012, 2013), "score": amount},
        "score",
        "regression",
    ),
    ({"stars": one_of(1, 2, 3, 4, 5)}, "stars", "classification"),
    ({"intent": lambda draw, row: row % 30}, "intent", "classification"),
    ({"score": lambda draw, row: row % 30}, "score", "regression"),
    ({"target": lambda draw, row: 7 * (row % 30)}, "target", "regression"),
    ({"spam": flag}, "spam", "classification"),
    ({"spam": flag, "score": amount}, "score", "regression"),
    (
        {"toxic": flag, "insult": flag, "threat": flag, "length": amount},
        ["toxic", "insult", "threat"],
        "multi_label",
    ),
    (
        {"toxic": flag, "insult": flag, "source": one_of("news", "web")},
        ["toxic", "insult"],
        "multi_label",
    ),
    (
        {"toxic": one_of(False, True), "insult": one_of(False, True)},
        ["toxic", "insult"],
        "multi_label",
    ),
    (
        {"toxic": flag, "insult": flag, "label": one_of("a", "b", "c")},
        "label",
        "classification",
    ),
    ({"toxic": flag, "insult": flag, "label": flag}, "label", "classification"),
    (
        {"toxic": flag, "insult": flag, "verdict": one_of("a", "b", "c")},
        "verdict",
        "classification",
    ),
    ({"toxic": flag, "insult": flag, "score": amount}, "score", "regression"),
    ({"toxic": flag, "is_test": flag}, "toxic", "classification"),
]


@pytest.mark.parametrize(("columns", "label", "kind"), CANDIDATES)
def test_of_several_candidates_the_one_with_a_label_s_name_is_chosen(
    columns: dict[str, Make], label: str | list[str], kind: str, ask: Ask
) -> None:
    facts = ask(rows(600, **columns))
    assert task_of(facts) == (label, kind)
    for name in columns:
        assert name in label or f"`{name}`" in facts["reasons"]["label"]


def test_a_candidate_of_another_kind_is_named_with_its_kind(
    ask: Ask,
) -> None:
    assert (
        "`source` could be the label too: 2 values ("
        in ask(rows(score=amount, source=one_of("news", "web")))["reasons"]["label"]
    )
    assert "(kind: classification)" in comments()
    assert "(kind: regression)" in ask(rows(label=flag, confidence=amount))["reasons"]["label"]


def test_a_few_whole_numbers_are_classes_and_the_file_says_how_to_read_them_as_numbers(
    ask: Ask,
) -> None:
    facts = ask(rows(stars=one_of(1, 2, 3, 4, 5)))
    assert (
        "`kind: regression` with `metric: pearson_and_spearman` would read them as numbers"
        in comments()
    )
    as_written = Path("space.yaml").read_text()
    Path("other.yaml").write_text(
        as_written.replace(
            f"metric: {facts['task']['metric']}\n",
            "kind: regression\n  metric: pearson_and_spearman\n",
        )
    )
    assert load_space("other.yaml").task.kind.name == "regression"
    assert "regression" not in ask(rows(spam=flag))["reasons"]["label"]


def test_the_kind_follows_the_requested_label(ask: Ask) -> None:
    found = rows(
        label=one_of("a", "b"),
        weight=amount,
        toxic=flag,
        insult=flag,
        threat=lambda draw, row: 0,
        words=lambda draw, row: row * row,
    )
    assert task_of(ask(found, label=("weight",))) == ("weight", "regression")
    assert task_of(ask(found, label=("words",))) == ("words", "regression")
    assert task_of(ask(found, label=("toxic",))) == ("toxic", "classification")
    assert task_of(ask(found, label=("insult", "toxic", "threat"))) == (
        ["insult", "toxic", "threat"],
        "multi_label",
    )
    with pytest.raises(DataError, match="`label` is no column of 0 and 1.*2 values"):
        ask(found, label=("toxic", "label"))
    with pytest.raises(DataError, match="`toxic` is named twice"):
        ask(found, label=("toxic", "toxic"))


def test_labels_can_be_named_on_the_command_line_and_json_has_the_kind(
    ask: Ask,
) -> None:
    ask(rows(label=one_of("a", "b"), toxic=flag, insult=flag))
    done = CliRunner().invoke(
        main, ["init", "rows.csv", "own.yaml", "--label", "toxic", "--label", "insult", "--json"]
    )
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["kind"], facts["task"]["label"], facts["labels"]) == (
        "multi_label",
        ["toxic", "insult"],
        ["toxic", "insult"],
    )
    done = CliRunner().invoke(
        main, ["init", "rows.csv", "again.yaml", "--label", "toxic", "--label", "insult"]
    )
    assert "  label   toxic and insult: as requested; 2 columns of 0 and 1" in done.stdout
    assert "  kind    multi_label: " in done.stdout


def test_a_column_of_lists_becomes_several_labels(
    ask_jsonl: Ask,
) -> None:
    facts = ask_jsonl(rows(lang=one_of("en", "de"), feelings=tags))
    assert task_of(facts) == ("feelings", "multi_label")
    assert (facts["task"]["metric"], facts["labels"]) == ("f1_micro", sorted(TAGS))
    data = [set(row["feelings"]) for row in rows(lang=one_of("en", "de"), feelings=tags)]
    # A row without any label is a row like any other.
    assert any(not found for found in data)
    assert "rows have none" in comments()
    assert task_of(ask_jsonl(rows(label=one_of("a", "b"), feelings=tags))) == (
        "label",
        "classification",
    )
    assert task_of(ask_jsonl(rows(labels=lambda draw, row: draw.sample(range(6), 2)))) == (
        "labels",
        "multi_label",
    )


def test_the_file_says_how_several_labels_are_spread(ask: Ask) -> None:
    facts = ask(
        rows(
            red=lambda draw, row: int(row % 30 == 0),
            blue=lambda draw, row: int(row % 30 != 0),
            none=lambda draw, row: 0,
        )
    )
    assert "every row has exactly one" in comments()
    assert "`red`" in facts["reasons"]["metric"] and "f1_macro" in facts["reasons"]["metric"]
    assert "`none` is skipped: every value is 0" in facts["reasons"]["label"]


def test_lists_of_classes_are_labels_and_tags_of_words_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    names = datasets.ClassLabel(names=[*TAGS, "none of them"])
    features = {
        "message": datasets.Value("string"),
        "ner_tags": datasets.Sequence(names),
        "vector": datasets.Sequence(datasets.Value("float32")),
    }
    features["feelings"] = datasets.Sequence(names)
    found = [
        {
            "message": row["message"],
            "ner_tags": [0, 0, 1, 2],
            "vector": [0.5],
            "feelings": [TAGS.index(tag) for tag in row["feelings"]],
        }
        for row in rows(feelings=tags)
    ]
    whole = datasets.Dataset.from_list(found, features=datasets.Features(features))
    unlabelled = datasets.Dataset.from_list(
        [row | {"feelings": []} for row in found[:50]], features=datasets.Features(features)
    )
    datasets.DatasetDict(
        train=whole.select(range(250)), validation=whole.select(range(250, 300)), test=unlabelled
    ).save_to_disk("saved")
    facts = drafted("saved")
    assert task_of(facts) == ("feelings", "multi_label")
    assert facts["labels"] == [*TAGS, "none of them"]
    assert facts["task"]["splits"] == {
        "train": "train",
        "test": "validation",
    }  # where no row has any label, they are not public
    assert (
        "`ner_tags` is skipped: lists of 3 different values, some of them twice in a list"
        in facts["reasons"]["label"]
    )


def test_a_test_split_of_a_regression_without_labels_is_replaced_by_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stsb").mkdir()
    for name, make in (("train", amount), ("validation", amount), ("test", one_of(-1.0))):
        pandas.DataFrame(
            [row | {"message": f"{name} {row['message']}"} for row in rows(100, label=make)]
        ).to_csv(f"stsb/{name}.csv", index=False)
    assert drafted("stsb")["task"]["splits"] == {
        "train": "train",
        "test": "validation",
    }
