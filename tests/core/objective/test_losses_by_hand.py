"""The parts of the loss, each worked out by hand from its formula."""

from __future__ import annotations

import math

import pytest
import torch

from kdsweep.core import distillation_loss
from kdsweep.core.objective.teacher_mixture import confident_temperature
from kdsweep.core.tasks import MULTI_LABEL, REGRESSION
from kdsweep.core.tasks.base import UNLABELLED

# --- smoothed labels ---


def test_label_smoothing_by_hand_and_of_the_labels_alone() -> None:
    # Szegedy et al. 2016, section 7: the label gets 1 - e + e / classes, any other e / classes.
    logits, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    log = [value - math.log(math.exp(2) + 1 + math.exp(-1)) for value in (2.0, 0.0, -1.0)]
    expected = -(0.7 + 0.1) * log[0] - 0.1 * log[1] - 0.1 * log[2]
    teacher = torch.tensor([[1.0, 1.0, 0.0]])
    found = distillation_loss(
        logits, teacher, labels, alpha=0.4, temperature=2.0, label_smoothing=0.3
    )
    plain = distillation_loss(logits, teacher, labels, alpha=0.4, temperature=2.0)
    assert found.task.item() == pytest.approx(expected, abs=1e-6)
    assert found.distill.item() == plain.distill.item()
    assert found.total.item() == pytest.approx(
        0.4 * expected + 0.6 * plain.distill.item(), abs=1e-6
    )


def test_a_row_without_a_label_is_taught_by_the_teacher_alone() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 0.5]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    loss = distillation_loss(logits, teacher, torch.tensor([0, UNLABELLED]), alpha=0.5)
    assert loss.task.item() == pytest.approx(math.log(1 + math.exp(-2)) / 2, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss.task, logits)
    assert gradient[1].tolist() == [0, 0]
    assert gradient[0].abs().sum() > 0


# --- a temperature that follows the teacher ---


def test_the_temperature_is_full_where_the_teacher_is_sure_and_one_where_it_is_not() -> None:
    sure, doubtful = [50.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]
    between = [math.log(3), 0.0, 0.0, 0.0]  # probabilities 1/2, 1/6, 1/6, 1/6
    entropy = 0.5 * math.log(2) + 0.5 * math.log(6)
    found = confident_temperature(torch.tensor([sure, doubtful, between]), 5.0)
    assert found.tolist() == pytest.approx(
        [5.0, 1.0, 1 + 4 * (1 - entropy / math.log(4))], abs=1e-5
    )


def test_each_row_has_its_own_temperature_in_the_loss() -> None:
    student, teacher, labels = (
        torch.tensor([[0.3, 0.1], [1.0, -1.0]]),
        torch.tensor([[2.0, 0.0], [0.5, 0.0]]),
        torch.tensor([0, 1]),
    )
    rows = [
        distillation_loss(
            student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], alpha=0.0, temperature=t
        ).distill.item()
        for i, t in enumerate((4.0, 2.0))
    ]
    both = distillation_loss(
        student, teacher, labels, alpha=0.0, temperature=torch.tensor([4.0, 2.0])
    )
    assert both.distill.item() == pytest.approx(sum(rows) / 2, abs=1e-6)


# --- what is done with the logits ---


def test_soft_cross_entropy_has_the_gradients_of_kl() -> None:
    gradients = []
    for match in ("kl", "soft_ce"):
        student = torch.tensor([[1.0, -1.0, 0.3]], requires_grad=True)
        distillation_loss(
            student,
            torch.tensor([[0.2, 0.5, -2.0]]),
            torch.tensor([0]),
            alpha=0.0,
            temperature=3.0,
            divergence=match,
        ).total.backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients)


def test_several_labels_a_row_are_as_many_questions_of_yes_or_no() -> None:
    student, teacher, labels = (
        torch.tensor([[2.0, -1.0, 0.0]]),
        torch.tensor([[1.0, 1.0, -2.0]]),
        torch.tensor([[1.0, 0.0, 1.0]]),
    )

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    task = -(math.log(sigmoid(2)) + math.log(1 - sigmoid(-1)) + math.log(sigmoid(0))) / 3
    pairs = [
        (sigmoid(theirs / 2), sigmoid(mine / 2)) for mine, theirs in ((2, 1), (-1, 1), (0, -2))
    ]
    divergence = (
        sum(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) for p, q in pairs) / 3
    )
    found = distillation_loss(
        student, teacher, labels, alpha=0.25, temperature=2.0, kind=MULTI_LABEL
    )
    assert [part.item() for part in found] == pytest.approx(
        [0.25 * task + 0.75 * 4 * divergence, task, 4 * divergence], abs=1e-6
    )


def test_squared_error_of_several_labels_counts_each_label_once() -> None:
    # The mean over rows and labels: (1^2 + 2^2 + 2^2 + 0^2 + 3^2 + 1^2) / 6. No constant is in it.
    student = torch.tensor([[2.0, -1.0, 0.0], [1.0, 1.0, 1.0]])
    teacher = torch.tensor([[1.0, 1.0, -2.0], [1.0, 4.0, 0.0]])
    found = distillation_loss(
        student,
        teacher,
        torch.zeros(2, 3),
        alpha=0.25,
        temperature=3.0,
        divergence="mse",
        kind=MULTI_LABEL,
    )
    assert found.distill.item() == pytest.approx(19 / 6)
    assert found.total.item() == pytest.approx(0.25 * found.task.item() + 0.75 * 19 / 6)


def test_squared_error_of_several_labels_is_to_the_weighted_mean_of_the_teachers() -> None:
    # Row by row: 0.25 * 4 + 0.75 * 0 = 1 and 0.5 * 2 + 0.5 * 0 = 1, and twice that.
    teachers = torch.tensor([[[4.0, 8.0], [0.0, 0.0]], [[2.0, 4.0], [0.0, 0.0]]])
    found = distillation_loss(
        torch.tensor([[3.0, 2.0], [1.0, 5.0]]),
        teachers,
        torch.zeros(2, 2),
        alpha=0.0,
        divergence="mse",
        teacher_weights=torch.tensor([[0.25, 0.75], [0.5, 0.5]]),
        kind=MULTI_LABEL,
    )
    assert found.distill.item() == pytest.approx((2**2 + 0 + 0 + 3**2) / 4)


def test_a_regression_has_squared_errors_in_both_terms() -> None:
    student, teacher, labels = (
        torch.tensor([[1.0], [2.0]]),
        torch.tensor([[1.5], [4.0]]),
        torch.tensor([0.0, 2.0]),
    )
    found = distillation_loss(
        student, teacher, labels, alpha=0.25, temperature=7.0, kind=REGRESSION
    )
    assert [part.item() for part in found] == pytest.approx([0.25 * 0.5 + 0.75 * 2.125, 0.5, 2.125])
    with pytest.raises(
        ValueError, match=r"kind: regression: logits \(2, 3\) .* must be \[rows, 1\]"
    ):
        distillation_loss(torch.zeros(2, 3), None, labels, alpha=1.0, kind=REGRESSION)
