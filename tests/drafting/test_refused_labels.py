"""Labels that can't be used, and data without a guess, are one line; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas
import pytest
from click.testing import CliRunner
from conftest import sentences, write_csv
from made_up_rows import Ask, drafts_in, rows

from kdsweep.cli import main
from kdsweep.errors import DataError


@pytest.fixture
def ask_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    return drafts_in(tmp_path, monkeypatch, "jsonl")


@pytest.mark.parametrize(
    ("values", "asked", "said"),
    [
        ([0.5, 1.5, "nan"], (), "has 'nan': with kind: regression a label must be a number"),
        ([0.5, 1.5, float("inf")], (), "has 'inf': with kind: regression"),
        ([0.5, 1.5, 1e60], (), "has '1e\\+60': with kind: regression"),
        ([0.5, 1.5, 10**400], (), "no column looks like a label"),
        ([1, 2, -1], (), "have no label"),
        ([["a"], ["b", None]], (), "a list with -1 or nothing in it"),
        ([["a"], ["b", float("nan")]], (), "a list with -1 or nothing in it"),
        ([[1], [2], [-1]], (), "a list with -1 or nothing in it"),
        ([["a"], "b"], ("label",), "no label: neither texts, numbers nor lists of names"),
        ([[0.5, 0.25]], ("label",), "no label: neither texts, numbers nor lists of names"),
        ([["a", "b", "a"], ["a", "c"]], ("label",), "some of them twice in a list"),
        ([[[1], [2]]], (), "no column looks like a label"),
        ([[]], (), "`label` it is empty"),
        ([[]], ("label",), "is no label: it is empty"),
        ([None], ("label",), "is no label: it is empty"),
    ],
)
def test_values_that_are_no_labels_are_one_line(
    values: list[Any],
    asked: tuple[str, ...],
    said: str,
    ask_jsonl: Ask,
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match=said) as found:
        ask_jsonl(rows(240, label=lambda draw, row: values[row % len(values)]), label=asked)
    assert "\n" not in str(found.value)
    assert not list(tmp_path.glob("*.yaml"))


def test_requested_lists_with_too_many_values_are_refused(
    ask_jsonl: Ask,
) -> None:
    with pytest.raises(DataError, match="`label` is no label: lists of 240 different values"):
        ask_jsonl(rows(240, label=lambda draw, row: [f"tag {row}"]), label=("label",))


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_data_without_a_guess_is_one_line_with_every_column_and_the_keys_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pandas.DataFrame([{"id": i, "text": f"a text of some words {i}"} for i in range(80)]).to_csv(
        "a.csv", index=False
    )
    said = refused("a.csv")
    for part in ("`id` every value differs", "`text` texts of 6 words", "task.label", "task.text"):
        assert part in said
    pandas.DataFrame([{"number": i, "label": i % 2} for i in range(80)]).to_csv(
        "b.csv", index=False
    )
    assert "looks like a text; name one with --text" in refused("b.csv")
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
    assert "task.text" in refused(
        "b.csv", "--label", "label", "--text", "number", "--text", "number", "--text", "number"
    )


def test_rows_that_plan_would_refuse_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(
        tmp_path / "rows.csv",
        [(text, "-1" if i == 7 else label) for i, (text, label) in enumerate(sentences(100))],
    )
    assert "have no label" in refused("rows.csv")
    assert not list(tmp_path.glob("*.yaml"))
    assert "did you mean 'rows.csv'" in refused("row.csv")
