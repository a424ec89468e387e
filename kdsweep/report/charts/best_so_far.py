"""The best trial so far against the time that its strategy has used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from kdsweep.formatting import score, significant
from kdsweep.report.charts.figures import (
    Chart,
    Figure,
    Panel,
    Row,
    axis_of,
    layout_of,
    span_of,
    teacher_line,
    teacher_words,
    trace_of,
)
from kdsweep.report.charts.material import Look, Material


class _Unit(NamedTuple):
    name: str
    seconds: float


class _Step(NamedTuple):
    """A trial that is better than all before it. time: when it ended, in the chart's unit."""

    time: float
    value: float
    number: int


@dataclass(frozen=True)
class _Course:
    """How a strategy's search went. total: the time of all its trials."""

    name: str
    steps: list[_Step]
    total: float

    @property
    def last(self) -> _Step:
        return self.steps[-1]


def best_so_far_chart(material: Material) -> Chart | None:
    spent = {
        name: list(accumulate(one.result.seconds if one.result else 0.0 for one in trials))
        for name, trials in material.searched.items()
    }
    unit = _unit_for(max((seconds[-1] for seconds in spent.values() if seconds), default=0.0))
    courses = [
        course
        for name, seconds in spent.items()
        if (course := _course(material, name, seconds, unit)) is not None
    ]
    if not courses or len(material.complete) < 2:
        return None
    teacher = material.teacher_validation
    values = [step.value for course in courses for step in course.steps]
    words = "; ".join(_words(course, unit) for course in courses)
    layout = layout_of(
        axis_of(f"slot {unit.name} that the strategy's trials took", rangemode="tozero"),
        axis_of(f"best validation {material.metric}", range=span_of([*values, teacher], cut=True)),
        line=teacher_line(teacher),
    )
    data = [_trace(course, material.looks[course.name], unit) for course in courses]
    return Chart(
        "best",
        "Best so far against slot time",
        "The best complete trial so far, trials in the order in which they started: "
        f"{words}.{teacher_words(teacher)}",
        (Panel("", data, layout),),
        ("strategy", "best", "trial", f"{unit.name} until then", f"{unit.name} in all"),
        tuple(_row(course) for course in courses),
    )


def _unit_for(longest: float) -> _Unit:
    """longest: in seconds."""
    if longest >= 2 * 3600:
        return _Unit("hours", 3600.0)
    if longest >= 120:
        return _Unit("minutes", 60.0)
    return _Unit("seconds", 1.0)


def _course(material: Material, name: str, seconds: Sequence[float], unit: _Unit) -> _Course | None:
    reached = {one.trial.id: one.value for one in material.complete}
    steps: list[_Step] = []
    for trial, passed in zip(material.searched[name], seconds, strict=True):
        value = reached.get(trial.id)
        if value is not None and (not steps or value > steps[-1].value):
            steps.append(_Step(passed / unit.seconds, value, trial.id.number))
    return _Course(name, steps, seconds[-1] / unit.seconds) if steps else None


def _trace(course: _Course, look: Look, unit: _Unit) -> Figure:
    """Steps upward, and a level line to the end of the search."""
    return trace_of(
        [round(time, 3) for time in (*(step.time for step in course.steps), course.total)],
        [*(step.value for step in course.steps), course.last.value],
        course.name,
        text=(*(f"trial {step.number}" for step in course.steps), "end of the search"),
        mode="lines+markers",
        line={"color": look.color, "width": 2, "dash": look.dash, "shape": "hv"},
        marker={
            "symbol": look.symbol,
            "size": [*([8] * len(course.steps)), 0],
            "color": look.color,
            "opacity": 1,
            "line": {"width": 0},
        },
        hovertemplate="%{text}<br>%{y:.4f} after %{x:.3~g} " + unit.name,
    )


def _words(course: _Course, unit: _Unit) -> str:
    time, total = significant(course.last.time), significant(course.total)
    return f"{course.name} {course.last.value:.4f} after {time} of {total} {unit.name}"


def _row(course: _Course) -> Row:
    last = course.last
    times = (significant(last.time), significant(course.total))
    return course.name, score(last.value), str(last.number), *times
