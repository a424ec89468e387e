"""The schedules of alpha or temperature as curves, and the metric against their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdsweep.formatting import count, score
from kdsweep.report.charts.against import below_the_frame, layout_against, points_against
from kdsweep.report.charts.figures import (
    INK,
    Chart,
    Figure,
    Panel,
    axis_of,
    joined,
    layout_of,
    shown,
)
from kdsweep.report.charts.material import Material, Reached
from kdsweep.report.schedules import (
    Scheduled,
    in_words,
    mean_over_training,
    sample,
    schedule_of,
    weighs_teacher,
)
from kdsweep.report.settings_words import effect_note, noise_note

# How good a trial is, worst first: color, opacity, width. Each has a contrast of 3 or more to the
# card that it is drawn on, light or dark, and no strategy has these colors.
BANDS = (("#7d8792", 0.95, 0.75), ("#9066d4", 1.0, 1.25), ("#8a5cf0", 1.0, 1.75), (INK, 0.95, 2.5))
BAND_EDGES = (0.5, 0.75, 0.9)
BAND_NAMES = ("worse half", "better half", "best quarter", "best tenth")
ENOUGH_FOR_BANDS = 10
TOP = 5
ALPHA_ENDS = "1 = labels only, 0 = teacher only"


def schedule_chart(material: Material, what: Scheduled, title: str) -> Chart | None:
    trials = [
        one for one in material.complete if what == "alpha" or weighs_teacher(one.trial.settings)
    ]
    if len({schedule_of(one.trial.settings, what).model_dump_json() for one in trials}) < 2:
        return None
    axis, ends = axis_of(what, rangemode="tozero"), ""
    if what == "alpha":
        ends = f" ({ALPHA_ENDS})"
        axis = axis_of(f"alpha{ends}", range=[-0.04, 1.04])
    curves = Panel(
        "Over training, colored by result",
        _by_band(trials, what),
        layout_of(axis_of("progress of training", range=[0, 1.005]), axis),
    )
    against = Panel(
        "Against the result",
        points_against(material, trials, lambda one: mean_over_training(one.settings, what)),
        layout_against(material, trials, axis_of(f"mean {what} over training{ends}")),
    )
    ranked = sorted(trials, key=lambda one: -one.value)[:TOP]
    best = ranked[0]
    shown_here = [name for name in material.looks if any(one.strategy == name for one in trials)]
    skipped = ""
    if what == "temperature":
        skipped = (
            " Trials that learn from the labels alone are left out: no temperature acts on them."
        )
    return Chart(
        what,
        title,
        f"{count(len(trials), 'complete trial')}; the thicker the curve, the better the "
        f"{material.metric}. The best, {best.trial.id.name}, reached {best.value:.4f} with "
        f"{_words(best, what)}.{skipped}{below_the_frame(material, trials)}"
        f"{effect_note(material.report, what, shown_here)}"
        f"{noise_note(material.report, shown_here)}",
        (curves, against),
        ("best trials", material.metric, what),
        tuple((one.trial.id.name, score(one.value), _words(one, what)) for one in ranked),
    )


def _words(one: Reached, what: Scheduled) -> str:
    return in_words(schedule_of(one.trial.settings, what))


def _by_band(trials: Sequence[Reached], what: Scheduled) -> list[Figure]:
    """A trace for each band of results, the worst first."""
    values = [one.value for one in trials]
    few = len(values) < ENOUGH_FOR_BANDS
    quantiles = (0.5, 1.0, 1.0) if few else BAND_EDGES
    bands = np.searchsorted(np.quantile(values, quantiles), values, side="right").tolist()
    data = []
    for band in sorted(set(bands)):
        own = [one for one, its in zip(trials, bands, strict=True) if its == band]
        color, opacity, width = BANDS[band]
        name = "best" if few and band == len(BAND_EDGES) else BAND_NAMES[band]
        low, high = min(one.value for one in own), max(one.value for one in own)
        reached = f"{low:.4f} to {high:.4f}" if high > low else f"{low:.4f}"
        data.append(
            joined(
                (
                    (
                        *sample(one.trial.settings, what),
                        f"{shown(one.trial.id.name)}: {one.value:.4f}",
                    )
                    for one in own
                ),
                mode="lines",
                name=f"{name}: {reached}",
                line={"color": color, "width": width},
                opacity=opacity,
            )
        )
    return data
