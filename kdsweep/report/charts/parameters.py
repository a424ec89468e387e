"""Parameter importance, and all settings of all trials at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pydantic import JsonValue

from kdsweep.core.settings import TrialSettings
from kdsweep.formatting import MISSING, count, score
from kdsweep.report.charts.against import below_the_frame
from kdsweep.report.charts.figures import (
    INK,
    Chart,
    Figure,
    Panel,
    Row,
    axis_of,
    layout_of,
    shown,
    span_of,
)
from kdsweep.report.charts.learning_rate import rate_ticks
from kdsweep.report.charts.material import Material, Reached
from kdsweep.report.schedules import in_words, peak_rate, rate_in_words, sample, weighs_teacher
from kdsweep.report.settings_words import effects_in_words, noise_note

SCHEDULED = ("alpha", "temperature", "learning_rate")
MOST_OTHERS = 4  # parameters other than the schedules
MOST_TICKS = 5
MOST_LETTERS = 16
BEST_SHOWN = 10
# Fewer complete trials than this for each parameter, and another sweep may well say otherwise.
TRIALS_PER_PARAMETER = 5
FAINT = 0.35
MAY_BE_NOISE = ("", ", may be noise")
# Lines are drawn on a canvas, which can't follow the page: visible on white and on black.
WORST_TO_BEST = ((0.0, "#7d8792"), (0.5, "#7486c8"), (0.85, "#8a5cf0"), (1.0, "#e8590c"))
LEAST_RATE = 1e-12  # stands for a rate of 0 on a log axis


# --- importance ----------------------------------------------------------------------------------


def importance_chart(material: Material) -> Chart | None:
    shares = {
        name: found
        for name, found in material.report.importance.items()
        if found and name in material.looks
    }
    if not shares:
        return None
    without = [name for name in material.looks if name not in shares]
    missing = ""
    if without:
        names = ", ".join(without)
        missing = f" Too few trials, or too little that differs, to tell for {names}."
    return Chart(
        "importance",
        "Parameter importance, as far as the trials show it",
        "Each parameter's share in how a strategy's complete trials differ (fANOVA; PED-ANOVA "
        "where parameters are conditional). Shares add up to 100%, also where all of it is noise."
        f"{_too_few_trials(material, shares)}"
        f"{effects_in_words(material.report, shares)}{missing}"
        f"{noise_note(material.report, shares)}",
        tuple(_panel(material, name, found) for name, found in shares.items()),
        ("strategy", "parameter", "share", "more than noise"),
        tuple(
            (name, parameter, f"{100 * share:.0f}%", "shown" if is_shown else "not shown")
            for name, found in shares.items()
            for (parameter, share), is_shown in zip(
                found.items(), _shown(material, name, found), strict=True
            )
        ),
    )


def _too_few_trials(material: Material, shares: Mapping[str, Mapping[str, float]]) -> str:
    """A warning for strategies with few trials for their parameters; starts with a space."""
    words = []
    for name, found in shares.items():
        trials = sum(one.strategy == name for one in material.complete)
        if trials < TRIALS_PER_PARAMETER * len(found):
            words.append(f"{name} ({count(len(found), 'parameter')}, {count(trials, 'trial')})")
    if not words:
        return ""
    return f" Too few trials to rely on the shares or their order: {'; '.join(words)}."


def _shown(material: Material, strategy: str, parameters: Iterable[str]) -> list[bool]:
    """Whether the effect of each parameter is shown to be more than noise."""
    found = material.report.shown_to_matter.get(strategy, {})
    return [found.get(parameter, False) for parameter in parameters]


def _panel(material: Material, strategy: str, shares: Mapping[str, float]) -> Panel:
    are_shown = _shown(material, strategy, shares)
    labels = [
        f"{shown(name)}  {100 * share:.0f}%{MAY_BE_NOISE[not is_shown]}"
        for (name, share), is_shown in zip(shares.items(), are_shown, strict=True)
    ]
    bars = _bars(shares, labels, are_shown, material.looks[strategy].color)
    return Panel(strategy, [bars], _bars_layout(labels))


def _bars(
    shares: Mapping[str, float], labels: Sequence[str], are_shown: Sequence[bool], color: str
) -> Figure:
    """Bars that may be noise are faint."""
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(shares.values()),
        "y": list(range(len(shares))),
        "width": 0.26,
        "marker": {
            "color": color,
            "line": {"color": INK, "width": 1},
            "opacity": [1.0 if is_shown else FAINT for is_shown in are_shown],
        },
        "text": list(labels),
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
    }


def _bars_layout(labels: Sequence[str]) -> Figure:
    """Names stand above the bars: a phone has no room next to them."""
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
        for at, text in enumerate(labels)
    ]
    y = axis_of(
        range=[len(labels) - 0.6, -0.85],
        showticklabels=False,
        showgrid=False,
        ticks="",
        fixedrange=True,
    )
    return layout_of(
        axis_of(range=[0, 1], tickformat=".0%"),
        y,
        height=38 * len(labels) + 60,
        showlegend=False,
        annotations=notes,
    )


# --- all settings --------------------------------------------------------------------------------


def settings_chart(material: Material) -> Chart | None:
    """Parallel coordinates: an axis for each setting, and the result at the right."""
    trials = material.complete
    if len(trials) < 2:
        return None
    # The best are drawn last, on top.
    trials = sorted(trials, key=lambda one: one.value)
    names = [name for name in material.looks if any(one.strategy == name for one in trials)]
    dimensions = [one for one in _dimensions(trials, names) if _varies(one)]
    edge = span_of([one.value for one in trials], cut=True)[0]
    dimensions.append(_dimension(material.metric, [max(one.value, edge) for one in trials]))
    values = [one.value for one in trials]
    # Ranks, because one value far away would leave the others with the same color.
    ranks = np.searchsorted(sorted(set(values)), values).tolist()
    data: Figure = {
        "type": "parcoords",
        "dimensions": dimensions,
        "labelfont": {"size": 12},
        "tickfont": {"size": 11},
        "rangefont": {"size": 10},
        "line": {
            "color": ranks,
            "colorscale": WORST_TO_BEST,
        },
    }
    layout: Figure = {"height": 440, "margin": {"l": 90, "r": 50, "t": 64, "b": 24}}
    return Chart(
        "settings",
        "All settings at once",
        f"{len(trials)} complete trials, a line for each, from its settings to its result at the "
        "right, gray for the worst and orange for the best. Drag along an axis to keep the trials "
        "that cross it there. Without a temperature: trials that learn from the labels alone."
        f"{below_the_frame(material, trials)}"
        f"{noise_note(material.report, names)}",
        (Panel("", [data], layout, least_width=6.5 * len(dimensions) + 6),),
        ("best trials", material.metric, "alpha", "temperature", "learning rate"),
        tuple(_row(one) for one in material.best_first[:BEST_SHOWN]),
    )


def _row(one: Reached) -> Row:
    settings = one.trial.settings
    return (
        one.trial.id.name,
        score(one.value),
        in_words(settings.alpha),
        in_words(settings.temperature) if weighs_teacher(settings) else MISSING,
        rate_in_words(peak_rate(settings)),
    )


def _dimensions(trials: Sequence[Reached], names: Sequence[str]) -> list[Figure]:
    """The axes of the settings. Every schedule has a first and a last value, whatever its shape."""
    found = []
    if len(names) > 1:
        found.append(_dimension("strategy", [one.strategy for one in trials], names))
    settings = [one.trial.settings for one in trials]
    alphas = [sample(one, "alpha")[1] for one in settings]
    found.append(_dimension("first alpha", [one[0] for one in alphas]))
    found.append(_dimension("last alpha", [one[-1] for one in alphas]))
    temperatures = [
        sample(one, "temperature")[1] if weighs_teacher(one) else (None, None) for one in settings
    ]
    found.append(_with_none("first temperature", [one[0] for one in temperatures]))
    found.append(_with_none("last temperature", [one[-1] for one in temperatures]))
    rates = [math.log10(max(peak_rate(one), LEAST_RATE)) for one in settings]
    ticks = rate_ticks(min(rates), max(rates))
    found.append(
        _dimension("learning rate", rates)
        | {
            "tickvals": [math.log10(value) for value in ticks],
            "ticktext": [rate_in_words(10 ** math.log10(value)) for value in ticks],
        }
    )
    for path in _other_parameters(trials):
        values_of_path = [_lookup(one, path) for one in settings]
        found.append(_dimension(path.removeprefix("training."), values_of_path))
    return found


def _varies(dimension: Figure) -> bool:
    values = dimension["values"]
    return isinstance(values, list) and len(set(values)) > 1


def _with_none(label: str, values: Sequence[float | None]) -> Figure:
    """An axis of numbers, some of which are missing: "none" stands apart, below the others."""
    known = [one for one in values if one is not None]
    if len(known) == len(values) or not known:
        return _dimension(label, [0.0 if one is None else one for one in values])
    low, high = min(known), max(known)
    none = low - (0.2 * (high - low) or 1.0)
    axis = _dimension(label, known)
    ticks, text = _ticks(known)
    filled = [none if one is None else float(f"{one:.6g}") for one in values]
    return axis | {"values": filled, "tickvals": [none, *ticks], "ticktext": ["none", *text]}


def _ticks(numbers: Sequence[float]) -> tuple[list[float], list[str]]:
    """A few values that stand far apart. An axis with given ticks has no texts at its ends, where
    they would cover its name."""
    values = sorted(set(numbers))
    if len(values) > MOST_TICKS:
        low, high = values[0], values[-1]
        step = 10.0 ** math.floor(math.log10((high - low) / (MOST_TICKS - 1)))
        wide = next(
            step * by for by in (1, 2, 5, 10, 20) if (high - low) / (step * by) <= MOST_TICKS
        )
        first = math.ceil(low / wide - 1e-9)
        values = [at * wide for at in range(first, math.floor(high / wide + 1e-9) + 1)]
    return values, [f"{value:.4g}" for value in values]


def _dimension(label: str, values: Sequence[JsonValue], order: Sequence[str] = ()) -> Figure:
    """An axis. Values that aren't numbers stand at 0, 1, ... in `order`, or as they come."""
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) == len(values):
        ticks, texts = _ticks(numbers)
        rounded = [float(f"{value:.6g}") for value in numbers]
        return {
            "label": _in_lines(label),
            "values": rounded,
            "tickvals": ticks,
            "ticktext": texts,
        }
    order = order or list(dict.fromkeys(map(str, values)))
    at = {name: i for i, name in enumerate(order)}
    text = [name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1]}…" for name in order]
    return {
        "label": _in_lines(label),
        "values": [at[str(value)] for value in values],
        "tickvals": list(range(len(order))),
        "ticktext": text,
    }


def _in_lines(label: str) -> str:
    """A word a line, because the axes stand close together."""
    return shown(label).replace(" ", "<br>")


def _other_parameters(trials: Sequence[Reached]) -> list[str]:
    """Paths of drawn settings that are no schedules, such as `training.batch_size`.

    The parameter `epochs` means `training.epochs`.
    """
    drawn = dict.fromkeys(
        name for one in trials for name in one.trial.params if name.split(".")[0] not in SCHEDULED
    )
    first = trials[0].trial.settings
    found = []
    for name in drawn:
        paths = [path for path in (name, f"training.{name}") if _lookup(first, path) is not None]
        if paths and not isinstance(_lookup(first, paths[0]), dict | list):
            found.append(paths[0])
    return found[:MOST_OTHERS]


def _lookup(settings: TrialSettings, path: str) -> JsonValue:
    """The setting with this dotted name; None if there is none."""
    found: JsonValue = settings.model_dump(mode="json")
    for key in path.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found
