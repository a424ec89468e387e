"""The names of metrics in evaluations, results, trackers and reports, each written once.

An evaluation has `train/...` and `validation/...`; the rest is measured once per trial or teacher.
"""

from __future__ import annotations

SECONDS = "seconds"
"""Training time of a run, in seconds."""


def train(quantity: str) -> str:
    """`train/loss`, `train/task_loss`, `train/alpha`: a mean since the evaluation before."""
    return f"train/{quantity}"


def validation(metric: str) -> str:
    """`validation/accuracy`, `validation/loss`: what an evaluation reached."""
    return f"validation/{metric}"


def is_validation(name: str) -> bool:
    """Whether this metric was measured on the validation split."""
    return name.startswith("validation/")


def test(metric: str) -> str:
    """`test/accuracy`: what the best weights reach on the test split."""
    return f"test/{metric}"


def best(name: str) -> str:
    """`best/validation/accuracy`: the metric `name` at the evaluation whose weights were kept."""
    return f"best/{name}"


def teachers(metric: str) -> str:
    """`teachers/accuracy`: what the mixture of a trial's teachers reaches on validation."""
    return f"teachers/{metric}"


def student(quantity: str) -> str:
    """`student/size_mb`, `student/latency_ms`: what the model costs."""
    return f"student/{quantity}"


def teacher(quantity: str) -> str:
    """`teacher/margin`, `teacher/entropy`: how sure the teacher is of its predictions."""
    return f"teacher/{quantity}"


def of_seed(seed: int | str, name: str) -> str:
    """`seed_3/validation/accuracy`: the metric `name` of one of a teacher's seeds."""
    return f"seed_{seed}/{name}"
