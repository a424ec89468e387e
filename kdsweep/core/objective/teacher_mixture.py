"""Several teachers as one: weights row by row, and their mixture."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import UNLABELLED, TaskKind

Combine = Literal["weights", "label_confidence", "certainty"]


def mixture(teacher_logits: Tensor, weights: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """The log of the weighted mean of the teachers' probabilities, [rows, classes].

    It is fp64 if the logits are, else fp32.

    teacher_logits: [rows, teachers, classes]. weights: [rows, teachers]; each row's sum is 1.
    temperature: one for all rows, or one a row.
    """
    each = temperature.float().view(-1, 1, 1) if isinstance(temperature, Tensor) else temperature
    logits = teacher_logits.detach()
    if logits.dtype != torch.float64:
        logits, weights = logits.float(), weights.float()
    log = functional.log_softmax(logits / each, dim=-1)
    if log.shape[1] == 1:
        return log[:, 0]
    return (log + weights.log().unsqueeze(-1)).logsumexp(dim=1)


def teacher_weights(
    teacher_logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    combine: Combine = "weights",
    kind: TaskKind = DEFAULT_KIND,
) -> Tensor:
    """How much each teacher weighs in each row: fp32 [rows, teachers]; each row's sum is 1.

    teacher_logits: [rows, teachers, classes]. labels: as in `distillation_loss`. weights:
    [teachers], above 0, of any sum. They are multiplied by

        label_confidence    exp(-cross-entropy) of the teacher at temperature 1: the probability
                            that it gives to the row's label. For two teachers these are the
                            weights of Zhang, Chen, Wang (2022), "Confidence-aware multi-teacher
                            knowledge distillation", equation 3. For more, theirs come close to
                            each other and these don't. With several labels a row: of their mean.
                            Rows without a label keep the plain weights.
        certainty           1 - entropy / log(classes): 1 if the teacher is certain, 0 if all
                            classes are equally likely.

    Raises ValueError in a task without probabilities, unless `combine` is `weights`.
    """
    plain = (weights.float() / weights.float().sum()).expand(teacher_logits.shape[:2])
    if combine == "weights":
        return plain
    if not kind.has_probabilities:
        raise ValueError(
            f"teachers can't be combined by {combine} in {kind.noun}: it has no probabilities; "
            "use weights"
        )
    count = teacher_logits.shape[1]
    # [rows, teachers, choices, options]
    log = functional.log_softmax(kind.choices(teacher_logits.detach().float()), dim=-1)
    if combine == "certainty":
        sure = 1 - _doubt(log).mean(dim=-1)
    else:
        gold = kind.chosen(labels).unsqueeze(1).expand(-1, count, -1)
        labelled = gold != UNLABELLED
        found = log.gather(-1, torch.where(labelled, gold, 0).unsqueeze(-1)).squeeze(-1)
        summed = torch.where(labelled, found, 0.0).sum(dim=-1)
        sure = (summed / labelled.sum(dim=-1).clamp(min=1)).exp()
    # If no teacher is sure of anything, the plain weights are left.
    weighted = plain * sure.clamp(min=1e-12)
    return weighted / weighted.sum(dim=1, keepdim=True)


def confident_temperature(teacher_logits: Tensor, temperature: float) -> Tensor:
    """A temperature for each row that follows how sure the teacher is, fp32 [rows].

    `temperature` if the teacher is certain, 1 if all classes are equally likely, and in between
    by one minus the entropy of its prediction as a share of the greatest possible. A sure
    prediction says little until it is softened; softening a doubtful one takes away what it says.
    After Wen, Lai, Qian (2021), "Preparing Lessons: Improve Knowledge Distillation with Better
    Supervision", section 3.2, who lower the temperature of doubtful rows.

    teacher_logits: [rows, classes], two classes at least.
    """
    doubt = _doubt(functional.log_softmax(teacher_logits.detach().float(), dim=-1))
    return 1 + (temperature - 1) * (1 - doubt).clamp(0, 1)


def _doubt(log_probabilities: Tensor) -> Tensor:
    """The entropy over the last dimension as a share of the greatest possible, 0 to 1."""
    entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
    return entropy / math.log(log_probabilities.shape[-1])
