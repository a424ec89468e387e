"""What the report's figures are made of: the trials as charts read them, and the parts that all figures share.

Whatever stands for "ink" has the colour INK, which the page's style turns into the text's colour, light or dark.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from kdsweep.compare.records import COLORS, TrialRecord
from kdsweep.report.model import Report, TeacherFacts

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
DASHES = (
    "solid",
    "dash",
    "dot",
    "dashdot",
    "longdash",
    "longdashdot",
    "6px 2px 2px 2px",
    "2px 6px",
)
INK = "#010101"  # page.css looks for it
TEACHER = {"color": INK, "width": 1.5, "dash": "10px 3px 2px 3px"}
HEIGHT = 360

Figure = dict[str, Any]
Row = tuple[str, ...]
Curve = tuple[Sequence[float], Sequence[float], str]  # x, y, what to say of it


@dataclass(frozen=True)
class Panel:
    """One figure: Plotly's `data` and `layout`. title: what it shows of the chart; empty where it is all of it. least_width: in rem."""

    title: str
    data: list[Figure]
    layout: Figure
    least_width: float = 0.0


@dataclass(frozen=True)
class Chart:
    """Figures that belong together, and the same for who can't see them: a caption with the main numbers, and a table."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    head: Row
    rows: tuple[Row, ...]


class Look(NamedTuple):
    """How a strategy looks in every chart."""

    color: str
    symbol: str
    dash: str


def looks_of(strategies: Iterable[str]) -> dict[str, Look]:
    """The eighth colour is black: ink. From the ninth strategy on colours come again with other markers and dashes."""
    eight = len(COLORS)
    return {
        name: Look(
            INK if COLORS[i % eight] == "#000000" else COLORS[i % eight],
            SYMBOLS[(i + i // eight) % eight],
            DASHES[(i + i // eight) % eight],
        )
        for i, name in enumerate(strategies)
    }


@dataclass(frozen=True)
class Material:
    """A report and its trials, as the charts read them."""

    report: Report
    records: Sequence[TrialRecord]

    @property
    def metric(self) -> str:
        return self.report.metric

    @cached_property
    def looks(self) -> dict[str, Look]:
        return looks_of(self.report.strategies)

    @cached_property
    def searched(self) -> dict[str, list[TrialRecord]]:
        """The trials of the search, by strategy and number."""
        return self._by_strategy("search")

    @cached_property
    def confirmed(self) -> dict[str, list[TrialRecord]]:
        return self._by_strategy("confirm")

    def _by_strategy(self, phase: str) -> dict[str, list[TrialRecord]]:
        found: dict[str, list[TrialRecord]] = {name: [] for name in self.report.strategies}
        for record in sorted(self.records, key=lambda one: (one.id.number, one.id.seed_index or 0)):
            if record.id.phase == phase and record.id.strategy in found:
                found[record.id.strategy].append(record)
        return found

    @cached_property
    def complete(self) -> list[tuple[TrialRecord, float]]:
        """The search's complete trials with what they reached on validation, strategy by strategy."""
        found = [
            (one, one.best(self.metric))
            for trials in self.searched.values()
            for one in trials
            if one.state == "complete"
        ]
        return [(one, value) for one, value in found if value is not None and math.isfinite(value)]

    def best_first(self) -> list[tuple[TrialRecord, float]]:
        return sorted(self.complete, key=lambda entry: -entry[1])

    @property
    def teacher(self) -> TeacherFacts | None:
        return self.report.teacher

    @property
    def teacher_validation(self) -> float | None:
        return self.report.teacher.validation if self.report.teacher else None

    def best_trial(self, strategy: str) -> int | None:
        best = self.report.strategies[strategy].best
        return None if best is None else best.trial


# --- parts of figures ------------------------------------------------------------------------------------------------


def shown(name: object) -> str:
    """A user's text for Plotly, which reads a little HTML."""
    return html.escape(str(name), quote=False)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def axis_of(title: str = "", **more: Any) -> Figure:
    return {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "ticks": "outside",
    } | more


def layout_of(x: Figure, y: Figure, *, height: int = HEIGHT, **more: Any) -> Figure:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}
    return {
        "xaxis": x,
        "yaxis": y,
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": legend,
        "hovermode": "closest",
    } | more


def trace_of(x: Sequence[Any], y: Sequence[Any], name: str, **more: Any) -> Figure:
    return {"type": "scatter", "x": list(x), "y": list(y), "name": shown(name)} | more


def span_of(values: Iterable[float | None], *, cut: bool = False) -> list[float]:
    """A range with some room around the values. cut: where the lowest twentieth lies far below, without it."""
    kept = np.array([value for value in values if value is not None and math.isfinite(value)])
    if not len(kept):
        return [0.0, 1.0]
    low, high = float(kept.min()), float(kept.max())
    usual = float(np.quantile(kept, 0.05))
    if cut and usual - low > 0.5 * (high - usual) > 0:
        low = usual
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return [low - room, high + room]


def teacher_at(value: float | None, *, across: Sequence[float] | None = None) -> Figure:
    """The teacher's line with its value, as part of a layout: level, or upright where it stands `across` a range of x."""
    if value is None:
        return {}
    note: Figure = {
        "text": f"teacher {value:.4f}",
        "showarrow": False,
        "font": {"size": 11},
        "yanchor": "bottom",
    }
    if across is None:
        line = {"x0": 0, "x1": 1, "xref": "paper", "y0": value, "y1": value}
        note |= {"x": 0, "xref": "paper", "xanchor": "left", "y": value}
    else:
        line = {"x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper"}
        note |= {
            "x": value,
            "xanchor": "right" if 2 * value > across[0] + across[1] else "left",
            "y": 1,
            "yref": "paper",
        }
    return {"shapes": [{"type": "line", "line": TEACHER} | line], "annotations": [note]}


def joined(curves: Iterable[Curve], **more: Any) -> Figure:
    """Many curves as one trace: a gap after each."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for xs, ys, said in curves:
        x += [*(round(value, 4) for value in xs), None]
        y += [*ys, None]
        text += [*([said] * len(xs)), ""]
    return {
        "type": "scatter",
        "x": x[:-1],
        "y": y[:-1],
        "text": text[:-1],
        "hovertemplate": "%{text}<br>%{x:.3~g}: %{y:.4~g}<extra></extra>",
    } | more
