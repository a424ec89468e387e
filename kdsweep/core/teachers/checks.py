"""Whether a teacher can be trusted: it beats the majority class, and its labels are the task's."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy.optimize import linear_sum_assignment
from transformers import PreTrainedModel

from kdsweep.core.data.rows import TaskData
from kdsweep.core.evaluation.metrics import score
from kdsweep.core.models.loading import load_config
from kdsweep.core.settings import Metric, TeacherSettings
from kdsweep.core.tasks.predictions import answers
from kdsweep.errors import TeacherError


def check_beats_majority(
    metric: Metric, data: TaskData, logits: np.ndarray, order: list[int] | None = None
) -> None:
    """Raise TeacherError unless the teacher is clearly better than always answering with the most frequent class, or with those labels
    that more than half of the rows have.

    Clearly: by two standard errors of the majority's score and at least 2 points, or half of what is left to 1.
    order: which output of the checkpoint each of the logits' columns was, where they were put into the task's order by name.
    """
    labels = data.validation.labels
    predicted = answers(logits, data.kind)
    several = data.kind == "multi_label"
    majority = (
        np.asarray(data.train.labels).mean(axis=0) > 0.5
        if several
        else np.bincount(data.train.labels).argmax()
    )
    reached = score(metric, labels, predicted)
    floor = score(metric, labels, np.broadcast_to(majority, labels.shape).astype(np.int64))
    margin = min(
        max(0.02, 2 * float(np.sqrt(max(0.0, floor * (1 - floor)) / len(labels)))), (1 - floor) / 2
    )
    if reached >= floor + margin:
        return
    message = (
        f"teacher: {metric} {reached:.3f} on validation doesn't clearly beat the majority class ({floor:.3f}; at least {floor + margin:.3f} is asked for): "
        "it has nothing to teach; train it for longer, with another learning rate, or on more rows (teacher.training)"
    )
    if several:
        raise TeacherError(message)
    confusion = np.zeros((len(data.label_names),) * 2)
    np.add.at(confusion, (labels, predicted), 1)
    true, given = linear_sum_assignment(-confusion)
    if list(given) != list(true) and confusion[true, given].sum() / len(labels) > floor + margin:
        columns = (
            range(len(given)) if order is None else np.argsort(order)
        )  # of each output of the checkpoint
        names = [data.label_names[int(true[list(given).index(i)])] for i in columns]
        message = (
            f"teacher: {metric} {reached:.3f} on validation, but its labels seem to be in another order: as [{', '.join(names)}] "
            f"accuracy would be {confusion[true, given].sum() / len(labels):.3f}; set teacher.labels to the order of the checkpoint's outputs"
        )
    raise TeacherError(message)


def check_beats_mean(metric: Metric, data: TaskData, logits: np.ndarray) -> None:
    """Raise TeacherError unless the teacher is clearly nearer to the labels than their mean over train.

    Clearly: its squared error is smaller by two standard errors and at least 2%, or by half. A correlation alone won't do: outputs on
    another scale than the labels have one, and would teach that scale.
    """
    labels, mean = (
        data.validation.labels.astype(np.float64),
        float(np.asarray(data.train.labels, dtype=np.float64).mean()),
    )
    outputs = logits[:, 0].astype(np.float64)
    baseline = np.square(labels - mean)
    gained = baseline - np.square(labels - outputs)
    asked = min(
        max(0.02 * baseline.mean(), 2 * gained.std() / np.sqrt(len(labels))), baseline.mean() / 2
    )
    if gained.mean() >= asked:
        return
    reached = score(metric, data.validation.labels, answers(logits, data.kind))
    message = (
        f"teacher: mean squared error {np.square(labels - outputs).mean():.3g} on validation ({metric} {reached:.3f}) doesn't clearly beat always "
        f"answering with the mean of train ({baseline.mean():.3g}; at most {baseline.mean() - asked:.3g} is asked for): "
    )
    if reached > 0.5:
        raise TeacherError(
            f"{message}its outputs ({outputs.min():.3g} to {outputs.max():.3g}) go with the labels ({labels.min():.3g} to {labels.max():.3g}) but are on "
            "another scale; rescale the labels, or fine-tune it on them (teacher.model instead of teacher.checkpoint)"
        )
    raise TeacherError(
        f"{message}it has nothing to teach; train it for longer, with another learning rate, or on more rows (teacher.training)"
    )


def check_labels(teacher: TeacherSettings, data: TaskData) -> list[int] | None:
    """For each class of the task the output of the checkpoint that means it.

    None if the names of the outputs say nothing. Raises TeacherError if they are other labels than
    the task's.
    """
    source = teacher.checkpoint or ""
    config = load_config(source, trust_remote_code=teacher.trust_remote_code)
    if config.num_labels != len(data.label_names):
        raise TeacherError(
            f"teacher.checkpoint: {source} has {config.num_labels} labels, the task "
            f"{len(data.label_names)} ({', '.join(data.label_names)}); "
            "use a checkpoint for this task"
        )
    if data.kind == "regression":
        return None  # one output, whatever it is called: its squared error decides
    names = list(
        teacher.labels or [str(cast(Any, config.id2label)[i]) for i in range(config.num_labels)]
    )
    folded = [name.casefold() for name in names]
    wanted = [name.casefold() for name in data.label_names]
    if sorted(folded) == sorted(wanted):
        return [folded.index(name) for name in wanted]
    if teacher.labels is None and all(
        name.upper() == f"LABEL_{i}" or name.isdigit() for i, name in enumerate(names)
    ):
        return None
    if all(name.isdigit() for name in wanted) and teacher.labels is None:
        # The task's classes are only numbers: accuracy decides.
        return None
    where = "teacher.labels" if teacher.labels else "teacher.checkpoint"
    raise TeacherError(
        f"{where}: its labels ({', '.join(names)}) are not the task's "
        f"({', '.join(data.label_names)}); set task.labels or teacher.labels"
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
