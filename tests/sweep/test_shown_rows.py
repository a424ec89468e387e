"""The rows where teacher and student differ, from what a finished sweep keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdsweep.core.data.loading import load_task
from kdsweep.core.files import read_array
from kdsweep.errors import DataError
from kdsweep.report.differences import MOST_ROWS, cut
from kdsweep.sweep import run
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import recorded
from kdsweep.sweep.shown_rows import NOT_AT_HAND, SENT_AWAY, find_differences


@pytest.mark.slow
def test_a_sweep_shows_the_rows_where_its_student_and_its_teacher_differ(
    tiny_space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = ("trials=1", "confirm.seeds=1", "strategies.finetune=", "strategies.combined=")
    report = run(tiny_space, home=tmp_path / "home", assignments=sets)
    home = Home(tmp_path / "home")
    plan, _ = recorded(home, report.sweep)
    folder = home.sweep(report.sweep)
    found = find_differences(plan, home, report)
    assert found is not None and report.winner is not None and found.note == ""
    labels = np.load(folder.test_labels)
    teacher = read_array(folder.teacher_test_logits(0), todo="").argmax(axis=1)
    student = folder.trial(report.winner).read_test_logits().argmax(axis=1)
    test = load_task(plan.space.task, home.cache).test
    expected = np.flatnonzero((teacher == labels) & (student != labels))[:MOST_ROWS].tolist()
    shown = [(row[0], row[-1]) for row in found.tables[0].rows]
    assert shown == [(str(row), cut(test.texts[0][row])) for row in expected]
    cells = [int(cell) for row in found.tables[2].rows for cell in row[1:]]
    assert sum(cells) == len(labels)
    page = folder.page.read_text(encoding="utf-8")
    assert "Where the teacher and the student differ" in page and NOT_AT_HAND not in page

    away = replace(plan, sweep=plan.sweep.model_copy(update={"tracking": "http://tracker"}))
    sent = find_differences(away, home, report)
    assert sent is not None and sent.note == SENT_AWAY
    assert all("text" not in table.head for table in sent.tables)

    def gone(*of: object, **more: object) -> None:
        raise DataError("gone")

    monkeypatch.setattr("kdsweep.sweep.shown_rows.load_task", gone)
    without = find_differences(plan, home, report)
    assert without is not None and without.note == NOT_AT_HAND
    assert [len(one.rows) for one in without.tables] == [len(one.rows) for one in found.tables]
