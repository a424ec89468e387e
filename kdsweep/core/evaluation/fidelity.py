"""How well a student imitates its teacher, and how sure a model is."""

from __future__ import annotations

import numpy as np

from kdsweep.core.evaluation.metrics import log_probabilities
from kdsweep.core.settings import Kind
from kdsweep.core.tasks.predictions import as_classes


def fidelity(
    teacher_logits: np.ndarray, student_logits: np.ndarray, kind: Kind = "classification"
) -> dict[str, float]:
    """How well the student imitates the teacher, whatever the labels say; both [rows, classes].

    `agreement` is the share of rows where both give the same answer, `teacher_kl` the mean KL(teacher || student) at temperature 1
    in nats; where a row may have several labels both are means over rows and labels. In a regression it is `teacher_mse`, the mean
    squared difference. Stanton, Izmailov, Kirichenko, Alemi, Wilson (2021), "Does Knowledge Distillation Really Work?"
    """
    if kind == "regression":
        return {
            "teacher_mse": float(
                np.square(np.asarray(teacher_logits, dtype=np.float64) - student_logits).mean()
            )
        }
    teacher, student = (
        log_probabilities(as_classes(np.asarray(logits), kind))
        for logits in (teacher_logits, student_logits)
    )
    return {
        "agreement": float((teacher.argmax(axis=1) == student.argmax(axis=1)).mean()),
        "teacher_kl": float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean()),
    }


def sureness(logits: np.ndarray, kind: Kind = "classification") -> dict[str, float]:
    """How sure these answers are, [rows, classes]: `margin`, the mean difference of a row's two largest probabilities (1: nothing but
    labels, 0: a coin), and `entropy`, the mean of a row's, in nats. A regression doesn't say how sure it is."""
    if kind == "regression":
        return {}
    log = log_probabilities(as_classes(logits, kind))
    second, first = np.sort(np.exp(log), axis=1)[:, -2:].T
    return {
        "margin": float((first - second).mean()),
        "entropy": float(-(np.exp(log) * log).sum(axis=1).mean()),
    }
