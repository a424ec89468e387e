"""How far a student's logits are from its teacher's: a table, which installed packages can extend.

A package adds a divergence with an entry point in the group `kdsweep.divergences` that names a
`Divergence`. torch isn't imported before a function needs it: settings know the names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsweep.core.plugins import DIVERGENCES_GROUP, load_plugin, plugin_names

if TYPE_CHECKING:
    from torch import Tensor

# The highest temperature at which divergences are computed in fp32. T^2 magnifies rounding errors:
# here they are about 1e-4 of the divergence, and at 1,000 already 1e-2.
HIGHEST_IN_FP32 = 100.0


@dataclass(frozen=True)
class Divergence:
    """One way to compare a student with its teacher.

    requires_probabilities: what `function(student, teacher)` receives and returns, in fp32 (in
        fp64 for temperatures above 100).
        True: log-probabilities at the temperature, both [rows, classes]. It returns [rows,
        classes], whose sum over the classes is a row's divergence. The loss is the mean over the
        rows, times T^2.
        False: logits at temperature 1, both [rows, outputs]. The loss is the mean of whatever it
        returns, without T^2.
    paper: where it comes from. summary: one line of documentation.
    has_limit: whether T^2 times a divergence of probabilities stays finite as T grows.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    requires_probabilities: bool
    paper: str
    summary: str
    has_limit: bool = True


def kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return log_teacher.exp() * (log_teacher - log_student)


def soft_ce(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return -log_teacher.exp() * log_student


def reverse_kl(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    return log_student.exp() * (log_student - log_teacher)


def js(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    # The log of the mean of both probabilities.
    log_mean = log_student.logaddexp(log_teacher) - math.log(2)
    return (kl(log_mean, log_teacher) + kl(log_mean, log_student)) / 2


def mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.mse_loss(student_logits, teacher_logits)


_OWN = (
    Divergence(
        "kl",
        kl,
        requires_probabilities=True,
        paper='Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network"',
        summary="KL(teacher || student)",
    ),
    Divergence(
        "soft_ce",
        soft_ce,
        requires_probabilities=True,
        paper='Hinton, Vinyals, Dean (2015), "Distilling the Knowledge in a Neural Network"',
        summary="cross-entropy to the teacher's probabilities: kl plus the teacher's entropy",
        has_limit=False,
    ),
    Divergence(
        "reverse_kl",
        reverse_kl,
        requires_probabilities=True,
        paper='Gu, Dong, Wei, Huang (2024), "MiniLLM: Knowledge Distillation of Large Language '
        'Models"',
        summary="KL(student || teacher)",
    ),
    Divergence(
        "js",
        js,
        requires_probabilities=True,
        paper='Lin (1991), "Divergence measures based on the Shannon entropy"',
        summary="mean KL of both to their mean: symmetric, at most log 2 nats (before T^2)",
    ),
    Divergence(
        "mse",
        mse,
        requires_probabilities=False,
        paper='Ba, Caruana (2014), "Do Deep Nets Really Need to be Deep?"',
        summary="mean squared error of the logits; no temperature",
    ),
)
DIVERGENCES: dict[str, Divergence] = {one.name: one for one in _OWN}
# What `distill.logits` is if nothing is said, as it is stored.
DEFAULT = "kl"


def divergence_named(name: str) -> Divergence:
    """The divergence that `distill.logits` names. Raises KeyError for an unknown one."""
    if name in DIVERGENCES:
        return DIVERGENCES[name]
    return load_plugin(DIVERGENCES_GROUP, name, Divergence)


def known_divergences() -> list[str]:
    """All that can be named: kdsweep's own first, then those of installed packages."""
    return [
        *DIVERGENCES,
        *(name for name in plugin_names(DIVERGENCES_GROUP) if name not in DIVERGENCES),
    ]
