"""Validation at each evaluation, a line for each trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from kdsweep import metric_names
from kdsweep.compare.records import TrialRecord
from kdsweep.compare.rungs import rungs_in_words
from kdsweep.formatting import MISSING, score
from kdsweep.report.charts.figures import (
    INK,
    Chart,
    Curve,
    Figure,
    Panel,
    Row,
    axis_of,
    joined,
    layout_of,
    span_of,
    teacher_line,
    teacher_words,
)
from kdsweep.report.charts.material import Look, Material


def learning_curves_chart(material: Material) -> Chart | None:
    measured = {
        name: [one for one in trials if one.evaluations]
        for name, trials in material.searched.items()
    }
    measured = {name: trials for name, trials in measured.items() if trials}
    if not measured:
        return None
    metric, teacher = material.metric, material.teacher_validation
    every = [one for trials in measured.values() for one in trials]
    again = [one for name in measured for one in material.confirmed[name]]
    values = [value for one in every for value in _curve(metric, one)[1]]
    values_again = [value for one in again for value in _curve(metric, one)[1]]
    frame = span_of([*values, *values_again, teacher], cut=True)
    last = max(epoch for one in every for epoch in _curve(metric, one)[0])
    panels = tuple(
        Panel(
            name,
            _traces(material, name, trials),
            layout_of(
                axis_of("epoch", range=[0, 1.02 * last]),
                axis_of(f"validation {metric}", range=frame),
                height=340,
                line=teacher_line(teacher),
            ),
        )
        for name, trials in measured.items()
    )
    below = sum(value < frame[0] for value in values)
    cut = f" {below} of {len(values)} values lie below the frame." if below else ""
    caption = (
        f"Validation {metric} at each evaluation, a line for each trial. Thick: the strategy's "
        "best trial; dotted and ending in a cross: stopped early (pruned, diverged or failed); "
        f"dashed: confirm's seeds.{cut}{_ran_to_the_end(material)}{_told_early(material)}"
        f"{teacher_words(teacher)}"
    )
    return Chart(
        "curves",
        "Learning curves",
        caption,
        panels,
        ("strategy", "ran to the end", "stopped early", "best trial", "its evaluations"),
        tuple(_row(material, name, trials) for name, trials in measured.items()),
    )


def _ran_to_the_end(material: Material) -> str:
    """How many trials were expected to run to their end and how many did, where some are pruned."""
    words = [
        f"{name} about {expected.complete:.0f} of {expected.trials}, and "
        f"{found.trials.complete} of {found.trials.total} did"
        for name, found in material.report.strategies.items()
        if (expected := found.expected) is not None and expected.complete < expected.trials
    ]
    return f" Expected to run to their end: {'; '.join(words)}." if words else ""


def _told_early(material: Material) -> str:
    """How well the evaluations on the way told the last one, where enough trials are complete."""
    strategies = material.report.strategies.items()
    found = {name: rungs_in_words(one.rungs) for name, one in strategies}
    words = [f"{name} {told}" for name, told in found.items() if told]
    if not words:
        return ""
    return (
        " Rank correlation of an evaluation with the last one, over complete trials (after the "
        f"share of training): {'; '.join(words)}."
    )


def _row(material: Material, name: str, trials: Sequence[TrialRecord]) -> Row:
    stopped = sum(one.state != "complete" for one in trials)
    counts = (name, str(len(trials) - stopped), str(stopped))
    best = _best(material, name, trials)
    if best is None:
        return *counts, MISSING, MISSING
    reached = _curve(material.metric, best)[1]
    return *counts, str(best.id.number), ", ".join(map(score, reached))


def _best(material: Material, name: str, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    return next((one for one in trials if one.id.number == material.best_trial(name)), None)


def _curve(metric: str, record: TrialRecord) -> tuple[list[float], list[float]]:
    """The epochs and values of the evaluations whose value is finite."""
    name = metric_names.validation(metric)
    points = [(one.epoch, one.metrics[name]) for one in record.evaluations]
    points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
    return [epoch for epoch, _ in points], [value for _, value in points]


def _traces(material: Material, strategy: str, trials: Sequence[TrialRecord]) -> list[Figure]:
    """Complete trials, those that stopped early, confirm's seeds, and the best trial on top."""

    def curves(records: Iterable[TrialRecord], words: Callable[[TrialRecord], str]) -> list[Curve]:
        return [(*_curve(material.metric, one), words(one)) for one in records]

    look = material.looks[strategy]
    best = _best(material, strategy, trials)
    complete = curves(
        (one for one in trials if one.state == "complete" and one is not best),
        lambda one: f"trial {one.id.number}",
    )
    stopped = curves(
        (one for one in trials if one.state != "complete"),
        lambda one: f"trial {one.id.number}, {one.state}",
    )
    seeds = curves(
        (one for one in material.confirmed[strategy] if one.evaluations),
        lambda one: f"trial {one.id.number} again, seed {one.id.seed_index}",
    )
    data = []
    if complete:
        thin = {"color": look.color, "width": 1}
        name = f"complete ({len(complete)})"
        data.append(joined(complete, mode="lines", name=name, line=thin, opacity=0.55))
    if stopped:
        data.append(_stopped(stopped, look.color))
    if seeds:
        dashed = {"color": INK, "width": 1.25, "dash": "dash"}
        name = f"confirm ({len(seeds)})"
        data.append(joined(seeds, mode="lines", name=name, line=dashed, opacity=0.7))
    if best is not None:
        data.append(
            _thick(curves([best], lambda one: f"trial {one.id.number}, the best"), best, look)
        )
    return data


def _stopped(curves: Sequence[Curve], color: str) -> Figure:
    """Dotted lines, with a cross at the last evaluation of each."""
    sizes = []
    for epochs, _, _ in curves:
        sizes += [*([0] * (len(epochs) - 1)), 6, 0] if epochs else [0]
    return joined(
        curves,
        mode="lines+markers",
        name=f"stopped early ({len(curves)})",
        line={"color": color, "width": 1, "dash": "dot"},
        marker={"symbol": "x-thin", "size": sizes[:-1], "line": {"width": 1.5, "color": color}},
        opacity=0.5,
    )


def _thick(curves: Sequence[Curve], best: TrialRecord, look: Look) -> Figure:
    return joined(
        curves,
        mode="lines+markers",
        name=f"best: trial {best.id.number}",
        line={"color": look.color, "width": 3},
        marker={"symbol": look.symbol, "size": 8, "color": look.color},
    )
