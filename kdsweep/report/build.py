"""From trials to a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kdsweep import metric_names
from kdsweep.compare.findings import Comparison, Estimate, ParetoEntry, SettingsComparison
from kdsweep.compare.importance import DrawnTrial, parameters_that_matter
from kdsweep.compare.latency import latency_in_words
from kdsweep.compare.looks import Ended, LookRules, compare_in_looks
from kdsweep.compare.questions import answer_questions
from kdsweep.compare.ranks import Ranks, compare_ranks
from kdsweep.compare.records import TestLogits, TrialRecord
from kdsweep.compare.rungs import ExpectedComplete, Rung, rungs
from kdsweep.compare.statistics import compare
from kdsweep.compare.strategy_costs import Costs
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.config.sweep import MARGIN, Cheapest
from kdsweep.core.evaluation.latency_figures import ArchitectureLatency
from kdsweep.report.cheapest import cheapest_student, cheapest_verdict
from kdsweep.report.confirmed import confirm_result, recommendation, runs_of_confirm
from kdsweep.report.model import (
    BestTrial,
    ConfirmResult,
    EarlierSweeps,
    Finalist,
    Importance,
    MoreTest,
    Recommendation,
    Report,
    Reproduction,
    SlotUse,
    StrategyResult,
    TeacherFacts,
    TrialCounts,
)
from kdsweep.report.verdict import Verdict, confirmed_verdict, searched_verdict


@dataclass(frozen=True)
class SearchOutcome:
    """What the search of one strategy found.

    finalists: the best first. seeds_asked: how many seeds confirm the best trial.
    """

    trials: TrialCounts
    best: BestTrial | None
    slot_hours: float
    seeds_asked: int
    settings_comparison: SettingsComparison | None = None
    finalists: tuple[Finalist, ...] = ()


@dataclass(frozen=True)
class ReportFacts:
    """What a report holds in addition to the comparison; its fields are the report's.

    looks: with `confirm.seeds: auto`. expected: the complete trials of each strategy.
    teacher_seconds: slot time for teachers; None where it wasn't recorded.
    """

    margin: float = MARGIN
    looks: LookRules | None = None
    expected: Mapping[str, ExpectedComplete] = field(default_factory=dict)
    cheapest: Cheapest | None = None
    pareto: tuple[ParetoEntry, ...] | None = None
    latencies: tuple[ArchitectureLatency, ...] = ()
    importance: dict[str, Importance | None] = field(default_factory=dict)
    slots: SlotUse | None = None
    teacher_seconds: float | None = None
    reproduce: Reproduction | None = None
    precision: str | None = None
    start_from: EarlierSweeps | None = None
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
    """The report of a sweep. outcomes: by strategy.

    teachers: the one that students are measured by comes first; empty where no strategy needs one.
    """
    compared = _compare(metric, test, facts, _failed(records))
    shown = _teachers(metric, teachers, compared)
    teacher = shown[0] if shown else None
    strategies = {
        strategy: _result_of(
            found,
            confirm_result(metric, strategy, records, found.seeds_asked, compared, teacher),
            _rungs(metric, strategy, records),
            facts.expected.get(strategy),
        )
        for strategy, found in outcomes.items()
    }
    cheapest = cheapest_student(facts.cheapest, metric, teacher, strategies, records)
    recommended = recommendation(metric, strategies, records, compared.pairs, cheapest)
    verdict = cheapest_verdict(metric, cheapest, strategies) or _verdict(
        metric, compared, recommended, teacher, strategies, facts.margin
    )
    return Report(
        sweep=sweep,
        metric=metric,
        teacher=teacher,
        teachers=tuple(shown),
        strategies=strategies,
        pairs=compared.pairs,
        questions=tuple(answer_questions(metric, records, _costs(teachers, outcomes, facts))),
        verdict=verdict.says,
        rests_on=verdict.rests_on,
        next_step=verdict.next_step,
        margin=facts.margin,
        recommended=recommended,
        more_tests=_more_tests(metric, teachers[0] if teachers else None, records, test),
        cheapest=cheapest,
        pareto=facts.pareto,
        latencies=facts.latencies,
        latency_note=latency_in_words(facts.latencies, records),
        importance=facts.importance,
        shown_to_matter=_shown_to_matter(metric, outcomes, records),
        winner=recommended.student if recommended else None,
        slots=facts.slots,
        reproduce=facts.reproduce,
        precision=facts.precision,
        start_from=facts.start_from,
        state=facts.state,
    )


def _result_of(
    found: SearchOutcome,
    confirm: ConfirmResult | None,
    rungs: tuple[Rung, ...],
    expected: ExpectedComplete | None,
) -> StrategyResult:
    return StrategyResult(
        trials=found.trials,
        best=found.best,
        slot_hours=found.slot_hours,
        confirm=confirm,
        finalists=found.finalists,
        settings_comparison=found.settings_comparison,
        rungs=rungs,
        expected=expected,
    )


def _rungs(metric: str, strategy: str, records: Sequence[TrialRecord]) -> tuple[Rung, ...]:
    name = metric_names.validation(metric)
    return rungs(
        [
            [evaluation.metrics[name] for evaluation in one.evaluations]
            for one in records
            if one.is_complete_search and one.id.strategy == strategy
        ]
    )


def _verdict(
    metric: str,
    compared: Comparison,
    recommended: Recommendation | None,
    teacher: TeacherFacts | None,
    strategies: Mapping[str, StrategyResult],
    margin: float,
) -> Verdict:
    if recommended is not None and recommended.strategy in compared.means:
        return confirmed_verdict(metric, compared, recommended, teacher, margin)
    return searched_verdict(
        metric,
        teacher.validation if teacher else None,
        {name: found.best.validation for name, found in strategies.items() if found.best},
    )


def _failed(records: Sequence[TrialRecord]) -> dict[str, list[int]]:
    """The seeds of confirm that ended without a student, by strategy."""
    out: dict[str, list[int]] = {}
    for run in runs_of_confirm(records):
        failed = run.result is not None and not (run.result.test and run.result.best)
        out.setdefault(run.id.strategy, []).extend([run.id.seed_index or 0] if failed else [])
    return out


def _compare(
    metric: str, test: TestLogits | None, facts: ReportFacts, failed: Mapping[str, Sequence[int]]
) -> Comparison:
    """Each strategy's mean on the test split, every pair, and each strategy and its teacher."""
    if test is None:
        return Comparison({}, ())
    predicted = {
        strategy: {seed: test.kind.predictions(logits) for seed, logits in by_seed.items()}
        for strategy, by_seed in test.students.items()
    }
    teachers = [None if one is None else test.kind.predictions(one) for one in test.teachers]
    if facts.looks is None:
        return compare(metric, test.labels, predicted, teachers, margin=facts.margin)
    ended: dict[str, Ended] = {
        name: {**dict.fromkeys(failed.get(name, ())), **predicted.get(name, {})}
        for name in dict.fromkeys([*predicted, *failed])
    }
    return compare_in_looks(metric, test.labels, ended, teachers, rules=facts.looks)


def _costs(
    teachers: Sequence[TeacherRecord], outcomes: Mapping[str, SearchOutcome], facts: ReportFacts
) -> Costs:
    slot_hours = {strategy: found.slot_hours for strategy, found in outcomes.items()}
    return Costs(slot_hours, teachers, facts.teacher_seconds)


def _teachers(
    metric: str, teachers: Sequence[TeacherRecord], compared: Comparison
) -> list[TeacherFacts]:
    estimates = compared.teachers or (None,) * len(teachers)
    return [_teacher(metric, *both) for both in zip(teachers, estimates, strict=True)]


def _teacher(metric: str, record: TeacherRecord, estimate: Estimate | None) -> TeacherFacts:
    return TeacherFacts(
        validation=record.validation[metric],
        parameters=record.parameters,
        size_mb=record.size_mb,
        latency_ms=record.latency_ms,
        latency_p95_ms=record.latency_p95_ms,
        test=record.test[metric] if record.test else None,
        ci95=estimate.interval if estimate else None,
        name=record.name,
        selected=record.selected,
    )


def _more_tests(
    metric: str,
    teacher: TeacherRecord | None,
    records: Sequence[TrialRecord],
    test: TestLogits | None,
) -> dict[str, MoreTest]:
    """For each further test split: the teacher's score, and each strategy's by seed.

    Nothing is said about their difference.
    """
    scores: dict[str, dict[str, list[float]]] = {}
    for run in runs_of_confirm(records):
        for name, value in ((run.result.test if run.result else None) or {}).items():
            split, _, judged = name.rpartition("/")
            if split and judged == metric:
                scores.setdefault(split, {}).setdefault(run.id.strategy, []).append(value)
    of_teacher = (teacher.test if teacher else None) or {}
    intervals: dict[str, tuple[float, float] | None] = {}
    for split, found in (test.on_more_tests if test else {}).items():
        (estimate,) = compare(metric, found.labels, {}, [found.predictions]).teachers
        intervals[split] = estimate.interval if estimate else None
    return {
        split: MoreTest(
            teacher=of_teacher.get(f"{split}/{metric}"),
            teacher_ci95=intervals.get(split),
            strategies={strategy: tuple(values) for strategy, values in by_strategy.items()},
        )
        for split, by_strategy in scores.items()
    }


def _shown_to_matter(
    metric: str, strategies: Iterable[str], records: Sequence[TrialRecord]
) -> dict[str, dict[str, bool]]:
    drawn: dict[str, list[DrawnTrial]] = {strategy: [] for strategy in strategies}
    for one in records:
        value = one.best(metric)
        if one.is_complete_search and value is not None and math.isfinite(value):
            drawn[one.id.strategy].append(DrawnTrial(one.params, value))
    return parameters_that_matter(drawn)


def rank_strategies(reports: Sequence[Report]) -> Ranks:
    """Each strategy's average rank over several sweeps, and what that shows.

    Only strategies with a result in every sweep are ranked: on test if that was confirmed, else on
    validation.
    """
    return compare_ranks(
        [
            {
                name: value
                for name, one in report.strategies.items()
                if (value := one.reached) is not None
            }
            for report in reports
        ]
    )
