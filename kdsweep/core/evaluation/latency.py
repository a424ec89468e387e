"""How long a model takes for one row."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from kdsweep.core.data.tokenize import TokenizedSplit
from kdsweep.core.device import to_device
from kdsweep.core.evaluation.latency_figures import Latency

LATENCY_WARM_UPS, FEWEST_LATENCY_RUNS, MOST_LATENCY_RUNS, LATENCY_SECONDS = 3, 20, 60, 0.25
# Models that are measured in turn: how often it is each one's turn, and how long a turn is.
ROUNDS, FEWEST_RUNS_A_ROUND, MOST_RUNS_A_ROUND, ROUND_SECONDS = 9, 5, 30, 0.08


@torch.inference_mode()
def latency(model: PreTrainedModel, tokens: TokenizedSplit) -> dict[str, float]:
    """`timed` for the typical row of these, in fp32."""
    was_training = model.training
    model.eval()
    found = timed(answering(model, tokens))
    model.train(was_training)
    return found


def answering(model: PreTrainedModel, tokens: TokenizedSplit) -> Callable[[], object]:
    """A function that runs the model on the typical row of these."""
    inputs = to_device(typical(tokens), model.device)
    return lambda: model(**inputs).logits.cpu()  # the copy waits for the GPU


def typical(tokens: TokenizedSplit) -> dict[str, np.ndarray]:
    """What a model reads of one row of median length, alone in its batch."""
    middle = len(tokens) // 2
    return tokens.batch(np.argsort(tokens.lengths, kind="stable")[middle : middle + 1])


def timed(answer: Callable[[], object]) -> dict[str, float]:
    """Milliseconds that `answer` takes: `latency_ms`, the median, and `latency_p95_ms`."""
    seconds = _runs(answer, FEWEST_LATENCY_RUNS, MOST_LATENCY_RUNS, LATENCY_SECONDS)
    median, high = np.quantile(seconds, [0.5, 0.95])
    return {"latency_ms": 1000 * float(median), "latency_p95_ms": 1000 * float(high)}


def timed_in_turn(
    answers: Sequence[Callable[[], object]], before_round: Callable[[int], None]
) -> list[Latency]:
    """The latency of each: one after another, and that in rounds.

    A machine that becomes slower slows down all of them, and one disturbance is one round of one
    of them. before_round: is called with the number of rounds that are done.
    """
    rounds: list[list[np.ndarray]] = [[] for _ in answers]
    for number in range(ROUNDS):
        before_round(number)
        for answer, found in zip(answers, rounds, strict=True):
            found.append(_runs(answer, FEWEST_RUNS_A_ROUND, MOST_RUNS_A_ROUND, ROUND_SECONDS))
    return [_summary(found) for found in rounds]


def _runs(answer: Callable[[], object], fewest: int, most: int, at_least: float) -> np.ndarray:
    """The seconds of each run after the first ones, which warm up."""
    seconds: list[float] = []
    until = time.perf_counter() + at_least
    fewest, most = LATENCY_WARM_UPS + fewest, LATENCY_WARM_UPS + most
    while len(seconds) < fewest or (len(seconds) < most and time.perf_counter() < until):
        start = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[LATENCY_WARM_UPS:])


def _summary(rounds: Sequence[np.ndarray]) -> Latency:
    medians = 1000 * np.array([np.median(seconds) for seconds in rounds])
    return Latency(
        latency_ms=float(np.median(medians)),
        latency_p95_ms=1000 * float(np.quantile(np.concatenate(rounds), 0.95)),
        low_ms=float(medians.min()),
        high_ms=float(medians.max()),
        rounds=len(rounds),
        measured=time.time_ns() // 1_000_000,
    )
