"""A checkpoint's outputs are put into the task's order by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kdsweep.core.models.outputs import order_of_outputs
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings


@pytest.mark.parametrize(
    ("own", "wanted", "order"),
    [
        (("b", "a"), ("a", "b"), [1, 0]),
        (("NEG", "POS"), ("neg", "pos"), [0, 1]),
        (("us", "US"), ("US", "us"), [1, 0]),
        (("US", "Us"), ("us", "uS"), None),
        (("LABEL_0", "LABEL_1"), ("a", "b"), None),
        (("a", "b", "c"), ("a", "b"), None),
    ],
)
def test_outputs_are_found_by_name(
    own: tuple[str, ...], wanted: tuple[str, ...], order: list[int] | None
) -> None:
    assert order_of_outputs(own, wanted) == order


def test_a_student_with_the_labels_in_another_order_keeps_its_answers(
    tiny: Callable[..., str], tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny("bert"), num_labels=3)
    names = ("dull", "fine", "great")
    model.config.id2label = {0: "great", 1: "dull", 2: "fine"}
    model.config.label2id = {"great": 0, "dull": 1, "fine": 2}
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student, _ = load_student(StudentSettings(model=str(tmp_path)), names, None)
    rows = tokenizer(["the film was superb"], return_tensors="pt")
    with torch.no_grad():
        before = model.eval()(**rows).logits[0].tolist()
        after = student.eval()(**rows).logits[0].tolist()
    # Rows of a matrix in another order are multiplied in another order: equal but for rounding.
    assert after == pytest.approx([before[1], before[2], before[0]], abs=1e-5)
    assert tuple(student.config.id2label.values()) == names
