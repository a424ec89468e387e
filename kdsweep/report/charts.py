"""The report's charts, as Plotly's own JSON. Few traces, however many trials: all curves of one strategy are one line with gaps.

What a chart shows is told three times: by colour, by marker, dash or place (black-and-white print has no colour), and in numbers, as
the caption and a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from kdsweep.compare.records import TrialRecord
from kdsweep.core.settings import TrialSettings
from kdsweep.report.figures import (
    INK,
    Chart,
    Curve,
    Figure,
    Material,
    Panel,
    axis_of,
    joined,
    layout_of,
    number,
    shown,
    span_of,
    teacher_at,
    trace_of,
)
from kdsweep.report.model import Report
from kdsweep.report.schedule_words import (
    Scheduled,
    in_words,
    mean_over_training,
    peak_rate,
    rate_in_words,
    sample,
    small,
    weighs_teacher,
)

# How good a trial is, worst first: seen on white, on black and without colour, and no strategy's colours.
BANDS = (("#9aa3ad", 0.35, 1.0), ("#a78bd6", 0.55, 1.25), ("#8250df", 0.85, 1.75), (INK, 0.95, 2.5))
BAND_EDGES, BAND_NAMES = (
    (0.5, 0.75, 0.9),
    ("worse half", "better half", "best quarter", "best tenth"),
)
TOP = 5


def draw_charts(report: Report, records: Sequence[TrialRecord]) -> list[Chart]:
    """Every chart that there is something to show for."""
    material = Material(report, records)
    made = (
        _strategies(material),
        _learning_curves(material),
        _best_so_far(material),
        _scheduled(material, "alpha", "Alpha, the weight of the labels"),
        _scheduled(material, "temperature", "Temperature"),
        _learning_rate(material),
        _importance(material),
        _all_settings(material),
        _cost(material),
    )
    return [chart for chart in made if chart is not None]


# --- strategies ------------------------------------------------------------------------------------------------------


def _strategies(material: Material) -> Chart | None:
    """Mean, interval and each seed on the test split; before any was confirmed, the search's best on validation."""
    confirms = {
        name: found.confirm
        for name, found in material.report.strategies.items()
        if found.confirm and found.confirm.mean is not None
    }
    bests = {
        name: found.best.validation
        for name, found in material.report.strategies.items()
        if found.best is not None
    }
    if not confirms and not bests:
        return None
    names = [name for name in material.looks if name in (confirms or bests)]
    data, words, rows = [], [], []
    notes: list[Figure] = []
    for at, name in enumerate(names):
        look = material.looks[name]
        notes.append(
            {
                "text": shown(name),
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "y": at,
                "yanchor": "bottom",
                "yshift": 9,
                "showarrow": False,
                "font": {"size": 13},
            }
        )
        found = confirms.get(name)
        mean = found.mean if found and found.mean is not None else bests[name]
        interval, seeds_reached = (found.ci95, found.test) if found else (None, ())
        marker = {"color": look.color, "symbol": look.symbol, "size": 13}
        trace = trace_of(
            [mean],
            [at],
            name,
            mode="markers",
            marker=marker,
            hovertemplate="mean %{x:.4f}" if confirms else "best trial %{x:.4f}",
        )
        if interval:
            trace["error_x"] = {
                "array": [interval[1] - mean],
                "arrayminus": [mean - interval[0]],
                "thickness": 2.5,
                "width": 7,
                "color": look.color,
            }
        data.append(trace)
        if len(seeds_reached) > 1:
            seeds = {
                "color": look.color,
                "symbol": "circle-open",
                "size": 7,
                "line": {"width": 1.5},
            }
            data.append(
                trace_of(
                    seeds_reached,
                    [at + 0.24] * len(seeds_reached),
                    f"{name}, each seed",
                    mode="markers",
                    marker=seeds,
                    hovertemplate="seed %{x:.4f}",
                )
            )
        between = (
            ""
            if not confirms
            else f" ({interval[0]:.4f} to {interval[1]:.4f})"
            if interval
            else " (one seed)"
        )
        words.append(f"{name} {mean:.4f}{between}")
        rows.append(
            (
                name,
                number(mean),
                "–" if not interval else f"{interval[0]:.4f} to {interval[1]:.4f}",
                ", ".join(map(number, seeds_reached)) or "–",
            )
        )
    split = "test" if confirms else "validation"
    teacher = material.teacher_validation
    if confirms:
        teacher = material.teacher.test if material.teacher else None
    everything = [value for trace in data for value in trace["x"]] + [
        end for found in confirms.values() for end in found.ci95 or ()
    ]
    reach = span_of([*everything, teacher])
    line = teacher_at(teacher, across=reach)
    layout = layout_of(
        axis_of(f"{split} {material.metric}", range=reach),
        axis_of(
            range=[len(names) - 0.45, -0.75],
            showticklabels=False,
            showgrid=False,
            ticks="",
            fixedrange=True,
        ),
        height=66 * len(names) + 100,
        showlegend=False,
        shapes=line.get("shapes", []),
        annotations=[*line.get("annotations", []), *notes],
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
    )
    said = (
        "Mean over confirm's seeds with its 95% interval; the small circles below it are the seeds"
        if confirms
        else "The best trial of each search"
    )
    without = [name for name in material.looks if name not in names]
    missing = f" Nothing to show of {', '.join(without)}." if without else ""
    caption = f"{said}: {'; '.join(words)}.{_teacher_words(teacher)}{missing}"
    title = "Strategies on the test split" if confirms else "Strategies on validation, as searched"
    return Chart(
        "strategies",
        title,
        caption,
        (Panel("", data, layout),),
        ("strategy", split, "95% interval", "each seed"),
        tuple(rows),
    )


def _teacher_words(value: float | None) -> str:
    return "" if value is None else f" The teacher has {value:.4f}."


# --- learning curves and best so far ---------------------------------------------------------------------------------


def _learning_curves(material: Material) -> Chart | None:
    measured = {
        name: [one for one in trials if one.evaluations]
        for name, trials in material.searched.items()
    }
    measured = {name: trials for name, trials in measured.items() if trials}
    if not measured:
        return None
    teacher = material.teacher_validation
    everything = [
        value
        for trials in measured.values()
        for one in trials
        for value in _curve(material, one)[1]
    ]
    again = [
        value
        for name in measured
        for one in material.confirmed[name]
        for value in _curve(material, one)[1]
    ]
    frame = span_of([*everything, *again, teacher], cut=True)
    last = max(
        epoch
        for trials in measured.values()
        for one in trials
        for epoch in _curve(material, one)[0]
    )
    panels, rows = [], []
    for name, trials in measured.items():
        best = next((one for one in trials if one.id.number == material.best_trial(name)), None)
        layout = layout_of(
            axis_of("epoch", range=[0, 1.02 * last]),
            axis_of(f"validation {material.metric}", range=frame),
            height=340,
            **teacher_at(teacher),
        )
        panels.append(Panel(name, _curves_of(material, name, trials, best), layout))
        stopped = sum(one.state != "complete" for one in trials)
        reached = "–" if best is None else ", ".join(map(number, _curve(material, best)[1]))
        rows.append(
            (
                name,
                str(len(trials) - stopped),
                str(stopped),
                "–" if best is None else str(best.id.number),
                reached,
            )
        )
    below = sum(value < frame[0] for value in everything)
    cut = f" {below} of {len(everything)} values lie below the frame." if below else ""
    caption = (
        f"Validation {material.metric} at each evaluation, a line a trial. Thick: the strategy's best trial; "
        f"dotted and ending in a cross: stopped early (pruned, diverged or failed); dashed: confirm's seeds.{cut}{_teacher_words(teacher)}"
    )
    head = ("strategy", "ran to the end", "stopped early", "best trial", "its evaluations")
    return Chart("curves", "Learning curves", caption, tuple(panels), head, tuple(rows))


def _curve(material: Material, record: TrialRecord) -> tuple[list[float], list[float]]:
    points = [
        (one.epoch, one.metrics[f"validation/{material.metric}"]) for one in record.evaluations
    ]
    points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _curves_of(
    material: Material, strategy: str, trials: Sequence[TrialRecord], best: TrialRecord | None
) -> list[Figure]:
    look = material.looks[strategy]
    color = look.color

    def curves(records: Iterable[TrialRecord], said: Callable[[TrialRecord], str]) -> list[Curve]:
        return [(*_curve(material, one), said(one)) for one in records]

    data = []
    if whole := curves(
        (one for one in trials if one.state == "complete" and one is not best),
        lambda one: f"trial {one.id.number}",
    ):
        data.append(
            joined(
                whole,
                mode="lines",
                name=f"complete ({len(whole)})",
                line={"color": color, "width": 1},
                opacity=0.4,
            )
        )
    if stopped := curves(
        (one for one in trials if one.state != "complete"),
        lambda one: f"trial {one.id.number}, {one.state}",
    ):
        sizes = [
            size
            for epochs, _, _ in stopped
            for size in ([0] * (len(epochs) - 1) + [6, 0] if epochs else [0])
        ][:-1]
        marker: Figure = {"symbol": "x-thin", "size": sizes, "line": {"width": 1.5, "color": color}}
        line = {"color": color, "width": 1, "dash": "dot"}
        data.append(
            joined(
                stopped,
                mode="lines+markers",
                name=f"stopped early ({len(stopped)})",
                line=line,
                marker=marker,
                opacity=0.5,
            )
        )
    if seeds := curves(
        (one for one in material.confirmed[strategy] if one.evaluations),
        lambda one: f"trial {one.id.number} again, seed {one.id.seed_index}",
    ):
        data.append(
            joined(
                seeds,
                mode="lines",
                name=f"confirm ({len(seeds)})",
                line={"color": INK, "width": 1.25, "dash": "dash"},
                opacity=0.7,
            )
        )
    if best is not None:
        marker = {"symbol": look.symbol, "size": 8, "color": color}
        thick = curves([best], lambda one: f"trial {one.id.number}, the best")
        data.append(
            joined(
                thick,
                mode="lines+markers",
                name=f"best: trial {best.id.number}",
                line={"color": color, "width": 3},
                marker=marker,
            )
        )
    return data


def _best_so_far(material: Material) -> Chart | None:
    spent = {
        name: list(accumulate(one.result.seconds if one.result else 0.0 for one in trials))
        for name, trials in material.searched.items()
    }
    longest = max((seconds[-1] for seconds in spent.values() if seconds), default=0.0)
    unit, size = (
        ("hours", 3600.0)
        if longest >= 2 * 3600
        else ("minutes", 60.0)
        if longest >= 120
        else ("seconds", 1.0)
    )
    reached = {id(one): value for one, value in material.complete}
    data, words, rows, values = [], [], [], []
    for name, trials in material.searched.items():
        steps: list[tuple[float, float, str]] = []
        for one, seconds in zip(trials, spent[name], strict=True):
            value = reached.get(id(one))
            if value is not None and (not steps or value > steps[-1][1]):
                steps.append((seconds / size, value, f"trial {one.id.number}"))
        if not steps:
            continue
        look, total = material.looks[name], spent[name][-1] / size
        ends = [*steps, (total, steps[-1][1], "end of the search")]
        marker = {
            "symbol": look.symbol,
            "size": [*([8] * len(steps)), 0],
            "color": look.color,
            "opacity": 1,
            "line": {"width": 0},
        }
        x, y, text = zip(*ends, strict=True)
        line = {"color": look.color, "width": 2, "dash": look.dash, "shape": "hv"}
        said = "%{text}<br>%{y:.4f} after %{x:.3~g} " + unit
        data.append(
            trace_of(
                [round(value, 3) for value in x],
                y,
                name,
                text=text,
                mode="lines+markers",
                line=line,
                marker=marker,
                hovertemplate=said,
            )
        )
        values += [value for _, value, _ in steps]
        words.append(
            f"{name} {steps[-1][1]:.4f} after {small(steps[-1][0])} of {small(total)} {unit}"
        )
        rows.append(
            (
                name,
                number(steps[-1][1]),
                steps[-1][2].removeprefix("trial "),
                small(steps[-1][0]),
                small(total),
            )
        )
    if not data:
        return None
    teacher = material.teacher_validation
    layout = layout_of(
        axis_of(f"slot {unit} that the strategy's trials took", rangemode="tozero"),
        axis_of(f"best validation {material.metric}", range=span_of([*values, teacher], cut=True)),
        **teacher_at(teacher),
    )
    caption = f"The best complete trial so far, trials in the order in which they were begun: {'; '.join(words)}.{_teacher_words(teacher)}"
    head = ("strategy", "best", "trial", f"{unit} until then", f"{unit} in all")
    return Chart(
        "best",
        "Best so far against slot time",
        caption,
        (Panel("", data, layout),),
        head,
        tuple(rows),
    )


# --- schedules -------------------------------------------------------------------------------------------------------


def _scheduled(material: Material, what: Scheduled, title: str) -> Chart | None:
    """The schedules as curves, coloured by what they reached; and that against each one's mean."""
    trials = [
        (one, value)
        for one, value in material.complete
        if what == "alpha" or weighs_teacher(one.settings)
    ]
    if not trials:
        return None
    axis = (
        axis_of(what, range=[-0.04, 1.04]) if what == "alpha" else axis_of(what, rangemode="tozero")
    )
    curves = Panel(
        "Over training, coloured by result",
        _by_band(trials, what),
        layout_of(axis_of("progress of training", range=[0, 1.005]), axis),
    )
    against = _against(
        material,
        trials,
        lambda one: mean_over_training(one.settings, what),
        axis_of(f"mean {what} over training"),
    )
    ranked = sorted(trials, key=lambda entry: -entry[1])[:TOP]
    rows = tuple(
        (one.id.name, number(value), in_words(getattr(one.settings, what))) for one, value in ranked
    )
    top, value = ranked[0]
    skipped = (
        " Trials that learn from the labels alone are left out: no temperature acts on them."
        if what == "temperature"
        else ""
    )
    caption = (
        f"{len(trials)} complete trial{'s'[: len(trials) != 1]}; the thicker the curve, the better the {material.metric}. "
        f"The best, {top.id.name}, reached {value:.4f} with {in_words(getattr(top.settings, what))}.{skipped}"
    )
    return Chart(
        what,
        title,
        caption,
        (curves, Panel("Against the result", *against)),
        ("best trials", material.metric, what),
        rows,
    )


def _by_band(trials: Sequence[tuple[TrialRecord, float]], what: Scheduled) -> list[Figure]:
    values = [value for _, value in trials]
    few = len(values) < 10
    bands = np.searchsorted(
        np.quantile(values, (0.5, 1.0, 1.0) if few else BAND_EDGES), values, side="right"
    ).tolist()
    data = []
    for band in sorted(set(bands)):
        own = [entry for entry, at in zip(trials, bands, strict=True) if at == band]
        low, high = min(value for _, value in own), max(value for _, value in own)
        color, opacity, width = BANDS[band]
        name = f"{'best' if few and band == len(BAND_EDGES) else BAND_NAMES[band]}: {low:.4f}" + (
            f" to {high:.4f}" if high > low else ""
        )
        line = {"color": color, "width": width}
        data.append(
            joined(
                (
                    (*sample(one.settings, what), f"{shown(one.id.name)}: {value:.4f}")
                    for one, value in own
                ),
                mode="lines",
                name=name,
                line=line,
                opacity=opacity,
            )
        )
    return data


def _against(
    material: Material,
    trials: Sequence[tuple[TrialRecord, float]],
    cost: Callable[[TrialRecord], float],
    axis: Figure,
) -> tuple[list[Figure], Figure]:
    """The metric of each trial against something of it, and the teacher's line."""
    data = []
    for name, look in material.looks.items():
        own = [(one, value) for one, value in trials if one.id.strategy == name]
        if own:
            marker = {"color": look.color, "symbol": look.symbol, "size": 8, "opacity": 0.85}
            x, text = (
                [float(f"{cost(one):.5g}") for one, _ in own],
                [f"trial {one.id.number}" for one, _ in own],
            )
            said = "%{text}<br>%{x:.3~g}: %{y:.4f}"
            data.append(
                trace_of(
                    x,
                    [value for _, value in own],
                    name,
                    text=text,
                    mode="markers",
                    marker=marker,
                    hovertemplate=said,
                )
            )
    teacher = material.teacher_validation
    span = span_of([*(value for _, value in trials), teacher], cut=True)
    return data, layout_of(
        axis, axis_of(f"validation {material.metric}", range=span), **teacher_at(teacher)
    )


def _learning_rate(material: Material) -> Chart | None:
    trials = [(one, value) for one, value in material.complete if peak_rate(one.settings) > 0]
    if not trials:
        return None
    rates = np.log10([peak_rate(one.settings) for one, _ in trials])
    span = span_of(rates.tolist())
    ticks = _rate_ticks(*span)
    axis = axis_of(
        "learning rate",
        type="log",
        range=span,
        tickvals=ticks,
        ticktext=[rate_in_words(value) for value in ticks],
    )
    panel = Panel("", *_against(material, trials, lambda one: peak_rate(one.settings), axis))
    ranked = sorted(trials, key=lambda entry: -entry[1])[:TOP]
    rows = tuple(
        (one.id.name, number(value), rate_in_words(peak_rate(one.settings)))
        for one, value in ranked
    )
    best = {
        name: next(
            (
                one
                for one, _ in sorted(trials, key=lambda entry: -entry[1])
                if one.id.strategy == name
            ),
            None,
        )
        for name in material.looks
    }
    words = "; ".join(
        f"{name} {rate_in_words(peak_rate(one.settings))}" for name, one in best.items() if one
    )
    return Chart(
        "learning-rate",
        "Learning rate",
        f"The rate of each strategy's best trial: {words}.",
        (panel,),
        ("best trials", material.metric, "learning rate"),
        rows,
    )


def _rate_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high: the fewer powers of ten, the more of what lies between them."""
    steps = range(1, 10) if high - low < 0.5 else (1, 2, 5) if high - low < 2.2 else (1,)
    found = [
        step * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
    ]
    return [value for value in found if low <= math.log10(value) <= high] or [
        10 ** ((low + high) / 2)
    ]


# --- parameters ------------------------------------------------------------------------------------------------------


def _importance(material: Material) -> Chart | None:
    shares = {
        name: found
        for name, found in material.report.importance.items()
        if found and name in material.looks
    }
    if not shares:
        return None
    panels = tuple(
        Panel(name, *_bars(found, material.looks[name].color)) for name, found in shares.items()
    )
    rows = tuple(
        (name, parameter, f"{100 * share:.0f}%")
        for name, found in shares.items()
        for parameter, share in found.items()
    )
    greatest = {
        name: max((share, parameter) for parameter, share in found.items())
        for name, found in shares.items()
    }
    words = "; ".join(
        f"{name}: {parameter} {100 * share:.0f}%" for name, (share, parameter) in greatest.items()
    )
    without = [name for name in material.looks if name not in shares]
    missing = (
        f" Too few trials, or too little that differs, to tell for {', '.join(without)}."
        if without
        else ""
    )
    caption = f"Each parameter's share in how a strategy's complete trials differ (fANOVA; PED-ANOVA where parameters are conditional). Greatest: {words}.{missing}"
    return Chart(
        "importance",
        "Which parameter matters",
        caption,
        panels,
        ("strategy", "parameter", "share"),
        rows,
    )


def _bars(shares: dict[str, float], color: str) -> tuple[list[Figure], Figure]:
    """Names stand above the bars: on a phone there is no room beside them."""
    names = list(shares)
    said = [f"{shown(name)}  {100 * share:.0f}%" for name, share in shares.items()]
    notes = [
        {
            "text": text,
            "xref": "paper",
            "x": 0,
            "xanchor": "left",
            "y": at,
            "yanchor": "bottom",
            "yshift": 6,
            "showarrow": False,
        }
        for at, text in enumerate(said)
    ]
    marker = {"color": color, "line": {"color": INK, "width": 1}}
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [shares[name] for name in names],
        "y": list(range(len(names))),
        "width": 0.26,
        "marker": marker,
    }
    bars |= {"text": said, "textposition": "none", "hovertemplate": "%{text}<extra></extra>"}
    x = axis_of(range=[0, 1], tickformat=".0%")
    y = axis_of(
        range=[len(names) - 0.6, -0.85],
        showticklabels=False,
        showgrid=False,
        ticks="",
        fixedrange=True,
    )
    return [bars], layout_of(x, y, height=38 * len(names) + 60, showlegend=False, annotations=notes)


def _all_settings(material: Material) -> Chart | None:
    """Parallel coordinates. Of each schedule its first and last value: every trial has those, whatever its shape."""
    trials = material.complete
    if len(trials) < 2:
        return None
    names = [name for name in material.looks if any(one.id.strategy == name for one, _ in trials)]
    dimensions = (
        [_dimension("strategy", [one.id.strategy for one, _ in trials], names)]
        if len(names) > 1
        else []
    )
    for what in ("alpha", "temperature"):
        for end, label in ((0, "first"), (-1, "last")):
            dimensions.append(
                _dimension(
                    f"{label} {what}", [sample(one.settings, what)[1][end] for one, _ in trials]
                )
            )
    rates = [math.log10(max(peak_rate(one.settings), 1e-12)) for one, _ in trials]
    ticks = [math.log10(value) for value in _rate_ticks(min(rates), max(rates))]
    dimensions.append(
        _dimension("learning rate", rates)
        | {"tickvals": ticks, "ticktext": [rate_in_words(10**value) for value in ticks]}
    )
    for path in _other_parameters(trials):
        dimensions.append(
            _dimension(
                path.removeprefix("training."), [_lookup(one.settings, path) for one, _ in trials]
            )
        )
    dimensions = [one for one in dimensions if len(set(one["values"])) > 1]
    dimensions.append(
        _dimension(material.metric, [value for _, value in trials]) | {"tickformat": ".4~f"}
    )
    at = {name: i for i, name in enumerate(names)}
    data: Figure = {
        "type": "parcoords",
        "dimensions": dimensions,
        "labelfont": {"size": 12},
        "tickfont": {"size": 11},
        "rangefont": {"size": 10},
    }
    data["line"] = {
        "color": [at[one.id.strategy] for one, _ in trials],
        "colorscale": _steps(material, names),
        "cmin": -0.5,
        "cmax": len(names) - 0.5,
    }
    layout = {"height": 440, "margin": {"l": 90, "r": 50, "t": 64, "b": 24}}
    head = ("best trials", material.metric, "alpha", "temperature", "learning rate")
    caption = f"{len(trials)} complete trials, a line each, from its settings to its result at the right. Drag along an axis to keep the trials that cross it there."
    rows = tuple(
        (
            one.id.name,
            number(value),
            *(in_words(getattr(one.settings, what)) for what in head[2:4]),
            rate_in_words(peak_rate(one.settings)),
        )
        for one, value in material.best_first()[:10]
    )
    return Chart(
        "settings",
        "All settings at once",
        caption,
        (Panel("", [data], layout, least_width=6.5 * len(dimensions) + 6),),
        head,
        rows,
    )


def _steps(material: Material, names: Sequence[str]) -> list[tuple[float, str]]:
    """A colour scale of one flat step a strategy. Lines are no SVG here, where INK could follow the page: grey stands for it."""
    colors = [
        "#808080" if material.looks[name].color == INK else material.looks[name].color
        for name in names
    ]
    return [(edge / len(names), color) for i, color in enumerate(colors) for edge in (i, i + 1)]


def _dimension(label: str, values: Sequence[Any], order: Sequence[Any] = ()) -> Figure:
    """An axis; what are no numbers stand at 0, 1, ... in `order`, or as they come."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        distinct = sorted(set(values))
        ticks = (
            {"tickvals": distinct, "ticktext": [f"{value:.4g}" for value in distinct]}
            if len(distinct) <= 5
            else {"tickformat": ".3~g"}
        )
        return {
            "label": _in_lines(label),
            "values": [float(f"{value:.6g}") for value in values],
        } | ticks
    order = order or list(dict.fromkeys(map(str, values)))
    at = {str(value): i for i, value in enumerate(order)}
    text = [name if len(name) <= 16 else f"{name[:15]}…" for name in at]
    return {
        "label": _in_lines(label),
        "values": [at[str(value)] for value in values],
        "tickvals": list(range(len(order))),
        "ticktext": text,
    }


def _in_lines(label: str) -> str:
    """A word a line: axes stand close together."""
    return shown(label).replace(" ", "<br>")


def _other_parameters(trials: Sequence[tuple[TrialRecord, float]], most: int = 4) -> list[str]:
    """Paths of what the sampler drew besides the schedules, such as `training.batch_size`; `epochs` stands for `training.epochs`."""
    drawn = dict.fromkeys(
        name
        for one, _ in trials
        for name in one.params
        if name.split(".")[0] not in ("alpha", "temperature", "learning_rate")
    )
    found = []
    for name in drawn:
        path = next(
            (
                path
                for path in (name, f"training.{name}")
                if _lookup(trials[0][0].settings, path) is not None
            ),
            None,
        )
        if path is not None and not isinstance(_lookup(trials[0][0].settings, path), dict | list):
            found.append(path)
    return found[:most]


def _lookup(settings: TrialSettings, path: str) -> Any:
    found: Any = settings.model_dump(mode="json")
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


# --- what a student costs to use -------------------------------------------------------------------------------------


def _cost(material: Material) -> Chart | None:
    trials = [(one, value) for one, value in material.complete if one.result and one.result.student]
    if not trials:
        return None
    panels, rows, words = [], [], []
    for what, label, unit in (("latency_ms", "latency", "ms"), ("size_mb", "size", "MB")):
        costs = {
            id(one): float(one.result.student[what])
            for one, _ in trials
            if one.result and one.result.student and one.result.student.get(what) is not None
        }
        known = [(one, value) for one, value in trials if id(one) in costs]
        if not known:
            continue
        front = pareto([(costs[id(one)], value, one.id.name) for one, value in known])
        data, layout = _against(
            material,
            known,
            lambda one, costs=costs: costs[id(one)],  # type: ignore[misc]
            axis_of(f"{label} ({unit})", rangemode="tozero"),
        )
        line, ring = (
            {"color": INK, "width": 1.5, "dash": "dash", "shape": "hv"},
            {"color": INK, "symbol": "circle-open", "size": 14},
        )
        x, y, _ = zip(*front, strict=True)
        data.append(
            trace_of(
                x, y, "Pareto front", mode="lines+markers", line=line, marker=ring, hoverinfo="skip"
            )
        )
        cost, value = None, material.teacher_validation
        if material.teacher is not None:
            cost = getattr(material.teacher, what)
        if cost is not None and value is not None:
            marker = {"color": INK, "symbol": "hexagram", "size": 13}
            data.append(
                trace_of(
                    [cost],
                    [value],
                    "teacher",
                    mode="markers",
                    marker=marker,
                    hovertemplate="%{x:.3~g} " + unit + ": %{y:.4f}",
                )
            )
        panels.append(Panel(f"Against {label}", data, layout))
        rows += [
            (label, f"{small(cost)} {unit}", number(value), name) for cost, value, name in front
        ]
        words.append(f"{label}: " + _front_words(front, unit))
    if not panels:
        return None
    teacher = _teacher_words(material.teacher_validation)
    caption = f"Up and to the left is better; no complete trial lies above and left of the Pareto front. Its ends: {'; '.join(words)}.{teacher}"
    title = f"{material.metric[0].upper()}{material.metric[1:]} against latency and size"
    return Chart(
        "cost",
        title,
        caption,
        tuple(panels),
        ("front", "cost", material.metric, "trial"),
        tuple(rows),
    )


def _front_words(front: Sequence[tuple[float, float, str]], unit: str) -> str:
    ends = front if len(front) == 1 else (front[0], front[-1])
    return " and ".join(f"{value:.4f} at {small(cost)} {unit}" for cost, value, _ in ends)


def pareto(points: Iterable[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Of (cost, value, name) those that no other one beats in cost and value, cheapest first."""
    front: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda one: (one[0], -one[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front
