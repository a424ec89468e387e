"""The rows where teacher and student differ, for every kind of task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from odd_sweeps import ODD

from kdsweep.core.tasks.base import TaskKind, the_one
from kdsweep.core.tasks.classification import Classification
from kdsweep.core.tasks.multi_label import MultiLabel
from kdsweep.core.tasks.regression import Regression
from kdsweep.report.differences import MOST_LETTERS, Differences, Judged, Table, differences
from kdsweep.report.page import write_page

NOTE = "These rows are far away."
NAMES = ("no", "yes", "maybe")


def found_in(
    kind: type[TaskKind], labels: list[object], teacher: list[object], student: list[object]
) -> Differences:
    as_logits = [np.array(one, dtype=np.float32) for one in (teacher, student)]
    judged = Judged(the_one(kind), NAMES, np.array(labels), *as_logits)
    return differences(
        "distill-1-seed-0", judged, lambda rows: {one: f"t{one}" for one in rows}, ""
    )


def of_classes() -> Differences:
    """Labels 0, 1, 2, 0; the teacher misses the last row, the student rows 1 and 2."""
    one = np.eye(3) * 5
    return found_in(Classification, [0, 1, 2, 0], list(one[[0, 1, 2, 1]]), list(one[[0, 0, 0, 0]]))


def rows_of(table: Table) -> list[str]:
    return [row[0] for row in table.rows]


def test_classes_have_the_rows_that_one_alone_gets_right_and_a_table_of_what_is_confused() -> None:
    teachers, students, confused = of_classes().tables
    assert teachers.rows == (("1", "yes", "yes", "no", "t1"), ("2", "maybe", "maybe", "no", "t2"))
    assert students.rows == (("3", "no", "yes", "no", "t3"),)
    assert teachers.note == "2 of 4 test rows."
    assert confused.head == ("label", *NAMES)
    assert confused.rows == (
        ("no", "2", "0", "0"),
        ("yes", "1", "0", "0"),
        ("maybe", "1", "0", "0"),
    )


def test_many_classes_have_their_most_frequent_mistakes() -> None:
    names = [f"class {i}" for i in range(20)]
    logits = np.eye(20, dtype=np.float32)
    labels = np.arange(20)
    student = logits.copy()
    student[[3, 4]] = logits[[4, 4]]
    judged = Judged(the_one(Classification), names, labels, logits, student)
    confused = differences("s", judged, lambda rows: None, "").tables[-1]
    assert confused.rows == (("class 3", "class 4", "1"),)


def test_a_row_with_several_labels_is_right_if_all_are_and_each_label_has_its_counts() -> None:
    found = found_in(
        MultiLabel,
        [[1, 0, 1], [0, 0, 0]],
        [[3, -3, 3], [3, -3, -3]],
        [[3, -3, -3], [-3, -3, -3]],
    )
    teachers, students, confused = found.tables
    assert teachers.rows == (("0", "no, maybe", "no, maybe", "no", "t0"),)
    assert students.rows == (("1", "none", "no", "none", "t1"),)
    assert confused.rows[0] == ("maybe", "0", "1", "0", "1")


def test_a_regression_has_the_largest_differences_and_errors_by_label() -> None:
    found = found_in(Regression, [1.0, 2.0, 3.0], [[1.0], [2.0], [4.0]], [[1.5], [4.0], [3.0]])
    student, teacher, groups = found.tables
    assert rows_of(student) == ["1", "0"] and rows_of(teacher) == ["2"]
    assert sum(int(row[1]) for row in groups.rows) == 3


def test_texts_are_cut_and_escaped_and_one_line_says_where_there_are_none(tmp_path: Path) -> None:
    judged = Judged(
        the_one(Classification), NAMES, np.array([0]), np.array([[5.0, 0, 0]]), np.eye(3)[[1]]
    )
    long = "<script>window.hacked = 1</script>" + "word " * 100
    page = tmp_path / "report.html"
    write_page(*ODD["two trials"](), page, differences("s", judged, lambda rows: {0: long}, NOTE))
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;window.hacked" in text and "<script>window.hacked" not in text
    assert "word " * 40 not in text and "…" in text and NOTE not in text
    found = differences("s", judged, lambda rows: {0: long}, "").tables[0]
    assert len(found.rows[0][-1]) == MOST_LETTERS
    write_page(*ODD["two trials"](), page, differences("s", judged, lambda rows: None, NOTE))
    text = page.read_text(encoding="utf-8")
    assert f'<p class="note">{NOTE}</p>' in text and "&lt;script" not in text
    assert text.count("What the student confuses") > 0
