"""The one loss of kdsweep.

    loss = alpha * CE(student, labels) + (1 - alpha) * T^2 * KL( softmax(teacher/T) || softmax(student/T) )

Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network", section 2: the soft targets' gradients scale
as 1/T^2, so the term is multiplied by T^2. Here alpha weighs the labels.

Its gradient with respect to the student's logits, for each row (the same paper, section 2.1):

    alpha * (softmax(student) - onehot(label)) + (1 - alpha) * T * (softmax(student/T) - softmax(teacher/T))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class DistillationLoss(NamedTuple):
    """fp32 scalars: `total` is what is minimised, `task` and `distill` are its unweighted terms (`distill` includes T^2)."""

    total: Tensor
    task: Tensor
    distill: Tensor


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    *,
    alpha: float,
    temperature: float = 1.0,
) -> DistillationLoss:
    """Weigh the labels by `alpha` and the teacher by `1 - alpha`.

    student_logits: [rows, classes], any floating type; gradients flow here only.
    teacher_logits: [rows, classes], raw (not divided by the temperature); None is allowed where alpha is 1.
    labels: [rows], class numbers from 0.
    alpha: 0 to 1. temperature: above 0.

    Everything is computed in fp32. KL is summed over the classes and averaged over the rows.
    Raises ValueError for values or shapes outside of this.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if student_logits.ndim != 2 or labels.shape != student_logits.shape[:1]:
        raise ValueError(f"logits {tuple(student_logits.shape)} and labels {tuple(labels.shape)} must be [rows, classes] and [rows]")

    student = student_logits.float()
    task = functional.cross_entropy(student, labels)
    if teacher_logits is None:
        if alpha != 1:
            raise ValueError(f"alpha {alpha} gives weight to the teacher: teacher_logits is needed")
        return DistillationLoss(task, task, torch.zeros_like(task))

    if teacher_logits.shape != student_logits.shape:
        raise ValueError(f"teacher logits {tuple(teacher_logits.shape)} must have the student's shape {tuple(student_logits.shape)}")
    teacher = teacher_logits.detach().float()
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    distill = temperature**2 * divergence
    return DistillationLoss(alpha * task + (1 - alpha) * distill, task, distill)


@torch.no_grad()
def gradient_squares(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float, temperature: float) -> Tensor:
    """How strongly each term pulls at the student's logits: fp32 [2], the squared norms of the labels' and the teacher's gradient.

    Arguments are those of `distillation_loss`. Rows are summed, not averaged, so that micro-batches add up to their batch.
    """
    student, teacher = student_logits.float(), teacher_logits.float()
    task = alpha * (student.softmax(dim=-1) - functional.one_hot(labels, student.shape[1]))
    distill = (1 - alpha) * temperature * ((student / temperature).softmax(dim=-1) - (teacher / temperature).softmax(dim=-1))
    return torch.stack([task, distill]).square().sum(dim=(1, 2))


def gradient_share(squares: Tensor) -> Tensor:
    """The teacher's part of both norms, 0 to 1, a scalar, from `gradient_squares` of a whole batch; 0 where nothing pulls."""
    task, distill = squares.sqrt()
    return distill / (task + distill).clamp(min=torch.finfo(squares.dtype).tiny)
