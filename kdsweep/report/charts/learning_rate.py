"""The metric against the highest learning rate of each trial."""

from __future__ import annotations

import math

import numpy as np

from kdsweep.formatting import score
from kdsweep.report.charts.against import below_the_frame, layout_against, points_against
from kdsweep.report.charts.figures import Chart, Panel, axis_of, span_of
from kdsweep.report.charts.material import Material, Reached
from kdsweep.report.schedules import peak_rate, rate_in_words
from kdsweep.report.settings_words import effect_note, noise_note

TOP = 5


def learning_rate_chart(material: Material) -> Chart | None:
    trials = [one for one in material.complete if peak_rate(one.trial.settings) > 0]
    if len({peak_rate(one.trial.settings) for one in trials}) < 2:
        return None
    rates = np.log10([peak_rate(one.trial.settings) for one in trials])
    low, high = span_of(rates.tolist())
    ticks = rate_ticks(low, high)
    axis = axis_of(
        "learning rate",
        type="log",
        range=[low, high],
        tickvals=ticks,
        ticktext=[rate_in_words(value) for value in ticks],
    )
    panel = Panel(
        "",
        points_against(material, trials, lambda one: peak_rate(one.settings)),
        layout_against(material, trials, axis),
    )
    ranked = sorted(trials, key=lambda one: -one.value)
    best: dict[str, Reached] = {}
    for one in ranked:
        best.setdefault(one.strategy, one)
    words = "; ".join(f"{name} {_rate(best[name])}" for name in material.looks if name in best)
    return Chart(
        "learning-rate",
        "Learning rate",
        f"The rate of each strategy's best trial: {words}."
        f"{below_the_frame(material, trials)}"
        f"{effect_note(material.report, 'learning_rate', best)}"
        f"{noise_note(material.report, best)}",
        (panel,),
        ("best trials", material.metric, "learning rate"),
        tuple((one.trial.id.name, score(one.value), _rate(one)) for one in ranked[:TOP]),
    )


def _rate(one: Reached) -> str:
    return rate_in_words(peak_rate(one.trial.settings))


def rate_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high; with few powers of ten, also numbers in between."""
    steps: tuple[int, ...] = (1,)
    if high - low < 0.5:
        steps = tuple(range(1, 10))
    elif high - low < 2.2:
        steps = (1, 2, 5)
    found = [
        step * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for step in steps
    ]
    inside = [value for value in found if low <= math.log10(value) <= high]
    return inside or [10 ** ((low + high) / 2)]
