"""Whether a teacher can be trusted: it beats the majority class, and its labels are the task's."""

from __future__ import annotations

from typing import Any, cast

from transformers import PreTrainedModel

from kdsweep.core.data.rows import TaskData
from kdsweep.core.models.loading import load_config
from kdsweep.core.models.outputs import order_of_outputs
from kdsweep.core.settings import TeacherSettings
from kdsweep.errors import TeacherError, first_few


def check_labels(teacher: TeacherSettings, data: TaskData) -> list[int] | None:
    """For each class of the task the output of the checkpoint that means it.

    None if the names of the outputs say nothing. Raises TeacherError if they are other labels than
    the task's.
    """
    source = teacher.loads_from
    config = load_config(source, trust_remote_code=teacher.trust_remote_code)
    if config.num_labels != len(data.label_names):
        raise TeacherError(
            f"teacher.checkpoint: {source} has {config.num_labels} labels, the task "
            f"{len(data.label_names)} ({first_few(data.label_names)}); "
            "use a checkpoint for this task"
        )
    if not data.kind.outputs_are_labels:
        # Such an output has no class name to compare. Its score on validation is checked instead.
        return None
    names = list(
        teacher.labels or [str(cast(Any, config.id2label)[i]) for i in range(config.num_labels)]
    )
    if (order := order_of_outputs(names, data.label_names)) is not None:
        return order
    wanted = data.label_names
    if teacher.labels is None and all(
        name.upper() == f"LABEL_{i}" or name.isdigit() for i, name in enumerate(names)
    ):
        return None
    if all(name.isdigit() for name in wanted) and teacher.labels is None:
        # The task's classes are only numbers: accuracy decides.
        return None
    where = "teacher.labels" if teacher.labels else "teacher.checkpoint"
    raise TeacherError(
        f"{where}: its labels ({first_few(names)}) are not the task's "
        f"({first_few(data.label_names)}); set task.labels or teacher.labels"
    )


def check_frozen(model: PreTrainedModel) -> None:
    """Raise TeacherError if the teacher would use dropout, or be trained with its student."""
    if training := next(
        (name or "the model" for name, module in model.named_modules() if module.training), None
    ):
        raise TeacherError(
            f"teacher: {training} is in training mode, so dropout would change what it teaches; "
            "call eval() first"
        )
    if moving := next(
        (name for name, parameter in model.named_parameters() if parameter.requires_grad), None
    ):
        raise TeacherError(
            f"teacher: {moving} takes gradients, so the teacher would be trained too; "
            "call requires_grad_(False) first"
        )
