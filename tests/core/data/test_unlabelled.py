"""Text without labels: which rows are read, and what errors say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import UNLABELLED_ROWS, sentences

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.settings import TaskSettings
from kdsweep.core.tasks import CLASSIFICATION, MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import UNLABELLED
from kdsweep.errors import DataError


def test_text_of_the_task_itself_is_dropped_and_counted(
    review_csv: Path, unlabelled_csv: Path, tmp_path: Path
) -> None:
    task = TaskSettings.model_validate(
        {
            "dataset": str(review_csv),
            "text": "text",
            "label": "label",
            "unlabelled": {"dataset": str(unlabelled_csv), "where": {"source": "here"}},
        }
    )
    data = load_task(task)
    for found, notes in (
        load_unlabelled(task, data),
        load_unlabelled(task, data, tmp_path),
        load_unlabelled(task, data, tmp_path),
    ):
        assert list(found.texts[0]) == [text for text, _ in UNLABELLED_ROWS[:60]]
        assert found.labels.tolist() == [UNLABELLED] * 60
        assert notes == ("unlabelled: 10 rows dropped: their text is in a split of the task too",)
    assert len({load_unlabelled(task, data, where)[0].key for where in (None, tmp_path)}) == 1
    assert task.unlabelled is not None
    few_rows = task.unlabelled.model_copy(update={"limit": 20})
    limited = task.model_copy(update={"unlabelled": few_rows})
    few = list(load_unlabelled(limited, data)[0].texts[0])
    assert len(few) == 20
    assert set(few) < {text for text, _ in UNLABELLED_ROWS[:60]}


def test_rows_that_a_limit_left_out_of_train_may_be_read_as_text(review_csv: Path) -> None:
    plain: dict[str, Any] = {
        "dataset": str(review_csv),
        "text": "text",
        "label": "label",
        "limit": {"train": 50, "validation": 10, "test": 10},
    }
    task = TaskSettings.model_validate(plain | {"unlabelled": str(review_csv)})
    data = load_task(task)
    known = {text for split in data.splits.values() for text in split.texts[0]}
    found = set(load_unlabelled(task, data)[0].texts[0])
    assert found == {text for text, _ in sentences(300)} - known
    assert len(found) > 150


def test_errors_name_the_key_under_unlabelled(
    review_csv: Path, unlabelled_csv: Path, tmp_path: Path
) -> None:
    def error(**unlabelled: Any) -> str:
        task = TaskSettings.model_validate(
            {
                "dataset": str(review_csv),
                "text": "text",
                "label": "label",
                "unlabelled": {"dataset": str(unlabelled_csv)} | unlabelled,
            }
        )
        with pytest.raises(DataError) as raised:
            load_unlabelled(task, load_task(task), tmp_path)
        return str(raised.value)

    assert error(text="txet").startswith(
        f"task.unlabelled.text: {unlabelled_csv} has no column 'txet'"
    )
    assert error(where={"source": "nowhere"}).startswith("task.unlabelled.where: no row of")
    assert (
        error(dataset="/not/there.csv")
        == "task.unlabelled.dataset: there is no file or folder '/not/there.csv'"
    )
    assert error(split="test") == (
        f"task.unlabelled.split: {unlabelled_csv} is one file, so it has no splits to name; "
        "use 'where' to take some of its rows"
    )
    assert "it teaches nothing new" in error(dataset=str(review_csv))
    assert error(dataset=str(unlabelled_csv.parent), split="les").startswith(
        f"task.unlabelled.split: {unlabelled_csv.parent} has no split 'les', only more"
    )
    with pytest.raises(ValueError, match=r"unlabelled.text names 2 columns and text names 1:"):
        make_task = {
            "dataset": str(review_csv),
            "text": "text",
            "label": "label",
            "unlabelled": {"dataset": str(unlabelled_csv), "text": ["a", "b"]},
        }
        TaskSettings.model_validate(make_task)


def test_missing_labels_have_the_shape_and_type_of_labels() -> None:
    assert CLASSIFICATION.empty_labels(3, 2).tolist() == [UNLABELLED] * 3
    several = MULTI_LABEL.empty_labels(3, 2)
    assert several.shape == (3, 2)
    assert several.dtype == np.float32
    assert np.isnan(several).all()
    assert np.isnan(REGRESSION.empty_labels(3, 1)).all()
