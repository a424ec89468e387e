"""A trial's schedules, to be drawn and to be read."""

from __future__ import annotations

from typing import Literal

import numpy as np

from kdsweep.core.schedules import (
    Constant,
    Cosine,
    Linear,
    PerEpoch,
    Schedule,
    Step,
)
from kdsweep.core.settings import TrialSettings

SAMPLES = 48
Scheduled = Literal["alpha", "temperature"]


def sample(settings: TrialSettings, what: Scheduled) -> tuple[list[float], list[float]]:
    """(progress from 0 to 1, value) of a trial's schedule: as few points as draw the same curve."""
    schedule, epochs = _schedule(settings, what), settings.training.epochs
    edges: list[float] = []
    if isinstance(schedule, PerEpoch):
        edges = [epoch / epochs for epoch in range(1, epochs)]
    elif isinstance(schedule, Step):
        edges = list(schedule.boundaries)
    nearly = 1e-7  # a step is drawn upright: just before it and at it
    grid = [0.0, 1.0]
    if isinstance(schedule, Cosine):
        grid = np.linspace(0, 1, SAMPLES // 2 + 1).tolist()
    progress = sorted({*grid, *(at for edge in edges for at in (edge - nearly, edge))})
    values = [_at(schedule, at, epochs) for at in progress]
    return progress, values


def _schedule(settings: TrialSettings, what: Scheduled) -> Schedule:
    schedule: Schedule = settings.alpha if what == "alpha" else settings.temperature
    return schedule


def _at(schedule: Schedule, progress: float, epochs: int) -> float:
    return schedule.at(progress, min(int(progress * epochs + 1e-9), epochs - 1))


def mean_over_training(settings: TrialSettings, what: Scheduled) -> float:
    schedule, epochs = _schedule(settings, what), settings.training.epochs
    return float(np.mean([_at(schedule, (i + 0.5) / SAMPLES, epochs) for i in range(SAMPLES)]))


def in_words(schedule: Schedule) -> str:
    """A schedule in a few words: `0.7, 0.5, 0.3 by epoch, then 0.2`."""
    match schedule:
        case Constant(value=constant):
            return small(constant)
        case Linear(start=start, end=end):
            return f"{small(start)} to {small(end)}"
        case Cosine(start=start, end=end):
            return f"{small(start)} to {small(end)}, cosine"
        case Step(values=values, boundaries=boundaries):
            return small(values[0]) + "".join(
                f", {small(later)} from {100 * at:.0f}%"
                for later, at in zip(values[1:], boundaries, strict=True)
            )
        case PerEpoch(values=values, after=after):
            return (
                ", ".join(map(small, values))
                + " by epoch"
                + ("" if after is None else f", then {small(after)}")
            )


def weighs_teacher(settings: TrialSettings) -> bool:
    """Whether alpha is below 1 in any epoch. If not, no temperature acts on the trial."""
    return min(sample(settings, "alpha")[1]) < 1


def peak_rate(settings: TrialSettings) -> float:
    return max(settings.learning_rate.values_taken())


def small(value: float) -> str:
    """Three digits, and a short power of ten for what is very small."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def rate_in_words(value: float) -> str:
    return (
        f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    )
