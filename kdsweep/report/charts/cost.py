"""The metric against what a student costs to use: latency and size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kdsweep.compare.latency import cost_the_same
from kdsweep.formatting import score, significant
from kdsweep.report.charts.against import below_the_frame, layout_against, points_against
from kdsweep.report.charts.figures import (
    INK,
    Chart,
    Figure,
    Panel,
    Row,
    axis_of,
    teacher_words,
    trace_of,
)
from kdsweep.report.charts.material import Material
from kdsweep.trial_id import TrialId


class Point(NamedTuple):
    """A student: its cost, the metric, and its trial's name."""

    cost: float
    value: float
    name: str


@dataclass(frozen=True)
class _Measure:
    """A cost. key: in a student's measurements."""

    key: str
    label: str
    unit: str

    def say(self, cost: float) -> str:
        return f"{significant(cost)} {self.unit}"


LATENCY, SIZE = _Measure("latency_ms", "latency", "ms"), _Measure("size_mb", "size", "MB")


def cost_chart(material: Material) -> Chart | None:
    panels: list[Panel] = []
    rows: list[Row] = []
    words = []
    for measure in (LATENCY, SIZE):
        costs = _costs(material, measure)
        once = bool(material.report.latencies)
        same = cost_the_same([measure.key], material.records, measured_once=once)
        if not costs or same:
            continue
        front = pareto(
            Point(costs[one.trial.id], one.value, one.trial.id.name)
            for one in material.complete
            if one.trial.id in costs
        )
        panels.append(_panel(material, measure, costs, front))
        rows += [
            (measure.label, measure.say(one.cost), score(one.value), one.name) for one in front
        ]
        words.append(f"{measure.label}: {_ends(front, measure)}")
    if not panels:
        return None
    metric = material.metric
    return Chart(
        "cost",
        f"{metric[0].upper()}{metric[1:]} against latency and size",
        "Up and to the left is better; no complete trial lies above and left of the Pareto front. "
        f"Its ends: {'; '.join(words)}.{teacher_words(material.teacher_validation)}"
        f"{below_the_frame(material, material.complete)}",
        tuple(panels),
        ("front", "cost", metric, "trial"),
        tuple(rows),
    )


def _costs(material: Material, measure: _Measure) -> dict[TrialId, float]:
    """Of each complete trial whose student was measured."""
    costs = {}
    for one in material.complete:
        student = one.trial.result.student if one.trial.result else None
        cost = student.get(measure.key) if student else None
        if cost is not None:
            costs[one.trial.id] = float(cost)
    return costs


def _panel(
    material: Material, measure: _Measure, costs: dict[TrialId, float], front: Sequence[Point]
) -> Panel:
    known = [one for one in material.complete if one.trial.id in costs]
    data = points_against(material, known, lambda one: costs[one.id])
    data.append(
        trace_of(
            [one.cost for one in front],
            [one.value for one in front],
            "Pareto front",
            mode="lines+markers",
            line={"color": INK, "width": 1.5, "dash": "dash", "shape": "hv"},
            marker={"color": INK, "symbol": "circle-open", "size": 14},
            hoverinfo="skip",
        )
    )
    data += _teacher_trace(material, measure)
    axis = axis_of(f"{measure.label} ({measure.unit})", rangemode="tozero")
    return Panel(f"Against {measure.label}", data, layout_against(material, known, axis))


def _teacher_trace(material: Material, measure: _Measure) -> list[Figure]:
    teacher = material.report.teacher
    if teacher is None:
        return []
    cost = teacher.latency_ms if measure is LATENCY else teacher.size_mb
    if cost is None:
        return []
    return [
        trace_of(
            [cost],
            [teacher.validation],
            "teacher",
            mode="markers",
            marker={"color": INK, "symbol": "hexagram", "size": 13},
            hovertemplate="%{x:.3~g} " + measure.unit + ": %{y:.4f}",
        )
    ]


def _ends(front: Sequence[Point], measure: _Measure) -> str:
    ends = front if len(front) == 1 else (front[0], front[-1])
    return " and ".join(f"{one.value:.4f} at {measure.say(one.cost)}" for one in ends)


def pareto(points: Iterable[Point]) -> list[Point]:
    """The points that no other one beats in both cost and value, cheapest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -one.value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front
