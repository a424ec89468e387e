"""Which split a row belongs to depends on texts and labels, not on where rows stand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from conftest import write_csv
from pydantic import ValidationError
from task_rows import ROWS, labels_by_text, load, texts_of

from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.data.text_hashes import STRATIFIED, text_hashes
from kdsweep.core.split_settings import SPLITS


def normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def test_held_out_splits_are_the_same_for_the_same_rows_in_another_order(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(ROWS, len(ROWS))
    one, other = (
        load(write_csv(tmp_path / f"{i}.csv", rows)) for i, rows in enumerate((ROWS, shuffled))
    )
    assert texts_of(one) == texts_of(other)
    assert one.train.texts != other.train.texts


def test_by_rule_1_new_rows_move_no_old_row_to_another_split(tmp_path: Path) -> None:
    old = texts_of(load(write_csv(tmp_path / "old.csv", ROWS[:60]), split_rule=1))
    new = texts_of(load(write_csv(tmp_path / "new.csv", ROWS), split_rule=1))
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


def test_no_text_is_in_two_splits_even_with_other_case_and_white_space(tmp_path: Path) -> None:
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
    assert labels_by_text(data) == {f"{first}|{second}": label for first, second, label in rows}


# --- stratified ---


def labelled(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Rows of different texts, `counts[label]` of each label, mixed."""
    rows = [(f"text {label} {i}", label) for label, count in counts.items() for i in range(count)]
    random.Random(2).shuffle(rows)
    return rows


def counts_of(data: TaskData, split: str) -> dict[str, int]:
    rows = data.splits[split]
    return {
        name: int((rows.labels == number).sum()) for number, name in enumerate(data.label_names)
    }


def test_each_class_gives_its_share_to_each_held_out_split_and_at_least_one_text(
    tmp_path: Path,
) -> None:
    rows = labelled({"a": 400, "b": 95, "c": 10, "d": 4, "e": 3, "f": 2, "g": 1})
    data = load(write_csv(tmp_path / "rows.csv", rows), holdout=0.1)
    expected = {"a": 40, "b": 10, "c": 1, "d": 1, "e": 1, "f": 0, "g": 0}
    # 9.5 rows are rounded to an even number.
    assert counts_of(data, "test") == counts_of(data, "validation") == expected | {"b": 10}
    assert counts_of(data, "train") == {"a": 320, "b": 75, "c": 8, "d": 2, "e": 1, "f": 2, "g": 1}
    for split in ("test", "validation"):
        assert any(
            note.startswith(f"{split}: no row has 2 of the 7 labels (f, g): a label needs 3 texts")
            for note in data.notes
        )


def test_the_texts_with_the_lowest_hashes_are_held_out_of_each_class(tmp_path: Path) -> None:
    rows = labelled({"a": 60, "b": 20})
    data = load(write_csv(tmp_path / "rows.csv", rows), holdout=0.1)
    hashed = dict(
        zip(dict(rows), text_hashes([list(dict(rows))], b"split", STRATIFIED), strict=True)
    )
    for label, count in (("a", 6), ("b", 2)):
        ordered = sorted((text for text, its in rows if its == label), key=hashed.__getitem__)
        held = [set(ordered[:count]), set(ordered[count : 2 * count])]
        for texts, split in zip(held, ("test", "validation"), strict=True):
            assert texts == {text for text in texts_of(data)[split] if f" {label} " in text}


def test_a_text_with_several_labels_counts_for_the_most_frequent_one(tmp_path: Path) -> None:
    rows = labelled({"a": 40, "b": 40})
    double = [("TEXT a 1", "b"), ("text  a 1", "b"), ("Text b 1", "a")]
    shuffled = random.Random(3).sample(rows + double, len(rows + double))
    loaded = [
        load(write_csv(tmp_path / f"{i}.csv", mixed))
        for i, mixed in enumerate((rows + double, shuffled))
    ]
    assert texts_of(loaded[0]) == texts_of(loaded[1])
    parts = [{normal(text) for text in found} for found in texts_of(loaded[0]).values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 80


def test_a_split_that_the_dataset_names_takes_nothing_out_of_train(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_csv(folder / "train.csv", labelled({"a": 30, "b": 3}))
    write_csv(folder / "test.csv", [("other one", "a"), ("other two", "b")])
    data = load(folder, splits={"test": "test"}, holdout=0.1)
    assert counts_of(data, "validation") == {"a": 3, "b": 1}
    assert counts_of(data, "train") == {"a": 27, "b": 2}


def test_a_limit_keeps_the_share_of_each_class_and_one_row_of_a_rare_one(tmp_path: Path) -> None:
    rows = labelled({"a": 900, "b": 97, "c": 10})
    path = write_csv(tmp_path / "rows.csv", rows)
    smaller, larger = (load(path, limit={"train": count}, holdout=0.1) for count in (40, 100))
    assert counts_of(smaller, "train") == {"a": 35, "b": 4, "c": 1}
    assert counts_of(larger, "train") == {"a": 89, "b": 10, "c": 1}
    assert texts_of(smaller)["train"] <= texts_of(larger)["train"]


def test_folds_have_the_same_share_of_each_class(tmp_path: Path) -> None:
    data = load(write_csv(tmp_path / "rows.csv", labelled({"a": 100, "b": 30, "c": 7})))
    numbers = fold_numbers(data.train, 4, data.kind, data.split_rule)
    for label in range(3):
        rows = np.bincount(numbers[data.train.labels == label], minlength=4)
        assert rows.max() - rows.min() <= 1
    sizes = np.bincount(numbers, minlength=4)
    assert sizes.max() - sizes.min() <= 1


def test_a_regression_is_stratified_by_tenths_of_the_labels(tmp_path: Path) -> None:
    rows = [(f"text {i}", f"{i / 7:.3f}") for i in random.Random(1).sample(range(200), 200)]
    path = write_csv(tmp_path / "rows.csv", rows)
    data = load(path, kind="regression", metric="pearson", holdout=0.1)
    for split in ("test", "validation"):
        numbers = np.sort(data.splits[split].labels * 7).round().astype(int)
        assert (numbers // 20).tolist() == [i // 2 for i in range(20)]


def test_several_labels_a_row_are_stratified_the_rarest_label_first(tmp_path: Path) -> None:
    draw = random.Random(4)
    shares = {"common": 0.6, "some": 0.2, "few": 0.03, "rare": 0.01}
    rows = [
        {"text": f"text {i}", "label": [name for name in shares if draw.random() < shares[name]]}
        for i in range(600)
    ]
    rows += [{"text": f"more {i}", "label": ["three", "common"]} for i in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = load(path, kind="multi_label", metric="f1_micro", holdout=0.1)
    every = {name: sum(name in row["label"] for row in rows) for name in data.label_names}
    for split in ("test", "validation"):
        held = dict(zip(data.label_names, data.splits[split].labels.sum(axis=0), strict=True))
        for name, count in every.items():
            assert held[name] == pytest.approx(max(1, round(count / 10)), abs=1), name
            assert held[name] >= 1
    assert (data.train.labels.sum(axis=0) >= 1).all()


# --- texts that a model reads alike ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe\u0301"),
        ("STRASSE", "straße"),
        ("full width ＡＢＣ", "full width abc"),
        ("ﬁne", "fine"),
        ("a\u00a0b", "a b"),
        ("zero\u200bwidth", "zerowidth"),
        ("\ufeffmarked", "marked"),
        ("soft\u00adhyphen", "softhyphen"),
        ("bell\x07", "bell"),
        ("two\t\n lines", " two lines "),
        ("\u0345α", "ια"),
    ],
)
def test_texts_that_a_model_reads_alike_are_one_text(one: str, other: str) -> None:
    first, second = text_hashes([[one, other]], b"split", STRATIFIED)
    assert first == second


def test_a_text_is_normalized_for_its_hash_only(tmp_path: Path) -> None:
    rows = [(f"Caf\u200bé {i}\xad  X", "ab"[i % 2]) for i in range(40)]
    data = load(write_csv(tmp_path / "rows.csv", rows))
    assert set(labels_by_text(data)) == dict(rows).keys()


def test_symmetric_pairs_are_one_text_in_either_order(tmp_path: Path) -> None:
    rows = [(f"First {i}", f"second {i}", "ab"[i % 2]) for i in range(60)]
    swapped = [(second.upper(), first, label) for first, second, label in rows]
    path = write_csv(tmp_path / "rows.csv", rows + swapped, ("one", "two", "label"))
    found = {}
    for symmetric in (True, False):
        data = load(path, text=["one", "two"], symmetric=symmetric)
        pairs = [
            {frozenset(map(str.casefold, pair)) for pair in zip(*split.texts, strict=True)}
            for split in data.splits.values()
        ]
        found[symmetric] = sum(map(len, pairs)) - len(set.union(*pairs))
    assert found[True] == 0
    # Nothing is detected: without the key the two orders are different texts.
    assert found[False] > 0


def test_symmetric_is_for_pairs_only(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="symmetric: says that the two texts of a pair"):
        load(write_csv(tmp_path / "rows.csv", ROWS), symmetric=True)


def test_rare_classes_don_t_stop_a_task(tmp_path: Path) -> None:
    """By rule 1 some of these were held out, and train didn't know them."""
    rare = [(f"only one {i} of these", f"rare {i}") for i in range(40)]
    data = load(write_csv(tmp_path / "rows.csv", [*labelled({"a": 150, "b": 150}), *rare]))
    assert set(data.label_names) == {"a", "b", *(label for _, label in rare)}
    note = next(note for note in data.notes if note.startswith("test: no row has"))
    assert "40 of the 42 labels" in note and "and 32 more" in note
