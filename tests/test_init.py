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


def tickets(count: int = 200, teams: tuple[str, ...] = ("billing", "shipping", "refunds"), weights: tuple[float, ...] | None = None) -> list[dict[str, Any]]:
    draw = random.Random(0)
    words = ["please", "help", "me", "with", "an", "order", "that", "is", "late", "and", "a", "bill", "that", "is", "wrong"]
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


# --- plan takes it ---------------------------------------------------------------------------------------------------


def plan(space: Path, tiny: Callable[..., str], home: Path) -> dict[str, Any]:
    models = ("--set", f"teacher.model={tiny('bert', layers=2)}", "--set", f"student.model={tiny('bert', layers=2)}", "--set", "training.max_length=24")
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
    datasets.DatasetDict(train=split["train"], validation=split["test"]).save_to_disk(str(folder / "saved"))
    return "saved"


@pytest.mark.parametrize("write", [as_csv, as_tsv, as_json, as_jsonl, as_parquet, as_folder, as_saved_dataset])
def test_plan_takes_what_was_written_for_every_kind_of_data(
    write: Callable[[Path, pandas.DataFrame], str], tmp_path: Path, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path, pandas.DataFrame(sentences(300), columns=["text", "label"]).assign(id=range(300)))
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


def test_names_and_paths_that_mean_something_in_yaml_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    "text", ["true", "no", "1.5", "null", "~", "a b", "x: y", "#", "- a", "\u2028", "\x85", "\ufeff", "😀", "a\nb", "'", '"', "\\", ".5", ".inf", "...", ""]
)
def test_a_scalar_is_read_back_as_it_was(text: str) -> None:
    from kdsweep.config.loading import parse_yaml

    assert parse_yaml(f"a: [{scalar(text)}, {{b: {scalar(text)}}}]\nc: {scalar(text)}\n", "x")[0] == {"a": [text, {"b": text}], "c": text}


def test_nothing_is_written_over_and_no_folder_is_made(ask: Callable[..., dict[str, Any]]) -> None:
    ask(tickets())
    before = Path("space.yaml").read_text()
    with pytest.raises(KdsweepError, match="is there already"):
        init("rows.csv", Path("space.yaml"))
    assert Path("space.yaml").read_text() == before
    with pytest.raises(KdsweepError, match="no folder"):
        init("rows.csv", Path("nowhere/space.yaml"))


# --- what is guessed -------------------------------------------------------------------------------------------------


def test_text_and_label_are_found_beside_ids_dates_and_flags_and_the_reasons_stand_in_the_file(ask: Callable[..., dict[str, Any]]) -> None:
    facts = ask(tickets())
    assert (facts["task"]["text"], facts["task"]["label"]) == ("message", "team")
    written = " ".join(Path("space.yaml").read_text().replace("#", " ").split())
    assert "label: `team`, 3 values; `urgent` could be one too: 2 values" in written
    assert "`id` was passed over: every value differs" in written
    assert "`opened` was passed over: dates" in written
    assert facts["rows"]["train"] + facts["rows"]["validation"] + facts["rows"]["test"] == 200
    assert facts["task"]["holdout"] == 0.2


def test_columns_that_are_asked_for_are_taken(ask: Callable[..., dict[str, Any]]) -> None:
    facts = ask(tickets(), label="urgent", text=["message", "team"])
    assert (facts["task"]["text"], facts["task"]["label"]) == (["message", "team"], "urgent")
    with pytest.raises(DataError, match=r"no column 'tema'.*did you mean 'team'"):
        ask(tickets(), label="tema")


@pytest.mark.parametrize(("first", "second"), [("premise", "hypothesis"), ("sentence1", "sentence2"), ("question_a", "question_b")])
def test_sentence_pairs_are_found_and_an_explanation_is_not_taken_for_one(first: str, second: str, ask: Callable[..., dict[str, Any]]) -> None:
    rows = [
        {"why": f"since the man who sings in row {i} is a singer of songs", first: f"a man sings song {i}", second: f"music {i}", "y": i % 3}
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
    teams: tuple[str, ...], weights: tuple[float, ...] | None, metric: str, ask: Callable[..., dict[str, Any]]
) -> None:
    rows = [{"text": row["message"], "label": row["team"]} for row in tickets(2400, teams, weights)]
    assert ask(rows)["task"]["metric"] == metric
    assert load_space("space.yaml").task.metric == metric


def test_a_test_split_without_labels_is_replaced_by_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "glue").mkdir()
    for name, rows in (("train", sentences(200)), ("validation", sentences(60, seed=1)), ("test", [(text, "-1") for text, _ in sentences(60, seed=2)])):
        write_csv(tmp_path / "glue" / f"{name}.csv", rows)
    facts = init("glue")
    assert facts["file"] == "glue.yaml"
    assert facts["task"]["splits"] == {"train": "train", "test": "validation"}
    assert "`test` has no labels" in facts["reasons"]["splits"]


def test_a_language_in_other_letters_gets_models_that_read_it(ask: Callable[..., dict[str, Any]]) -> None:
    ask([{"отзыв": f"очень хороший фильм номер {i} и прекрасная игра", "оценка": ["плохо", "хорошо"][i % 2]} for i in range(100)])
    assert "multilingual" in str(load_space("space.yaml").teacher)


def test_a_dataset_on_the_hub_is_read_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"idx": i, "sentence": f"the film was {word} {i}", "label": i % 2} for i, word in enumerate(["fine", "dull"] * 100)])
    features = rows.cast_column("label", datasets.ClassLabel(names=["negative", "positive"]))
    hub = datasets.DatasetDict(train=features.select(range(150)), test=features.select(range(150, 200)))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub)  # the Hub itself, which no test asks
    monkeypatch.setattr("kdsweep.drafting.columns.hub_answers", lambda: True)
    monkeypatch.setattr("kdsweep.core.data.hub_answers", lambda: True)
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


# --- what can't be guessed -------------------------------------------------------------------------------------------


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_number_to_predict_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pandas.DataFrame([{"text": f"a text of some words {i}", "score": i / 7} for i in range(80)]).to_csv("rows.csv", index=False)
    said = refused("rows.csv")
    assert "`score` looks like a number to predict" in said
    assert "--label" in said
    assert not list(tmp_path.glob("*.yaml"))


def test_nothing_guessable_is_one_line_with_every_column_and_the_keys_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pandas.DataFrame([{"id": i, "text": f"a text of some words {i}"} for i in range(80)]).to_csv("a.csv", index=False)
    said = refused("a.csv")
    for part in ("`id` every value differs", "`text` texts of 6 words", "task.label", "task.text"):
        assert part in said
    pandas.DataFrame([{"number": i, "label": i % 2} for i in range(80)]).to_csv("b.csv", index=False)
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
    assert "task.text" in refused("b.csv", "--label", "label", "--text", "number", "--text", "number", "--text", "number")


def test_what_plan_would_refuse_in_the_rows_is_said_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "rows.csv", [(text, "" if i == 7 else label) for i, (text, label) in enumerate(sentences(100))])
    assert "have no label" in refused("rows.csv")
    assert not list(tmp_path.glob("*.yaml"))
    assert "did you mean 'rows.csv'" in refused("row.csv")


def test_columns_of_lists_and_empty_ones_are_passed_over() -> None:
    table = Table({"tokens": [["a"], ["b"]] * 20, "none": [None] * 40, "text": [f"some words of a text {i}" for i in range(40)], "label": ["a", "b"] * 20}, {})
    columns = look_at(table)
    assert [column.kind for column in columns] == ["other", "empty", "text", "word"]
    label = guess_label("rows", columns, None).value
    assert (label, guess_text("rows", columns, label, []).value) == ("label", ("text",))
