"""A model becomes a teacher: judged, checked, and put into the cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.evaluation.fidelity import sureness
from kdsweep.core.evaluation.latency import latency
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.evaluation.metrics import score_logits
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.files import publishing, write_json
from kdsweep.core.models.describing import parameter_count, size_mb
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.inputs import check_fits, check_length
from kdsweep.core.models.loading import load_tokenizer, load_weights, save_model, with_labels
from kdsweep.core.models.outputs import reorder_outputs, standardize_outputs
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.tasks.floor import ValidationLogits
from kdsweep.core.teachers.artifact import Teacher, find_teacher
from kdsweep.core.teachers.checks import check_labels
from kdsweep.core.teachers.logits import answers_of_model, logits_file, write_logits


@dataclass(frozen=True)
class Candidate:
    """A model that becomes a teacher if it passes the checks.

    `source` is its folder, or its name on the Hub. `seconds` is what its fine-tuning took, in
    `training_folder`; a checkpoint has neither.
    """

    key: str
    source: str
    task: TaskSettings
    teacher: TeacherSettings
    data: TaskData
    seconds: float = 0.0
    training_folder: Path | None = None


def publish_teacher(candidate: Candidate, cache: Path) -> Teacher:
    """Judge the model on validation, then put it into the cache with its logits for train.

    Its outputs are in the task's label order there. Raises TeacherError with what it reached if it
    doesn't clearly beat the majority class.
    """
    key, task, data = candidate.key, candidate.task, candidate.data
    order = check_labels(candidate.teacher, data) if candidate.teacher.checkpoint else None
    model, tokenizer = _load_in_task_order(candidate, order)
    training = candidate.teacher.training
    input_format = input_format_of(model, tokenizer, training.max_length, task.truncation)
    tokens = tokenize_split(data.validation, tokenizer, input_format, cache=cache)
    model.to(pick_device())
    precision = resolve_precision(candidate.teacher.precision, model.device)
    logits = predict(model, tokens, precision)
    validation = score_logits(task.metric, data.validation.labels, logits, data.kind)
    data.kind.check_floor(
        ValidationLogits(
            logits,
            data.validation.labels,
            data.train.labels,
            data.label_names,
            metric_named(task.metric),
            order,
            is_checkpoint=candidate.teacher.checkpoint is not None,
        )
    )
    labels_in = candidate.teacher.settled_precision or "auto"
    train_logits = answers_of_model(
        model, tokenizer, data.train, input_format, labels_in, cache=cache
    )
    _replace_logits(key, data, train_logits, cache)
    folder = candidate.training_folder
    facts = {
        "key": key,
        "validation": validation,
        "parameters": parameter_count(model),
        "size_mb": size_mb(model),
        **latency(model, tokens),
        **sureness(train_logits, data.kind),
        "max_length": input_format.max_length,
        "truncation": input_format.truncation,
        "seconds": candidate.seconds,
        "training_folder": None if folder is None else str(folder),
        "padding": tokens.padding.to_json(),
    }
    if candidate.teacher.trust_remote_code:
        facts["trust_remote_code"] = True
    # Only a teacher that 0.1.0 padded wrongly can be there.
    shutil.rmtree(cache / "teachers" / key, ignore_errors=True)
    with publishing(cache / "teachers" / key) as beside:
        save_model(model, tokenizer, beside)
        write_json(beside / "teacher.json", facts)
    trusted = candidate.teacher.trust_remote_code
    found = find_teacher(cache / "teachers" / key, trust_remote_code=trusted)
    assert found is not None
    return found


def _load_in_task_order(
    candidate: Candidate, order: list[int] | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, whose output i means the task's class i; it was output `order[i]` before."""
    source, teacher, data = candidate.source, candidate.teacher, candidate.data
    own_names = data.label_names
    if order is not None:
        own_names = tuple(data.label_names[i] for i in np.argsort(order))
    model, _ = load_weights(
        source,
        own_names,
        kind=data.kind,
        trust_remote_code=teacher.trust_remote_code,
        is_complete=True,
    )
    tokenizer = load_tokenizer(source, trust_remote_code=teacher.trust_remote_code)
    check_fits(model, tokenizer, source)
    check_length(model, tokenizer, teacher.training.max_length, source)
    if order is not None and order != list(range(len(order))):
        reorder_outputs(model, order, source)
    with_labels(model.config, data.label_names, data.kind)
    # Raw outputs in the labels' unit would be rounded in bf16: around 2000 it has steps of 16.
    row = tokenizer([data.train.texts[0][0]], return_tensors="pt", truncation=True, max_length=16)
    inputs = {name: row[name] for name in ("input_ids", "attention_mask") if name in row}
    standardize_outputs(model, data.kind.label_scale(data.train.labels), inputs)
    return model, tokenizer


def _replace_logits(key: str, data: TaskData, train_logits: np.ndarray, cache: Path) -> None:
    """Write the logits for train, and delete those of an earlier teacher with this key."""
    for rows in data.splits.values():
        logits_file(key, rows, cache).unlink(missing_ok=True)
    shutil.rmtree(cache / "logits" / key, ignore_errors=True)
    write_logits(logits_file(key, data.train, cache), train_logits)
