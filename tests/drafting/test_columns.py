"""Columns: what kind of values they hold."""

from __future__ import annotations

import unicodedata

from kdsweep.drafting.columns import look_at
from kdsweep.drafting.labels import guess_label
from kdsweep.drafting.tables import Table
from kdsweep.drafting.texts import guess_text


def test_columns_of_lists_and_empty_ones_are_skipped() -> None:
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
    assert (label, guess_text("rows", columns, label, ()).columns) == (("label",), ("text",))


def test_two_spellings_of_an_accent_are_one_value() -> None:
    """As labels are compared when they are read."""
    names = [unicodedata.normalize("NFC" if i % 2 else "NFD", "négatif") for i in range(40)]
    (column,) = look_at(Table({"label": names}, {}))
    assert column.distinct == 1
