"""The teacher as an artifact: fine-tuned or taken over once, checked, frozen; its logits computed once a split.

The fine-tuning itself is a trial like any other (alpha 1, the teacher in the student's place) and is run by `train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data import Say, Split, TaskData, tokenize_split
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.evaluate import judge, latency, predict, score, sureness
from kdsweep.core.files import fingerprint, publishing, read_json, write_array, write_json
from kdsweep.core.models import (
    check_fits,
    check_length,
    load_classifier,
    load_config,
    load_tokenizer,
    model_fingerprint,
    parameter_count,
    reads_token_types,
    save_model,
    size_mb,
    with_labels,
)
from kdsweep.core.settings import Metric, StudentSettings, TaskSettings, TeacherSettings, TrainingSettings, TrialSettings
from kdsweep.errors import TeacherError


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned teacher in `folder`, with what it reaches on validation (`validation`: metric -> value) and its size.

    `margin` and `entropy` say how sure it is on train (`sureness`). What is None was not measured by the version that made it.
    """

    key: str
    folder: Path
    validation: dict[str, float]
    parameters: int
    size_mb: float
    latency_ms: float
    max_length: int
    seconds: float
    training_folder: Path | None
    latency_p95_ms: float | None = None
    margin: float | None = None
    entropy: float | None = None


def teacher_key(task: TaskSettings, teacher: TeacherSettings, data: TaskData) -> str:
    """What a teacher depends on: its weights, the rows, how it is trained and how its best checkpoint is chosen."""
    source = teacher.model or teacher.checkpoint or ""
    weights = model_fingerprint(source, trust_remote_code=teacher.trust_remote_code)
    how = teacher.training.model_dump(mode="json") if teacher.model else [teacher.training.max_length, teacher.labels]
    return fingerprint("teacher 1", weights, data.train.key, data.validation.key, data.label_names, task.metric, how)


def fine_tuning(task: TaskSettings, teacher: TeacherSettings) -> TrialSettings:
    """The teacher's fine-tuning as a trial."""
    assert teacher.model is not None
    training = teacher.training.model_dump(exclude={"learning_rate", "seed"})
    return TrialSettings(
        task=task,
        student=StudentSettings(model=teacher.model, trust_remote_code=teacher.trust_remote_code),
        training=TrainingSettings(**training),
        alpha=1.0,
        learning_rate=teacher.training.learning_rate,
        seed=teacher.training.seed,
    )


def find_teacher(folder: Path) -> Teacher | None:
    """The teacher that is in the cache, or None."""
    facts = folder / "teacher.json"
    if not facts.exists():
        return None
    found = read_json(facts)
    if found["training_folder"] is not None:
        found["training_folder"] = Path(found["training_folder"])
    return Teacher(folder=folder, **found)


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
    own_names = data.label_names if order is None else tuple(data.label_names[i] for i in np.argsort(order))
    model = load_classifier(str(source), own_names, trust_remote_code=teacher.trust_remote_code)
    tokenizer = load_tokenizer(str(source), trust_remote_code=teacher.trust_remote_code)
    check_fits(model, tokenizer, str(source))
    check_length(model, tokenizer, teacher.training.max_length, str(source))
    if order is not None and order != list(range(len(order))):
        _reorder_outputs(model, order, str(source))
    with_labels(model.config, data.label_names)

    tokens = tokenize_split(data.validation, tokenizer, max_length=teacher.training.max_length, token_types=reads_token_types(model), cache=cache)
    model.to(pick_device())  # type: ignore[arg-type]
    logits = predict(model, tokens, resolve_precision(teacher.training.precision, model.device))
    validation = judge(task.metric, data.validation.labels, logits)
    check_beats_majority(task.metric, data, logits)
    train_logits = _answers(model, tokenizer, data.train, max_length=teacher.training.max_length, cache=cache)
    for rows in data.splits.values():
        _logits_file(key, rows, cache).unlink(missing_ok=True)  # of a teacher that was removed
    write_array(_logits_file(key, data.train, cache), train_logits)
    facts = {
        "key": key,
        "validation": validation,
        "parameters": parameter_count(model),
        "size_mb": size_mb(model),
        **latency(model, tokens),
        **sureness(train_logits),
        "max_length": teacher.training.max_length,
        "seconds": seconds,
        "training_folder": None if training_folder is None else str(training_folder),
    }
    with publishing(folder) as beside:
        save_model(model, tokenizer, beside)
        write_json(beside / "teacher.json", facts)
    found = find_teacher(folder)
    assert found is not None
    return found


def check_beats_majority(metric: Metric, data: TaskData, logits: np.ndarray) -> None:
    """Raise TeacherError unless the teacher is clearly better than always answering with the most frequent class.

    Clearly: by two standard errors of the majority's score and at least 2 points, or half of what is left to 1.
    """
    labels = data.validation.labels
    predicted = logits.argmax(axis=1)
    majority = int(np.bincount(data.train.labels).argmax())
    reached = score(metric, labels, predicted)
    floor = score(metric, labels, np.full_like(labels, majority))
    margin = min(max(0.02, 2 * float(np.sqrt(max(0.0, floor * (1 - floor)) / len(labels)))), (1 - floor) / 2)
    if reached >= floor + margin:
        return
    message = (
        f"teacher: {metric} {reached:.3f} on validation doesn't clearly beat the majority class ({floor:.3f}; at least {floor + margin:.3f} is asked for): "
        "it has nothing to teach; train it for longer, with another learning rate, or on more rows (teacher.training)"
    )
    confusion = np.zeros((len(data.label_names),) * 2)
    np.add.at(confusion, (labels, predicted), 1)
    true, given = linear_sum_assignment(-confusion)
    if list(given) != list(true) and confusion[true, given].sum() / len(labels) > floor + margin:
        names = [data.label_names[int(true[list(given).index(i)])] for i in range(len(given))]
        message = (
            f"teacher: {metric} {reached:.3f} on validation, but its labels seem to be in another order: as [{', '.join(names)}] "
            f"accuracy would be {confusion[true, given].sum() / len(labels):.3f}; set teacher.labels to the order of the checkpoint's outputs"
        )
    raise TeacherError(message)


def check_labels(teacher: TeacherSettings, data: TaskData) -> list[int] | None:
    """For each of the task's classes the output of the checkpoint that means it; None where the names say nothing.

    Raises TeacherError where checkpoint and task have other labels.
    """
    source = teacher.checkpoint or ""
    config = load_config(source, trust_remote_code=teacher.trust_remote_code)
    if config.num_labels != len(data.label_names):
        raise TeacherError(f"teacher.checkpoint: {source} has {config.num_labels} labels, the task {len(data.label_names)} ({', '.join(data.label_names)})")
    names = list(teacher.labels or [str(cast(Any, config.id2label)[i]) for i in range(config.num_labels)])
    folded, wanted = [name.casefold() for name in names], [name.casefold() for name in data.label_names]
    if sorted(folded) == sorted(wanted):
        return [folded.index(name) for name in wanted]
    if teacher.labels is None and all(name.upper() == f"LABEL_{i}" or name.isdigit() for i, name in enumerate(names)):
        return None
    if all(name.isdigit() for name in wanted) and teacher.labels is None:
        return None  # the task's classes are mere numbers: accuracy decides
    where = "teacher.labels" if teacher.labels else "teacher.checkpoint"
    raise TeacherError(f"{where}: its labels ({', '.join(names)}) are not the task's ({', '.join(data.label_names)}); set task.labels or teacher.labels")


@torch.no_grad()
def _reorder_outputs(model: PreTrainedModel, order: list[int], source: str) -> None:
    """Let output i be what was output order[i]."""
    heads = [module for _, module in model.named_modules() if isinstance(module, nn.Linear) and module.out_features == len(order)]
    if not heads:
        raise TeacherError(f"teacher.checkpoint: the outputs of {source} can't be put into the task's order: it has no linear output layer")
    head = heads[-1]
    head.weight.copy_(head.weight[order].clone())
    if head.bias is not None:
        head.bias.copy_(head.bias[order].clone())


def teacher_logits(
    teacher: Teacher, data: TaskData, *, cache: Path, split: Literal["train", "validation", "test"] = "train", say: Say = lambda line: None
) -> np.ndarray:
    """The teacher's raw logits for every row of the split, fp32 [rows, classes], memory-mapped; computed once."""
    rows = data.splits[split]
    file = _logits_file(teacher.key, rows, cache)
    if not file.exists():
        say(f"teacher's logits: computing for {len(rows):,} rows of {split}")
        model = frozen_teacher(teacher, data.label_names)
        tokenizer = load_tokenizer(str(teacher.folder))
        write_array(file, _answers(model, tokenizer, rows, max_length=teacher.max_length, cache=cache, say=say))
    return check_logits(np.load(file, mmap_mode="r"), data, file, split)


def teacher_test(teacher: Teacher, data: TaskData, metric: Metric, *, cache: Path) -> dict[str, float] | None:
    """What the teacher reaches on the test split (`judge`), where its logits were asked for; None where they never were."""
    if not _logits_file(teacher.key, data.test, cache).exists():
        return None
    return judge(metric, data.test.labels, np.asarray(teacher_logits(teacher, data, cache=cache, split="test")))


def _logits_file(teacher_key: str, rows: Split, cache: Path) -> Path:
    return cache / "logits" / f"{fingerprint('logits 1', teacher_key, rows.key)}.npy"


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Split, *, max_length: int, cache: Path, say: Say = lambda line: None
) -> np.ndarray:
    tokens = tokenize_split(rows, tokenizer, max_length=max_length, token_types=reads_token_types(model), cache=cache, say=say)
    return predict(model, tokens, resolve_precision("auto", model.device))


def frozen_teacher(teacher: Teacher, label_names: tuple[str, ...]) -> PreTrainedModel:
    """The teacher on its device, in eval mode, without gradients."""
    model = load_classifier(str(teacher.folder), label_names)
    model.to(pick_device())  # type: ignore[arg-type]
    model.requires_grad_(False)
    model.eval()
    return model


def check_logits(logits: np.ndarray, data: TaskData, file: Path, split: str = "train") -> np.ndarray:
    expected = (len(data.splits[split]), len(data.label_names))
    if logits.shape != expected or not np.isfinite(logits).all():
        raise TeacherError(f"{file} holds logits of shape {logits.shape}, not finite ones of {expected}; remove the file and run again")
    return logits
