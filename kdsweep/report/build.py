"""From trials to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kdsweep.compare.questions import answer_questions
from kdsweep.compare.records import TestAnswers, TrialRecord
from kdsweep.compare.statistics import Estimate, Pair, compare_pairs, mean_score
from kdsweep.core.settings import Metric
from kdsweep.core.tasks.predictions import answers as answered
from kdsweep.core.tasks.predictions import kind_of
from kdsweep.report.sentences import confirmed_verdict, searched_verdict


def summarize(
    sweep: str,
    metric: Metric,
    teacher: dict[str, Any] | None,
    strategies: dict[str, Any],
    records: Sequence[TrialRecord],
    answers: TestAnswers | None,
    teachers: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The report of a sweep.

    teacher: `validation` and, once judged, `test` (metric -> value), `parameters`, `size_mb`, `latency_ms`, or None where no strategy
    needs one. strategies: for each `trials` (counts), `best` (trial, params, settings, validation, student, and what its `teachers`
    reach together where they are several) or None, `slot_hours`, and `asked`, how many seeds confirm the best. teachers: all of them,
    `teacher` among them, each with its `name`, and with `selected` where it is the best of several seeds.
    """
    pairs: list[Pair] = []
    means: dict[str, Estimate] = {}
    if answers is not None:
        kind = kind_of(answers.labels)
        predicted = {
            strategy: {i: answered(logits, kind) for i, logits in by_seed.items()}
            for strategy, by_seed in answers.students.items()
            if by_seed
        }
        means = {
            strategy: mean_score(metric, answers.labels, by_seed)
            for strategy, by_seed in predicted.items()
        }
        pairs = compare_pairs(metric, answers.labels, predicted)
    teacher_test = teacher["test"][metric] if teacher and teacher.get("test") else None
    outcomes = {
        strategy: {key: found[key] for key in ("trials", "best", "slot_hours")}
        | {
            "confirm": _confirm(
                metric, strategy, found["asked"], records, means.get(strategy), teacher_test
            )
        }
        for strategy, found in strategies.items()
    }
    beside = _more_tests(metric, teacher, records)
    return {
        "sweep": sweep,
        "metric": metric,
        "teacher": None
        if teacher is None
        else teacher | {"validation": teacher["validation"][metric], "test": teacher_test},
        "teachers": [
            one | {part: one[part] and one[part][metric] for part in ("validation", "test")}
            for one in teachers
        ],
        "strategies": outcomes,
        "pairs": [asdict(pair) for pair in pairs],
        "questions": answer_questions(
            metric,
            records,
            {strategy: found["slot_hours"] for strategy, found in strategies.items()},
        ),
        "verdict": confirmed_verdict(metric, means, pairs, teacher_test)
        if means
        else searched_verdict(metric, teacher, strategies),
    } | ({"more_tests": beside} if beside else {})


def _more_tests(
    metric: Metric, teacher: dict[str, Any] | None, records: Sequence[TrialRecord]
) -> dict[str, dict[str, Any]]:
    """For each split that is judged beside test (`task.splits.more_tests`): the teacher's score or None, and each strategy's by seed."""
    found: dict[str, dict[str, Any]] = {}
    runs = sorted(
        (one for one in records if one.id.phase == "confirm" and one.result and one.result.test),
        key=lambda one: one.id.seed_index or 0,
    )
    for run in runs:
        for name, value in (run.result.test or {}).items() if run.result else ():
            split, _, judged = name.rpartition("/")
            if split and judged == metric:
                of_teacher = ((teacher or {}).get("test") or {}).get(name)
                found.setdefault(split, {"teacher": of_teacher, "strategies": {}})[
                    "strategies"
                ].setdefault(run.id.strategy, []).append(value)
    return found


def _confirm(
    metric: Metric,
    strategy: str,
    asked: int,
    records: Sequence[TrialRecord],
    mean: Estimate | None,
    teacher_test: float | None,
) -> dict[str, Any] | None:
    runs = sorted(
        (
            one
            for one in records
            if one.id.phase == "confirm" and one.id.strategy == strategy and one.result
        ),
        key=lambda one: one.id.seed_index or 0,
    )
    if not runs:
        return None
    results = [one.result for one in runs if one.result and one.result.test and one.result.best]
    return {
        "seeds": len(results),
        "asked": asked,
        "failed": len(runs) - len(results),
        "test": [result.test[metric] for result in results if result.test],
        "validation": [
            result.best.metrics[f"validation/{metric}"] for result in results if result.best
        ],
        "mean": mean.value if mean else None,
        "ci95": [mean.low, mean.high] if mean and mean.low is not None else None,
        "retention": mean.value / teacher_test
        if mean and teacher_test and teacher_test > 0
        else None,
    }


def rank_strategies(reports: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Each strategy's average rank over several sweeps (1 is best; ties share), of those that all sweeps have judged alike: by the
    confirm's test mean where every sweep has it, else by the search's validation."""
    from scipy.stats import rankdata

    common = (
        [
            name
            for name in reports[0]["strategies"]
            if all(value_of(one, name) is not None for one in reports)
        ]
        if reports
        else []
    )
    if not common:
        return {}
    ranks = [rankdata([-float(value_of(one, name) or 0.0) for name in common]) for one in reports]
    return dict(zip(common, np.mean(ranks, axis=0).tolist(), strict=True))


def value_of(report: dict[str, Any], strategy: str) -> float | None:
    """What a strategy reached in a sweep: on test where that was confirmed, else on validation."""
    found = report["strategies"].get(strategy)
    if found is None or found["best"] is None:
        return None
    confirmed = found["confirm"]["mean"] if found["confirm"] else None
    return float(found["best"]["validation"] if confirmed is None else confirmed)
