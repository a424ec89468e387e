"""From trials to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kdsweep import metric_names
from kdsweep.compare.findings import Estimate, Pair, ParetoEntry, SettingsComparison
from kdsweep.compare.questions import answer_questions
from kdsweep.compare.records import TestLogits, TrialRecord
from kdsweep.compare.statistics import compare_pairs, mean_score
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.report.model import (
    BestTrial,
    ConfirmResult,
    Importance,
    MoreTest,
    Report,
    Reproduction,
    SlotUse,
    StrategyResult,
    TeacherFacts,
    TrialCounts,
)
from kdsweep.report.sentences import confirmed_verdict, searched_verdict
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class SearchOutcome:
    """What the search of one strategy found. seeds_asked: how many seeds confirm the best trial."""

    trials: TrialCounts
    best: BestTrial | None
    slot_hours: float
    seeds_asked: int
    settings_comparison: SettingsComparison | None = None


@dataclass(frozen=True)
class ReportFacts:
    """What a report holds in addition to the comparison; its fields are the report's."""

    pareto: tuple[ParetoEntry, ...] | None = None
    importance: dict[str, Importance | None] = field(default_factory=dict)
    winner: TrialId | None = None
    slots: SlotUse | None = None
    reproduce: Reproduction | None = None
    state: str = "done"


def summarize(
    sweep: str,
    metric: str,
    teachers: Sequence[TeacherRecord],
    outcomes: Mapping[str, SearchOutcome],
    records: Sequence[TrialRecord],
    test: TestLogits | None,
    facts: ReportFacts,
) -> Report:
    """The report of a sweep.

    teachers: the first one is the teacher that students are measured by; empty where no strategy
    needs one. outcomes: by strategy.
    """
    means, pairs = ({}, []) if test is None else _compare(metric, test)
    shown = [_teacher(metric, one) for one in teachers]
    teacher = shown[0] if shown else None
    teacher_test = teacher.test if teacher else None
    slot_hours = {strategy: found.slot_hours for strategy, found in outcomes.items()}
    if means:
        verdict = confirmed_verdict(metric, means, pairs, teacher_test)
    else:
        verdict = searched_verdict(
            metric,
            teacher.validation if teacher else None,
            {name: found.best.validation for name, found in outcomes.items() if found.best},
        )
    return Report(
        sweep=sweep,
        metric=metric,
        teacher=teacher,
        teachers=tuple(shown),
        strategies={
            strategy: StrategyResult(
                trials=found.trials,
                best=found.best,
                slot_hours=found.slot_hours,
                confirm=_confirm(
                    metric,
                    [one for one in records if one.id.strategy == strategy],
                    found.seeds_asked,
                    means.get(strategy),
                    teacher_test,
                ),
                settings_comparison=found.settings_comparison,
            )
            for strategy, found in outcomes.items()
        },
        pairs=tuple(pairs),
        questions=tuple(answer_questions(metric, records, slot_hours)),
        verdict=verdict,
        more_tests=_more_tests(metric, teachers[0] if teachers else None, records),
        pareto=facts.pareto,
        importance=facts.importance,
        winner=facts.winner,
        slots=facts.slots,
        reproduce=facts.reproduce,
        state=facts.state,
    )


def _compare(metric: str, test: TestLogits) -> tuple[dict[str, Estimate], list[Pair]]:
    """Each strategy's mean on the test split, and every pair."""
    predicted = {
        strategy: {seed: test.kind.predictions(logits) for seed, logits in by_seed.items()}
        for strategy, by_seed in test.students.items()
        if by_seed
    }
    means = {
        strategy: mean_score(metric, test.labels, by_seed)
        for strategy, by_seed in predicted.items()
    }
    return means, compare_pairs(metric, test.labels, predicted)


def _teacher(metric: str, record: TeacherRecord) -> TeacherFacts:
    return TeacherFacts(
        validation=record.validation[metric],
        parameters=record.parameters,
        size_mb=record.size_mb,
        latency_ms=record.latency_ms,
        latency_p95_ms=record.latency_p95_ms,
        test=record.test[metric] if record.test else None,
        name=record.name,
        selected=record.selected,
    )


def _more_tests(
    metric: str, teacher: TeacherRecord | None, records: Sequence[TrialRecord]
) -> dict[str, MoreTest]:
    """For each further test split: the teacher's score, and each strategy's by seed."""
    scores: dict[str, dict[str, list[float]]] = {}
    for run in _runs_of_confirm(records):
        for name, value in ((run.result.test if run.result else None) or {}).items():
            split, _, judged = name.rpartition("/")
            if split and judged == metric:
                scores.setdefault(split, {}).setdefault(run.id.strategy, []).append(value)
    of_teacher = (teacher.test if teacher else None) or {}
    return {
        split: MoreTest(
            teacher=of_teacher.get(f"{split}/{metric}"),
            strategies={strategy: tuple(values) for strategy, values in by_strategy.items()},
        )
        for split, by_strategy in scores.items()
    }


def _runs_of_confirm(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those that have ended, by seed."""
    runs = [one for one in records if one.id.phase == "confirm" and one.result]
    return sorted(runs, key=lambda one: one.id.seed_index or 0)


def _confirm(
    metric: str,
    records: Sequence[TrialRecord],
    asked: int,
    mean: Estimate | None,
    teacher_test: float | None,
) -> ConfirmResult | None:
    """records: of one strategy."""
    runs = _runs_of_confirm(records)
    if not runs:
        return None
    results = [one.result for one in runs if one.result and one.result.test and one.result.best]
    interval = None
    if mean and mean.low is not None and mean.high is not None:
        interval = (mean.low, mean.high)
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
        ci95=interval,
        retention=retention,
    )


def rank_strategies(reports: Sequence[Report]) -> dict[str, float]:
    """Each strategy's average rank over several sweeps (1 is best; ties share).

    Only strategies with a result in every sweep are ranked: on test if that was confirmed, else on
    validation.
    """
    from scipy.stats import rankdata

    results = [
        {
            name: value
            for name, one in report.strategies.items()
            if (value := one.reached) is not None
        }
        for report in reports
    ]
    common = [name for name in results[0] if all(name in one for one in results)] if results else []
    if not common:
        return {}
    ranks = [rankdata([-one[name] for name in common]) for one in results]
    return dict(zip(common, np.mean(ranks, axis=0).tolist(), strict=True))
