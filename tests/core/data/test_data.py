"""From files to batches, with the rows people really have."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from conftest import sentences, write_csv
from transformers import AutoTokenizer

from kdsweep.core.data.batches import batches, evaluation_batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.settings import SPLITS, TaskSettings
from kdsweep.errors import DataError

ROWS = sentences(120)


def load(dataset: Any, **keys: Any) -> TaskData:
    if isinstance(dataset, Path):
        dataset = str(dataset)
    return load_task(
        TaskSettings(
            **({"dataset": dataset, "text": "text", "label": "label", "holdout": 0.2} | keys)
        )
    )


def everything(data: TaskData) -> dict[str, str]:
    """Text (or texts) -> the label's name, over all splits."""
    return {
        "|".join(texts): data.label_names[label]
        for split in data.splits.values()
        for *texts, label in zip(*split.texts, split.labels, strict=True)
    }


def texts_of(data: TaskData) -> dict[str, set[str]]:
    return {name: set(data.splits[name].texts[0]) for name in SPLITS}


def normal(text: str) -> str:
    return " ".join(text.split()).casefold()


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


# --- reading ---------------------------------------------------------------------------------------------------------


def test_csv_keeps_commas_quotes_newlines_emoji_and_words_that_look_like_nothing(
    tmp_path: Path,
) -> None:
    data = load(write_csv(tmp_path / 'it\'s "hard" é.csv', hard_rows()))
    found = everything(data)
    for text, label in hard_rows():
        assert found[text] == label
    assert data.label_names == ("neg", "pos")
    assert not any("dropped" in note for note in data.notes)


def test_rows_without_text_are_dropped_and_counted(tmp_path: Path) -> None:
    data = load(
        write_csv(tmp_path / "rows.csv", [*ROWS, ("", "pos"), ("   ", "neg"), ("\n", "pos")])
    )
    assert "train: 3 of 123 rows dropped: their text is empty" in data.notes
    assert sum(map(len, data.splits.values())) == 120


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(everything(load(path))) == len(dict(ROWS))


def test_three_classes_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["sport", "art", "money"]
    rows = [(f"text {i}", names[i % 3]) for i in range(90)]
    data = load(write_csv(tmp_path / "rows.csv", rows))
    assert data.label_names == ("art", "money", "sport")
    assert everything(data) == dict(rows)


def test_labels_1_and_1_point_0_are_one_class_and_numbers_sort_as_numbers(tmp_path: Path) -> None:
    rows = [(f"text {i}", ("0", "0.0", "1", "1.0", "10", "10.0", "2")[i % 7]) for i in range(210)]
    data = load(write_csv(tmp_path / "rows.csv", rows))
    assert data.label_names == ("0", "1", "2", "10")
    assert everything(data)["text 3"] == "1"


def test_tsv_with_quotes_as_they_are(tmp_path: Path) -> None:
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
    assert set(everything(load(path))) == set(lines)


def test_tsv_that_quotes_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("text", "label"))
        writer.writerows(hard_rows())
    assert everything(load(path)) == dict(hard_rows())


def test_json_jsonl_and_parquet_say_the_same_as_csv(tmp_path: Path) -> None:
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
    expected = everything(load(write_csv(tmp_path / "rows.csv", hard_rows())))
    for name in (
        "list.json",
        "data.json",
        "columns.json",
        "lines.json",
        "rows.jsonl",
        "rows.parquet",
    ):
        assert everything(load(tmp_path / name)) == expected, name


def test_labels_that_are_booleans_or_numbers_with_gaps_in_parquet(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"text": [f"text {i}" for i in range(60)], "label": [i % 2 == 0 for i in range(60)]}
    )
    frame.to_parquet(tmp_path / "bool.parquet")
    assert load(tmp_path / "bool.parquet").label_names == ("0", "1")
    frame["label"] = pandas.array([0, 1, None] * 20, dtype="Int64")
    frame.to_parquet(tmp_path / "gaps.parquet")
    with pytest.raises(DataError, match=r"rows of the \w+ split have no label"):
        load(tmp_path / "gaps.parquet")


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


def folder_of_splits(folder: Path) -> Path:
    folder.mkdir()
    write_csv(folder / "train.csv", ROWS[:80])
    write_csv(folder / "validation.csv", [(f"{text} yes", label) for text, label in ROWS[80:100]])
    write_csv(folder / "test.csv", [(f"{text} no", label) for text, label in ROWS[100:]])
    return folder


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


def test_a_split_of_a_folder_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match="no split 'validaton', only test, train, validation; did you mean 'validation'",
    ):
        load(folder_of_splits(tmp_path / "folder"), splits={"validation": "validaton"})


def test_a_mapping_of_files_and_one_split_held_out(tmp_path: Path) -> None:
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


def test_a_file_that_changed_is_read_again_alone_and_in_a_folder(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "train.csv", ROWS)
    assert (
        sum(map(len, load(path).splits.values()))
        == sum(map(len, load(tmp_path).splits.values()))
        == 120
    )
    write_csv(path, ROWS[:60])
    assert (
        sum(map(len, load(path).splits.values()))
        == sum(map(len, load(tmp_path).splits.values()))
        == 60
    )


def test_where_takes_the_rows_of_one_value(tmp_path: Path) -> None:
    rows = [(text, label, str(i % 3)) for i, (text, label) in enumerate(ROWS)]
    path = write_csv(tmp_path / "rows.csv", rows, ("text", "label", "fold"))
    expected = {text for text, _, fold in rows if fold == "1"}
    for wanted in ("1", 1):
        assert set(everything(load(path, where={"fold": wanted}))) == expected
    with pytest.raises(DataError, match=r"no row of .* has fold = 7; the column has '0', '1', '2'"):
        load(path, where={"fold": 7})
    with pytest.raises(DataError, match=r"task.where: .* no column 'flod'.*did you mean 'fold'"):
        load(path, where={"flod": 1})


# --- splits ----------------------------------------------------------------------------------------------------------


def test_held_out_splits_are_the_same_for_the_same_rows_in_another_order(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    one, other = (
        load(write_csv(tmp_path / f"{i}.csv", rows)) for i, rows in enumerate((ROWS, shuffled))
    )
    assert texts_of(one) == texts_of(other)
    assert one.train.texts != other.train.texts


def test_new_rows_move_no_old_row_to_another_split(tmp_path: Path) -> None:
    old = texts_of(load(write_csv(tmp_path / "old.csv", ROWS[:60])))
    new = texts_of(load(write_csv(tmp_path / "new.csv", ROWS)))
    assert all(old[name] <= new[name] for name in SPLITS)


def test_a_limit_takes_the_same_rows_in_any_order(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    limit = {"train": 20, "validation": 7, "test": 1000}
    one, other, whole = (
        load(write_csv(tmp_path / f"{i}.csv", rows), **keys)
        for i, (rows, keys) in enumerate(
            [(ROWS, {"limit": limit}), (shuffled, {"limit": limit}), (ROWS, {})]
        )
    )
    assert texts_of(one) == texts_of(other)
    assert (len(one.train), len(one.validation), len(one.test)) == (20, 7, len(whole.test))
    assert all(texts_of(one)[name] <= texts_of(whole)[name] for name in SPLITS)


def test_no_text_is_in_two_splits_not_even_in_another_spelling(tmp_path: Path) -> None:
    variants = [
        row
        for text, label in ROWS
        for row in (
            (text, label),
            (text.upper(), label),
            (f"  {text.replace(' ', '   ')}\t", label),
        )
    ]
    data = load(write_csv(tmp_path / "rows.csv", variants))
    parts = [{normal(text) for text in split.texts[0]} for split in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len({normal(text) for text, _ in ROWS})


def test_named_splits_keep_test_whole_and_take_its_texts_out_of_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    unique = list(dict(ROWS).items())
    write_csv(folder / "train.csv", unique)
    write_csv(folder / "validation.csv", [(text.upper(), label) for text, label in unique[:30]])
    write_csv(folder / "test.csv", [(f" {text}", label) for text, label in unique[20:40]])
    data = load(folder, splits={name: name for name in SPLITS})
    assert [len(data.splits[name]) for name in ("test", "validation", "train")] == [
        20,
        20,
        len(unique) - 40,
    ]
    assert "validation: 10 rows dropped: their text is in the test split too" in data.notes
    assert "train: 40 rows dropped: their text is in the validation or test split too" in data.notes


def test_pairs_are_one_text_for_the_splits(tmp_path: Path) -> None:
    rows = [(f"premise {i // 2}", f"hypothesis {i % 2}", str(i % 2)) for i in range(200)]
    data = load(
        write_csv(tmp_path / "rows.csv", rows, ("premise", "hypothesis", "label")),
        text=["premise", "hypothesis"],
    )
    assert everything(data) == {f"{first}|{second}": label for first, second, label in rows}


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["-1", "", "-1.0"])
def test_rows_without_label_are_counted(tmp_path: Path, missing: str) -> None:
    path = write_csv(
        tmp_path / "rows.csv",
        [(f"text {i}", missing if i % 4 == 0 else str(i % 2)) for i in range(100)],
    )
    with pytest.raises(
        DataError,
        match=r"task.label: \d+ of \d+ rows of the \w+ split have no label \(label is -1 or empty\)",
    ):
        load(path)


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv", ROWS)
    with pytest.raises(
        DataError,
        match=r"task.text: .*rows.csv has no column 'txt', only 'text', 'label'; did you mean 'text'",
    ):
        load(path, text="txt")
    with pytest.raises(DataError, match=r"task.label: .* no column 'lable'.*did you mean 'label'"):
        load(path, label="lable")


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
    assert everything(ordered) == dict(ROWS)
    numbers = write_csv(
        tmp_path / "numbers.csv", [(text, "1" if label == "pos" else "0") for text, label in ROWS]
    )
    assert everything(load(numbers, labels=["neg", "pos"])) == dict(ROWS)
    with pytest.raises(
        DataError, match=r"task.labels: \[good, bad\] are not the labels of the rows: neg, pos"
    ):
        load(path, labels=["good", "bad"])


# --- files that can't be read ----------------------------------------------------------------------------------------


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
        ("g.jsonl", '{"text": "a", "label": 1}\n3\n', "expected objects, one a row"),
        ("h.json", '{"text": "a"}', "expected objects, one a row"),
        ("i.json", "3", "expected objects, one a row"),
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


def test_a_path_that_is_not_there_is_not_sought_on_the_hub(tmp_path: Path) -> None:
    for missing in (str(tmp_path / "nothing"), "./nothing", "rows.csv"):
        with pytest.raises(DataError, match="there is no file or folder"):
            load(missing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no csv"):
        load(tmp_path / "empty")


# --- tokens ----------------------------------------------------------------------------------------------------------


def split_of(*columns: list[str]) -> Split:
    return Split(
        "train", columns, np.zeros(len(columns[0]), dtype=np.int64), "-".join(map(str, columns))
    )


def test_tokens_are_the_tokenizers_own_row_by_row(
    tmp_path: Path, tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "kdsweep.core.data.tokenize.ROWS_PER_CALL", 50
    )  # the rows span several calls
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    texts = [text for text, _ in ROWS]
    tokens = tokenize_split(
        split_of(texts), tokenizer, InputFormat(8, token_types=True), cache=tmp_path
    )
    rows = np.array([0, 51, 119, 3])
    batch = tokens.batch(rows)
    for i, row in enumerate(rows):
        real = batch["attention_mask"][i] == 1
        assert (
            batch["input_ids"][i][real].tolist()
            == tokenizer(texts[row], truncation=True, max_length=8)["input_ids"]
        )
        assert (batch["input_ids"][i][~real] == tokenizer.pad_token_id).all()
    assert batch["input_ids"].shape[1] == tokens.lengths[rows].max() <= 8


def test_tokens_are_mapped_into_memory_and_made_once(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    said: list[str] = []

    def tokens(
        max_length: int = 16, texts: tuple[str, ...] = ("the film", "a plot"), family: str = "bert"
    ) -> Any:
        tokenizer = AutoTokenizer.from_pretrained(tiny(family))
        tokenizer(
            "anything", truncation=True, padding="max_length", max_length=5
        )  # what it was used for before is no part of it
        return tokenize_split(
            split_of(list(texts)),
            tokenizer,
            InputFormat(max_length, token_types=False),
            cache=tmp_path,
            say=said.append,
        )

    first = tokens()
    assert isinstance(first.input_ids, np.memmap)
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    second = tokens()
    assert {
        file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()
    } == times
    assert second.key == first.key and len(said) == 1
    assert (
        len({first.key, tokens(max_length=15).key, tokens(texts=("the film", "a plots")).key}) == 3
    )
    assert len(said) == 3


def test_pairs_tell_their_texts_apart_for_bert_and_not_for_distilbert(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    from kdsweep.core.models.inputs import reads_token_types
    from kdsweep.core.models.loading import load_classifier

    pair = split_of(["the film was fine", "a plot"], ["yes", "no the actor is dull"])
    for family, expected in (("bert", True), ("distilbert", False)):
        assert reads_token_types(load_classifier(tiny(family), ("a", "b"))) is expected
        tokenizer = AutoTokenizer.from_pretrained(tiny(family))
        batch = tokenize_split(
            pair, tokenizer, InputFormat(16, token_types=expected), cache=tmp_path
        ).batch(np.array([0, 1]))
        assert ("token_type_ids" in batch) is expected
        if expected:  # [CLS] the film was fine [SEP] yes [SEP] and padding; [CLS] a plot [SEP] no the actor is dull [SEP]
            assert batch["token_type_ids"].tolist() == [
                [0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
                [0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
            ]


def test_only_rows_that_lost_tokens_count_as_truncated(
    tmp_path: Path, tiny: Callable[..., str]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    texts = [
        "the film",
        "the film was fine",
        "the film was very fine",
        "the film was very very fine",
    ]  # 4, 6, 7 and 8 tokens
    tokens = tokenize_split(
        split_of(texts), tokenizer, InputFormat(6, token_types=False), cache=tmp_path
    )
    assert tokens.lengths.tolist() == [4, 6, 6, 6]
    assert tokens.truncated == 2


# --- batches ---------------------------------------------------------------------------------------------------------


def padding(lengths: np.ndarray, parts: list[np.ndarray]) -> float:
    padded = sum(len(rows) * lengths[rows].max() for rows in parts)
    return 1 - lengths.sum() / padded


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 8), (7, 8), (8, 8), (1000, 8), (1003, 16)])
def test_an_epoch_has_every_row_once_in_batches_of_the_size(rows: int, batch_size: int) -> None:
    lengths = np.random.default_rng(0).integers(3, 60, rows)
    parts = batches(lengths, batch_size, seed=1, epoch=2)
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert len(parts) == -(-rows // batch_size)
    assert sorted(map(len, parts))[1:] == [batch_size] * (len(parts) - 1)


def test_batches_are_a_pure_function_of_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 300)

    def order(seed: int, epoch: int) -> list[list[int]]:
        np.random.seed(random.randrange(1000))  # the global generators have no say
        return [rows.tolist() for rows in batches(lengths, 16, seed, epoch)]

    assert order(1, 2) == order(1, 2)
    distinct = [order(seed, epoch) for seed, epoch in ((1, 2), (1, 3), (2, 2), (2, 1))]
    assert all(one != other for i, one in enumerate(distinct) for other in distinct[:i])


def test_rows_of_similar_length_are_together_but_not_in_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 1000)
    parts = batches(lengths, 16, seed=0, epoch=0)
    order = np.random.default_rng(0).permutation(1000)
    assert (
        padding(lengths, parts)
        < 0.1
        < 0.3
        < padding(lengths, [order[i : i + 16] for i in range(0, 1000, 16)])
    )
    means = [lengths[rows].mean() for rows in parts]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_evaluation_has_every_row_once_and_no_batch_above_its_tokens() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, 500)
    parts = list(evaluation_batches(lengths, 256))
    assert sorted(np.concatenate(parts).tolist()) == list(range(500))
    assert max(len(rows) * lengths[rows].max() for rows in parts) <= 256
    assert [len(rows) for rows in evaluation_batches(np.array([300, 400]), 256)] == [
        1,
        1,
    ]  # a row longer than that still is read
