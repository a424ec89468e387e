"""The parts that all figures share.

Whatever is drawn in "ink" has the color INK. The page's style turns it into the color of the text,
light or dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kdsweep.formatting import score_range

INK = "#010101"  # page.css looks for it
TEACHER = {"color": INK, "width": 1.5, "dash": "10px 3px 2px 3px"}
HEIGHT = 360
FAR_BELOW = 4.0  # times the distance from the median to the best

Figure = dict[str, object]  # a part of Plotly's JSON
Row = tuple[str, ...]
Curve = tuple[Sequence[float], Sequence[float], str]  # x, y, the text to show


@dataclass(frozen=True)
class Choice:
    """What the x of a figure may be. x: of each trace. axis: Plotly's `xaxis`."""

    label: str
    x: tuple[Sequence[float | str | None], ...]
    axis: Figure


@dataclass(frozen=True)
class Panel:
    """One figure: Plotly's `data` and `layout`.

    title: empty for the only panel of a chart. least_width: in rem. choices: what x may be, where
    a reader chooses that; the first is drawn.
    """

    title: str
    data: list[Figure]
    layout: Figure
    least_width: float = 0.0
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Figures that belong together, with their main numbers as text: a caption and a table."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    head: Row
    rows: tuple[Row, ...]


def shown(name: object) -> str:
    """A user's text for Plotly, which reads a little HTML."""
    return html.escape(str(name), quote=False)


def teacher_words(value: float | None, interval: tuple[float, float] | None = None) -> str:
    if value is None:
        return ""
    between = f" ({score_range(*interval)})" if interval else ""
    return f" The teacher has {value:.4f}{between}."


def axis_of(title: str = "", **more: object) -> Figure:
    return {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "ticks": "outside",
    } | more


def layout_of(
    x: Figure,
    y: Figure,
    *,
    line: TeacherLine | None = None,
    height: int = HEIGHT,
    **more: object,
) -> Figure:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
    layout: Figure = {
        "xaxis": x,
        "yaxis": y,
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": legend,
        "hovermode": "closest",
    }
    if line and line.shapes:
        layout |= {"shapes": line.shapes, "annotations": line.annotations, "showlegend": True}
    return layout | more


def trace_of(x: Sequence[float], y: Sequence[float], name: str, **more: object) -> Figure:
    return {"type": "scatter", "x": list(x), "y": list(y), "name": shown(name)} | more


def span_of(values: Iterable[float | None], *, cut: bool = False) -> list[float]:
    """A range with some room around the values.

    cut: leave out what lies far below the median, such as trials that learned nothing. With the
    median as its measure, fewer than half of the values can't squash the others.
    """
    kept = np.array([value for value in values if value is not None and math.isfinite(value)])
    if not len(kept):
        return [0.0, 1.0]
    low, high = float(kept.min()), float(kept.max())
    middle = float(np.median(kept))
    usual = kept[kept >= middle - FAR_BELOW * (high - middle)]
    if cut and high > middle:
        low = float(usual.min())
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


@dataclass(frozen=True)
class TeacherLine:
    """A line at the teacher's value, with a label; both empty without a teacher."""

    shapes: list[Figure] = field(default_factory=list)
    annotations: list[Figure] = field(default_factory=list)


def teacher_line(value: float | None) -> TeacherLine:
    """A level line. Its label stands in the legend: inside the frame it would cover points."""
    if value is None:
        return TeacherLine()
    line: Figure = {
        "type": "line",
        "line": TEACHER,
        "x0": 0,
        "x1": 1,
        "xref": "paper",
        "y0": value,
        "y1": value,
        "name": f"teacher {value:.4f}",
        "showlegend": True,
    }
    return TeacherLine([line])


def upright_teacher_line(
    value: float | None, reach: Sequence[float], interval: tuple[float, float] | None = None
) -> TeacherLine:
    """An upright line, in a band that is its interval. reach: the range of x."""
    if value is None:
        return TeacherLine()
    side = "right" if 2 * value > reach[0] + reach[1] else "left"
    line: Figure = {"x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper"}
    label: Figure = {
        "x": value,
        "xanchor": side,
        "y": 1,
        "yref": "paper",
        "text": f"teacher {value:.4f}",
        "showarrow": False,
        "font": {"size": 11},
        "yanchor": "bottom",
    }
    found = TeacherLine([{"type": "line", "line": TEACHER} | line], [label])
    if interval is None:
        return found
    band: Figure = {
        "type": "rect",
        "x0": interval[0],
        "x1": interval[1],
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": TEACHER["color"],
        "opacity": 0.12,
    }
    return TeacherLine([band, *found.shapes], found.annotations)


def joined(curves: Iterable[Curve], **more: object) -> Figure:
    """Many curves as one trace: a gap after each."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for xs, ys, words in curves:
        x += [*(round(value, 4) for value in xs), None]
        y += [*ys, None]
        text += [*([words] * len(xs)), ""]
    return {
        "type": "scatter",
        "x": x[:-1],
        "y": y[:-1],
        "text": text[:-1],
        "hovertemplate": "%{text}<br>%{x:.3~g}: %{y:.4~g}<extra></extra>",
    } | more
