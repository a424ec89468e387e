"""What confirm found, and which strategy a report recommends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kdsweep import metric_names
from kdsweep.compare.findings import Comparison, Pair
from kdsweep.compare.recommendation import Choice, Running, best_on_validation, recommend
from kdsweep.compare.records import TrialRecord
from kdsweep.report.model import (
    CheapestStudent,
    ConfirmResult,
    Recommendation,
    StrategyResult,
    TeacherFacts,
)
from kdsweep.trial_id import TrialId


def runs_of_confirm(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that have ended, by seed."""
    runs = [one for one in records if one.id.phase == "confirm" and one.result]
    return sorted(runs, key=lambda one: one.id.seed_index or 0)


def confirm_result(
    metric: str,
    strategy: str,
    records: Sequence[TrialRecord],
    asked: int,
    compared: Comparison,
    teacher: TeacherFacts | None,
) -> ConfirmResult | None:
    """What confirm found for a strategy; None until one of its runs has ended.

    With looks, of the runs that the last one judged; of all before the first one.
    """
    judged = compared.seeds_judged.get(strategy) or math.inf
    runs = [
        run
        for run in runs_of_confirm(records)
        if run.id.strategy == strategy and (run.id.seed_index or 0) < judged
    ]
    if not runs:
        return None
    mean = compared.means.get(strategy)
    results = [one.result for one in runs if one.result and one.result.test and one.result.best]
    teacher_test = teacher.test if teacher else None
    retention = None
    if mean and teacher_test and teacher_test > 0:
        retention = mean.value / teacher_test
    return ConfirmResult(
        seeds=len(results),
        asked=asked,
        failed=len(runs) - len(results),
        test=tuple(result.test[metric] for result in results if result.test),
        validation=tuple(
            result.best.metrics[metric_names.validation(metric)]
            for result in results
            if result.best
        ),
        mean=mean.value if mean else None,
        ci95=mean.interval if mean else None,
        retention=retention,
        against_teacher=(compared.against_teacher or {}).get(strategy),
    )


def recommendation(
    metric: str,
    strategies: Mapping[str, StrategyResult],
    records: Sequence[TrialRecord],
    pairs: Sequence[Pair],
    cheapest: CheapestStudent | None = None,
) -> Recommendation | None:
    """Of the strategies that confirm has judged; before that, of those with a finished trial.

    cheapest: what the sweep looked for, where that isn't the best metric.
    """
    reached: dict[str, dict[TrialId, float]] = {}
    for run in runs_of_confirm(records):
        if run.state == "complete" and run.result and run.result.best:
            value = run.result.best.metrics[metric_names.validation(metric)]
            reached.setdefault(run.id.strategy, {})[run.id] = value
    if not reached:
        reached = {
            name: {TrialId(name, found.best.trial): found.best.validation}
            for name, found in strategies.items()
            if found.best
        }
    reached = {name: reached[name] for name in strategies if name in reached}
    costs = {name: _running(records, trials) for name, trials in reached.items()}
    means = {name: float(np.mean(list(trials.values()))) for name, trials in reached.items()}
    chosen = recommend(means, pairs, costs)
    if cheapest is not None and cheapest.strategy in reached:
        chosen = Choice(cheapest.strategy, cheapest.strategy, tuple(reached), ())
    if chosen is None:
        return None
    student = best_on_validation(reached[chosen.strategy])
    assert student is not None
    return Recommendation(
        strategy=chosen.strategy,
        trial=student.number,
        seed_index=student.seed_index,
        first_choice=chosen.first_choice,
        candidates=chosen.candidates,
        equivalent=chosen.equivalent,
    )


def _running(records: Sequence[TrialRecord], trials: Mapping[TrialId, float]) -> Running:
    """What the students of these trials cost. Those of one architecture have one latency."""
    chosen = [one for one in records if one.id in trials and one.result]
    if not chosen:
        return Running(None, None, None)
    alike = [
        one.result.student
        for one in records
        if one.result and one.result.student and one.settings.student == chosen[0].settings.student
    ]
    sizes = [student["size_mb"] for student in alike if "size_mb" in student]
    latencies = [student["latency_ms"] for student in alike if "latency_ms" in student]
    return Running(
        size_mb=float(np.median(sizes)) if sizes else None,
        latency_ms=float(np.median(latencies)) if latencies else None,
        seconds=float(np.mean([one.result.seconds for one in chosen if one.result])),
    )
