"""Judging a model: its logits for a split, and the task's metric from them."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef
from transformers import PreTrainedModel

from kdsweep.core.data import TokenizedSplit, evaluation_batches
from kdsweep.core.device import autocast, to_device
from kdsweep.core.settings import Metric

TOKENS_A_BATCH = {"cpu": 4096, "cuda": 65536}
LATENCY_RUNS = 20


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
    """`loss` (mean cross-entropy in nats), the task's metric, and accuracy in any case."""
    predicted = logits.argmax(axis=1)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    return {
        "loss": float(log_loss(labels, probabilities, labels=np.arange(logits.shape[1]))),
        "accuracy": score("accuracy", labels, predicted),
        metric: score(metric, labels, predicted),
    }


@torch.inference_mode()
def latency_ms(model: PreTrainedModel, tokens: TokenizedSplit) -> float:
    """Median milliseconds for one row of median length, alone in its batch, in fp32."""
    was_training = model.training
    model.eval()
    lengths = tokens.lengths
    typical = np.argsort(lengths, kind="stable")[len(lengths) // 2 : len(lengths) // 2 + 1]
    inputs = to_device(tokens.batch(typical), model.device)
    seconds = []
    for _ in range(LATENCY_RUNS + 3):
        start = time.perf_counter()
        model(**inputs).logits.cpu()  # the copy waits for the GPU
        seconds.append(time.perf_counter() - start)
    model.train(was_training)
    return 1000 * statistics.median(seconds[3:])
