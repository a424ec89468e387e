"""The student as it is before its first step."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.models.inputs import check_fits
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, new_model
from kdsweep.core.models.loading import load_classifier, load_tokenizer, own_labels
from kdsweep.core.models.outputs import order_of_outputs, reorder_outputs
from kdsweep.core.settings import StudentSettings
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import ModelError


def load_student(
    student: StudentSettings,
    label_names: tuple[str, ...],
    teacher_folder: Path | None,
    kind: TaskKind = DEFAULT_KIND,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student and its tokenizer. New weights are drawn from torch's global generator."""
    source = student_source(student, teacher_folder)
    tokenizer = load_tokenizer(source, trust_remote_code=student.trust_remote_code)
    if student.start == "scratch":
        model = new_model(student, label_names, source, kind)
    else:
        own_names, _ = own_labels(source, trust_remote_code=student.trust_remote_code)
        model = load_classifier(
            source, label_names, kind=kind, trust_remote_code=student.trust_remote_code
        )
        if kind.outputs_are_labels:
            _put_in_task_order(model, own_names, label_names, source)
        if student.layers is not None:
            kept = kept_layers(layer_count(model, source), student.layers, source)
            model = keep_layers(model, kept, source)
    check_fits(model, tokenizer, source)
    return model, tokenizer


def _put_in_task_order(
    model: PreTrainedModel, own: tuple[str, ...], wanted: tuple[str, ...], source: str
) -> None:
    """Put the outputs of a checkpoint with the task's labels into the task's order."""
    order = order_of_outputs(own, wanted)
    if order is not None and order != list(range(len(order))):
        reorder_outputs(model, order, source)


def student_source(student: StudentSettings, teacher_folder: Path | None) -> str:
    if student.model != "teacher":
        return student.model
    if teacher_folder is None:
        raise ModelError("student.model: 'teacher' needs a teacher")
    return str(teacher_folder)
