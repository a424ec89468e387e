"""Files as people have them: other separators, Excel's marks, blank labels, labels that look alike.

`init` drafts in spite of them and says so; the rows that it counted are those that a sweep reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import sentences
from task_rows import task_of

from kdsweep.cli import main
from kdsweep.config import load_space
from kdsweep.core.data.loading import load_task
from kdsweep.errors import BlankLabels

ROWS = sentences(120)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["init", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def drafted(file: str) -> dict[str, Any]:
    """The facts of a draft, once the task's own reader has read the same rows."""
    facts: dict[str, Any] = json.loads(init(file, "draft.yaml", "--json"))
    data = load_task(load_space("draft.yaml").task)
    assert {name: len(split) for name, split in data.splits.items()} == facts["rows"]
    assert list(data.label_names) == facts["labels"]
    return facts


def separated(separator: str, rows: list[tuple[str, str]], header: str = "text") -> str:
    return "".join(f"{text}{separator}{label}\r\n" for text, label in [(header, "label"), *rows])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", separated(";", ROWS).encode()),
        ("tabs.csv", separated("\t", ROWS).encode()),
        ("tabs.tsv", separated("\t", ROWS).encode("utf-8-sig")),
        ("semicolons.tsv", separated(";", ROWS).encode()),
        ("excel.csv", separated(";", ROWS).encode("utf-8-sig")),
        ("excel-sep.csv", ("sep=;\r\n" + separated(";", ROWS)).encode("utf-8-sig")),
        ("excel-unicode.csv", separated("\t", ROWS).encode("utf-16")),
        ("comma-in-header.csv", separated(";", ROWS, "text, body").encode()),
        ("commas-in-texts.csv", separated(";", [(f"a, b, {t}", y) for t, y in ROWS]).encode()),
    ],
)
def test_init_and_the_tasks_reader_read_the_same_dialect(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    facts = drafted(name)
    assert sum(facts["rows"].values()) == len(ROWS)
    assert facts["labels"] == sorted({label for _, label in ROWS})


def test_a_separator_that_only_the_header_has_is_none() -> None:
    rows = [(f"a; b {text}", label) for text, label in ROWS]
    Path("rows.csv").write_text(separated(",", rows, "text; all, of it"), encoding="utf-8")
    done = CliRunner().invoke(main, ["init", "rows.csv"])
    # Three columns by commas, two by semicolons: neither fits, so the message shows the usual ones.
    assert done.exit_code == 1
    assert "columns" in done.stderr


@pytest.mark.parametrize("blank", ["", "   "])
def test_blank_labels_are_dropped_by_name_and_counted(blank: str) -> None:
    rows = [(text, blank if i % 10 == 7 else label) for i, (text, label) in enumerate(ROWS)]
    Path("rows.csv").write_text(separated(",", rows), encoding="utf-8")
    facts = drafted("rows.csv")
    assert facts["task"]["blank_labels"] == "drop"
    assert sum(facts["rows"].values()) == 108
    assert facts["notes"] == ["train: 12 of 120 rows dropped: their label is empty"]
    assert "12 of 120 rows dropped" in Path("draft.yaml").read_text(encoding="utf-8")
    assert "  note    train: 12 of 120 rows dropped" in init("rows.csv", "again.yaml")


def test_rows_without_blank_labels_have_no_key_for_them() -> None:
    Path("rows.csv").write_text(separated(",", ROWS), encoding="utf-8")
    assert "blank_labels" not in drafted("rows.csv")["task"]
    assert "note" not in init("rows.csv", "again.yaml")


@pytest.mark.parametrize(
    ("values", "blank", "task"),
    [
        (["a", "b"], "", {}),
        ([0, 1], None, {}),
        ([0.5, 1.5, 2.25], None, {"kind": "regression", "metric": "pearson"}),
        ([["a"], ["a", "b"], []], None, {"kind": "multi_label", "metric": "f1_micro"}),
        (
            [{"x": 0, "y": 1}, {"x": 1, "y": 0}],
            {"x": 1},
            {"kind": "multi_label", "metric": "f1_micro", "label": ["x", "y"]},
        ),
    ],
)
def test_each_kind_of_task_refuses_blank_labels_unless_it_drops_them(
    values: list[Any], blank: Any, task: dict[str, Any]
) -> None:
    labels = [blank if i % 6 == 5 else values[i % len(values)] for i in range(120)]
    rows = [
        {"text": text, **(label if isinstance(label, dict) else {"label": label})}
        for (text, _), label in zip(ROWS, labels, strict=True)
    ]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(BlankLabels, match=r"no label.*task\.blank_labels: drop"):
        load_task(task_of("rows.jsonl", **task))
    data = load_task(task_of("rows.jsonl", blank_labels="drop", **task))
    assert sum(map(len, data.splits.values())) == 100
    assert all(np.isfinite(split.labels).all() for split in data.splits.values())
    assert "train: 20 of 120 rows dropped: their label is empty" in data.notes
    # `init` drafts the same.
    named = [part for one in task.get("label", []) for part in ("--label", one)]
    assert "20 of 120 rows dropped" in init("rows.jsonl", "draft.yaml", *named)


def test_minus_one_stays_an_error_because_it_may_be_a_class() -> None:
    rows = [(text, str(i % 3 - 1)) for i, (text, _) in enumerate(ROWS)]
    Path("rows.csv").write_text(separated(",", rows), encoding="utf-8")
    done = CliRunner().invoke(main, ["init", "rows.csv"])
    assert "have no label (label is -1 or empty)" in done.stderr
    assert "blank_labels" not in done.stderr


def test_labels_that_differ_in_case_or_spaces_are_flagged() -> None:
    names = ["Billing", "billing", "New  York", "new york", "Tech", "Tech "]
    rows = [(text, names[i % 6]) for i, (text, _) in enumerate(ROWS)]
    Path("rows.csv").write_text(separated(",", rows), encoding="utf-8")
    facts = drafted("rows.csv")
    (note,) = facts["notes"]
    assert "'Billing' and 'billing'; 'New  York' and 'new york' are alike in looks" in note
    assert "if they mean the same, write them alike" in note
    assert facts["labels"].count("Tech") == 1
    assert "'Billing' and 'billing'" in Path("draft.yaml").read_text(encoding="utf-8")
