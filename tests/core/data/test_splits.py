"""Which split a row belongs to depends on its text alone."""

from __future__ import annotations

import random
from pathlib import Path

from conftest import write_csv
from task_rows import ROWS, labels_by_text, load, texts_of

from kdsweep.core.settings import SPLITS


def normal(text: str) -> str:
    return " ".join(text.split()).casefold()


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
