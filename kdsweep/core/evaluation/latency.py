"""How long a model takes for one row."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel

from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.device import to_device

LATENCY_WARM_UPS, FEWEST_LATENCY_RUNS, MOST_LATENCY_RUNS, LATENCY_SECONDS = 3, 20, 60, 0.25


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
