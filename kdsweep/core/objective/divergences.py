"""How far a student's answer is from its teacher's."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from kdsweep.core.objective.teacher_mixture import mixture

LogitMatch = Literal["kl", "soft_ce", "reverse_kl", "mse"]


def divergence(
    student: Tensor,
    teachers: Tensor,
    weights: Tensor,
    temperature: float | Tensor,
    match: Literal["kl", "soft_ce", "reverse_kl"],
) -> Tensor:
    each = temperature.float().unsqueeze(1) if isinstance(temperature, Tensor) else temperature
    log_student, log_teacher = (
        functional.log_softmax(student / each, dim=-1),
        mixture(teachers, weights, temperature),
    )
    match match:
        case "kl":
            parts = log_teacher.exp() * (log_teacher - log_student)
        case "soft_ce":
            parts = -log_teacher.exp() * log_student
        case "reverse_kl":
            parts = log_student.exp() * (log_student - log_teacher)
    return (each**2 * parts).sum() / len(student)
