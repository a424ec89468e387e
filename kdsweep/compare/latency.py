"""What may be said about the latency of students, and whether they cost the same at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdsweep.compare.records import TrialRecord
from kdsweep.core.evaluation.latency_figures import ArchitectureLatency, ModelShape
from kdsweep.formatting import count, joined, milliseconds

LATENCY = "latency_ms"


def cost_the_same(
    measures: Sequence[str], records: Sequence[TrialRecord], *, measured_once: bool
) -> bool:
    """Whether all complete students of the search are alike in these measures; there are several.

    measured_once: whether latency is that of the architecture. Where each trial measured its own,
    students of one architecture are alike whatever they measured.
    """
    found = [one for one in records if one.is_complete_search and _student(one)]
    costs = {
        tuple(
            ModelShape.of_student(one.settings)
            if measure == LATENCY and not measured_once
            else _student(one).get(measure)
            for measure in measures
        )
        for one in found
    }
    return len(found) > 1 and len(costs) == 1


def latency_in_words(
    architectures: Sequence[ArchitectureLatency], records: Sequence[TrialRecord]
) -> str | None:
    """How latency was measured, and what of it isn't sure. None where nothing is known.

    architectures: those that the sweep has measured; empty where each trial measured its own.
    """
    if not architectures:
        return _of_each_trial(records)
    sentences: list[str] = []
    for device in dict.fromkeys(one.device for one in architectures):
        there = [one for one in architectures if one.device == device]
        several = len({one.model for one in there}) > 1
        figures = "; ".join(f"{_name(one, several)} {_figures(one)}" for one in there)
        sentences.append(
            f"each architecture was measured alone on {device.words}, one row in fp32"
            f"{_of_quantized(there)}, with the spread of {there[0].first.rounds} rounds: {figures}"
        )
        if changed := [_name(one, several) for one in there if one.has_changed]:
            sentences.append(
                f"the first and the last measurement of {joined(changed)} differ by more than "
                "their spread: this machine's speed has changed, so differences of that size "
                "between students mean nothing"
            )
    return ". ".join(text[:1].upper() + text[1:] for text in sentences)


def _of_quantized(architectures: Sequence[ArchitectureLatency]) -> str:
    if all(one.precision == "fp32" for one in architectures):
        return ""
    return " (int8: by onnxruntime, on the processor)"


def _figures(one: ArchitectureLatency) -> str:
    first, last = one.first, one.last
    text = f"{milliseconds(first.latency_ms)} ({_number(first.low_ms)} to {_number(first.high_ms)})"
    if last is None:
        return text
    at_end = f"{milliseconds(last.latency_ms)} ({_number(last.low_ms)} to {_number(last.high_ms)})"
    return f"{text}, at the end {at_end}"


def _number(latency_ms: float) -> str:
    return milliseconds(latency_ms).removesuffix(" ms")


def _name(one: ArchitectureLatency, several_models: bool) -> str:
    """`3 layers x 384`, with the model's name where there are several, and the row's length."""
    parts: list[str] = []
    if one.layers is not None:
        parts.append(count(one.layers, "layer"))
    if one.width is not None:
        parts.append(f"x {one.width}")
    if several_models or not parts:
        parts.append(f"of {one.model}")
    precision = "" if one.precision == "fp32" else f" {one.precision}"
    return f"{' '.join(parts)}{precision} ({one.tokens} tokens)"


def _of_each_trial(records: Sequence[TrialRecord]) -> str | None:
    """Says so where students of one architecture have different figures."""
    by_shape: dict[ModelShape, list[float]] = {}
    for one in records:
        latency = _student(one).get(LATENCY)
        if latency is not None:
            by_shape.setdefault(ModelShape.of_student(one.settings), []).append(latency)
    widest = max(by_shape.values(), key=lambda found: max(found) - min(found), default=[])
    if len(widest) < 2 or max(widest) == min(widest):
        return None
    return (
        "Each trial measured its own latency, while other trials may have run: students of one "
        f"architecture measured {_number(min(widest))} to {milliseconds(max(widest))}, so "
        "differences of that size mean nothing"
    )


def _student(record: TrialRecord) -> Mapping[str, float]:
    result = record.result
    return (result.student if result else None) or {}
