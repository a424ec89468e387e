"""`kdsweep init`: what is guessed from real files, and that `kdsweep plan` takes what was written."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner
from conftest import sentences, write_csv

from kdsweep.cli import main
from kdsweep.config import load_space
from kdsweep.drafting.columns import Table, look_at
from kdsweep.drafting.guessing import guess_label, guess_text
from kdsweep.drafting.writing import init, scalar
from kdsweep.errors import DataError, KdsweepError

HOSTILE = 'the: «message», [a] {b} #1\'s "text"\\'


def tickets(
    count: int = 200,
    teams: tuple[str, ...] = ("billing", "shipping", "refunds"),
    weights: tuple[float, ...] | None = None,
) -> list[dict[str, Any]]:
    draw = random.Random(0)
    words = [
        "please",
        "help",
        "me",
        "with",
        "an",
        "order",
        "that",
        "is",
        "late",
        "and",
        "a",
        "bill",
        "that",
        "is",
        "wrong",
    ]
    return [
        {
            "id": f"T-{i:05}",
            "opened": f"2024-03-{i % 28 + 1:02}",
            "message": " ".join(draw.choices(words, k=12)) + f" {i}",
            "team": draw.choices(teams, weights)[0],
            "urgent": draw.choice([0, 1]),
        }
        for i in range(count)
    ]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """ask(rows, ...) -> what init says about them, written as csv in the current folder."""
    monkeypatch.chdir(tmp_path)

    def look(rows: list[dict[str, Any]], **how: Any) -> dict[str, Any]:
        pandas.DataFrame(rows).to_csv("rows.csv", index=False)
        Path("space.yaml").unlink(missing_ok=True)
        return init("rows.csv", Path("space.yaml"), **how)

    return look


def comments() -> str:
    """What is written, on one line."""
    return " ".join(Path("space.yaml").read_text().replace("#", " ").split())


# --- plan takes it ---------------------------------------------------------------------------------------------------


def plan(space: Path, tiny: Callable[..., str], home: Path) -> dict[str, Any]:
    models = (
        "--set",
        f"teacher.model={tiny('bert', layers=2)}",
        "--set",
        f"student.model={tiny('bert', layers=2)}",
        "--set",
        "training.max_length=24",
    )
    done = CliRunner().invoke(main, ["plan", str(space), "--home", str(home), "--json", *models])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def as_csv(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_csv(folder / "rows of «May» #1.csv", index=False)
    return "rows of «May» #1.csv"


def as_tsv(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_csv(folder / "rows.tsv", index=False, sep="\t")
    return "rows.tsv"


def as_json(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_json(folder / "rows.json", orient="records")
    return "rows.json"


def as_jsonl(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_json(folder / "rows.jsonl", orient="records", lines=True)
    return "rows.jsonl"


def as_parquet(folder: Path, frame: pandas.DataFrame) -> str:
    frame.to_parquet(folder / "rows.parquet")
    return "rows.parquet"


def as_folder(folder: Path, frame: pandas.DataFrame) -> str:
    (folder / "data").mkdir()
    frame[:220].to_csv(folder / "data" / "train.csv", index=False)
    frame[220:260].to_csv(folder / "data" / "dev.csv", index=False)
    frame[260:].to_csv(folder / "data" / "test.csv", index=False)
    return "data"


def as_saved_dataset(folder: Path, frame: pandas.DataFrame) -> str:
    import datasets

    whole = datasets.Dataset.from_pandas(frame, preserve_index=False).class_encode_column("label")
    split = whole.train_test_split(0.2, seed=0)
    datasets.DatasetDict(train=split["train"], validation=split["test"]).save_to_disk(
        str(folder / "saved")
    )
    return "saved"


@pytest.mark.parametrize(
    "write", [as_csv, as_tsv, as_json, as_jsonl, as_parquet, as_folder, as_saved_dataset]
)
def test_plan_takes_what_was_written_for_every_kind_of_data(
    write: Callable[[Path, pandas.DataFrame], str],
    tmp_path: Path,
    tiny: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(
        tmp_path, pandas.DataFrame(sentences(300), columns=["text", "label"]).assign(id=range(300))
    )
    (tmp_path / "spaces").mkdir()
    done = CliRunner().invoke(main, ["init", data, "spaces/mine.yaml", "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert "kdsweep plan spaces/mine.yaml" in done.stdout
    monkeypatch.chdir("/")  # a relative path is meant from the space's own folder
    facts = plan(tmp_path / "spaces" / "mine.yaml", tiny, tmp_path / "home")
    assert facts["task"]["labels"] == ["neg", "pos"]
    assert facts["sweep"] == "mine"
    assert set(facts["studies"]) == {"finetune", "distill", "combined", "distill_then_finetune"}
    assert not (tmp_path / "home").exists()


def test_names_and_paths_that_mean_something_in_yaml_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "it's: «data», {1} #2"
    folder.mkdir()
    write_csv(folder / "- rows, [x].csv", sentences(200), header=(HOSTILE, "yes"))
    facts = init(f"{folder.name}/- rows, [x].csv", Path("space.yaml"), name="on")
    task = load_space(tmp_path / "space.yaml").task
    assert task.text == (HOSTILE,)
    assert task.label == "yes"
    assert task.dataset == str(folder / "- rows, [x].csv")
    assert facts["task"]["text"] == HOSTILE


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "no",
        "1.5",
        "null",
        "~",
        "a b",
        "x: y",
        "#",
        "- a",
        "\u2028",
        "\x85",
        "\ufeff",
        "😀",
        "a\nb",
        "'",
        '"',
        "\\",
        ".5",
        ".inf",
        "...",
        "",
    ],
)
def test_a_scalar_is_read_back_as_it_was(text: str) -> None:
    from kdsweep.config.loading import parse_yaml

    assert parse_yaml(f"a: [{scalar(text)}, {{b: {scalar(text)}}}]\nc: {scalar(text)}\n", "x")[
        0
    ] == {"a": [text, {"b": text}], "c": text}


def test_nothing_is_written_over_and_no_folder_is_made(ask: Callable[..., dict[str, Any]]) -> None:
    ask(tickets())
    before = Path("space.yaml").read_text()
    with pytest.raises(KdsweepError, match="is there already"):
        init("rows.csv", Path("space.yaml"))
    assert Path("space.yaml").read_text() == before
    with pytest.raises(KdsweepError, match="no folder"):
        init("rows.csv", Path("nowhere/space.yaml"))


# --- what is guessed -------------------------------------------------------------------------------------------------


def test_text_and_label_are_found_beside_ids_dates_and_flags_and_the_reasons_stand_in_the_file(
    ask: Callable[..., dict[str, Any]],
) -> None:
    facts = ask(tickets())
    assert (facts["task"]["text"], facts["task"]["label"]) == ("message", "team")
    written = comments()
    assert "label: `team`, 3 values; `urgent` could be one too: 2 values" in written
    assert "`id` was passed over: every value differs" in written
    assert "`opened` was passed over: dates" in written
    assert facts["rows"]["train"] + facts["rows"]["validation"] + facts["rows"]["test"] == 200
    assert facts["task"]["holdout"] == 0.2


def test_columns_that_are_asked_for_are_taken(ask: Callable[..., dict[str, Any]]) -> None:
    facts = ask(tickets(), label=["urgent"], text=["message", "team"])
    assert (facts["task"]["text"], facts["task"]["label"]) == (["message", "team"], "urgent")
    with pytest.raises(DataError, match=r"no column 'tema'.*did you mean 'team'"):
        ask(tickets(), label=["tema"])


@pytest.mark.parametrize(
    ("first", "second"),
    [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question_a", "question_b")],
)
def test_sentence_pairs_are_found_and_an_explanation_is_not_taken_for_one(
    first: str, second: str, ask: Callable[..., dict[str, Any]]
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
def test_the_metric_is_one_that_the_most_frequent_answer_does_not_please(
    teams: tuple[str, ...],
    weights: tuple[float, ...] | None,
    metric: str,
    ask: Callable[..., dict[str, Any]],
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
    facts = init("glue")
    assert facts["file"] == "glue.yaml"
    assert facts["task"]["splits"] == {"train": "train", "test": "validation"}
    assert "`test` has no labels" in facts["reasons"]["splits"]


def test_a_language_in_other_letters_gets_models_that_read_it(
    ask: Callable[..., dict[str, Any]],
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


def test_a_dataset_on_the_hub_is_read_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    rows = datasets.Dataset.from_list(
        [
            {"idx": i, "sentence": f"the film was {word} {i}", "label": i % 2}
            for i, word in enumerate(["fine", "dull"] * 100)
        ]
    )
    features = rows.cast_column("label", datasets.ClassLabel(names=["negative", "positive"]))
    hub = datasets.DatasetDict(
        train=features.select(range(150)), test=features.select(range(150, 200))
    )
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, **__: hub
    )  # the Hub itself, which no test asks
    monkeypatch.setattr("kdsweep.drafting.columns.hub_is_reachable", lambda: True)
    monkeypatch.setattr("kdsweep.core.data.readers.hub_is_reachable", lambda: True)
    monkeypatch.chdir(tmp_path)
    facts = init("someone/films", subset="short")
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


# --- numbers, and several labels a row -------------------------------------------------------------------------------


Make = Callable[[random.Random, int], Any]
TAGS = ["joy", "anger", "fear", "love"]


def amount(draw: random.Random, row: int) -> float:
    return round(draw.uniform(0, 5), 2)


def flag(draw: random.Random, row: int) -> int:
    return int(draw.random() < 0.4)


def tags(draw: random.Random, row: int) -> list[str]:
    return draw.sample(TAGS, draw.randint(0, 2))


def one_of(*values: Any) -> Make:
    return lambda draw, row: draw.choice(values)


def rows(count: int = 300, **columns: Make) -> list[dict[str, Any]]:
    """Texts with such columns beside."""
    draw = random.Random(0)
    return [
        {"message": ticket["message"], **{name: make(draw, i) for name, make in columns.items()}}
        for i, ticket in enumerate(tickets(count))
    ]


@pytest.fixture
def ask_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """As `ask`, of rows that may hold lists."""
    monkeypatch.chdir(tmp_path)

    def look(found: list[dict[str, Any]], **how: Any) -> dict[str, Any]:
        Path("rows.jsonl").write_text("\n".join(map(json.dumps, found)))
        Path("space.yaml").unlink(missing_ok=True)
        return init("rows.jsonl", Path("space.yaml"), **how)

    return look


def task_of(facts: dict[str, Any]) -> tuple[Any, str]:
    """The label and the kind that were proposed, which the written file says too."""
    task = load_space("space.yaml").task
    assert task.kind == facts["kind"]
    assert list(task.label_columns) == (
        facts["task"]["label"]
        if isinstance(facts["task"]["label"], list)
        else [facts["task"]["label"]]
    )
    return facts["task"]["label"], facts["kind"]


def test_a_column_of_fractions_is_proposed_as_a_regression(
    ask: Callable[..., dict[str, Any]],
) -> None:
    facts = ask(rows(score=amount))
    assert task_of(facts) == ("score", "regression")
    assert facts["task"]["metric"] == "pearson_and_spearman"
    assert "numbers from 0" in facts["reasons"]["label"]
    assert "with a fraction" in facts["reasons"]["label"]


def test_a_regression_says_that_minus_one_is_a_number(ask: Callable[..., dict[str, Any]]) -> None:
    assert (
        "-1 counts as a number"
        in ask(rows(score=one_of(-1.0, -0.5, 0.25, 1.0)))["reasons"]["label"]
    )
    assert "-1" not in ask(rows(score=amount))["reasons"]["label"]


def test_a_regression_searches_no_temperature(ask: Callable[..., dict[str, Any]]) -> None:
    ask(rows(score=amount))
    space = load_space("space.yaml")
    assert set(space.strategies) == {"finetune", "distill", "combined", "distill_then_finetune"}
    names = {
        name: [parameter.name for parameter in space.parameters(name)] for name in space.strategies
    }
    assert not any("temperature" in name for found in names.values() for name in found)
    assert names["distill"] == ["alpha", "learning_rate"]
    assert "CE(" not in Path("space.yaml").read_text()


@pytest.mark.parametrize(
    ("columns", "label", "kind"),
    [
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
    ],
)
def test_of_several_candidates_the_one_with_a_labels_name_is_taken(
    columns: dict[str, Make], label: str | list[str], kind: str, ask: Callable[..., dict[str, Any]]
) -> None:
    facts = ask(rows(600, **columns))
    assert task_of(facts) == (label, kind)
    for name in columns:
        assert name in label or f"`{name}`" in facts["reasons"]["label"]


def test_a_candidate_of_another_kind_is_named_with_its_kind(
    ask: Callable[..., dict[str, Any]],
) -> None:
    assert (
        "`source` could be one too: 2 values ("
        in ask(rows(score=amount, source=one_of("news", "web")))["reasons"]["label"]
    )
    assert "(kind: classification)" in comments()
    assert "(kind: regression)" in ask(rows(label=flag, confidence=amount))["reasons"]["label"]


def test_a_few_whole_numbers_stay_classes_and_the_file_says_how_to_take_them_for_numbers(
    ask: Callable[..., dict[str, Any]],
) -> None:
    facts = ask(rows(stars=one_of(1, 2, 3, 4, 5)))
    assert (
        "`kind: regression` with `metric: pearson_and_spearman` would take them for numbers"
        in comments()
    )
    as_written = Path("space.yaml").read_text()
    Path("other.yaml").write_text(
        as_written.replace(
            f"metric: {facts['task']['metric']}\n",
            "kind: regression\n  metric: pearson_and_spearman\n",
        )
    )
    assert load_space("other.yaml").task.kind == "regression"
    assert "regression" not in ask(rows(spam=flag))["reasons"]["label"]


def test_a_label_that_is_asked_for_decides_on_the_kind(ask: Callable[..., dict[str, Any]]) -> None:
    found = rows(
        label=one_of("a", "b"),
        weight=amount,
        toxic=flag,
        insult=flag,
        threat=lambda draw, row: 0,
        words=lambda draw, row: row * row,
    )
    assert task_of(ask(found, label=["weight"])) == ("weight", "regression")
    assert task_of(ask(found, label=["words"])) == ("words", "regression")
    assert task_of(ask(found, label=["toxic"])) == ("toxic", "classification")
    assert task_of(ask(found, label=["insult", "toxic", "threat"])) == (
        ["insult", "toxic", "threat"],
        "multi_label",
    )
    with pytest.raises(DataError, match="`label` is no column of 0 and 1.*2 values"):
        ask(found, label=["toxic", "label"])
    with pytest.raises(DataError, match="`toxic` is named twice"):
        ask(found, label=["toxic", "toxic"])


def test_labels_may_be_named_on_the_command_line_and_json_tells_the_kind(
    ask: Callable[..., dict[str, Any]],
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
    assert "  label   toxic and insult: as it was asked for; 2 columns of 0 and 1" in done.stdout
    assert "  kind    multi_label: " in done.stdout


def test_a_column_of_lists_is_proposed_as_several_labels(
    ask_jsonl: Callable[..., dict[str, Any]],
) -> None:
    facts = ask_jsonl(rows(lang=one_of("en", "de"), feelings=tags))
    assert task_of(facts) == ("feelings", "multi_label")
    assert (facts["task"]["metric"], facts["labels"]) == ("f1_micro", sorted(TAGS))
    data = [set(row["feelings"]) for row in rows(lang=one_of("en", "de"), feelings=tags)]
    assert any(not found for found in data)  # a row that no label applies to is like any other
    assert "rows have none" in Path("space.yaml").read_text()
    assert task_of(ask_jsonl(rows(label=one_of("a", "b"), feelings=tags))) == (
        "label",
        "classification",
    )
    assert task_of(ask_jsonl(rows(labels=lambda draw, row: draw.sample(range(6), 2)))) == (
        "labels",
        "multi_label",
    )


def test_what_is_said_of_several_labels_is_counted(ask: Callable[..., dict[str, Any]]) -> None:
    facts = ask(
        rows(
            red=lambda draw, row: int(row % 30 == 0),
            blue=lambda draw, row: int(row % 30 != 0),
            none=lambda draw, row: 0,
        )
    )
    assert "every row has exactly one" in comments()
    assert "`red`" in facts["reasons"]["metric"] and "f1_macro" in facts["reasons"]["metric"]
    assert "`none` was passed over: every value is 0" in facts["reasons"]["label"]


def test_a_datasets_lists_of_classes_are_labels_and_its_tags_of_words_are_not(
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
    facts = init("saved", Path("space.yaml"))
    assert task_of(facts) == ("feelings", "multi_label")
    assert facts["labels"] == [*TAGS, "none of them"]
    assert facts["task"]["splits"] == {
        "train": "train",
        "test": "validation",
    }  # where no row has any label, they are not public
    assert (
        "`ner_tags` was passed over: lists of 3 different values, some of them twice in a list"
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
    assert init("stsb", Path("space.yaml"))["task"]["splits"] == {
        "train": "train",
        "test": "validation",
    }


def as_fractions(folder: Path, draw: random.Random) -> str:
    return as_csv(
        folder,
        pandas.DataFrame([{"text": text, "score": draw.random()} for text, _ in sentences(300)]),
    )


def as_lists(folder: Path, draw: random.Random) -> str:
    return as_parquet(
        folder,
        pandas.DataFrame([{"text": text, "tags": tags(draw, 0)} for text, _ in sentences(300)]),
    )


def as_booleans(folder: Path, draw: random.Random) -> str:
    return as_csv(
        folder,
        pandas.DataFrame(
            [
                {"text": text, "#1": bool(flag(draw, 0)), "yes, no": bool(flag(draw, 0))}
                for text, _ in sentences(300)
            ]
        ),
    )


@pytest.mark.parametrize(
    ("write", "labels"),
    [(as_fractions, ["score"]), (as_lists, sorted(TAGS)), (as_booleans, ["#1", "yes, no"])],
    ids=["fractions", "lists", "booleans"],
)
def test_plan_takes_what_was_written_for_every_kind_of_label(
    write: Callable[[Path, random.Random], str],
    labels: list[str],
    tmp_path: Path,
    tiny: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        main, ["init", write(tmp_path, random.Random(0)), "mine.yaml", "--name", "mine"]
    )
    assert done.exit_code == 0, done.output
    facts = plan(tmp_path / "mine.yaml", tiny, tmp_path / "home")
    assert facts["task"]["labels"] == labels
    assert set(facts["studies"]) == {"finetune", "distill", "combined", "distill_then_finetune"}


@pytest.mark.parametrize(
    ("values", "asked", "said"),
    [
        ([0.5, 1.5, None], (), "have no label"),
        ([0.5, 1.5, "nan"], (), "holds 'nan': with kind: regression a label must be a number"),
        ([0.5, 1.5, float("inf")], (), "holds 'inf': with kind: regression"),
        ([0.5, 1.5, 1e60], (), "holds '1e\\+60': with kind: regression"),
        ([0.5, 1.5, 10**400], (), "no column looks like a label"),
        ([1, 2, -1], (), "have no label"),
        ([["a"], ["b", "c"], None], (), "holds None: with kind: multi_label"),
        ([["a"], ["b", None]], (), "a list with -1 or nothing in it"),
        ([["a"], ["b", float("nan")]], (), "a list with -1 or nothing in it"),
        ([[1], [2], [-1]], (), "a list with -1 or nothing in it"),
        ([["a"], "b"], ("label",), "no label: neither texts, numbers nor lists of names"),
        ([[0.5, 0.25]], ("label",), "no label: neither texts, numbers nor lists of names"),
        ([["a", "b", "a"], ["a", "c"]], ("label",), "some of them twice in a list"),
        ([[[1], [2]]], (), "no column looks like a label"),
        ([[]], (), "`label` it is empty"),
        ([[]], ("label",), "is no label: it is empty"),
        ([None], ("label",), "is no label: it is empty"),
    ],
)
def test_labels_that_are_none_are_one_line(
    values: list[Any],
    asked: tuple[str, ...],
    said: str,
    ask_jsonl: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=said) as found:
        ask_jsonl(rows(240, label=lambda draw, row: values[row % len(values)]), label=asked)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.glob("*.yaml"))


def test_lists_of_more_values_than_labels_can_be_are_refused_when_asked_for(
    ask_jsonl: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(DataError, match="`label` is no label: lists of 240 different values"):
        ask_jsonl(rows(240, label=lambda draw, row: [f"tag {row}"]), label=["label"])


# --- what can't be guessed -------------------------------------------------------------------------------------------


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_nothing_guessable_is_one_line_with_every_column_and_the_keys_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pandas.DataFrame([{"id": i, "text": f"a text of some words {i}"} for i in range(80)]).to_csv(
        "a.csv", index=False
    )
    said = refused("a.csv")
    for part in ("`id` every value differs", "`text` texts of 6 words", "task.label", "task.text"):
        assert part in said
    pandas.DataFrame([{"number": i, "label": i % 2} for i in range(80)]).to_csv(
        "b.csv", index=False
    )
    assert "no column looks like a text" in refused("b.csv")
    (tmp_path / "c.csv").write_text("text;label\n" + "a few words;yes\nsome other words;no\n" * 20)
    assert "separated by ';'" in refused("c.csv")
    for name, content in (
        ("empty.csv", ""),
        ("header.csv", "text,label\n"),
        ("empty.json", "[]"),
        ("broken.json", "{"),
        ("notes.txt", "words"),
        ("e.jsonl", ""),
    ):
        (tmp_path / name).write_text(content)
        assert name in refused(name)
    (tmp_path / "none").mkdir()
    assert "holds no csv" in refused("none")
    assert "task.text" in refused(
        "b.csv", "--label", "label", "--text", "number", "--text", "number", "--text", "number"
    )


def test_what_plan_would_refuse_in_the_rows_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(
        tmp_path / "rows.csv",
        [(text, "" if i == 7 else label) for i, (text, label) in enumerate(sentences(100))],
    )
    assert "have no label" in refused("rows.csv")
    assert not list(tmp_path.glob("*.yaml"))
    assert "did you mean 'rows.csv'" in refused("row.csv")


def test_columns_of_lists_and_empty_ones_are_passed_over() -> None:
    lists = {
        "tokens": [["a"], ["b"]] * 20,
        "vector": [[0.5, 0.1]] * 40,
        "ids": [list(range(60))] * 40,
        "nested": [[["a"]]] * 40,
        "nothing": [[], None] * 20,
    }
    table = Table(
        lists
        | {
            "none": [None] * 40,
            "text": [f"some words of a text {i}" for i in range(40)],
            "label": ["a", "b"] * 20,
        },
        {},
    )
    columns = look_at(table)
    assert [column.kind for column in columns] == [
        "lists",
        "other",
        "other",
        "other",
        "empty",
        "empty",
        "text",
        "word",
    ]
    label = guess_label("rows", columns, ()).columns
    assert (label, guess_text("rows", columns, label, []).value) == (("label",), ("text",))
