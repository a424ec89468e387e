"""The kinds of tasks. To add one, write its file here and add it to KINDS."""

from __future__ import annotations

from kdsweep.core.tasks.base import TaskKind
from kdsweep.core.tasks.classification import Classification
from kdsweep.core.tasks.multi_label import MultiLabel
from kdsweep.core.tasks.regression import Regression

CLASSIFICATION = Classification()
REGRESSION = Regression()
MULTI_LABEL = MultiLabel()

KINDS: dict[str, TaskKind] = {kind.name: kind for kind in (CLASSIFICATION, REGRESSION, MULTI_LABEL)}
# What a task is that names no kind.
DEFAULT_KIND: TaskKind = CLASSIFICATION


def kind_named(name: str) -> TaskKind:
    """The kind that `task.kind` names. Raises KeyError for an unknown one."""
    return KINDS[name]


def kind_of_problem(problem_type: str | None) -> TaskKind:
    """The kind that a model's config names, in transformers' words."""
    found = [kind for kind in KINDS.values() if kind.problem_type == problem_type]
    return found[0] if found else DEFAULT_KIND
