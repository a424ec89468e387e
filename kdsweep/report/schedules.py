"""A trial's schedules: the curves that charts draw, and words."""

from __future__ import annotations

from collections.abc import Collection
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
from kdsweep.formatting import significant

SAMPLES = 48
Scheduled = Literal["alpha", "temperature"]


# --- curves --------------------------------------------------------------------------------------


def schedule_of(settings: TrialSettings, what: Scheduled) -> Schedule:
    schedule: Schedule = settings.alpha if what == "alpha" else settings.temperature
    return schedule


def sample(settings: TrialSettings, what: Scheduled) -> tuple[list[float], list[float]]:
    """(progress from 0 to 1, value) of a trial's schedule: as few points as draw the same curve."""
    schedule, epochs = schedule_of(settings, what), settings.training.epochs
    edges: list[float] = []
    if isinstance(schedule, PerEpoch):
        edges = [epoch / epochs for epoch in range(1, epochs)]
    elif isinstance(schedule, Step):
        edges = list(schedule.boundaries)
    grid = [0.0, 1.0]
    if isinstance(schedule, Cosine):
        grid = np.linspace(0, 1, SAMPLES // 2 + 1).tolist()
    # A step is drawn upright, from just before its edge to the edge.
    nearly = 1e-7
    progress = sorted({*grid, *(at for edge in edges for at in (edge - nearly, edge))})
    values = [_at(schedule, at, epochs) for at in progress]
    return progress, values


def _at(schedule: Schedule, progress: float, epochs: int) -> float:
    return schedule.at(progress, min(int(progress * epochs + 1e-9), epochs - 1))


def mean_over_training(settings: TrialSettings, what: Scheduled) -> float:
    schedule, epochs = schedule_of(settings, what), settings.training.epochs
    return float(np.mean([_at(schedule, (i + 0.5) / SAMPLES, epochs) for i in range(SAMPLES)]))


def weighs_teacher(settings: TrialSettings) -> bool:
    """Whether alpha is below 1 in any epoch. If not, no temperature acts on the trial."""
    return min(sample(settings, "alpha")[1]) < 1


def peak_rate(settings: TrialSettings) -> float:
    """The highest learning rate."""
    return max(settings.learning_rate.values_taken())


# --- words ---------------------------------------------------------------------------------------


def in_words(schedule: Schedule) -> str:
    """A schedule in a few words: `0.7, 0.5, 0.3 by epoch, then 0.2`."""
    match schedule:
        case Constant(value=constant):
            return significant(constant)
        case Linear(start=start, end=end):
            return f"{significant(start)} to {significant(end)}"
        case Cosine(start=start, end=end):
            return f"{significant(start)} to {significant(end)}, cosine"
        case Step(values=values, boundaries=boundaries):
            later = zip(values[1:], boundaries, strict=True)
            steps = [f"{significant(value)} from {100 * at:.0f}%" for value, at in later]
            return ", ".join([significant(values[0]), *steps])
        case PerEpoch(values=values, after=after):
            later_on = "" if after is None else f", then {significant(after)}"
            return ", ".join(map(significant, values)) + f" by epoch{later_on}"


def rate_in_words(rate: float) -> str:
    """A learning rate in two digits: `5e-5`, `2.3e-5`, `0.003`."""
    if rate >= 1e-3:
        return f"{rate:.2g}"
    return f"{rate:.1e}".replace("e-0", "e-").replace(".0e", "e")


def settled_values(settings: TrialSettings, drawn: Collection[str] = ()) -> str:
    """alpha, temperature (T) and learning rate (lr) of a trial, each in a few words.

    drawn: the names of its parameters; the student's shape is added where one of them shapes it.
    """
    words = [f"alpha {in_words(settings.alpha)}"]
    if settings.teacher is not None and settings.needs_logits:
        words.append(f"T {in_words(settings.temperature)}")
    words.append(f"lr {in_words(settings.learning_rate)}")
    if any(name.startswith("student.") for name in drawn) and settings.student.shape:
        words.append(settings.student.shape.removeprefix(", "))
    return "; ".join(words)
