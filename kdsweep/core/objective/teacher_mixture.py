"""Several teachers as one: weights row by row, and their mixture."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.core.data.rows import UNLABELLED as UNLABELLED

Combine = Literal["weights", "label_confidence", "certainty"]


def no_and_yes(logits: Tensor) -> Tensor:
    """[..., labels] as [..., labels, 2]: no and yes for each label; softmax of the two is the label's sigmoid."""
    return torch.stack([torch.zeros_like(logits), logits], dim=-1)


def class_numbers(labels: Tensor) -> Tensor:
    """Labels of 0 and 1 as class numbers, UNLABELLED where there is none."""
    return torch.where(labels.isnan(), UNLABELLED, labels.round()).long()


def mixture(teacher_logits: Tensor, weights: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """What several teachers say together: log of the weighed mean of their probabilities at the temperature, fp32 [rows, classes].

    teacher_logits: [rows, teachers, classes]. weights: [rows, teachers], each row's sum is 1. temperature: one for all rows, or one a row.
    """
    each = temperature.float().view(-1, 1, 1) if isinstance(temperature, Tensor) else temperature
    log = functional.log_softmax(teacher_logits.detach().float() / each, dim=-1)
    return (
        log[:, 0]
        if log.shape[1] == 1
        else (log + weights.float().log().unsqueeze(-1)).logsumexp(dim=1)
    )


def teacher_weights(
    teacher_logits: Tensor, labels: Tensor, weights: Tensor, combine: Combine = "weights"
) -> Tensor:
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
        raise ValueError(
            f"teachers can't be combined by {combine} in a regression: it has no probabilities; use weights"
        )
    count, logits = teacher_logits.shape[1], teacher_logits.detach().float()
    if labels.ndim == 2:  # each label is two classes
        logits, labels = no_and_yes(logits), class_numbers(labels)
    else:
        logits, labels = logits.unsqueeze(2), labels.unsqueeze(1)
    log = functional.log_softmax(logits, dim=-1)  # [rows, teachers, labels a row, classes]
    if combine == "certainty":
        sure = 1 - _doubt(log).mean(dim=-1)
    else:
        gold = labels.unsqueeze(1).expand(-1, count, -1)
        labelled = gold != UNLABELLED
        found = log.gather(-1, torch.where(labelled, gold, 0).unsqueeze(-1)).squeeze(-1)
        sure = (
            torch.where(labelled, found, 0.0).sum(dim=-1) / labelled.sum(dim=-1).clamp(min=1)
        ).exp()
    weighed = plain * sure.clamp(
        min=1e-12
    )  # where none is sure of anything, the plain weights are left
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
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1) / math.log(
        log_probabilities.shape[-1]
    )
