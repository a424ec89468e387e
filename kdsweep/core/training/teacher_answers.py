"""What a trial's teachers answer for its rows: their logits, which no step has to compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kdsweep import metric_names
from kdsweep.core.data.mapped_arrays import joined_arrays
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.objective.objective import mixed
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.training.training_rows import TrainingRows


@dataclass(frozen=True, eq=False)
class TeacherAnswers:
    """`train`: each teacher's logits for all training rows, fp32 [rows, classes].

    `validation`: the logits of all teachers together for validation, fp32 [rows, classes].
    `metrics`: what several teachers together reach there. If no step weighs the teachers' logits,
    there are none.
    """

    train: tuple[np.ndarray, ...] = ()
    validation: np.ndarray | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def teacher_answers(
    settings: TrialSettings,
    data: TaskData,
    rows: TrainingRows,
    teachers: Sequence[Teacher],
    cache: Path,
    say: Say,
) -> TeacherAnswers:
    """From the cache; a model runs only for rows that its teacher has not answered before."""
    if not settings.needs_logits:
        return TeacherAnswers()
    train = tuple(
        _logits_of(teacher, data, splits, cache, say)
        for teacher, splits in zip(teachers, rows.teachers, strict=True)
    )
    separate = [
        teacher_logits(teacher, data, cache=cache, split="validation") for teacher in teachers
    ]
    together = mixed(separate, data.validation.labels, settings)
    metrics = {}
    if len(teachers) > 1:
        metric = settings.task.metric
        reached = score_logits(metric, data.validation.labels, together, data.kind)[metric]
        metrics[metric_names.teachers(metric)] = reached
    return TeacherAnswers(train, together, metrics)


def _logits_of(
    teacher: Teacher, data: TaskData, splits: Sequence[Split], cache: Path, say: Say
) -> np.ndarray:
    """The teacher's logits for all rows of the splits, in their order."""
    data = data.with_splits(*splits)
    logits = [
        teacher_logits(teacher, data, cache=cache, split=split.name, say=say) for split in splits
    ]
    return joined_arrays(logits)
