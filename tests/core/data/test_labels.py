"""From raw labels to class numbers, and the labels that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
from conftest import write_csv
from task_rows import ROWS, folder_of_splits, labels_by_text, load

from kdsweep.errors import DataError


def test_three_classes_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["sport", "art", "money"]
    rows = [(f"text {i}", names[i % 3]) for i in range(90)]
    data = load(write_csv(tmp_path / "rows.csv", rows))
    assert data.label_names == ("art", "money", "sport")
    assert labels_by_text(data) == dict(rows)


def test_labels_1_and_1_point_0_are_one_class_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("0", "0.0", "1", "1.0", "10", "10.0", "2")[i % 7]) for i in range(210)]
    data = load(write_csv(tmp_path / "rows.csv", rows))
    assert data.label_names == ("0", "1", "2", "10")
    assert labels_by_text(data)["text 3"] == "1"


def test_booleans_are_0_and_1_and_gaps_are_rows_without_a_label(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"text": [f"text {i}" for i in range(60)], "label": [i % 2 == 0 for i in range(60)]}
    )
    frame.to_parquet(tmp_path / "bool.parquet")
    assert load(tmp_path / "bool.parquet").label_names == ("0", "1")
    frame["label"] = pandas.array([0, 1, None] * 20, dtype="Int64")
    frame.to_parquet(tmp_path / "gaps.parquet")
    with pytest.raises(DataError, match=r"rows of the \w+ split have no label"):
        load(tmp_path / "gaps.parquet")


@pytest.mark.parametrize("missing", ["-1", "", "-1.0"])
def test_rows_without_label_are_counted(tmp_path: Path, missing: str) -> None:
    path = write_csv(
        tmp_path / "rows.csv",
        [(f"text {i}", missing if i % 4 == 0 else str(i % 2)) for i in range(100)],
    )
    with pytest.raises(
        DataError,
        match=r"\d+ of \d+ rows of the \w+ split have no label \(label is -1 or empty\)",
    ):
        load(path)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(f"text {i}", f"name {i}") for i in range(100)], "that is no label column"),
        (
            [(f"text {i}", f"{i / 7:.3f}") for i in range(1, 100)],
            "must be a whole number or a name",
        ),
        (
            [(f"text {i}", "good") for i in range(100)],
            r"every row of train has the same label \(label = 'good'\)",
        ),
    ],
)
def test_a_column_that_is_no_label_is_refused(tmp_path: Path, rows: list, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(write_csv(tmp_path / "rows.csv", rows))


def test_a_list_of_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": f"text {i}", "label": [i % 2]}) for i in range(60))
    )
    with pytest.raises(DataError, match="a row must have one label"):
        load(tmp_path / "rows.jsonl")


def test_f1_is_for_two_classes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", [(f"text {i}", "abc"[i % 3]) for i in range(90)])
    with pytest.raises(
        DataError, match=r"f1 is for 2 classes and there are 3 \(a, b, c\); use f1_macro"
    ):
        load(path, metric="f1")
    assert len(load(path, metric="f1_macro").label_names) == 3


def test_a_label_that_only_test_has_is_refused(tmp_path: Path) -> None:
    folder = folder_of_splits(tmp_path / "folder")
    write_csv(folder / "test.csv", [("something new", "maybe"), ("something old", "pos")])
    with pytest.raises(
        DataError, match=r"test has the label 'maybe', which train doesn't have \(train: neg, pos\)"
    ):
        load(folder, splits={"test": "test"})


def test_labels_of_the_space_order_or_name_the_classes(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    ordered = load(path, labels=["pos", "neg"])
    assert ordered.label_names == ("pos", "neg")
    assert labels_by_text(ordered) == dict(ROWS)
    numbers = write_csv(
        tmp_path / "numbers.csv", [(text, "1" if label == "pos" else "0") for text, label in ROWS]
    )
    assert labels_by_text(load(numbers, labels=["neg", "pos"])) == dict(ROWS)
    with pytest.raises(
        DataError, match=r"task.labels: \[good, bad\] are not the labels of the rows: neg, pos"
    ):
        load(path, labels=["good", "bad"])
