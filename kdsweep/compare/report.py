"""The report: one plain structure that the table, `report.json` and `--json` are all made of."""

from __future__ import annotations

from typing import Any


def summarize(sweep: str, metric: str, teacher: dict[str, Any] | None, strategies: dict[str, Any]) -> dict[str, Any]:
    """The report of a sweep.

    teacher: `validation` (metric -> value), `parameters`, `size_mb`, `latency_ms`, or None where no strategy needs one.
    strategies: for each `trials` (counts) and `best` (trial, params, settings, validation, student) or None.
    """
    return {
        "sweep": sweep,
        "metric": metric,
        "teacher": None if teacher is None else teacher | {"validation": teacher["validation"][metric]},
        "strategies": strategies,
        "verdict": verdict(metric, teacher, strategies),
    }


def verdict(metric: str, teacher: dict[str, Any] | None, strategies: dict[str, Any]) -> str:
    """What the search shows, and what it doesn't: the best of several trials, each with one seed, is no proof."""
    ranked = sorted(((found["best"]["validation"], name) for name, found in strategies.items() if found["best"] is not None), key=lambda entry: -entry[0])
    if not ranked:
        return "no trial has finished"
    value = ranked[0][0]
    level = [name for other, name in ranked if other == value]
    if len(level) > 1:
        text = f"{', '.join(level[:-1])} and {level[-1]} are level on validation: {metric} {value:.4f}"
    else:
        text = f"{level[0]} is ahead on validation: {metric} {value:.4f}"
        if len(ranked) > 1:
            text += f", {100 * (value - ranked[1][0]):.1f} points over {ranked[1][1]}"
    if teacher is not None:
        text += f"; the teacher has {teacher['validation'][metric]:.4f}"
    return f"{text}. Each trial has one seed and the best of several is shown, so small differences may be chance."
