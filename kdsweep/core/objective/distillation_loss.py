"""The one loss of kdsweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.core.objective.divergences import HIGHEST_IN_FP32, Divergence, divergence_named
from kdsweep.core.objective.teacher_mixture import mixture
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind

# From here on, T^2 times a divergence differs from its limit by less than one in a thousand, and
# fp64 still has four digits of it.
HIGHEST = 1e5


class DistillationLoss(NamedTuple):
    """fp32 scalars. `total` is minimized; `task` and `distill` are its terms before alpha.

    `distill` includes T^2.
    """

    total: Tensor
    task: Tensor
    distill: Tensor


@dataclass(frozen=True, eq=False)
class LossSettings:
    """How labels and teacher are weighed at one step.

    alpha: the weight of the labels, 0 to 1. temperature: above 0, for all rows or one a row,
    [rows]. divergence: a name in `divergences`. label_smoothing: 0 to below 1, of the labels
    alone. teacher_weights: of several teachers, [rows, teachers]; each row's sum is 1.
    bound: none of the rows' temperatures is above it; None asks them, which waits for the device.

    Raises ValueError for other values.
    """

    alpha: float
    temperature: float | Tensor
    divergence: str
    label_smoothing: float = 0.0
    teacher_weights: Tensor | None = None
    bound: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be between 0 and 1, not {self.alpha}")
        one_for_all = not isinstance(self.temperature, Tensor)
        if one_for_all and not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, not {self.temperature}")

    @property
    def needs_fp64(self) -> bool:
        """Whether a temperature may be so high that fp32 would not do."""
        if not isinstance(self.temperature, Tensor):
            return self.temperature > HIGHEST_IN_FP32
        bound = float(self.temperature.max()) if self.bound is None else self.bound
        return bound > HIGHEST_IN_FP32


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    *,
    alpha: float,
    temperature: float | Tensor = 1.0,
    divergence: str | None = None,
    label_smoothing: float = 0.0,
    teacher_weights: Tensor | None = None,
    kind: TaskKind = DEFAULT_KIND,
) -> DistillationLoss:
    """Weigh the labels by `alpha` and the teacher by `1 - alpha`.

    student_logits: [rows, classes], any floating type; gradients flow here only. A regression has
        one output: [rows, 1].
    teacher_logits: of the same shape, raw (not divided by the temperature). None is allowed if
        alpha is 1. Those of several teachers are [rows, teachers, classes], with teacher_weights.
    labels: what the kind says: class numbers from 0, [rows]; floating [rows] in a regression;
        floating [rows, labels] of 0 and 1 if a row may have several. Rows that are UNLABELLED (or
        NaN) have no task term. Both terms are averaged over all rows.
    The other arguments are those of `LossSettings`; divergence is the kind's default if not given.

    Everything is computed in fp32 and averaged over the rows; KL is summed over the classes. For
    temperatures above 100 the teacher's term is computed in fp64 and returned in fp32. From
    100,000 on it is that of 100,000, its limit, except for `soft_ce`, which has none.
    Raises ValueError for values or shapes outside of this, and for a divergence that doesn't fit
    the kind.
    """
    named = divergence or kind.default_divergence
    settings = LossSettings(alpha, temperature, named, label_smoothing, teacher_weights)
    return loss_terms(student_logits, teacher_logits, labels, settings, kind)


def loss_terms(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    settings: LossSettings,
    kind: TaskKind,
) -> DistillationLoss:
    """`distillation_loss` with its settings in one value."""
    kind.check_shapes(student_logits, labels)
    student = student_logits.float()
    task = kind.task_loss(student, labels, settings.label_smoothing)
    alpha = settings.alpha
    if teacher_logits is None:
        if alpha != 1:
            raise ValueError(f"alpha {alpha} gives weight to the teacher: teacher_logits is needed")
        return DistillationLoss(task, task, torch.zeros_like(task))
    distill = _distill_term(student, teacher_logits.detach().float(), settings, kind)
    return DistillationLoss(alpha * task + (1 - alpha) * distill, task, distill)


def _distill_term(
    student: Tensor, teachers: Tensor, settings: LossSettings, kind: TaskKind
) -> Tensor:
    """The divergence from the teacher or teachers, averaged over the rows; includes T^2."""
    divergence = divergence_named(settings.divergence)
    if unfit := kind.unfit("distill.logits", divergence.name):
        raise ValueError(unfit)
    shape = tuple(teachers.shape)
    weights = settings.teacher_weights
    if weights is None:
        teachers = teachers.unsqueeze(1)
        weights = teachers.new_ones(len(teachers), 1)
    is_whole = teachers.ndim == 3 and weights.shape == teachers.shape[:2]
    if not is_whole or teachers[:, 0].shape != student.shape:
        raise ValueError(
            f"teacher logits {shape} must have the student's shape {tuple(student.shape)}; those "
            "of several teachers are [rows, teachers, classes] with weights [rows, teachers], not "
            f"{tuple(weights.shape)}"
        )
    if not divergence.requires_probabilities:
        # Raw outputs, not options: of yes or no, "no" is a constant 0 that nothing has to learn.
        teacher = (weights.unsqueeze(-1) * teachers).sum(dim=1)
        return divergence.function(student, teacher).mean()
    if settings.needs_fp64:
        student, teachers, weights = student.double(), teachers.double(), weights.double()
        weights = weights / weights.sum(dim=1, keepdim=True)
    # A choice a row: [rows * choices, options], and [rows * choices, teachers, options].
    by_choice = kind.choices(student)
    choices = by_choice.shape[1]
    student = by_choice.flatten(0, 1)
    teachers = kind.choices(teachers).transpose(1, 2).flatten(0, 1)
    temperature = settings.temperature
    if choices > 1:
        weights = weights.repeat_interleave(choices, dim=0)
        if isinstance(temperature, Tensor):
            temperature = temperature.repeat_interleave(choices)
    return _diverged(divergence, student, teachers, weights, temperature).float()


def _diverged(
    divergence: Divergence,
    student: Tensor,
    teachers: Tensor,
    weights: Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """student: [n, options]. teachers: [n, teachers, options]. weights: [n, teachers]."""
    if divergence.has_limit:
        temperature = _at_most(temperature, HIGHEST)
    each = temperature.float().unsqueeze(1) if isinstance(temperature, Tensor) else temperature
    log_student = functional.log_softmax(student / each, dim=-1)
    log_teacher = mixture(teachers, weights, temperature)
    return (each**2 * divergence.function(log_student, log_teacher)).sum() / len(student)


def _at_most(temperature: float | Tensor, highest: float) -> float | Tensor:
    if isinstance(temperature, Tensor):
        return temperature.clamp(max=highest)
    return min(temperature, highest)


def gradient_squares(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    settings: LossSettings,
    kind: TaskKind = DEFAULT_KIND,
) -> Tensor:
    """How strongly each term pulls at the student's logits.

    fp32 [2]: the squared norms of the labels' and of the teacher's gradient. The other arguments
    are those of `loss_terms`. Rows are summed, not averaged, so that micro-batches add up to
    their batch.
    """
    student = student_logits.detach().float().requires_grad_()
    with torch.enable_grad():
        loss = loss_terms(student, teacher_logits, labels, settings, kind)
        weighted = ((settings.alpha, loss.task), (1 - settings.alpha, loss.distill))
        pulls = [
            torch.autograd.grad(weight * term, student, retain_graph=True)[0]
            for weight, term in weighted
        ]
    return torch.stack([(len(student) * pull).square().sum() for pull in pulls])


def gradient_share(squares: Tensor) -> Tensor:
    """The teacher's part of both norms, a scalar from 0 to 1; 0 if nothing pulls.

    squares: `gradient_squares` of a whole batch.
    """
    task, distill = squares.sqrt()
    return distill / (task + distill).clamp(min=torch.finfo(squares.dtype).tiny)
