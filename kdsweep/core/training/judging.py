"""What is measured of a student: on validation while it trains, and once when it is done."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from kdsweep import metric_names
from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.evaluation.fidelity import fidelity
from kdsweep.core.evaluation.latency import latency, timed
from kdsweep.core.evaluation.metrics import by_split, score_logits
from kdsweep.core.evaluation.onnx_format import OnnxModel
from kdsweep.core.evaluation.predict import predict
from kdsweep.core.models.describing import parameter_count, size_mb
from kdsweep.core.training.prepare import PreparedTrial
from kdsweep.errors import TrialDiverged


def judge_validation(
    trial: PreparedTrial, step: int, quantized: OnnxModel | None = None
) -> tuple[dict[str, float], np.ndarray]:
    """`validation/...` of the student as it is after `step` steps, and what it predicts.

    quantized: judge this file, which was made of it. Raises TrialDiverged if the logits are not
    finite: the last step broke the weights, and the next one's loss would show it.
    """
    task, tokens = trial.settings.task, trial.validation_tokens
    logits = _logits(trial, tokens, trial.dtype, quantized)
    if not np.isfinite(logits).all():
        raise TrialDiverged(step)
    judged = score_logits(task.metric, tokens.labels, logits, task.kind)
    if trial.rows.answers.validation is not None:
        judged |= fidelity(trial.rows.answers.validation, logits, task.kind)
    metrics = {metric_names.validation(name): value for name, value in judged.items()}
    return metrics, task.kind.predictions(logits)


def _logits(
    trial: PreparedTrial, tokens: TokenizedSplit, dtype: torch.dtype, quantized: OnnxModel | None
) -> np.ndarray:
    if quantized is None:
        return predict(trial.model, tokens, dtype)
    return quantized.predict(tokens)


def judge_test(
    trial: PreparedTrial, quantized: OnnxModel | None = None
) -> tuple[dict[str, float], np.ndarray]:
    """What the student reaches on the test split and on more tests, and its logits for test.

    quantized: see `judge_validation`.
    """
    data = trial.rows.data
    tests = {
        name: trial.student.tokenized(split)
        for name, split in {"test": data.test, **data.more_tests}.items()
    }
    # In fp32, as the student is exported. Sweeps of version 0.1.0 judge in the trial's precision.
    dtype = trial.dtype if trial.settings.settled_precision is None else torch.float32
    logits = {name: _logits(trial, tokens, dtype, quantized) for name, tokens in tests.items()}
    task = trial.settings.task
    judged = {
        name: score_logits(task.metric, tests[name].labels, logits[name], task.kind)
        for name in tests
    }
    return by_split(judged), logits["test"]


def measure_student(
    trial: PreparedTrial,
    known: Mapping[str, float] | None = None,
    quantized: OnnxModel | None = None,
) -> dict[str, float]:
    """How large the student is and how long it takes for one row.

    known: how long, where it was measured before. quantized: see `judge_validation`; its size is
    the file's.
    """
    tokens = trial.validation_tokens
    if known is None and quantized is not None:
        known = timed(quantized.answering(tokens))
    elif known is None:
        known = latency(trial.model, tokens)
    return {
        "parameters": float(parameter_count(trial.model)),
        "size_mb": size_mb(trial.model) if quantized is None else quantized.size_mb,
        **known,
    }
