"""The metric of each trial against something else, a point for each.

What lies far below the others stands at the lower edge as an arrow, with its value when it is
pointed at: drawn to scale, one failed trial would squash all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsweep.compare.records import TrialRecord
from kdsweep.formatting import count
from kdsweep.report.charts.figures import (
    Figure,
    axis_of,
    layout_of,
    span_of,
    teacher_line,
    trace_of,
)
from kdsweep.report.charts.material import Material, Reached

BELOW = "arrow-down"


def points_against(
    material: Material, trials: Sequence[Reached], measure: Callable[[TrialRecord], float]
) -> list[Figure]:
    """A trace for each strategy. measure: what x is."""
    edge = _reach(material, trials)[0]
    data = []
    for name, look in material.looks.items():
        own = [one for one in trials if one.strategy == name]
        if own:
            data.append(
                trace_of(
                    [float(f"{measure(one.trial):.5g}") for one in own],
                    [max(one.value, edge) for one in own],
                    name,
                    text=[f"trial {one.trial.id.number}: {one.value:.4f}" for one in own],
                    mode="markers",
                    marker={
                        "color": look.color,
                        "symbol": [BELOW if one.value < edge else look.symbol for one in own],
                        "size": 8,
                        "opacity": 0.85,
                    },
                    hovertemplate="%{text}<br>at %{x:.3~g}",
                )
            )
    return data


def _reach(material: Material, trials: Sequence[Reached]) -> list[float]:
    """The range of the metric."""
    values = [*(one.value for one in trials), material.teacher_validation]
    return span_of(values, cut=True)


def below_the_frame(material: Material, trials: Sequence[Reached]) -> str:
    """How many trials stand as arrows at the lower edge; starts with a space, or is empty."""
    edge = _reach(material, trials)[0]
    below = sum(one.value < edge for one in trials)
    if not below:
        return ""
    return f" Arrows at the lower edge: {count(below, 'trial')} far below the others."


def layout_against(material: Material, trials: Sequence[Reached], axis: Figure) -> Figure:
    """axis: of x."""
    metric = axis_of(f"validation {material.metric}", range=_reach(material, trials))
    return layout_of(axis, metric, line=teacher_line(material.teacher_validation))
