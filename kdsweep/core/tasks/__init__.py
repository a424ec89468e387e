"""The kinds of tasks. To add one, write its file here and add it to KINDS."""

from __future__ import annotations

from kdsweep.core.tasks.base import TaskKind, the_one
from kdsweep.core.tasks.classification import Classification
from kdsweep.core.tasks.multi_label import MultiLabel
from kdsweep.core.tasks.regression import Regression

CLASSIFICATION = the_one(Classification)
REGRESSION = the_one(Regression)
MULTI_LABEL = the_one(MultiLabel)

KINDS: dict[str, TaskKind] = {kind.name: kind for kind in (CLASSIFICATION, REGRESSION, MULTI_LABEL)}
# What a task is that names no kind.
DEFAULT_KIND: TaskKind = CLASSIFICATION


def kind_named(name: str) -> TaskKind:
    """The kind that `task.kind` names. Raises KeyError for an unknown one."""
    return KINDS[name]


def unfit_labels(
    kind: TaskKind, label: str | tuple[str, ...], labels: tuple[str, ...] | None
) -> str | None:
    """Why `task.label` and `task.labels` don't fit the kind; None if they do."""
    if isinstance(label, tuple) and not kind.takes_label_columns:
        fitting = " or ".join(kind.name for kind in KINDS.values() if kind.takes_label_columns)
        return f"label names {len(label)} columns, one for each label, which is for kind: {fitting}"
    if labels is not None and not kind.outputs_are_labels:
        return f"labels name classes, and {kind.noun} has none; leave 'labels' out"
    return None


def kind_of_problem(problem_type: str | None) -> TaskKind:
    """The kind that a model's config names, in transformers' words."""
    found = [kind for kind in KINDS.values() if kind.problem_type == problem_type]
    return found[0] if found else DEFAULT_KIND
