"""A teacher's raw logits for a split, computed once and cached."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.rows import Say, Split, TaskData
from kdsweep.core.data.splits import fold_numbers
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.device import resolve_precision
from kdsweep.core.evaluation.metrics import by_split, score_logits
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.files import (
    file_fingerprint,
    fingerprint,
    read_array,
    read_json,
    whole,
    write_array,
    write_json,
)
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.settings import Precision
from kdsweep.core.shared_entry import SharedEntry
from kdsweep.core.split_settings import SPLITS
from kdsweep.core.teachers.artifact import Teacher, find_teacher, frozen_teacher, tokenizer_of
from kdsweep.errors import DamagedFile, TeacherError


def teacher_logits(
    teacher: Teacher,
    data: TaskData,
    *,
    cache: Path,
    split: str = "train",
    say: Say = lambda line: None,
) -> np.ndarray:
    """The teacher's raw logits for every row of the split, fp32 [rows, classes], memory-mapped.

    With `teacher.folds` each row of train, and each view of it, is labeled by the teacher that was
    fine-tuned without its fold. If several processes need a split that the task doesn't name
    (unlabeled rows, views), one computes it and the others wait.
    """
    rows = data.splits[split]
    by_fold = bool(teacher.folds) and (split == "train" or rows.is_view)
    file = logits_file(teacher.key, rows, cache)
    if by_fold:
        file = _fold_logits_file(teacher, rows, cache)

    def read() -> np.ndarray:
        return check_logits(read_array(file, mmap_mode="r"), data, file, split)

    def make() -> None:
        say(f"teacher's logits: computing for {len(rows):,} rows of {split}")
        if by_fold:
            logits = _answers_by_fold(teacher, data, rows, cache, say)
        else:
            logits = _answers_of(teacher, data, rows, cache, say)
        write_logits(file, logits)

    # Those of a teacher's own splits are a part of the teacher.
    lock = cache / "teachers" / f"{teacher.key}.lock" if split in SPLITS else None
    waiting = f"teacher's logits for {split}: waiting"
    return SharedEntry(file, read, make, waiting, say, lock).get()


def _answers_of(teacher: Teacher, data: TaskData, rows: Split, cache: Path, say: Say) -> np.ndarray:
    model = frozen_teacher(teacher, data.label_names, data.kind)
    tokenizer = tokenizer_of(teacher)
    input_format = input_format_of(model, tokenizer, teacher.max_length, teacher.truncation)
    precision = teacher.precision
    if precision != "auto" and rows.name in ("test", *data.more_tests):
        # Students are judged in fp32 there, as they are exported.
        precision = "fp32"
    return answers_of_model(model, tokenizer, rows, input_format, precision, cache=cache, say=say)


def _answers_by_fold(
    teacher: Teacher, data: TaskData, rows: Split, cache: Path, say: Say
) -> np.ndarray:
    """rows: train, or a view of it. A view of a row says what the row says: it has its fold."""
    numbers = fold_numbers(data.train, len(teacher.folds), data.kind, data.split_rule)
    logits = np.empty((len(rows), len(data.label_names)), dtype=np.float32)
    for fold, key in enumerate(teacher.folds):
        folder = cache / "teachers" / key
        without = find_teacher(folder, trust_remote_code=teacher.trust_remote_code)
        if without is None:
            raise TeacherError(
                f"{folder}: the teacher of fold {fold} was removed from the "
                "cache; run again to make it again"
            )
        without = replace(without, precision=teacher.precision)
        held = np.flatnonzero(numbers == fold)
        logits[held] = _answers_of(without, data, rows.take(held), cache, say)
    return logits


def drop_fold_logits(teacher: Teacher, data: TaskData, cache: Path) -> None:
    """Remove the fold teachers' logits for train and its views, so that they are computed again."""
    _fold_logits_file(teacher, data.train, cache).unlink(missing_ok=True)
    shutil.rmtree(cache / "logits" / _folds_key(teacher), ignore_errors=True)


def _fold_logits_file(teacher: Teacher, rows: Split, cache: Path) -> Path:
    return logits_file(_folds_key(teacher), rows, cache)


def _folds_key(teacher: Teacher) -> str:
    return fingerprint("out of fold 1", *teacher.folds)


def write_logits(file: Path, logits: np.ndarray) -> None:
    """Write the logits, and next to them the hash of their file for `check_logits`."""
    check = _hash_file(file)
    check.unlink(missing_ok=True)
    write_array(file, logits)
    write_json(check, {"hash": file_fingerprint(file)})


def _hash_file(file: Path) -> Path:
    return file.parent.with_name("logits-hashes") / f"{file.stem}.json"


def teacher_test(
    teacher: Teacher, data: TaskData, metric: str, *, cache: Path
) -> dict[str, float] | None:
    """What the teacher reaches on the test split, or None if its logits there were never computed.

    A score on one of `more_tests` has that split's name in front: `NAME/accuracy`.
    """
    tests = {"test": data.test, **data.more_tests}
    if not all(logits_file(teacher.key, split, cache).exists() for split in tests.values()):
        return None
    judged = {
        name: score_logits(
            metric,
            split.labels,
            np.asarray(teacher_logits(teacher, data, cache=cache, split=name)),
            data.kind,
        )
        for name, split in tests.items()
    }
    return by_split(judged)


def stored_logits(
    teacher: Teacher, data: TaskData, *, cache: Path, split: str = "test"
) -> np.ndarray | None:
    """The teacher's logits for a split, or None if they were never computed."""
    file = logits_file(teacher.key, data.splits[split], cache)
    if not file.exists():
        return None
    return check_logits(read_array(file, mmap_mode="r"), data, file, split)


def logits_file(teacher_key: str, rows: Split, cache: Path) -> Path:
    # Other splits are in a folder of the teacher, so that they can be removed with it.
    if rows.name not in SPLITS:
        return cache / "logits" / teacher_key / f"{rows.key}.npy"
    return cache / "logits" / f"{fingerprint('logits 1', teacher_key, rows.key)}.npy"


def answers_of_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Split,
    input_format: InputFormat,
    precision: Precision,
    *,
    cache: Path,
    say: Say = lambda line: None,
) -> np.ndarray:
    tokens = tokenize_split(rows, tokenizer, input_format, cache=cache, say=say)
    return predict(model, tokens, resolve_precision(precision, model.device))


REMOVE = "remove the file and run again"
# Checked in parts, because a mask of all rows would be another large array.
ROWS_PER_CHECK = 1 << 16


def _hash_of(file: Path) -> str | None:
    """The hash that was written with this file; None if there is none, or it is damaged itself."""
    check = _hash_file(file)
    if not check.exists():
        return None
    try:
        with whole(check):
            return str(read_json(check)["hash"])
    except DamagedFile:
        return None


def check_logits(
    logits: np.ndarray, data: TaskData, file: Path, split: str = "train"
) -> np.ndarray:
    """The logits. Raises DamagedFile if they have another shape, aren't finite or changed."""
    expected = (len(data.splits[split]), len(data.label_names))
    starts = range(0, len(logits), ROWS_PER_CHECK)
    finite = all(np.isfinite(logits[i : i + ROWS_PER_CHECK]).all() for i in starts)
    if logits.shape != expected or not finite:
        raise DamagedFile(
            f"{file} holds logits of shape {logits.shape}, not finite ones of {expected}", REMOVE
        )
    # Early versions wrote no hash.
    if _hash_of(file) not in (None, file_fingerprint(file)):
        raise DamagedFile(f"{file} was changed after it was written: its hash differs", REMOVE)
    return logits
