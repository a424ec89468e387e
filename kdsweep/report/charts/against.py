"""The metric of each trial against something else, a point for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsweep.compare.records import TrialRecord
from kdsweep.report.charts.figures import (
    Figure,
    axis_of,
    layout_of,
    span_of,
    teacher_line,
    trace_of,
)
from kdsweep.report.charts.material import Material, Reached


def points_against(
    material: Material, trials: Sequence[Reached], measure: Callable[[TrialRecord], float]
) -> list[Figure]:
    """A trace for each strategy. measure: what x is."""
    data = []
    for name, look in material.looks.items():
        own = [one for one in trials if one.strategy == name]
        if own:
            data.append(
                trace_of(
                    [float(f"{measure(one.trial):.5g}") for one in own],
                    [one.value for one in own],
                    name,
                    text=[f"trial {one.trial.id.number}" for one in own],
                    mode="markers",
                    marker={
                        "color": look.color,
                        "symbol": look.symbol,
                        "size": 8,
                        "opacity": 0.85,
                    },
                    hovertemplate="%{text}<br>%{x:.3~g}: %{y:.4f}",
                )
            )
    return data


def layout_against(material: Material, trials: Sequence[Reached], axis: Figure) -> Figure:
    """axis: of x."""
    teacher = material.teacher_validation
    span = span_of([*(one.value for one in trials), teacher], cut=True)
    metric = axis_of(f"validation {material.metric}", range=span)
    return layout_of(axis, metric, line=teacher_line(teacher))
