"""Golden numbers, worked out here from the formula with plain floats."""

from __future__ import annotations

import math

import pytest
import torch

from kdsweep.core import distillation_loss, parse_schedule

STUDENT = {
    2: [[0.3, -1.2], [2.0, 0.5], [-0.7, 0.1]],
    5: [[0.1, 0.2, -0.3, 1.5, -2.0], [1.0, -1.0, 0.0, 0.5, 0.25], [3.0, 0.0, -1.0, 0.2, 0.4]],
}
TEACHER = {
    2: [[1.3, -0.2], [-1.0, 1.5], [0.7, 2.1]],
    5: [[2.1, 0.0, -1.3, 0.5, 0.0], [0.0, -2.0, 1.0, 0.5, 1.25], [-1.0, 4.0, 0.0, 0.3, 0.1]],
}
LABELS = {2: [0, 1, 1], 5: [3, 0, 4]}


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def by_hand(classes: int, alpha: float, temperature: float) -> float:
    rows = list(zip(STUDENT[classes], TEACHER[classes], LABELS[classes], strict=True))
    cross_entropy = sum(-math.log(softmax(student, 1)[label]) for student, _, label in rows) / len(
        rows
    )
    divergence = sum(
        sum(
            p * math.log(p / q)
            for p, q in zip(
                softmax(teacher, temperature), softmax(student, temperature), strict=True
            )
        )
        for student, teacher, _ in rows
    ) / len(rows)
    return alpha * cross_entropy + (1 - alpha) * temperature**2 * divergence


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5, 4.0])
def test_the_loss_is_the_formula(classes: int, alpha: float, temperature: float) -> None:
    loss = distillation_loss(
        torch.tensor(STUDENT[classes]),
        torch.tensor(TEACHER[classes]),
        torch.tensor(LABELS[classes]),
        alpha=alpha,
        temperature=temperature,
    )
    assert loss.total.item() == pytest.approx(by_hand(classes, alpha, temperature), abs=1e-6)
    assert loss.total.dtype == loss.task.dtype == loss.distill.dtype == torch.float32


def test_half_precision_logits_are_judged_in_fp32_and_the_teacher_gets_no_gradient() -> None:
    student = torch.tensor(STUDENT[2], dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.tensor(TEACHER[2], requires_grad=True)
    loss = distillation_loss(student, teacher, torch.tensor(LABELS[2]), alpha=0.5, temperature=4.0)
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_no_teacher_is_needed_where_alpha_is_1_and_only_there() -> None:
    student, labels = torch.tensor(STUDENT[2]), torch.tensor(LABELS[2])
    assert distillation_loss(student, None, labels, alpha=1.0).total.item() == pytest.approx(
        by_hand(2, 1.0, 1.0), abs=1e-6
    )
    with pytest.raises(ValueError, match="teacher_logits"):
        distillation_loss(student, None, labels, alpha=0.9)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": -0.1},
        {"alpha": 1.1},
        {"alpha": 0.5, "temperature": 0.0},
        {"alpha": 0.5, "temperature": float("nan")},
    ],
)
def test_impossible_values_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        distillation_loss(
            torch.tensor(STUDENT[2]), torch.tensor(TEACHER[2]), torch.tensor(LABELS[2]), **options
        )


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        distillation_loss(
            torch.tensor(STUDENT[2]), torch.tensor(TEACHER[5]), torch.tensor(LABELS[2]), alpha=0.5
        )


def test_combined_gives_these_alphas_by_epoch() -> None:
    schedule = parse_schedule({"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2})
    assert [schedule.at(progress=0.9, epoch=epoch) for epoch in range(5)] == [
        0.7,
        0.5,
        0.3,
        0.2,
        0.2,
    ]
    assert parse_schedule({"shape": "per_epoch", "values": [0.7, 0.5]}).at(0.9, 4) == 0.5


def test_shapes_at_points_worked_out_by_hand() -> None:
    assert parse_schedule(0.5).at(0.3, 0) == 0.5
    assert parse_schedule({"shape": "linear", "start": 8.0, "end": 2.0}).at(
        0.25, 0
    ) == pytest.approx(6.5)
    cosine = parse_schedule({"shape": "cosine", "start": 1.0, "end": 0.0})
    assert [round(cosine.at(progress, 0), 6) for progress in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]
    assert cosine.at(1 / 3, 0) == pytest.approx(0.75)
    step = parse_schedule({"shape": "step", "values": [0.0, 0.5, 1.0], "at": [0.25, 0.75]})
    assert [step.at(progress, 0) for progress in (0.0, 0.24, 0.25, 0.74, 0.75, 0.99)] == [
        0.0,
        0.0,
        0.5,
        0.5,
        1.0,
        1.0,
    ]


@pytest.mark.parametrize(
    "broken",
    [
        {"shape": "linear", "start": 1.0},
        {"shape": "wave", "start": 0.0, "end": 1.0},
        {"shape": "step", "values": [0.0, 1.0], "at": 1.5},
        {"shape": "step", "values": [0.0, 1.0, 0.5], "at": [0.6, 0.4]},
        {"shape": "step", "values": [0.0, 1.0, 0.5], "at": 0.5},
        {"shape": "per_epoch", "values": []},
        float("nan"),
        "0.5",
        True,
    ],
)
def test_what_is_no_schedule_is_refused(broken: object) -> None:
    with pytest.raises(ValueError):
        parse_schedule(broken)
