"""The one loss of kdsweep.

    loss = alpha * CE(student, labels) + (1 - alpha) * T^2 * KL( softmax(teacher/T) || softmax(student/T) )

Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network", section 2: the soft targets' gradients scale
as 1/T^2, so the term is multiplied by T^2. Here alpha weighs the labels.

What else may stand in the place of KL (`match`), p the teacher's and q the student's probabilities at T:

    soft_ce      T^2 * -sum p log q: the same gradients, another value (Hinton et al. 2015 as they wrote it)
    reverse_kl   T^2 * KL(q || p): seeks the teacher's modes instead of covering all (Gu et al. 2024, "MiniLLM", section 2.1)
    mse          mean (student - teacher)^2 over rows and classes, of the logits themselves; T plays no part
                 (Ba, Caruana 2014, "Do Deep Nets Really Need to be Deep?"; Kim et al. 2021, https://arxiv.org/abs/2105.08919)

Several teachers are one mixture: p = sum over k of w_k softmax(teacher_k / T), and KL takes log p (You, Xu, Xu, Tao 2017, "Learning from
multiple teacher networks", section 3.1). Not the softmax of averaged logits: that is the normalised geometric mean, in which a teacher that
is very sure outweighs all others, whatever their weights, because nothing bounds its logits; and which of them is sure changes with how
long each was trained. A mixture of probabilities lets each have its weight and no more. `mse` compares logits, and a mixture has none: its
target is the teachers' weighed mean, for the squared error to several targets is, up to a constant, the error to their mean.

A task with several labels a row is one of two classes for each label; a regression has squared errors in both terms.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.core.rows import UNLABELLED as UNLABELLED

LogitMatch = Literal["kl", "soft_ce", "reverse_kl", "mse"]
Combine = Literal["weights", "label_confidence", "certainty"]


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
    if student_logits.ndim != 2 or labels.shape != student_logits.shape[: labels.ndim] or labels.ndim > 2 or (regression and student_logits.shape[1] != 1):
        raise ValueError(
            f"logits {tuple(student_logits.shape)} and labels {tuple(labels.shape)} must be [rows, classes] and [rows] (or [rows, classes], "
            "where a row may have several labels); a regression has one output"
        )

    student = student_logits.float()
    task = _squared_error(student, labels) if regression else _cross_entropy(*_one_a_row(student, labels), label_smoothing)
    if teacher_logits is None:
        if alpha != 1:
            raise ValueError(f"alpha {alpha} gives weight to the teacher: teacher_logits is needed")
        return DistillationLoss(task, task, torch.zeros_like(task))

    teachers = teacher_logits.detach().float()
    if teacher_weights is None:
        teachers, teacher_weights = teachers.unsqueeze(1), teachers.new_ones(len(teachers), 1)
    if teachers.ndim != 3 or teachers[:, 0].shape != student_logits.shape or teacher_weights.shape != teachers.shape[:2]:
        raise ValueError(
            f"teacher logits {tuple(teacher_logits.shape)} must have the student's shape {tuple(student_logits.shape)}; those of several teachers "
            f"are [rows, teachers, classes] with weights [rows, teachers], not {tuple(teacher_weights.shape)}"
        )
    if several:
        temperature = temperature.repeat_interleave(labels.shape[1]) if isinstance(temperature, Tensor) else temperature
        teacher_weights = teacher_weights.repeat_interleave(labels.shape[1], dim=0)
        student, teachers = _no_and_yes(student).flatten(0, 1), _no_and_yes(teachers).transpose(1, 2).flatten(0, 1)
    if regression or match == "mse":
        distill = functional.mse_loss(student, (teacher_weights.unsqueeze(-1) * teachers).sum(dim=1))
    else:
        distill = _divergence(student, teachers, teacher_weights, temperature, match)
    return DistillationLoss(alpha * task + (1 - alpha) * distill, task, distill)


def _no_and_yes(logits: Tensor) -> Tensor:
    """[..., labels] as [..., labels, 2]: no and yes for each label; softmax of the two is the label's sigmoid."""
    return torch.stack([torch.zeros_like(logits), logits], dim=-1)


def _class_numbers(labels: Tensor) -> Tensor:
    """Labels of 0 and 1 as class numbers, UNLABELLED where there is none."""
    return torch.where(labels.isnan(), UNLABELLED, labels.round()).long()


def _one_a_row(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [n, classes] and class numbers [n], UNLABELLED where there is none."""
    if labels.ndim == 1:
        return logits, labels
    return _no_and_yes(logits).flatten(0, 1), _class_numbers(labels).flatten()


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, label_smoothing=label_smoothing, reduction="sum") / len(labels)


def _squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    labelled = ~labels.isnan()
    return (logits[labelled, 0] - labels[labelled].float()).square().sum() / len(labels)


def _divergence(student: Tensor, teachers: Tensor, weights: Tensor, temperature: float | Tensor, match: Literal["kl", "soft_ce", "reverse_kl"]) -> Tensor:
    each = temperature.float().unsqueeze(1) if isinstance(temperature, Tensor) else temperature
    log_student, log_teacher = functional.log_softmax(student / each, dim=-1), mixture(teachers, weights, temperature)
    match match:
        case "kl":
            parts = log_teacher.exp() * (log_teacher - log_student)
        case "soft_ce":
            parts = -log_teacher.exp() * log_student
        case "reverse_kl":
            parts = log_student.exp() * (log_student - log_teacher)
    return (each**2 * parts).sum() / len(student)


def mixture(teacher_logits: Tensor, weights: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """What several teachers say together: log of the weighed mean of their probabilities at the temperature, fp32 [rows, classes].

    teacher_logits: [rows, teachers, classes]. weights: [rows, teachers], each row's sum is 1. temperature: one for all rows, or one a row.
    """
    each = temperature.float().view(-1, 1, 1) if isinstance(temperature, Tensor) else temperature
    log = functional.log_softmax(teacher_logits.detach().float() / each, dim=-1)
    return log[:, 0] if log.shape[1] == 1 else (log + weights.float().log().unsqueeze(-1)).logsumexp(dim=1)


def teacher_weights(teacher_logits: Tensor, labels: Tensor, weights: Tensor, combine: Combine = "weights") -> Tensor:
    """How much each teacher weighs in each row: fp32 [rows, teachers], each row's sum is 1.

    teacher_logits: [rows, teachers, classes]. labels: as in `distillation_loss`. weights: [teachers], above 0, of any sum; they multiply

        label_confidence    exp(-cross-entropy) of the teacher, at temperature 1: how probable the row's label is to it. For two teachers these
                            are the weights of Zhang, Chen, Wang (2022), "Confidence-aware multi-teacher knowledge distillation", equation 3;
                            for more, theirs come close to each other and these don't. With several labels a row: of their mean. Rows
                            without a label have the plain weights
        certainty           1 - entropy / log(classes): 1 where the teacher is certain, 0 where all classes are alike to it

    Raises ValueError in a regression, which has no probabilities.
    """
    plain = (weights.float() / weights.float().sum()).expand(teacher_logits.shape[:2])
    if combine == "weights":
        return plain
    if labels.ndim == 1 and labels.is_floating_point():
        raise ValueError(f"teachers can't be combined by {combine} in a regression: it has no probabilities; use weights")
    count, logits = teacher_logits.shape[1], teacher_logits.detach().float()
    if labels.ndim == 2:  # each label is two classes
        logits, labels = _no_and_yes(logits), _class_numbers(labels)
    else:
        logits, labels = logits.unsqueeze(2), labels.unsqueeze(1)
    log = functional.log_softmax(logits, dim=-1)  # [rows, teachers, labels a row, classes]
    if combine == "certainty":
        sure = 1 - _doubt(log).mean(dim=-1)
    else:
        gold = labels.unsqueeze(1).expand(-1, count, -1)
        labelled = gold != UNLABELLED
        found = log.gather(-1, torch.where(labelled, gold, 0).unsqueeze(-1)).squeeze(-1)
        sure = (torch.where(labelled, found, 0.0).sum(dim=-1) / labelled.sum(dim=-1).clamp(min=1)).exp()
    weighed = plain * sure.clamp(min=1e-12)  # where none is sure of anything, the plain weights are left
    return weighed / weighed.sum(dim=1, keepdim=True)


def confident_temperature(teacher_logits: Tensor, temperature: float) -> Tensor:
    """A temperature for each row, fp32 [rows], that follows how sure the teacher is: `temperature` where it is certain, 1 where
    all classes are alike to it, in between by one minus the entropy of its answer as a share of the greatest possible.

    A sure answer says little until it is softened; softening a doubtful one takes away what it says. After Wen, Lai, Qian (2021),
    "Preparing Lessons: Improve Knowledge Distillation with Better Supervision", section 3.2, who lower the temperature of doubtful rows.

    teacher_logits: [rows, classes], two classes at least.
    """
    doubt = _doubt(functional.log_softmax(teacher_logits.detach().float(), dim=-1))
    return 1 + (temperature - 1) * (1 - doubt).clamp(0, 1)


def _doubt(log_probabilities: Tensor) -> Tensor:
    """The entropy over the last dimension as a share of the greatest possible, 0 to 1."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1) / math.log(log_probabilities.shape[-1])


def gradient_squares(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float, **how: object) -> Tensor:
    """How strongly each term pulls at the student's logits: fp32 [2], the squared norms of the labels' and the teacher's gradient.

    Arguments are those of `distillation_loss`. Rows are summed, not averaged, so that micro-batches add up to their batch.
    """
    student = student_logits.detach().float().requires_grad_()
    with torch.enable_grad():
        loss = distillation_loss(student, teacher_logits, labels, alpha=alpha, **how)  # type: ignore[arg-type]
        weighed = ((alpha, loss.task), (1 - alpha, loss.distill))
        pulls = [torch.autograd.grad(weight * term, student, retain_graph=True)[0] for weight, term in weighed]
    return torch.stack([(len(student) * pull).square().sum() for pull in pulls])


def gradient_share(squares: Tensor) -> Tensor:
    """The teacher's part of both norms, 0 to 1, a scalar, from `gradient_squares` of a whole batch; 0 where nothing pulls."""
    task, distill = squares.sqrt()
    return distill / (task + distill).clamp(min=torch.finfo(squares.dtype).tiny)
