"""The loss is the formula: numbers worked out with plain math."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from kdsweep.core import distillation_loss
from kdsweep.core.objective.distillation_loss import (
    LossSettings,
    gradient_share,
    gradient_squares,
)

STUDENT = {
    2: [[1.0, -0.5], [0.2, 0.3], [-2.0, 1.5]],
    5: [[0.1, 0.2, 0.3, -1.0, 2.0], [3.0, -3.0, 0.0, 0.5, 0.5], [-0.7, 0.1, 1.2, 0.0, -2.2]],
}
TEACHER = {
    2: [[2.0, -2.0], [-1.0, 1.0], [0.5, 0.0]],
    5: [[0.0, 4.0, -1.0, 1.0, 0.3], [2.0, 2.0, 2.0, -5.0, 0.0], [1.0, -1.0, 0.5, 0.25, 3.0]],
}
LABELS = {2: [0, 1, 0], 5: [4, 0, 2]}


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def by_hand(
    student: list, teacher: list, labels: list, alpha: float, temperature: float
) -> tuple[float, float, float]:
    rows = len(labels)
    task = (
        sum(-math.log(softmax(row)[label]) for row, label in zip(student, labels, strict=True))
        / rows
    )
    divergence = 0.0
    for mine, theirs in zip(student, teacher, strict=True):
        p, q = softmax(theirs, temperature), softmax(mine, temperature)
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / rows
    distill = temperature**2 * divergence
    return alpha * task + (1 - alpha) * distill, task, distill


@pytest.mark.parametrize(
    ("classes", "alpha", "temperature"),
    product((2, 5), (0.0, 0.3, 0.5, 1.0), (0.5, 1.0, 4.0, 10.0)),
)
def test_total_task_and_distill_are_the_formula(
    classes: int, alpha: float, temperature: float
) -> None:
    loss = distillation_loss(
        torch.tensor(STUDENT[classes]),
        torch.tensor(TEACHER[classes]),
        torch.tensor(LABELS[classes]),
        alpha=alpha,
        temperature=temperature,
    )
    expected = by_hand(STUDENT[classes], TEACHER[classes], LABELS[classes], alpha, temperature)
    # fp32 has an error of about 1e-8, which T^2 multiplies: 1e-6 up to T = 4, 5e-6 at T = 10.
    assert [part.item() for part in loss] == pytest.approx(
        expected, rel=1e-6, abs=max(1e-6, 5e-8 * temperature**2)
    )


def test_one_row_of_two_classes_worked_out_on_paper() -> None:
    # student 0, 0: softmax 1/2, 1/2. teacher 2 ln 3, 0 at T = 2: softmax 3/4, 1/4.
    # CE = ln 2. KL = 3/4 ln(3/2) + 1/4 ln(1/2). T^2 = 4.
    loss = distillation_loss(
        torch.zeros(1, 2),
        torch.tensor([[2 * math.log(3), 0.0]]),
        torch.tensor([1]),
        alpha=0.25,
        temperature=2.0,
    )
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert loss.task.item() == pytest.approx(math.log(2), abs=1e-6)
    assert loss.distill.item() == pytest.approx(4 * divergence, abs=1e-6)
    assert loss.total.item() == pytest.approx(0.25 * math.log(2) + 0.75 * 4 * divergence, abs=1e-6)


def test_gradients_keep_their_size_when_the_temperature_rises_because_of_t_squared() -> None:
    def gradient(temperature: float) -> float:
        student = torch.tensor(STUDENT[5], requires_grad=True)
        distillation_loss(
            student,
            torch.tensor(TEACHER[5]),
            torch.tensor(LABELS[5]),
            alpha=0.0,
            temperature=temperature,
        ).total.backward()
        return student.grad.norm().item()

    # At high temperatures the gradient tends to (student - teacher, both centered) / classes /
    # rows, whatever T is.
    assert gradient(50.0) == pytest.approx(gradient(100.0), rel=0.05)
    assert gradient(100.0) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_fp32(dtype: torch.dtype) -> None:
    student, teacher = torch.tensor(STUDENT[5]).to(dtype), torch.tensor(TEACHER[5]).to(dtype)
    loss = distillation_loss(student, teacher, torch.tensor(LABELS[5]), alpha=0.4, temperature=3.0)
    assert {part.dtype for part in loss} == {torch.float32}
    expected = by_hand(student.double().tolist(), teacher.double().tolist(), LABELS[5], 0.4, 3.0)
    assert [part.item() for part in loss] == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_without_a_teacher_the_loss_is_cross_entropy_and_needs_alpha_1() -> None:
    loss = distillation_loss(
        torch.tensor(STUDENT[2]), None, torch.tensor(LABELS[2]), alpha=1.0, temperature=4.0
    )
    assert loss.total.item() == pytest.approx(
        by_hand(STUDENT[2], TEACHER[2], LABELS[2], 1.0, 1.0)[1], abs=1e-6
    )
    assert loss.distill.item() == 0.0
    with pytest.raises(ValueError, match="teacher_logits is needed"):
        distillation_loss(torch.tensor(STUDENT[2]), None, torch.tensor(LABELS[2]), alpha=0.999)


def test_a_teacher_that_agrees_adds_nothing() -> None:
    logits = torch.tensor(STUDENT[5])
    assert distillation_loss(
        logits, logits + 7.0, torch.tensor(LABELS[5]), alpha=0.0, temperature=2.0
    ).total.item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (
        torch.tensor(STUDENT[2], requires_grad=True),
        torch.tensor(TEACHER[2], requires_grad=True),
    )
    distillation_loss(
        student, teacher, torch.tensor(LABELS[2]), alpha=0.5, temperature=2.0
    ).total.backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0


@pytest.mark.parametrize("alpha", [-0.01, 1.01, float("nan"), float("inf")])
def test_alpha_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), alpha=alpha)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above 0"):
        distillation_loss(
            torch.zeros(1, 2),
            torch.zeros(1, 2),
            torch.tensor([0]),
            alpha=0.5,
            temperature=temperature,
        )


@pytest.mark.parametrize(
    ("student", "teacher", "labels"),
    [
        ((3, 2), (3, 5), (3,)),
        ((3, 2), (2, 2), (3,)),
        ((3, 2), (1, 2), (3,)),
        ((3, 2), (3, 2), (2,)),
        ((3, 2), (3, 2), (3, 1)),
        ((3,), (3,), (3,)),
    ],
)
def test_shapes_that_would_be_broadcast_are_refused(
    student: tuple, teacher: tuple, labels: tuple
) -> None:
    with pytest.raises(ValueError, match="must"):
        distillation_loss(
            torch.zeros(student),
            torch.zeros(teacher),
            torch.zeros(labels, dtype=torch.long),
            alpha=0.5,
        )


# --- which term pulls ---


def squares(
    classes: int, alpha: float, temperature: float, rows: slice = slice(None)
) -> torch.Tensor:
    student, teacher, labels = (
        torch.tensor(found[classes])[rows] for found in (STUDENT, TEACHER, LABELS)
    )
    return gradient_squares(student, teacher, labels, LossSettings(alpha, temperature, "kl"))


@pytest.mark.parametrize(
    ("classes", "alpha", "temperature"), product((2, 5), (0.0, 0.3, 1.0), (0.5, 1.0, 4.0))
)
def test_the_share_of_the_gradient_is_the_formula(
    classes: int, alpha: float, temperature: float
) -> None:
    task = distill = 0.0
    for mine, theirs, label in zip(
        STUDENT[classes], TEACHER[classes], LABELS[classes], strict=True
    ):
        task += sum((alpha * (p - (i == label))) ** 2 for i, p in enumerate(softmax(mine)))
        pairs = zip(softmax(mine, temperature), softmax(theirs, temperature), strict=True)
        distill += sum(((1 - alpha) * temperature * (q - p)) ** 2 for q, p in pairs)
    found = squares(classes, alpha, temperature)
    assert found.tolist() == pytest.approx([task, distill], rel=1e-5)
    assert gradient_share(found).item() == pytest.approx(
        math.sqrt(distill) / (math.sqrt(task) + math.sqrt(distill)), rel=1e-5
    )


def test_one_row_s_share_worked_out_on_paper() -> None:
    # As above: student 1/2, 1/2 at any T; teacher 3/4, 1/4 at T = 2; alpha 0.25.
    # labels: 0.25 * (1/2, -1/2), norm 0.25 sqrt(1/2).
    # teacher: 0.75 * 2 * (-1/4, 1/4), norm 0.375 sqrt(2) = 0.75 sqrt(1/2). Share 3/4.
    found = gradient_squares(
        torch.zeros(1, 2),
        torch.tensor([[2 * math.log(3), 0.0]]),
        torch.tensor([1]),
        LossSettings(0.25, 2.0, "kl"),
    )
    assert gradient_share(found).item() == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(
    ("classes", "alpha", "temperature"), product((2, 5), (0.2, 0.9), (1.0, 4.0))
)
def test_the_closed_form_is_what_autograd_finds_for_each_term_of_the_loss(
    classes: int, alpha: float, temperature: float
) -> None:
    norms = []
    for term, weight in (("task", alpha), ("distill", 1 - alpha)):
        student = torch.tensor(STUDENT[classes], requires_grad=True)
        loss = distillation_loss(
            student,
            torch.tensor(TEACHER[classes]),
            torch.tensor(LABELS[classes]),
            alpha=alpha,
            temperature=temperature,
        )
        (weight * getattr(loss, term)).backward()
        norms.append(
            student.grad.norm().item() * len(LABELS[classes])
        )  # the loss is a mean, the squares are a sum
    assert squares(classes, alpha, temperature).sqrt().tolist() == pytest.approx(norms, rel=1e-5)


def test_micro_batches_add_up_to_their_batch() -> None:
    parts = squares(5, 0.3, 4.0, slice(0, 1)) + squares(5, 0.3, 4.0, slice(1, 3))
    assert parts.tolist() == pytest.approx(squares(5, 0.3, 4.0).tolist(), rel=1e-6)


def test_the_share_is_1_without_labels_and_0_without_a_teacher_or_where_nothing_pulls() -> None:
    assert gradient_share(squares(5, 0.0, 4.0)).item() == 1.0
    assert gradient_share(squares(5, 1.0, 4.0)).item() == 0.0
    assert gradient_share(torch.zeros(2)).item() == 0.0


def test_the_share_is_computed_in_fp32_and_outside_of_the_graph() -> None:
    student, teacher, labels = (
        torch.tensor(STUDENT[2], dtype=torch.bfloat16, requires_grad=True),
        torch.tensor(TEACHER[2]),
        torch.tensor(LABELS[2]),
    )
    found = gradient_squares(student, teacher, labels, LossSettings(0.5, 2.0, "kl"))
    assert found.dtype == torch.float32
    assert not found.requires_grad
