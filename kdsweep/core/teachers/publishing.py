"""A model becomes a teacher: judged, checked, and put into the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.evaluation.fidelity import sureness
from kdsweep.core.evaluation.latency import latency
from kdsweep.core.evaluation.metrics import judge
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.files import publishing, write_json
from kdsweep.core.models.describing import parameter_count, size_mb
from kdsweep.core.models.inputs import check_fits, check_length, input_format_of
from kdsweep.core.models.loading import load_classifier, load_tokenizer, save_model, with_labels
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.teachers.artifact import Teacher, find_teacher
from kdsweep.core.teachers.checks import check_beats_majority, check_beats_mean, check_labels
from kdsweep.core.teachers.logits import answers_of_model, logits_file, write_logits
from kdsweep.errors import TeacherError


def publish_teacher(
    source: Path | str,
    folder: Path,
    *,
    key: str,
    task: TaskSettings,
    teacher: TeacherSettings,
    data: TaskData,
    cache: Path,
    seconds: float,
    training_folder: Path | None,
) -> Teacher:
    """Judge the model in `source` on validation and, if it can be trusted, put it into `folder` with the task's label order,
    and its logits for train into the cache.

    Raises TeacherError with its accuracy where it doesn't beat the majority class clearly.
    """
    order = check_labels(teacher, data) if teacher.checkpoint else None
    own_names = (
        data.label_names if order is None else tuple(data.label_names[i] for i in np.argsort(order))
    )
    model = load_classifier(
        str(source), own_names, kind=data.kind, trust_remote_code=teacher.trust_remote_code
    )
    tokenizer = load_tokenizer(str(source), trust_remote_code=teacher.trust_remote_code)
    check_fits(model, tokenizer, str(source))
    check_length(model, tokenizer, teacher.training.max_length, str(source))
    if order is not None and order != list(range(len(order))):
        _reorder_outputs(model, order, str(source))
    with_labels(model.config, data.label_names, data.kind)

    input_format = input_format_of(model, teacher.training.max_length, task.truncation)
    tokens = tokenize_split(data.validation, tokenizer, input_format, cache=cache)
    model.to(pick_device())
    logits = predict(model, tokens, resolve_precision(teacher.training.precision, model.device))
    validation = judge(task.metric, data.validation.labels, logits)
    if data.kind == "regression":
        check_beats_mean(task.metric, data, logits)
    else:
        check_beats_majority(task.metric, data, logits, order)
    train_logits = answers_of_model(model, tokenizer, data.train, input_format, cache=cache)
    for rows in data.splits.values():
        logits_file(key, rows, cache).unlink(missing_ok=True)  # of a teacher that was removed
    shutil.rmtree(cache / "logits" / key, ignore_errors=True)
    write_logits(logits_file(key, data.train, cache), train_logits)
    facts = {
        "key": key,
        "validation": validation,
        "parameters": parameter_count(model),
        "size_mb": size_mb(model),
        **latency(model, tokens),
        **sureness(train_logits, data.kind),
        "max_length": input_format.max_length,
        "truncation": input_format.truncation,
        "seconds": seconds,
        "training_folder": None if training_folder is None else str(training_folder),
    }
    with publishing(folder) as beside:
        save_model(model, tokenizer, beside)
        write_json(beside / "teacher.json", facts)
    found = find_teacher(folder)
    assert found is not None
    return found


@torch.no_grad()
def _reorder_outputs(model: PreTrainedModel, order: list[int], source: str) -> None:
    """Let output i be what was output order[i]."""
    heads = [
        module
        for _, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == len(order)
    ]
    if not heads:
        raise TeacherError(
            f"teacher.checkpoint: the outputs of {source} can't be put into the task's order: it has no linear output layer"
        )
    head = heads[-1]
    head.weight.copy_(head.weight[order].clone())
    if head.bias is not None:
        head.bias.copy_(head.bias[order].clone())
