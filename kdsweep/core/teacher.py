"""The teacher as an artifact: fine-tuned or taken over once, checked, frozen; its logits computed once a split.

The fine-tuning itself is a trial like any other (alpha 1, the teacher in the student's place) and is run by `train`.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.answers import answers
from kdsweep.core.data import fold_numbers
from kdsweep.core.device import pick_device, resolve_precision
from kdsweep.core.evaluate import by_split, judge, latency, predict, score, sureness
from kdsweep.core.files import file_fingerprint, fingerprint, locked, publishing, read_json, write_array, write_json
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
from kdsweep.core.rows import Say, Split, TaskData
from kdsweep.core.settings import SPLITS, Kind, Metric, StudentSettings, TaskSettings, TeacherSettings, TrainingSettings, TrialSettings, Truncation
from kdsweep.core.tokens import tokenize_split
from kdsweep.errors import TeacherError


@dataclass(frozen=True)
class Teacher:
    """A fine-tuned teacher in `folder`, with what it reaches on validation (`validation`: metric -> value) and its size.

    `margin` and `entropy` say how sure it is on train (`sureness`). What is None was not measured by the version that made it.
    `selected`: what each seed reached on validation, where it is the best of several; None for one that learned nothing.
    `folds`: the keys of those that label the rows of train, fold by fold, where it doesn't do so itself.
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
    truncation: Truncation = "head"
    selected: dict[int, float | None] | None = None
    folds: tuple[str, ...] = ()


def teacher_key(task: TaskSettings, teacher: TeacherSettings, data: TaskData) -> str:
    """What a teacher depends on: its weights, the rows, how it is trained and how its best checkpoint is chosen."""
    source = teacher.model or teacher.checkpoint or ""
    weights = model_fingerprint(source, trust_remote_code=teacher.trust_remote_code)
    how = teacher.training.model_dump(mode="json") if teacher.model else [teacher.training.max_length, teacher.labels]
    cut = [] if task.truncation == "head" else [task.truncation]
    key = fingerprint("teacher 1", weights, data.train.key, data.validation.key, data.label_names, task.metric, how, *cut)
    chosen = teacher.model_dump(include={"epoch", "seeds", "folds"})  # those that say something
    return fingerprint(key, chosen) if chosen else key


def fine_tuning(task: TaskSettings, teacher: TeacherSettings) -> TrialSettings:
    """The teacher's fine-tuning as a trial."""
    assert teacher.model is not None
    training = teacher.training.model_dump(exclude={"learning_rate", "seed"})
    return TrialSettings(
        task=task.model_copy(update={"unlabelled": None}),  # more text for its students makes no other teacher
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
    model = load_classifier(str(source), own_names, kind=data.kind, trust_remote_code=teacher.trust_remote_code)
    tokenizer = load_tokenizer(str(source), trust_remote_code=teacher.trust_remote_code)
    check_fits(model, tokenizer, str(source))
    check_length(model, tokenizer, teacher.training.max_length, str(source))
    if order is not None and order != list(range(len(order))):
        _reorder_outputs(model, order, str(source))
    with_labels(model.config, data.label_names, data.kind)

    how: dict[str, Any] = {"max_length": teacher.training.max_length, "truncation": task.truncation}
    tokens = tokenize_split(data.validation, tokenizer, token_types=reads_token_types(model), cache=cache, **how)
    model.to(pick_device())
    logits = predict(model, tokens, resolve_precision(teacher.training.precision, model.device))
    validation = judge(task.metric, data.validation.labels, logits)
    if data.kind == "regression":
        check_beats_mean(task.metric, data, logits)
    else:
        check_beats_majority(task.metric, data, logits, order)
    train_logits = _answers(model, tokenizer, data.train, cache=cache, **how)
    for rows in data.splits.values():
        _logits_file(key, rows, cache).unlink(missing_ok=True)  # of a teacher that was removed
    shutil.rmtree(cache / "logits" / key, ignore_errors=True)
    _write_logits(_logits_file(key, data.train, cache), train_logits)
    facts = {
        "key": key,
        "validation": validation,
        "parameters": parameter_count(model),
        "size_mb": size_mb(model),
        **latency(model, tokens),
        **sureness(train_logits, data.kind),
        **how,
        "seconds": seconds,
        "training_folder": None if training_folder is None else str(training_folder),
    }
    with publishing(folder) as beside:
        save_model(model, tokenizer, beside)
        write_json(beside / "teacher.json", facts)
    found = find_teacher(folder)
    assert found is not None
    return found


def check_beats_majority(metric: Metric, data: TaskData, logits: np.ndarray, order: list[int] | None = None) -> None:
    """Raise TeacherError unless the teacher is clearly better than always answering with the most frequent class, or with those labels
    that more than half of the rows have.

    Clearly: by two standard errors of the majority's score and at least 2 points, or half of what is left to 1.
    order: which output of the checkpoint each of the logits' columns was, where they were put into the task's order by name.
    """
    labels = data.validation.labels
    predicted = answers(logits, data.kind)
    several = data.kind == "multi_label"
    majority = np.asarray(data.train.labels).mean(axis=0) > 0.5 if several else np.bincount(data.train.labels).argmax()
    reached = score(metric, labels, predicted)
    floor = score(metric, labels, np.broadcast_to(majority, labels.shape).astype(np.int64))
    margin = min(max(0.02, 2 * float(np.sqrt(max(0.0, floor * (1 - floor)) / len(labels)))), (1 - floor) / 2)
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
        columns = range(len(given)) if order is None else np.argsort(order)  # of each output of the checkpoint
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
    labels, mean = data.validation.labels.astype(np.float64), float(np.asarray(data.train.labels, dtype=np.float64).mean())
    outputs = logits[:, 0].astype(np.float64)
    baseline = np.square(labels - mean)
    gained = baseline - np.square(labels - outputs)
    asked = min(max(0.02 * baseline.mean(), 2 * gained.std() / np.sqrt(len(labels))), baseline.mean() / 2)
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
    raise TeacherError(f"{message}it has nothing to teach; train it for longer, with another learning rate, or on more rows (teacher.training)")


def check_labels(teacher: TeacherSettings, data: TaskData) -> list[int] | None:
    """For each of the task's classes the output of the checkpoint that means it; None where the names say nothing.

    Raises TeacherError where checkpoint and task have other labels.
    """
    source = teacher.checkpoint or ""
    config = load_config(source, trust_remote_code=teacher.trust_remote_code)
    if config.num_labels != len(data.label_names):
        raise TeacherError(f"teacher.checkpoint: {source} has {config.num_labels} labels, the task {len(data.label_names)} ({', '.join(data.label_names)})")
    if data.kind == "regression":
        return None  # one output, whatever it is called: its squared error decides
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


def teacher_logits(teacher: Teacher, data: TaskData, *, cache: Path, split: str = "train", say: Say = lambda line: None) -> np.ndarray:
    """The teacher's raw logits for every row of the split, fp32 [rows, classes], memory-mapped; computed once.

    With `teacher.folds` each row of train is labelled by the teacher that was fine-tuned without its fold.
    A split that is none of the task's (rows that only the teacher labels) is computed by one process, while others wait.
    """
    rows = data.splits[split]
    by_fold = bool(teacher.folds) and split == "train"
    file = _fold_logits_file(teacher, rows, cache) if by_fold else _logits_file(teacher.key, rows, cache)
    with contextlib.nullcontext() if split in SPLITS else locked(file.with_suffix(".lock"), lambda: say(f"teacher's logits for {split}: waiting")):
        if not file.exists():
            say(f"teacher's logits: computing for {len(rows):,} rows of {split}")
            _write_logits(file, _answers_by_fold(teacher, data, cache, say) if by_fold else _answers_of(teacher, data, rows, cache, say))
    return check_logits(np.load(file, mmap_mode="r"), data, file, split)


def _answers_of(teacher: Teacher, data: TaskData, rows: Split, cache: Path, say: Say) -> np.ndarray:
    model = frozen_teacher(teacher, data.label_names, data.kind)
    return _answers(model, load_tokenizer(str(teacher.folder)), rows, max_length=teacher.max_length, truncation=teacher.truncation, cache=cache, say=say)


def _answers_by_fold(teacher: Teacher, data: TaskData, cache: Path, say: Say) -> np.ndarray:
    numbers = fold_numbers(data.train.texts, len(teacher.folds))
    logits = np.empty((len(data.train), len(data.label_names)), dtype=np.float32)
    for fold, key in enumerate(teacher.folds):
        if (without := find_teacher(cache / "teachers" / key)) is None:
            raise TeacherError(f"{cache / 'teachers' / key}: the teacher of fold {fold} was removed from the cache; run again to make it again")
        held = np.flatnonzero(numbers == fold)
        logits[held] = _answers_of(without, data, data.train.take(held), cache, say)
    return logits


def drop_logits(teacher: Teacher, data: TaskData, cache: Path) -> None:
    """Let its folds label train again."""
    _fold_logits_file(teacher, data.train, cache).unlink(missing_ok=True)


def _fold_logits_file(teacher: Teacher, rows: Split, cache: Path) -> Path:
    return _logits_file(fingerprint("out of fold 1", *teacher.folds), rows, cache)


def _write_logits(file: Path, logits: np.ndarray) -> None:
    """With the hash of what was written, for whoever reads it (`check_logits`)."""
    check = _hash_file(file)
    check.unlink(missing_ok=True)
    write_array(file, logits)
    write_json(check, {"hash": file_fingerprint(file)})


def _hash_file(file: Path) -> Path:
    return file.parent.with_name("logits-hashes") / f"{file.stem}.json"


def teacher_test(teacher: Teacher, data: TaskData, metric: Metric, *, cache: Path) -> dict[str, float] | None:
    """What the teacher reaches on the test split (`judge`), where its logits were asked for; None where they never were.

    What it reaches on another split that is judged beside test has that split's name before it: `NAME/accuracy`.
    """
    tests = {"test": data.test, **data.more_tests}
    if not all(_logits_file(teacher.key, split, cache).exists() for split in tests.values()):
        return None
    judged = {name: judge(metric, split.labels, np.asarray(teacher_logits(teacher, data, cache=cache, split=name))) for name, split in tests.items()}
    return by_split(judged)


def _logits_file(teacher_key: str, rows: Split, cache: Path) -> Path:
    if rows.name not in SPLITS:  # beside each other: how many they are depends on the space, and they go with the teacher
        return cache / "logits" / teacher_key / f"{rows.key}.npy"
    return cache / "logits" / f"{fingerprint('logits 1', teacher_key, rows.key)}.npy"


def _answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Split,
    *,
    max_length: int,
    truncation: Truncation,
    cache: Path,
    say: Say = lambda line: None,
) -> np.ndarray:
    how: dict[str, Any] = {"max_length": max_length, "truncation": truncation}
    tokens = tokenize_split(rows, tokenizer, token_types=reads_token_types(model), cache=cache, say=say, **how)
    return predict(model, tokens, resolve_precision("auto", model.device))


def frozen_teacher(teacher: Teacher, label_names: tuple[str, ...], kind: Kind = "classification") -> PreTrainedModel:
    """The teacher on its device, in eval mode, without gradients."""
    model = load_classifier(str(teacher.folder), label_names, kind=kind)
    model.to(pick_device())
    model.requires_grad_(False)
    model.eval()
    return model


def check_frozen(model: PreTrainedModel) -> None:
    """Raise TeacherError where a teacher would answer with dropout, or be trained along."""
    if training := next((name or "the model" for name, module in model.named_modules() if module.training), None):
        raise TeacherError(f"teacher: {training} is in training mode, so that dropout changes what it teaches; call eval() first")
    if moving := next((name for name, parameter in model.named_parameters() if parameter.requires_grad), None):
        raise TeacherError(f"teacher: {moving} takes gradients, so that the teacher would be trained along; call requires_grad_(False) first")


ROWS_A_LOOK = 1 << 16  # a mask of all rows at once would be another array of their number


def check_logits(logits: np.ndarray, data: TaskData, file: Path, split: str = "train") -> np.ndarray:
    expected = (len(data.splits[split]), len(data.label_names))
    if logits.shape != expected or not all(np.isfinite(logits[i : i + ROWS_A_LOOK]).all() for i in range(0, len(logits), ROWS_A_LOOK)):
        raise TeacherError(f"{file} holds logits of shape {logits.shape}, not finite ones of {expected}; remove the file and run again")
    check = _hash_file(file)  # what earlier versions wrote has none
    if check.exists() and read_json(check)["hash"] != file_fingerprint(file):
        raise TeacherError(f"{file} is not what was written there: its hash has changed since; remove the file and run again")
    return logits
