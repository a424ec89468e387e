"""The students that no other one beats in everything: the front of the metric and the costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdsweep import metric_names
from kdsweep.compare.findings import ParetoEntry
from kdsweep.compare.records import TrialRecord


def pareto(
    metric: str, costs: Mapping[str, str], records: Sequence[TrialRecord]
) -> list[ParetoEntry]:
    """The front over all strategies' complete trials of the search, best metric first.

    costs: objective -> the measure of a student that it stands for. Students that are equal in
    everything are all included.
    """
    found = [one for record in records if (one := _measured(metric, costs, record)) is not None]
    front = [one for one in found if not any(_beats(other.rank, one.rank) for other in found)]
    return sorted(front, key=lambda one: (one.rank, one.id.strategy, one.id.number))


def _measured(metric: str, costs: Mapping[str, str], record: TrialRecord) -> ParetoEntry | None:
    """None unless the trial belongs to the search and is complete."""
    result = record.result
    if not record.is_complete_search or result is None:
        return None
    if result.best is None or not result.student:
        return None
    student = result.student
    return ParetoEntry(
        record.id,
        result.best.metrics[metric_names.validation(metric)],
        {objective: student[measure] for objective, measure in costs.items()},
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether `one` is nowhere worse and somewhere better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
