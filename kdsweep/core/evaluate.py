"""Judging a model: its logits for a split, and the task's metric from them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import log_softmax
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from transformers import PreTrainedModel

from kdsweep.core.answers import answers, as_classes, kind_of
from kdsweep.core.device import autocast, to_device
from kdsweep.core.settings import MEANS, METRICS, Kind, Metric
from kdsweep.core.tokens import TokenizedSplit, evaluation_batches

TOKENS_A_BATCH = {"cpu": 2048, "cuda": 65536}
CALIBRATION_BINS = 15
LATENCY_WARM_UPS, FEWEST_LATENCY_RUNS, MOST_LATENCY_RUNS, LATENCY_SECONDS = 3, 20, 60, 0.25


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
    """The task's metric of what was answered (`answers`) against the labels, of the same shape. `f1` is that of class 1.

    A correlation with what never varies is 0.
    """
    if metric in MEANS:
        return sum(score(part, labels, predicted) for part in MEANS[metric]) / 2
    match metric:
        case "accuracy" | "subset_accuracy":  # of several labels a row, all must be right
            return float(accuracy_score(labels, predicted))
        case "f1_micro":
            return float(f1_score(labels, predicted, average="micro", zero_division=0.0))
        case "f1":
            return float(f1_score(labels, predicted, average="binary", pos_label=1, zero_division=0.0))
        case "f1_macro":
            return float(f1_score(labels, predicted, average="macro", zero_division=0.0))
        case "matthews":
            return float(matthews_corrcoef(labels, predicted))
        case "pearson" | "spearman":
            if np.ptp(labels) == 0 or np.ptp(predicted) == 0:
                return 0.0
            exact = labels.astype(np.float64), predicted.astype(np.float64)
            return float((pearsonr if metric == "pearson" else spearmanr)(*exact).statistic)
    raise AssertionError(metric)


def judge(metric: Metric, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """`loss`, the task's metric, and those that say something beside it: of classes accuracy and `ece` (`calibration_error`).

    The loss is the mean cross-entropy in nats, where a row may have several labels that of each; in a regression the mean squared error,
    and all its metrics are told. labels, of whichever kind (`kind_of`); logits: [rows, classes].
    """
    kind = kind_of(labels)
    predicted = answers(logits, kind)
    beside: tuple[Metric, ...] = ("accuracy", *MEANS.get(metric, ())) if kind == "classification" else METRICS[kind]
    told: dict[str, float] = {name: score(name, labels, predicted) for name in dict.fromkeys((*beside, metric)) if name == metric or name not in MEANS}
    if kind == "regression":
        return {"loss": float(np.square(predicted.astype(np.float64) - labels).mean()), **told}
    chosen, probabilities = labels.astype(np.int64).ravel(), np.exp(log_probabilities(as_classes(logits, kind)))
    loss = float(log_loss(chosen, probabilities, labels=np.arange(probabilities.shape[1])))
    return {"loss": loss, **told, "ece": calibration_error(chosen, probabilities)}


def by_split(judged: dict[str, dict[str, float]]) -> dict[str, float]:
    """What was reached on test as it is called, and on each split beside it with that split's name before: `NAME/accuracy`."""
    return {(metric if split == "test" else f"{split}/{metric}"): value for split, found in judged.items() for metric, value in found.items()}


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: how far confidence (the answer's probability) is from accuracy, in bins of equal width.

    labels: [rows]. probabilities: [rows, classes]. The bins are (0, 1/15], (1/15, 2/15], ...; each weighs as many rows as it has.
    Guo, Pleiss, Sun, Weinberger (2017), "On Calibration of Modern Neural Networks", equation 3.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1], right=True)
    # A bin's gap times its rows is the difference of two sums over those rows.
    return float(np.abs(np.bincount(bins, weights=right - confidence)).sum() / len(labels))


def fidelity(teacher_logits: np.ndarray, student_logits: np.ndarray, kind: Kind = "classification") -> dict[str, float]:
    """How well the student imitates the teacher, whatever the labels say; both [rows, classes].

    `agreement` is the share of rows where both give the same answer, `teacher_kl` the mean KL(teacher || student) at temperature 1
    in nats; where a row may have several labels both are means over rows and labels. In a regression it is `teacher_mse`, the mean
    squared difference. Stanton, Izmailov, Kirichenko, Alemi, Wilson (2021), "Does Knowledge Distillation Really Work?"
    """
    if kind == "regression":
        return {"teacher_mse": float(np.square(np.asarray(teacher_logits, dtype=np.float64) - student_logits).mean())}
    teacher, student = (log_probabilities(as_classes(np.asarray(logits), kind)) for logits in (teacher_logits, student_logits))
    return {
        "agreement": float((teacher.argmax(axis=1) == student.argmax(axis=1)).mean()),
        "teacher_kl": float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean()),
    }


def sureness(logits: np.ndarray, kind: Kind = "classification") -> dict[str, float]:
    """How sure these answers are, [rows, classes]: `margin`, the mean difference of a row's two largest probabilities (1: nothing but
    labels, 0: a coin), and `entropy`, the mean of a row's, in nats. A regression doesn't say how sure it is."""
    if kind == "regression":
        return {}
    log = log_probabilities(as_classes(logits, kind))
    second, first = np.sort(np.exp(log), axis=1)[:, -2:].T
    return {"margin": float((first - second).mean()), "entropy": float(-(np.exp(log) * log).sum(axis=1).mean())}


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """log softmax, fp64 [rows, classes]."""
    found: np.ndarray = log_softmax(np.asarray(logits, dtype=np.float64), axis=1)
    return found


@torch.inference_mode()
def latency(model: PreTrainedModel, tokens: TokenizedSplit) -> dict[str, float]:
    """`timed` for the typical row of these, in fp32."""
    was_training = model.training
    model.eval()
    inputs = to_device(typical(tokens), model.device)
    found = timed(lambda: model(**inputs).logits.cpu())  # the copy waits for the GPU
    model.train(was_training)
    return found


def typical(tokens: TokenizedSplit) -> dict[str, np.ndarray]:
    """What a model reads of one row of median length, alone in its batch."""
    middle = len(tokens) // 2
    return tokens.batch(np.argsort(tokens.lengths, kind="stable")[middle : middle + 1])


def timed(answer: Callable[[], object]) -> dict[str, float]:
    """Milliseconds that `answer` takes: `latency_ms`, the median, and `latency_p95_ms`."""
    seconds: list[float] = []
    until = time.perf_counter() + LATENCY_SECONDS
    fewest, most = LATENCY_WARM_UPS + FEWEST_LATENCY_RUNS, LATENCY_WARM_UPS + MOST_LATENCY_RUNS
    while len(seconds) < fewest or (len(seconds) < most and time.perf_counter() < until):
        start = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - start)
    median, high = np.quantile(seconds[LATENCY_WARM_UPS:], [0.5, 0.95])
    return {"latency_ms": 1000 * float(median), "latency_p95_ms": 1000 * float(high)}
