"""77 labels are never all listed in a message or a table."""

from __future__ import annotations

import re

import pytest

from kdsweep.core.settings import TaskSettings
from kdsweep.drafting.columns import Column
from kdsweep.drafting.guess import named_column
from kdsweep.errors import DataError
from kdsweep.export.card import _task
from kdsweep.sweep.identity import differences

NAMES = [f"intent_{number}" for number in range(77)]


def listed(text: str) -> int:
    return len(re.findall(r"intent_\d+", text))


def test_a_sweep_with_other_labels_says_which_one_is_another() -> None:
    other = [*NAMES[:40], "another", *NAMES[41:]]
    assert differences({"labels": NAMES}, {"labels": other}) == ["labels.40: intent_40 -> another"]
    (line,) = differences({"labels": NAMES}, {"labels": NAMES[:70]})
    assert listed(line) == 16
    assert line.endswith("intent_7 and 62 more]")
    (line,) = differences({"labels": None}, {"labels": NAMES})
    assert listed(line) == 8


def test_a_column_that_is_not_there_is_one_short_line() -> None:
    columns = [Column(name, "number", 3) for name in NAMES]
    with pytest.raises(DataError, match="has no column 'label'") as refused:
        named_column("rows.csv", columns, "label", "--label")
    assert listed(str(refused.value)) == 8


def test_the_card_of_a_student_lists_the_first_columns() -> None:
    task = TaskSettings.model_validate(
        {
            "dataset": "rows.csv",
            "text": "text",
            "label": NAMES,
            "kind": "multi_label",
            "metric": "f1_micro",
        }
    )
    assert listed(_task(task, {})) == 8
