"""The one loss of kdsweep."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.core.data.rows import UNLABELLED as UNLABELLED
from kdsweep.core.objective.divergences import LogitMatch, divergence
from kdsweep.core.objective.teacher_mixture import class_numbers, no_and_yes


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
    temperature: float | Tensor = 1.0,
    match: LogitMatch = "kl",
    label_smoothing: float = 0.0,
    teacher_weights: Tensor | None = None,
) -> DistillationLoss:
    """Weigh the labels by `alpha` and the teacher by `1 - alpha`.

    student_logits: [rows, classes], any floating type; gradients flow here only. A regression has one output: [rows, 1].
    teacher_logits: of the same shape, raw (not divided by the temperature); None is allowed where alpha is 1. Of several teachers they are
    [rows, teachers, classes], with teacher_weights [rows, teachers], which sum to 1 in each row (`teacher_weights`).
    labels: class numbers from 0, [rows]; floating [rows] in a regression; floating [rows, classes] of 0 and 1 where a row may have
    several labels. Rows labelled UNLABELLED (or NaN) have no task term; both terms are averaged over all rows.
    alpha: 0 to 1. temperature: above 0, for all rows or one a row, [rows]. label_smoothing: 0 to below 1, of the labels alone.

    Everything is computed in fp32 and averaged over the rows; KL is summed over the classes.
    Raises ValueError for values or shapes outside of this.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    if not isinstance(temperature, Tensor) and not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be above 0, not {temperature}")
    several, regression = labels.ndim == 2, labels.ndim == 1 and labels.is_floating_point()
    if (
        student_logits.ndim != 2
        or labels.shape != student_logits.shape[: labels.ndim]
        or labels.ndim > 2
        or (regression and student_logits.shape[1] != 1)
    ):
        raise ValueError(
            f"logits {tuple(student_logits.shape)} and labels {tuple(labels.shape)} must be [rows, classes] and [rows] (or [rows, classes], "
            "where a row may have several labels); a regression has one output"
        )

    student = student_logits.float()
    task = (
        _squared_error(student, labels)
        if regression
        else _cross_entropy(*_one_a_row(student, labels), label_smoothing)
    )
    if teacher_logits is None:
        if alpha != 1:
            raise ValueError(f"alpha {alpha} gives weight to the teacher: teacher_logits is needed")
        return DistillationLoss(task, task, torch.zeros_like(task))

    teachers = teacher_logits.detach().float()
    if teacher_weights is None:
        teachers, teacher_weights = teachers.unsqueeze(1), teachers.new_ones(len(teachers), 1)
    if (
        teachers.ndim != 3
        or teachers[:, 0].shape != student_logits.shape
        or teacher_weights.shape != teachers.shape[:2]
    ):
        raise ValueError(
            f"teacher logits {tuple(teacher_logits.shape)} must have the student's shape {tuple(student_logits.shape)}; those of several teachers "
            f"are [rows, teachers, classes] with weights [rows, teachers], not {tuple(teacher_weights.shape)}"
        )
    if several:
        temperature = (
            temperature.repeat_interleave(labels.shape[1])
            if isinstance(temperature, Tensor)
            else temperature
        )
        teacher_weights = teacher_weights.repeat_interleave(labels.shape[1], dim=0)
        student, teachers = (
            no_and_yes(student).flatten(0, 1),
            no_and_yes(teachers).transpose(1, 2).flatten(0, 1),
        )
    if regression or match == "mse":
        distill = functional.mse_loss(
            student, (teacher_weights.unsqueeze(-1) * teachers).sum(dim=1)
        )
    else:
        distill = divergence(student, teachers, teacher_weights, temperature, match)
    return DistillationLoss(alpha * task + (1 - alpha) * distill, task, distill)


def _one_a_row(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, classes] and class numbers [n], UNLABELLED where there is none."""
    if labels.ndim == 1:
        return logits, labels
    return no_and_yes(logits).flatten(0, 1), class_numbers(labels).flatten()


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(
        logits, labels, ignore_index=UNLABELLED, label_smoothing=label_smoothing, reduction="sum"
    ) / len(labels)


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    labelled = ~labels.isnan()
    return (logits[labelled, 0] - labels[labelled].float()).square().sum() / len(labels)


def gradient_squares(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float, **how: object
) -> Tensor:
    """How strongly each term pulls at the student's logits: fp32 [2], the squared norms of the labels' and the teacher's gradient.

    Arguments are those of `distillation_loss`. Rows are summed, not averaged, so that micro-batches add up to their batch.
    """
    student = student_logits.detach().float().requires_grad_()
    with torch.enable_grad():
        loss = distillation_loss(student, teacher_logits, labels, alpha=alpha, **how)  # type: ignore[arg-type]
        weighed = ((alpha, loss.task), (1 - alpha, loss.distill))
        pulls = [
            torch.autograd.grad(weight * term, student, retain_graph=True)[0]
            for weight, term in weighed
        ]
    return torch.stack([(len(student) * pull).square().sum() for pull in pulls])


def gradient_share(squares: Tensor) -> Tensor:
    """The teacher's part of both norms, 0 to 1, a scalar, from `gradient_squares` of a whole batch; 0 where nothing pulls."""
    task, distill = squares.sqrt()
    return distill / (task + distill).clamp(min=torch.finfo(squares.dtype).tiny)
