"""The student as it is before its first step."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.models.inputs import check_fits
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, new_model
from kdsweep.core.models.loading import load_classifier, load_tokenizer, own_labels
from kdsweep.core.models.outputs import order_of_outputs, reorder_outputs, rescale_outputs
from kdsweep.core.settings import StudentSettings
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.errors import ModelError


def load_student(
    student: StudentSettings,
    label_names: tuple[str, ...],
    teacher_folder: Path | None,
    kind: TaskKind = DEFAULT_KIND,
    scale: LabelScale | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student and its tokenizer. New weights are drawn from torch's global generator.

    scale: what its outputs are standardized by; None leaves them as they are.
    """
    source = student_source(student, teacher_folder)
    tokenizer = load_tokenizer(source, trust_remote_code=student.trust_remote_code)
    if student.start == "scratch":
        model = new_model(student, label_names, source, kind)
    else:
        own_names, own_kind = own_labels(source, trust_remote_code=student.trust_remote_code)
        model = load_classifier(
            source, label_names, kind=kind, trust_remote_code=student.trust_remote_code
        )
        if kind.outputs_are_labels:
            _put_in_task_order(model, own_names, label_names, source)
        elif scale is not None and own_kind is kind:
            rescale_outputs(model, scale, source)
        if student.layers is not None:
            kept = kept_layers(layer_count(model, source), student.layers, source)
            model = keep_layers(model, kept, source)
    if scale is not None:
        scale.write(model.config)
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
        return student.loads_from
    if teacher_folder is None:
        raise ModelError("student.model: 'teacher' needs a teacher")
    return str(teacher_folder)
