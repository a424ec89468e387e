"""From raw labels to class numbers, and the labels that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pandas
import pytest
from conftest import write_csv
from pydantic import ValidationError
from task_rows import ROWS, folder_of_splits, labels_by_text, load

from kdsweep.core.data.rows import TaskData
from kdsweep.errors import DataError


def test_three_classes_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["sport", "art", "money"]
    rows = [(f"text {i}", names[i % 3]) for i in range(90)]
    data = load(write_csv(tmp_path / "rows.csv", rows))
    assert data.label_names == ("art", "money", "sport")
    assert labels_by_text(data) == dict(rows)


def test_by_rule_1_labels_1_and_1_point_0_are_one_class(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("0", "0.0", "1", "1.0", "10", "10.0", "2")[i % 7]) for i in range(210)]
    data = load(write_csv(tmp_path / "rows.csv", rows), label_rule=1)
    assert data.label_names == ("0", "1", "2", "10")
    assert labels_by_text(data)["text 3"] == "1"


def test_booleans_have_names_and_gaps_are_rows_without_a_label(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"text": [f"text {i}" for i in range(60)], "label": [i % 2 == 0 for i in range(60)]}
    )
    frame.to_parquet(tmp_path / "bool.parquet")
    assert load(tmp_path / "bool.parquet").label_names == ("false", "true")
    assert load(tmp_path / "bool.parquet", label_rule=1).label_names == ("0", "1")
    named = load(tmp_path / "bool.parquet", labels=["no", "yes"])
    assert labels_by_text(named)["text 0"] == "yes"
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


# --- rule 2: as written ---


def classes(folder: Path, labels: list[str], **keys: object) -> TaskData:
    rows = [(f"text {i}", labels[i % len(labels)]) for i in range(40 * len(labels))]
    return load(write_csv(folder / "rows.csv", rows), **keys)


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        (
            ["1234567890123456789", "1234567890123456788", "77"],
            ("77", "1234567890123456788", "1234567890123456789"),
            None,
        ),
        (["7", "007", "10"], ("007", "7", "10"), "'007' and '7' are the same number"),
        (["11", "1_1", "2"], ("2", "11", "1_1"), "'11' and '1_1' are the same number"),
        (["1.1", "1.10"], ("1.1", "1.10"), "'1.1' and '1.10' are the same number"),
        (["1", "1.0", "2"], ("1", "2", "1.0"), "'1' and '1.0' are the same number"),
        (["US", "us"], ("US", "us"), "'US' and 'us' are alike"),
        (["a b", "a\u00a0b"], ("a b", "a\u00a0b"), "'a b' and 'a\\xa0b' are alike"),
        (["cat", "c\u0430t"], ("cat", "c\u0430t"), "'cat' and 'c\\u0430t' are alike"),
        (["no\u200b", "no"], ("no", "no\u200b"), "are alike"),
        ([" pos ", "pos", "neg"], ("neg", "pos"), None),
        (["négatif", "ne\u0301gatif", "positif"], ("négatif", "positif"), None),
        (["True", "false", "TRUE", "False"], ("false", "true"), None),
        (["True", "False", "Maybe"], ("False", "Maybe", "True"), None),
        (["1e5", "100000"], ("100000", "1e5"), "are the same number"),
        (["nan", "inf"], ("inf", "nan"), None),
    ],
)
def test_text_labels_are_kept_as_written(
    tmp_path: Path, labels: list[str], names: tuple[str, ...], note: str | None
) -> None:
    data = classes(tmp_path, labels)
    assert data.label_names == names
    found = [one for one in data.notes if one.startswith("labels: ")]
    assert len(found) == (note is not None)
    assert note is None or note in found[0]


def test_whole_floats_and_integers_of_a_parquet_file_are_one_class(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": [f"text {i}" for i in range(60)], "label": [0.0, 1.0] * 30})
    frame.to_parquet(tmp_path / "train.parquet")
    other = pandas.DataFrame({"text": [f"other {i}" for i in range(6)], "label": [0, 1] * 3})
    other.to_parquet(tmp_path / "test.parquet")
    assert load(tmp_path, splits={"test": "test"}).label_names == ("0", "1")


def test_true_of_a_csv_and_of_a_parquet_file_are_one_class(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [(f"text {i}", str(i % 2 == 0)) for i in range(60)])
    frame = pandas.DataFrame({"text": ["one", "two"], "label": [True, False]})
    frame.to_parquet(tmp_path / "test.parquet")
    data = load(tmp_path, splits={"test": "test"})
    assert data.label_names == ("false", "true")
    assert labels_by_text(data)["one"] == labels_by_text(data)["text 0"] == "true"


@pytest.mark.parametrize("key", ["labels", "label"])
def test_a_label_that_is_named_twice_is_refused(tmp_path: Path, key: str) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(ValidationError, match="names 'pos' twice"):
        load(path, **{key: ["pos", "pos"]})


# --- names belong to their split ---


def named_splits(folder: Path, train: list[str], test: list[str], texts: list[str]) -> Path:
    """A saved dataset whose splits number their classes by names of their own."""

    def split(names: list[str], words: list[str], prefix: str) -> datasets.Dataset:
        features = datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
        )
        rows = {"text": [f"{prefix} {i} {one}" for i, one in enumerate(words)], "label": words}
        return datasets.Dataset.from_dict(rows, features=features)

    splits = {"train": split(train, train * 30, "text"), "test": split(test, texts, "other")}
    datasets.DatasetDict(splits).save_to_disk(folder)
    for name, rows in splits.items():
        (folder / "parquet").mkdir(exist_ok=True)
        rows.to_parquet(folder / "parquet" / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("inner", ["", "parquet"])
@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["negative", "positive"], ["positive", "negative"]),
        (["negative", "neutral", "positive"], ["negative", "positive"]),
    ],
)
def test_classes_of_a_split_are_read_by_their_names(
    tmp_path: Path, train: list[str], test: list[str], inner: str
) -> None:
    folder = named_splits(tmp_path, train, test, ["negative", "positive", "positive"])
    data = load(folder / inner, splits={"test": "test"})
    assert data.label_names == tuple(train)
    for text, label in labels_by_text(data).items():
        assert text.endswith(label)


def test_a_class_that_only_the_names_of_test_have_is_refused(tmp_path: Path) -> None:
    folder = named_splits(tmp_path, ["a", "b"], ["a", "c"], ["a", "c"])
    with pytest.raises(DataError, match=r"test has the class 'c', which train doesn't have"):
        load(folder, splits={"test": "test"})


def test_numbers_that_fp32_can_not_tell_apart_are_refused(tmp_path: Path) -> None:
    """Seconds since 1970 of one day: fp32 has steps of 128 there."""
    seconds = [(text, str(1_700_000_000 + 60 * i)) for i, (text, _) in enumerate(ROWS)]
    data = write_csv(tmp_path / "rows.csv", seconds)
    with pytest.raises(DataError, match="differs by less than models, .* subtract a number"):
        load(data, kind="regression", metric="pearson")
    years = [(text, str(1990 + i % 3)) for i, (text, _) in enumerate(ROWS)]
    found = load(write_csv(tmp_path / "years.csv", years), kind="regression", metric="pearson")
    assert set(found.train.labels) == {1990, 1991, 1992}


def test_booleans_beside_numbers_and_halves_of_characters_are_reported(tmp_path: Path) -> None:
    rows = [
        {"text": text, "label": bool(i % 2) if i % 3 else i % 2} for i, (text, _) in enumerate(ROWS)
    ]
    rows[5]["text"] += " \ud83d"
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    notes = load(tmp_path / "rows.jsonl").notes
    assert any("'1' and 'true' are the same number, but different classes" in one for one in notes)
    assert any("1 texts hold half of a character" in one for one in notes)


def test_other_numbers_are_no_names_for_numbers(tmp_path: Path) -> None:
    """`labels: [0, 2]` of classes 0 and 1 is a slip."""
    rows = [(text, str(i % 2)) for i, (text, _) in enumerate(ROWS)]
    data = write_csv(tmp_path / "rows.csv", rows)
    with pytest.raises(DataError, match=r"task.labels: \[0, 2\] are not the labels of the rows"):
        load(data, labels=["0", "2"])
    assert load(data, labels=["no", "yes"]).label_names == ("no", "yes")
    assert load(data, labels=["0", "2"], label_rule=1).label_names == ("0", "2")


def test_a_saved_dataset_without_rows_is_one_line(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": [], "label": []}).save_to_disk(tmp_path / "empty")
    with pytest.raises(DataError, match="has a split without rows"):
        load(tmp_path / "empty")
