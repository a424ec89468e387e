"""The students that no other one beats in everything: the Pareto front of the task's metric and what students cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdsweep.compare.records import TrialRecord


def pareto(
    metric: str, costs: Mapping[str, str], records: Sequence[TrialRecord]
) -> list[dict[str, Any]]:
    """The front over all strategies' complete trials of the search, best metric first.

    costs: objective -> the name of what a student is measured by. Each entry has `strategy`, `trial`, `validation` and the costs by
    their objectives. Of students that are alike in everything all are there.
    """
    found: list[dict[str, Any]] = []
    for record in records:
        if (
            record.id.phase == "search"
            and record.state == "complete"
            and record.result
            and record.result.best
            and record.result.student
        ):
            reached = {"validation": record.result.best.metrics[f"validation/{metric}"]}
            found.append(
                {"strategy": record.id.strategy, "trial": record.id.number}
                | reached
                | {name: record.result.student[key] for name, key in costs.items()}
            )
    points = [
        (-one["validation"], *(one[name] for name in costs)) for one in found
    ]  # less is better in each
    front = [
        one
        for one, point in zip(found, points, strict=True)
        if not any(_beats(other, point) for other in points)
    ]
    return sorted(
        front,
        key=lambda one: (
            -one["validation"],
            *(one[name] for name in costs),
            one["strategy"],
            one["trial"],
        ),
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
