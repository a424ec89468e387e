"""Each strategy's mean, interval and seeds on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsweep.formatting import MISSING, score, score_range
from kdsweep.report.charts.figures import (
    Chart,
    Figure,
    Panel,
    Row,
    axis_of,
    layout_of,
    shown,
    span_of,
    teacher_words,
    trace_of,
    upright_teacher_line,
)
from kdsweep.report.charts.material import Look, Material


@dataclass(frozen=True)
class _Line:
    """What one strategy's line shows. confirmed: `value` is a mean on test, else a validation."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    seeds: Sequence[float] = ()
    confirmed: bool = True

    @property
    def words(self) -> str:
        if not self.confirmed:
            return f"{self.name} {self.value:.4f}"
        between = score_range(*self.interval) if self.interval else "one seed"
        return f"{self.name} {self.value:.4f} ({between})"

    @property
    def row(self) -> Row:
        between = score_range(*self.interval) if self.interval else MISSING
        return self.name, score(self.value), between, ", ".join(map(score, self.seeds)) or MISSING


def strategies_chart(material: Material) -> Chart | None:
    """Before any strategy is confirmed: the search's best on validation."""
    lines = _confirmed(material) or _searched(material)
    if not lines:
        return None
    confirmed = lines[0].confirmed
    split = "test" if confirmed else "validation"
    teacher, interval = material.teacher_validation, None
    if confirmed:
        known = material.report.teacher
        teacher, interval = (known.test, known.ci95) if known else (None, None)
    data = [
        trace
        for at, line in enumerate(lines)
        for trace in _traces(line, at, material.looks[line.name])
    ]
    first = "The best trial of each search"
    if confirmed:
        first = (
            "Mean over confirm's seeds with its interval, which holds for all strategies at once "
            "in 95% of sweeps; the small circles below it are the seeds"
        )
    names = [line.name for line in lines]
    without = [name for name in material.looks if name not in names]
    missing = f" Nothing to show for {', '.join(without)}." if without else ""
    words = "; ".join(line.words for line in lines)
    return Chart(
        "strategies",
        "Strategies on the test split" if confirmed else "Strategies on validation, as searched",
        f"{first}: {words}.{teacher_words(teacher, interval)}{missing}",
        (Panel("", data, _layout(lines, f"{split} {material.metric}", teacher, interval)),),
        ("strategy", split, "95% interval", "each seed"),
        tuple(line.row for line in lines),
    )


def _confirmed(material: Material) -> list[_Line]:
    lines = []
    for name, found in material.report.strategies.items():
        confirm = found.confirm
        if confirm and confirm.mean is not None:
            lines.append(_Line(name, confirm.mean, confirm.ci95, confirm.test))
    return lines


def _searched(material: Material) -> list[_Line]:
    return [
        _Line(name, found.best.validation, confirmed=False)
        for name, found in material.report.strategies.items()
        if found.best is not None
    ]


def _traces(line: _Line, at: int, look: Look) -> list[Figure]:
    """The value with its interval, and the seeds below it. at: the line's place from the top."""
    trace = trace_of(
        [line.value],
        [at],
        line.name,
        mode="markers",
        marker={"color": look.color, "symbol": look.symbol, "size": 13},
        hovertemplate="mean %{x:.4f}" if line.confirmed else "best trial %{x:.4f}",
    )
    if line.interval:
        low, high = line.interval
        trace["error_x"] = {
            "array": [high - line.value],
            "arrayminus": [line.value - low],
            "thickness": 2.5,
            "width": 7,
            "color": look.color,
        }
    if len(line.seeds) < 2:
        return [trace]
    circles = {"color": look.color, "symbol": "circle-open", "size": 7, "line": {"width": 1.5}}
    seeds = trace_of(
        line.seeds,
        [at + 0.24] * len(line.seeds),
        f"{line.name}, each seed",
        mode="markers",
        marker=circles,
        hovertemplate="seed %{x:.4f}",
    )
    return [trace, seeds]


def _layout(
    lines: Sequence[_Line],
    title: str,
    teacher: float | None,
    interval: tuple[float, float] | None,
) -> Figure:
    values = [value for one in lines for value in (one.value, *one.seeds, *(one.interval or ()))]
    reach = span_of([*values, teacher, *(interval or ())])
    line = upright_teacher_line(teacher, reach, interval)
    names: list[Figure] = [
        {
            "text": shown(one.name),
            "xref": "paper",
            "x": 0,
            "xanchor": "left",
            "y": at,
            "yanchor": "bottom",
            "yshift": 9,
            "showarrow": False,
            "font": {"size": 13},
        }
        for at, one in enumerate(lines)
    ]
    return layout_of(
        axis_of(title, range=reach),
        axis_of(
            range=[len(lines) - 0.45, -0.75],
            showticklabels=False,
            showgrid=False,
            ticks="",
            fixedrange=True,
        ),
        height=66 * len(lines) + 100,
        showlegend=False,
        shapes=line.shapes,
        annotations=[*line.annotations, *names],
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
    )
