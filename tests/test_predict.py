"""`kdsweep predict`: from a home alone, for each kind of task; and one line for each error."""

from __future__ import annotations

import csv
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import sentences
from packed_home import unpack
from transformers import pipeline

from kdsweep.cli import main
from kdsweep.core.data import row_files
from kdsweep.core.evaluation import onnx_format
from kdsweep.core.files import read_json
from kdsweep.export import export
from kdsweep.predict import writing
from kdsweep.serving import INT8_FILE, load
from kdsweep.sweep.folders import Home

TEXTS = [text for text, _ in sentences(40, seed=3)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of version 0.1.0, without the data and models of its sweeps and without caches."""
    archive = Path(__file__).parent / "fixtures" / "home-0.1.0.tar.gz"
    folder = unpack(archive, tmp_path_factory.mktemp("alone") / "old")
    for name in ("data", "models", "home/cache"):
        shutil.rmtree(folder / name)
    return Home(folder / "home")


@pytest.fixture(autouse=True)
def _without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("predicting asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A csv with texts, and with a row that has none."""
    path = tmp_path / "new rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "text"), *enumerate(TEXTS), ("40", " ")])
    return path


def predicted(home: Home, sweep: str, file: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["predict", sweep, str(file), "--home", str(home.root), *options]
    )


def facts(home: Home, sweep: str, file: Path, *options: str) -> dict[str, Any]:
    done = predicted(home, sweep, file, "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(home: Home, sweep: str, file: Path, *options: str) -> str:
    """The one line of an error. Nothing is written."""
    before = sorted(file.parent.iterdir())
    done = predicted(home, sweep, file, *options)
    assert done.exit_code == 1, done.output
    assert sorted(file.parent.iterdir()) == before
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in done.output
    return last


# --- what is predicted ---


def test_predictions_are_those_of_serving_and_of_a_pipeline_with_the_export(
    alone: Home, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "ROWS_A_PART", 7)
    found = facts(alone, "reviews", rows)
    assert found["out"] == str(tmp_path / "new rows.predicted.csv")
    assert found["columns"] == ["prediction", "probability_neg", "probability_pos"]
    assert (found["rows"], found["predicted"], found["without_text"]) == (41, 40, 1)
    assert sum(found["labels"].values()) == 40
    table = pd.read_csv(found["out"])
    assert list(table.columns) == ["id", "text", *found["columns"]]
    assert table.iloc[40, 2:].isna().all()
    table = table[:40]

    exported = export(alone, "reviews", tmp_path / "student")
    assert exported.trial.name == found["trial"]
    served = load(tmp_path / "student").predict(TEXTS)
    assert table["text"].tolist() == TEXTS
    assert table["prediction"].tolist() == served["label"].tolist()
    probabilities = table[["probability_neg", "probability_pos"]].to_numpy()
    np.testing.assert_allclose(probabilities.max(axis=1), served["score"], atol=2e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=2e-6)
    classify = pipeline("text-classification", model=str(tmp_path / "student"), device="cpu")
    piped = classify(TEXTS, truncation=True, top_k=None)
    for row, answers in zip(probabilities, piped, strict=True):
        by_label = {answer["label"]: answer["score"] for answer in answers}
        np.testing.assert_allclose(row, [by_label["neg"], by_label["pos"]], atol=1e-5)


def test_a_regression_gives_its_number(alone: Home, rows: Path, tmp_path: Path) -> None:
    found = facts(alone, "scores", rows)
    assert found["columns"] == ["prediction"]
    table = pd.read_csv(found["out"])[:40]
    export(alone, "scores", tmp_path / "student")
    served = load(tmp_path / "student").predict(TEXTS)
    np.testing.assert_allclose(table["prediction"], served["score"], rtol=1e-5)
    assert found["lowest"] <= found["mean"] <= found["highest"]


def test_several_labels_are_listed_with_the_probability_of_each(
    alone: Home, rows: Path, tmp_path: Path
) -> None:
    found = facts(alone, "tags", rows)
    table = pd.read_csv(found["out"], keep_default_na=False)[:40]
    export(alone, "tags", tmp_path / "student")
    served = load(tmp_path / "student").predict(TEXTS)
    assert table["prediction"].tolist() == served["label"].tolist()
    labels = [name.removeprefix("probability_") for name in found["columns"][1:]]
    for _, row in table.iterrows():
        likely = [label for label in labels if float(row[f"probability_{label}"]) > 0.5]
        assert row["prediction"] == ", ".join(likely)


def test_a_trial_or_a_strategy_can_be_named(alone: Home, rows: Path) -> None:
    best = facts(alone, "reviews", rows, "--strategy", "distill")
    assert best["strategy"] == "distill"
    out = str(rows.with_name("other.csv"))
    again = facts(alone, "reviews", rows, "--trial", best["trial"], "--out", out)
    assert Path(out).read_bytes() == Path(best["out"]).read_bytes()
    assert again["trial"] == best["trial"]


def test_a_student_with_8_bit_weights_answers_by_its_file(
    alone: Home, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    shutil.copytree(alone.root, home.root)
    folder = home.sweep("reviews")
    chosen = folder.find_trial(facts(alone, "reviews", rows)["trial"])
    files = folder.trial(chosen)
    settings = read_json(files.settings)
    settings["student"]["quantize"] = "int8"
    files.settings.write_text(json.dumps(settings))

    class Always:
        """Stands for the ONNX file, which says `pos` to everything."""

        def __init__(self, file: Path) -> None:
            assert file.relative_to(file.parents[1]) == Path(INT8_FILE)

        def predict(self, tokens: Any) -> np.ndarray:
            return np.tile(np.float32([0, 3]), (len(tokens), 1))

    monkeypatch.setattr(onnx_format, "OnnxModel", Always)
    assert facts(home, "reviews", rows, "--overwrite")["labels"] == {"pos": 40}


def test_long_rows_are_counted(alone: Home, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "superb film " * 100}) + '\n{"text": "dull"}\n')
    done = predicted(alone, "reviews", path)
    assert "1 row with more tokens than the student reads: cut as in training" in done.stdout
    assert done.stdout.splitlines()[-1] == f"written to {tmp_path / 'rows.predicted.jsonl'}"


# --- what a user gets wrong ---


def test_a_file_that_exists_is_replaced_only_if_asked(alone: Home, rows: Path) -> None:
    out = rows.with_name("new rows.predicted.csv")
    out.write_text("mine")
    assert refused(alone, "reviews", rows) == (
        f"error: {out} exists; name another file with --out, or replace it with --overwrite"
    )
    assert out.read_text() == "mine"
    facts(alone, "reviews", rows, "--overwrite")
    assert out.read_text().startswith("id,text,prediction")
    read = refused(alone, "reviews", rows, "--out", str(rows), "--overwrite")
    assert "this is the file that is read" in read


def test_each_mistake_is_one_line_and_nothing_is_written(
    alone: Home, rows: Path, tmp_path: Path
) -> None:
    for name, content, options, said in [
        ("a.csv", "id,Text\n1,a\n", (), "has no column 'text', only 'id', 'Text'; did you mean"),
        ("b.csv", "id,body\n1,a\n", (), "name the column that holds the text with --text"),
        ("c.csv", "id,text\n", (), "c.csv has no rows"),
        ("d.csv", "id,text\n1,\n2, \n", (), "d.csv: no row has a text in 'text'"),
        ("e.json", '[{"text": "a"}, {"text": ["b"]}]', (), "holds lists, not texts (row 2)"),
        ("f.csv", "text,prediction\na,b\n", (), "a column 'prediction' already"),
        ("g.csv", "text\na\n", ("--text", "a", "--text", "b"), "the task reads 1 column (text)"),
        ("h.csv", "text\na\n", ("--out", str(tmp_path / "h.json")), "let it end in .csv"),
        ("i.csv", "text\na\n", ("--trial", "distill-99"), "distill-99"),
        ("j.csv", "text\na,b,c\nd\n", (), "Expected 1 fields in line 2, saw 3"),
        ("k.txt", "text\na\n", (), "is none of .csv"),
    ]:
        (tmp_path / name).write_text(content)
        assert said in refused(alone, "reviews", tmp_path / name, *options), name
    missing = refused(alone, "reviews", tmp_path / "new row.csv")
    assert "there is no such file; did you mean 'new rows.csv'?" in missing


def test_another_column_and_other_names_can_be_given(alone: Home, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("body,prediction\nsuperb film,?\n")
    found = facts(alone, "reviews", path, "--text", "body", "--prefix", "student_")
    assert found["columns"][0] == "student_prediction"
    assert "student_prediction" in Path(found["out"]).read_text().splitlines()[0]


def test_a_student_that_was_removed_is_one_line_that_says_what_to_do(
    alone: Home, rows: Path
) -> None:
    kept = {facts(alone, "reviews", rows, "--overwrite")["trial"]}
    trials = alone.sweep("reviews").started_trials()
    gone = next(
        one
        for one in trials
        if one.name not in kept
        and not alone.sweep("reviews").trial(one).read_tracked().has_student
        and (result := alone.sweep("reviews").trial(one).read_result()) is not None
        and result.state == "complete"
    )
    rows.with_name("new rows.predicted.csv").unlink()
    told = refused(alone, "reviews", rows, "--trial", gone.name)
    assert f"the student of {gone.name} wasn't kept; kept are " in told
    assert f"`kdsweep replay reviews {gone.name}` makes it again" in told


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Ctrl-C while the second part of the rows is predicted."""
    calls = 0
    answer = writing._Writing._answered

    def interrupted(self: Any, values: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return answer(self, values)

    monkeypatch.setattr(writing._Writing, "_answered", interrupted)
    yield lambda: calls


def test_a_command_that_is_stopped_leaves_nothing(
    alone: Home, rows: Path, stopping: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "ROWS_A_PART", 7)
    before = sorted(rows.parent.iterdir())
    done = predicted(alone, "reviews", rows)
    out = rows.with_name("new rows.predicted.csv")
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1] == f"stopped; {out} was not written"
    assert stopping() == 2
    assert sorted(rows.parent.iterdir()) == before
