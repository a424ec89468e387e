"""Judging a model: its logits for a split, and the task's metric from them."""

from __future__ import annotations

import time

import numpy as np
import torch
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from transformers import PreTrainedModel

from kdsweep.core.data import TokenizedSplit, evaluation_batches
from kdsweep.core.device import autocast, to_device
from kdsweep.core.settings import Metric

TOKENS_A_BATCH = {"cpu": 4096, "cuda": 65536}
CALIBRATION_BINS = 15
LATENCY_RUNS, LONGEST_LATENCY_SECONDS = 60, 2.0


@torch.inference_mode()
def predict(model: PreTrainedModel, tokens: TokenizedSplit, dtype: torch.dtype) -> np.ndarray:
    """Raw logits, fp32 [rows, classes], in the order of the rows. The model is in eval mode here and as it was afterwards."""
    was_training = model.training
    model.eval()
    device = model.device
    order: list[np.ndarray] = []
    parts: list[torch.Tensor] = []
    for rows in evaluation_batches(tokens.lengths, TOKENS_A_BATCH[device.type]):
        with autocast(device, dtype):
            parts.append(model(**to_device(tokens.batch(rows), device)).logits.float())
        order.append(rows)
    model.train(was_training)
    sorted_logits = torch.cat(parts).cpu().numpy()
    logits = np.empty_like(sorted_logits)
    logits[np.concatenate(order)] = sorted_logits
    return logits


def score(metric: Metric, labels: np.ndarray, predicted: np.ndarray) -> float:
    """The task's metric of predicted against true class numbers, both [rows]. `f1` is that of class 1."""
    match metric:
        case "accuracy":
            return float(accuracy_score(labels, predicted))
        case "f1":
            return float(f1_score(labels, predicted, average="binary", pos_label=1, zero_division=0.0))
        case "f1_macro":
            return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
        case "matthews":
            return float(matthews_corrcoef(labels, predicted))


def judge(metric: Metric, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """`loss` (mean cross-entropy in nats), the task's metric, accuracy in any case, and `ece` (`calibration_error`)."""
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(log_probabilities(logits))
    return {
        "loss": float(log_loss(labels, probabilities, labels=np.arange(logits.shape[1]))),
        "accuracy": score("accuracy", labels, predicted),
        metric: score(metric, labels, predicted),
        "ece": calibration_error(labels, probabilities),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: how far confidence (the answer's probability) is from accuracy, in bins of equal width.

    labels: [rows]. probabilities: [rows, classes]. The bins are (0, 1/15], (1/15, 2/15], ...; each weighs as many rows as it has.
    Guo, Pleiss, Sun, Weinberger (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    # A bin's gap times its rows is the difference of two sums over those rows.
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels))


def fidelity(teacher_logits: np.ndarray, student_logits: np.ndarray) -> dict[str, float]:
    """How well the student imitates the teacher, whatever the labels say; both [rows, classes].

    `agreement` is the share of rows where both give the same answer, `teacher_kl` the mean KL(teacher || student) at temperature 1
    in nats. Stanton, Izmailov, Kirichenko, Alemi, Wilson (2021), "Does Knowledge Distillation Really Work?"
    """
    teacher, student = log_probabilities(teacher_logits), log_probabilities(student_logits)
    return {
        "agreement": float((teacher.argmax(axis=1) == student.argmax(axis=1)).mean()),
        "teacher_kl": float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean()),
    }


def sureness(logits: np.ndarray) -> dict[str, float]:
    """How sure these answers are, [rows, classes]: `margin`, the mean difference of a row's two largest probabilities (1: nothing but
    labels, 0: a coin), and `entropy`, the mean of a row's, in nats."""
    log = log_probabilities(logits)
    second, first = np.sort(np.exp(log), axis=1)[:, -2:].T
    return {"margin": float((first - second).mean()), "entropy": float(-(np.exp(log) * log).sum(axis=1).mean())}


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax, fp64 [rows, classes]."""
    found: np.ndarray = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return found


@torch.inference_mode()
def latency(model: PreTrainedModel, tokens: TokenizedSplit) -> dict[str, float]:
    """Milliseconds for one row of median length, alone in its batch, in fp32: `latency_ms`, the median, and `latency_p95_ms`."""
    was_training = model.training
    model.eval()
    lengths = tokens.lengths
    typical = np.argsort(lengths, kind="stable")[len(lengths) // 2 : len(lengths) // 2 + 1]
    inputs = to_device(tokens.batch(typical), model.device)
    seconds: list[float] = []
    until = time.perf_counter() + LONGEST_LATENCY_SECONDS
    while len(seconds) < LATENCY_RUNS + 3 and (len(seconds) < 8 or time.perf_counter() < until):  # the first three warm up
        start = time.perf_counter()
        model(**inputs).logits.cpu()  # the copy waits for the GPU
        seconds.append(time.perf_counter() - start)
    model.train(was_training)
    median, high = np.quantile(seconds[3:], [0.5, 0.95])
    return {"latency_ms": 1000 * float(median), "latency_p95_ms": 1000 * float(high)}
