"""Which files of a folder are which split, as people and tools write them."""

from __future__ import annotations

from pathlib import Path

import datasets
import pandas
import pytest
from conftest import write_csv
from task_rows import ROWS, labels_by_text, load, row_count, texts_of

from kdsweep.errors import DataError


def folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_parquet(path: Path, rows: list[tuple[str, str]]) -> None:
    pandas.DataFrame(rows, columns=["text", "label"]).to_parquet(path)


@pytest.mark.parametrize("inner", ["", "data"])
def test_shards_are_one_split(tmp_path: Path, inner: str) -> None:
    place = folder(tmp_path / inner)
    for i in range(3):
        write_parquet(place / f"train-0000{i}-of-00003.parquet", ROWS[i * 40 : i * 40 + 40])
    (tmp_path / "dataset_infos.json").write_text("{}")
    data = load(tmp_path)
    assert row_count(data) == len(ROWS)
    assert labels_by_text(data) == dict(ROWS)
    assert any(note.startswith("train: read from 3 files") for note in data.notes)


def test_a_missing_shard_is_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00003.parquet", ROWS[:40])
    write_parquet(tmp_path / "train-00002-of-00003.parquet", ROWS[80:])
    with pytest.raises(DataError, match="lacks shards of the split 'train': number 1 of 3"):
        load(tmp_path)


@pytest.mark.parametrize("other", ["train.parquet", "train-00000-of-00001.parquet"])
def test_two_files_of_one_split_are_refused(tmp_path: Path, other: str) -> None:
    write_csv(tmp_path / "train.csv", ROWS)
    write_parquet(tmp_path / other, ROWS)
    with pytest.raises(DataError, match=r"several (sets of )?files for the split 'train'"):
        load(tmp_path)


def test_two_files_of_a_split_that_is_not_used_are_no_error(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS)
    write_csv(tmp_path / "old.csv", ROWS)
    write_parquet(tmp_path / "old.parquet", ROWS)
    assert row_count(load(tmp_path)) == len(ROWS)


def test_names_in_capitals_and_compressed_files_are_found(tmp_path: Path) -> None:
    write_csv(tmp_path / "TRAIN.CSV", ROWS[:80])
    frame = pandas.DataFrame(ROWS[80:], columns=["text", "label"])
    frame.to_csv(tmp_path / "test.csv.gz", index=False)
    data = load(tmp_path, splits={"test": "test"})
    assert texts_of(data)["test"] == {text for text, _ in ROWS[80:]}


def test_a_folder_for_each_split(tmp_path: Path) -> None:
    for i in range(2):
        write_parquet(folder(tmp_path / "train") / f"000{i}.parquet", ROWS[i * 40 : i * 40 + 40])
    write_csv(folder(tmp_path / "test") / "rows.csv", ROWS[80:])
    data = load(tmp_path, splits={"test": "test"})
    assert texts_of(data)["test"] == {text for text, _ in ROWS[80:]}
    write_csv(tmp_path / "train.csv", ROWS)
    with pytest.raises(DataError, match="several files for the split 'train'"):
        load(tmp_path, splits={"test": "test"})


def test_a_saved_dataset_is_read_with_and_without_splits(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"text": text, "label": label} for text, label in ROWS])
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "dict")
    for name in ("one", "dict"):
        assert labels_by_text(load(tmp_path / name)) == dict(ROWS), name
    with pytest.raises(DataError, match="has no split 'test', only train"):
        load(tmp_path / "one", splits={"test": "test"})
    (tmp_path / "one" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="can't be read as a saved dataset"):
        load(tmp_path / "one")


# --- texts ---


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["the", "film"], r"holds lists, not texts \(row 3\)"),
        ({"en": "the film"}, r"holds mappings, not texts \(row 3\)"),
        (b"tr\xe8s", r"bytes that are no UTF-8 text \(row 3, byte 2\)"),
    ],
)
def test_what_is_no_text_is_refused_with_its_row(tmp_path: Path, value: object, words: str) -> None:
    texts = [value] * 10 if not isinstance(value, bytes) else [b"one", b"two", value]
    if not isinstance(value, bytes):
        texts[:2] = [None, None]
    frame = pandas.DataFrame({"text": texts, "label": ["a", "b", "a", *"babaaba"][: len(texts)]})
    frame.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=words):
        load(tmp_path / "rows.parquet")


def test_bytes_of_a_parquet_file_are_texts(tmp_path: Path) -> None:
    rows = [(text.encode(), label.encode()) for text, label in [*ROWS, ("très bien 🎬", "pos")]]
    pandas.DataFrame(rows, columns=["text", "label"]).to_parquet(tmp_path / "rows.parquet")
    data = load(tmp_path / "rows.parquet")
    assert labels_by_text(data) == dict([*ROWS, ("très bien 🎬", "pos")])
