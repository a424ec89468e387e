"""How well a student imitates its teacher, and how sure a model is."""

from __future__ import annotations

import numpy as np

from kdsweep.core.tasks.base import TaskKind


def fidelity(
    teacher_logits: np.ndarray, student_logits: np.ndarray, kind: TaskKind
) -> dict[str, float]:
    """How well the student imitates the teacher, whatever the labels are.

    Both are [rows, outputs]. `agreement` is the share of choices where both prefer the same
    option, and `teacher_kl` the mean KL(teacher || student) at temperature 1 in nats. A row is one
    choice, or one for each label if it may have several. Without probabilities there is only
    `teacher_mse`, the mean squared difference. Stanton, Izmailov, Kirichenko, Alemi, Wilson (2021),
    "Does Knowledge Distillation Really Work?"
    """
    if not kind.has_probabilities:
        differences = np.asarray(teacher_logits, dtype=np.float64) - student_logits
        return {"teacher_mse": float(np.square(differences).mean())}
    teacher = kind.log_probabilities(np.asarray(teacher_logits))
    student = kind.log_probabilities(np.asarray(student_logits))
    return {
        "agreement": float((teacher.argmax(axis=1) == student.argmax(axis=1)).mean()),
        "teacher_kl": float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean()),
    }


def sureness(logits: np.ndarray, kind: TaskKind) -> dict[str, float]:
    """How sure these predictions are; logits [rows, outputs].

    `margin` is the mean difference of a choice's two largest probabilities (1: certain, 0: a
    coin toss), and `entropy` the mean entropy in nats. Empty without probabilities.
    """
    if not kind.has_probabilities:
        return {}
    log = kind.log_probabilities(logits)
    second, first = np.sort(np.exp(log), axis=1)[:, -2:].T
    return {
        "margin": float((first - second).mean()),
        "entropy": float(-(np.exp(log) * log).sum(axis=1).mean()),
    }
