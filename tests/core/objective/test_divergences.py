"""Each divergence by hand, and what it requires of a task."""

from __future__ import annotations

import math

import pytest
import torch

from kdsweep.core import distillation_loss
from kdsweep.core.objective.distillation_loss import LossSettings
from kdsweep.core.objective.divergences import DIVERGENCES
from kdsweep.core.tasks import CLASSIFICATION, KINDS, MULTI_LABEL, REGRESSION


def distill(student: list[float], teacher: list[float], temperature: float, name: str) -> float:
    loss = distillation_loss(
        torch.tensor([student]),
        torch.tensor([teacher]),
        torch.tensor([0]),
        alpha=0.0,
        temperature=temperature,
        divergence=name,
    )
    return loss.distill.item()


def test_jensen_shannon_by_hand() -> None:
    """At T = 2 the teacher says 3/4 and 1/4, the student 1/2 and 1/2; their mean is 5/8 and 3/8."""
    to_mean = 0.75 * math.log(0.75 / 0.625) + 0.25 * math.log(0.25 / 0.375)
    of_student = 0.5 * math.log(0.5 / 0.625) + 0.5 * math.log(0.5 / 0.375)
    found = distill([0.0, 0.0], [2 * math.log(3.0), 0.0], 2.0, "js")
    assert found == pytest.approx(4 * (to_mean + of_student) / 2, abs=1e-6)


def test_jensen_shannon_is_symmetric_and_at_most_log_2() -> None:
    one, other = [2.0, -1.0, 0.5], [0.0, 1.0, -3.0]
    assert distill(one, other, 3.0, "js") == pytest.approx(distill(other, one, 3.0, "js"))
    assert distill(one, one, 3.0, "js") == pytest.approx(0, abs=1e-6)
    assert distill([200.0, 0.0], [0.0, 200.0], 1.0, "js") == pytest.approx(math.log(2))


def test_its_gradient_stays_finite_for_logits_that_are_sure() -> None:
    student = torch.tensor([[300.0, -300.0]], requires_grad=True)
    loss = distillation_loss(
        student, torch.tensor([[-300.0, 300.0]]), torch.tensor([0]), alpha=0.0, divergence="js"
    )
    loss.total.backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_other_divergences_by_hand() -> None:
    # The student at T = 2.
    q = [math.exp(0.5) / (math.exp(0.5) + math.exp(-0.5))]
    q.append(1 - q[0])
    expected = {
        "kl": 4 * sum(0.5 * math.log(0.5 / value) for value in q),
        "soft_ce": 4 * sum(-0.5 * math.log(value) for value in q),
        "reverse_kl": 4 * sum(value * math.log(value / 0.5) for value in q),
        "mse": (0.5**2 + 1.5**2) / 2,
    }
    found = {name: distill([1.0, -1.0], [0.5, 0.5], 2.0, name) for name in expected}
    assert found == pytest.approx(expected, abs=1e-6)
    assert {*expected, "js"} == set(DIVERGENCES)


# The limit of T^2 times each divergence, in half variances over the classes of the difference of
# logits. For Jensen-Shannon both differ from their mean by half.
LIMITS = {"kl": 1.0, "reverse_kl": 1.0, "js": 0.25}


@pytest.mark.parametrize("classes", [2, 77, 150])
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("temperature", [1e3, 1e4, 1e5, 1e30])
def test_high_temperatures_come_to_the_limit(classes: int, name: str, temperature: float) -> None:
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(32, classes, generator=draw, requires_grad=True)
    teacher = torch.randn(32, classes, generator=draw) * 3
    loss = distillation_loss(
        student,
        teacher,
        torch.zeros(32, dtype=torch.long),
        alpha=0.0,
        temperature=temperature,
        divergence=name,
    )
    difference = (student - teacher).detach().double()
    limit = LIMITS[name] * difference.var(dim=1, correction=0).mean().item() / 2
    assert loss.distill.dtype == torch.float32
    assert loss.distill.item() == pytest.approx(limit, rel=0.01)
    (gradient,) = torch.autograd.grad(loss.distill, student)
    exact = LIMITS[name] * (difference - difference.mean(dim=1, keepdim=True)) / (32 * classes)
    assert (gradient - exact).norm() < 0.01 * exact.norm()


def test_a_temperature_for_each_row_may_be_high() -> None:
    draw = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(3, 77, generator=draw), torch.randn(3, 77, generator=draw)
    labels, temperatures = torch.zeros(3, dtype=torch.long), [2.0, 5e4, 1e7]
    each = [
        distillation_loss(
            student[i : i + 1], teacher[i : i + 1], labels[:1], alpha=0.0, temperature=temperature
        ).distill.item()
        for i, temperature in enumerate(temperatures)
    ]
    found = distillation_loss(
        student, teacher, labels, alpha=0.0, temperature=torch.tensor(temperatures)
    )
    assert found.distill.item() == pytest.approx(sum(each) / 3, rel=1e-4)


def test_several_teachers_have_a_limit_too() -> None:
    """Weights that don't add up to 1 in fp32 must not count T^2 times."""
    draw = torch.Generator().manual_seed(0)
    student, teachers = torch.randn(8, 5, generator=draw), torch.randn(8, 3, 5, generator=draw)
    weights = torch.rand(8, 3, generator=draw)
    weights /= weights.sum(dim=1, keepdim=True)
    found = distillation_loss(
        student,
        teachers,
        torch.zeros(8, dtype=torch.long),
        alpha=0.0,
        temperature=1e6,
        teacher_weights=weights,
    )
    mixed = (weights.unsqueeze(-1) * teachers).sum(dim=1)
    limit = (student - mixed).var(dim=1, correction=0).mean().item() / 2
    assert found.distill.item() == pytest.approx(limit, rel=0.01)


def test_soft_cross_entropy_keeps_its_temperature_and_the_gradient_of_kl() -> None:
    draw = torch.Generator().manual_seed(0)
    student = torch.randn(8, 77, generator=draw, requires_grad=True)
    teacher, labels = torch.randn(8, 77, generator=draw), torch.zeros(8, dtype=torch.long)
    gradients = []
    for name in ("soft_ce", "kl"):
        loss = distillation_loss(
            student, teacher, labels, alpha=0.0, temperature=1e7, divergence=name
        )
        gradients.append(torch.autograd.grad(loss.distill, student, retain_graph=True)[0])
        if name == "soft_ce":
            assert loss.distill.item() == pytest.approx(1e14 * math.log(77), rel=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-2, atol=1e-5)


def test_ordinary_temperatures_are_computed_in_fp32() -> None:
    assert not LossSettings(0.5, 100.0, "kl").needs_fp64
    assert LossSettings(0.5, 101.0, "kl").needs_fp64
    rows = torch.tensor([2.0, 90.0])
    assert not LossSettings(0.5, rows, "kl").needs_fp64
    assert LossSettings(0.5, rows, "kl", bound=2e3).needs_fp64


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_of_probabilities_fits_every_kind_that_has_them(name: str) -> None:
    for kind in KINDS.values():
        needs_more = DIVERGENCES[name].requires_probabilities and not kind.has_probabilities
        assert (kind.unfit("distill.logits", name) is not None) == needs_more
    assert CLASSIFICATION.has_probabilities and MULTI_LABEL.has_probabilities


def test_a_loss_with_a_divergence_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="kl compares probabilities, and a regression has none"):
        distillation_loss(
            torch.zeros(1, 1),
            torch.zeros(1, 1),
            torch.zeros(1),
            alpha=0.5,
            divergence="kl",
            kind=REGRESSION,
        )


def test_every_divergence_names_its_paper_and_stands_in_the_docs() -> None:
    from pathlib import Path

    docs = (Path(__file__).parents[3] / "docs" / "techniques.md").read_text(encoding="utf-8")
    for name, divergence in DIVERGENCES.items():
        assert divergence.paper and divergence.summary
        assert f"`{name}`" in docs
