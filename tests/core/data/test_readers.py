"""Files that people really have: what is read from them, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest
from conftest import write_csv
from task_rows import ROWS, folder_of_splits, labels_by_text, load, row_count
from transformers import AutoTokenizer

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.errors import DataError

HARD_TEXTS = [
    "one, two, three",
    'she said "no"',
    "first\nsecond\r\nthird",
    "🎬 très bien 👍🏽",
    "null",
    "NA",
    "nan",
    "None",
    "007",
    "  spaced  ",
    "true",
    "-1",
    "\ttab",
    "中文电影",
]


def hard_rows() -> list[tuple[str, str]]:
    return [(text, "pos" if i % 2 else "neg") for i, text in enumerate(HARD_TEXTS)] + ROWS


# --- files ---


def test_csv_keeps_commas_quotes_newlines_emoji_and_words_that_look_like_nothing(
    tmp_path: Path,
) -> None:
    data = load(write_csv(tmp_path / 'it\'s "hard" é.csv', hard_rows()))
    found = labels_by_text(data)
    for text, label in hard_rows():
        assert found[text] == label
    assert data.label_names == ("neg", "pos")
    assert not any("dropped" in note for note in data.notes)


def test_rows_without_text_are_dropped_and_counted(tmp_path: Path) -> None:
    data = load(
        write_csv(tmp_path / "rows.csv", [*ROWS, ("", "pos"), ("   ", "neg"), ("\n", "pos")])
    )
    assert "train: 3 of 123 rows dropped: their text is empty" in data.notes
    assert row_count(data) == 120


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(labels_by_text(load(path))) == len(dict(ROWS))


def test_tsv_whose_quotes_are_plain_characters(tmp_path: Path) -> None:
    lines = [
        'an unclosed " quote',
        '"starts with one',
        'ends with one"',
        *(text for text, _ in ROWS),
    ]
    path = tmp_path / "rows.tsv"
    path.write_text(
        "text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(lines)),
        encoding="utf-8",
    )
    assert set(labels_by_text(load(path))) == set(lines)


def test_tsv_that_quotes_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("text", "label"))
        writer.writerows(hard_rows())
    assert labels_by_text(load(path)) == dict(hard_rows())


def test_json_jsonl_and_parquet_give_the_same_rows_as_csv(tmp_path: Path) -> None:
    objects = [{"text": text, "label": label, "more": [1]} for text, label in hard_rows()]
    columns = {"text": [row["text"] for row in objects], "label": [row["label"] for row in objects]}
    (tmp_path / "list.json").write_text(json.dumps(objects))
    (tmp_path / "data.json").write_text(json.dumps({"version": 1, "data": objects}))
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, objects)))
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in objects) + "\n\n", encoding="utf-8"
    )
    pandas.DataFrame(columns).to_parquet(tmp_path / "rows.parquet")
    expected = labels_by_text(load(write_csv(tmp_path / "rows.csv", hard_rows())))
    for name in (
        "list.json",
        "data.json",
        "columns.json",
        "lines.json",
        "rows.jsonl",
        "rows.parquet",
    ):
        assert labels_by_text(load(tmp_path / name)) == expected, name


def test_half_an_emoji_is_replaced_before_a_tokenizer_sees_it(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "\n".join(
            json.dumps({"text": f"good \ud83d {text}", "label": label}) for text, label in ROWS
        )
    )
    data = load(tmp_path / "rows.jsonl")
    assert all(text.encode("utf-8") for text in data.train.texts[0])
    tokenize_split(
        data.train,
        AutoTokenizer.from_pretrained(tiny("bert")),
        InputFormat(16, token_types=False),
        cache=tmp_path,
    )


# --- folders and mappings ---


def test_a_folder_gives_the_splits_that_are_named(tmp_path: Path) -> None:
    data = load(
        folder_of_splits(tmp_path / "a folder"),
        splits={"train": "train", "validation": "validation", "test": "test"},
    )
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 80,
        "validation": 20,
        "test": 20,
    }
    assert all(text.endswith(" no") for text in data.test.texts[0])


def test_a_missing_split_is_named_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="no split 'validaton', only test, train, validation; did you mean 'validation'",
    ):
        load(folder_of_splits(tmp_path / "folder"), splits={"validation": "validaton"})


def test_a_mapping_of_files_needs_train_and_holds_out_validation(tmp_path: Path) -> None:
    folder = folder_of_splits(tmp_path / "folder")
    data = load({"train": str(folder / "train.csv"), "test": str(folder / "test.csv")})
    assert len(data.test) == 20
    assert len(data.train) + len(data.validation) == 80 and len(data.validation) > 0
    assert any("held out of train" in note for note in data.notes)
    with pytest.raises(DataError, match="needs a 'train' file"):
        load({"test": str(folder / "test.csv")})
    with pytest.raises(DataError, match="there is no file"):
        load({"train": str(folder / "train.csv"), "test": str(folder / "tset.csv")})


def test_one_file_has_no_splits_to_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is one file"):
        load(write_csv(tmp_path / "rows.csv", ROWS), splits={"test": "test"})


def test_where_keeps_the_rows_of_one_value(tmp_path: Path) -> None:
    rows = [(text, label, str(i % 3)) for i, (text, label) in enumerate(ROWS)]
    path = write_csv(tmp_path / "rows.csv", rows, ("text", "label", "fold"))
    expected = {text for text, _, fold in rows if fold == "1"}
    for wanted in ("1", 1):
        assert set(labels_by_text(load(path, where={"fold": wanted}))) == expected
    with pytest.raises(DataError, match=r"no row of .* has fold = 7; the column has '0', '1', '2'"):
        load(path, where={"fold": 7})
    with pytest.raises(DataError, match=r"task.where: .* no column 'flod'.*did you mean 'fold'"):
        load(path, where={"flod": 1})


def test_a_missing_column_is_named_with_the_most_similar_one(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(
        DataError,
        match="rows.csv has no column 'txt', only 'text', 'label'; did you mean 'text'",
    ):
        load(path, text="txt")
    with pytest.raises(DataError, match=r"task.label: .* no column 'lable'.*did you mean 'label'"):
        load(path, label="lable")


# --- files that can't be read ---


def test_an_error_lists_at_most_eight_columns(tmp_path: Path) -> None:
    columns = tuple(f"c{i}" for i in range(12))
    path = write_csv(tmp_path / "wide.csv", [columns], columns)
    with pytest.raises(DataError, match="no column 'text', only 'c0', .* 'c7' and 4 more$"):
        load(path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.json"])
def test_latin_1_is_refused_with_the_advice_to_save_as_utf_8(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("text,label\ntrès bien,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=rf"{name}: not UTF-8 text \(byte \d+\); save it as UTF-8"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.csv",
            'text,label\n"never closed,pos\nmore,neg\n',
            "can't be read as csv: .*EOF inside string",
        ),
        (
            "b.csv",
            "text,label\nfine,pos\none, two, three,neg\n",
            "can't be read as csv: .*Expected 2 fields in line 3, saw 4",
        ),
        (
            "c.csv",
            "text,label\none, two,pos\nthree, four,neg\n",
            "rows have more fields than the header",
        ),
        ("d.csv", "", "can't be read as csv: No columns"),
        ("e.csv", "text,label\n", "the train split has no rows"),
        ("f.jsonl", '{"text": "a", "label": 1}\n{"text": ', "can't be read as jsonl"),
        ("g.jsonl", '{"text": "a", "label": 1}\n3\n', "expected one object per row"),
        ("h.json", '{"text": "a"}', "expected one object per row"),
        ("i.json", "3", "expected one object per row"),
        ("j.parquet", "no parquet", "can't be read as parquet"),
        ("k.txt", "text", "is none of .csv"),
    ],
)
def test_a_broken_file_is_one_line_with_its_name(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_path_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    for missing in (str(tmp_path / "nothing"), "./nothing", "rows.csv"):
        with pytest.raises(DataError, match="there is no file or folder"):
            load(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no csv"):
        load(tmp_path / "empty")
