"""The answer of a sweep that looked for the cheapest student: which it is, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdsweep.compare.cheapest import (
    LEVEL,
    ROUNDING,
    bar_of,
    cheapest_first,
    judged_bar,
    lower_end,
)
from kdsweep.compare.finalists import mean_of
from kdsweep.compare.findings import AgainstTeacher
from kdsweep.compare.records import TrialRecord
from kdsweep.compare.verdicts import in_points, points_range
from kdsweep.config.sweep import COSTS, Cheapest
from kdsweep.core.settings import TrialSettings
from kdsweep.formatting import count, joined, megabytes, milliseconds
from kdsweep.report.model import CheapestStudent, StrategyResult, TeacherFacts
from kdsweep.report.verdict import Verdict
from kdsweep.trial_id import TrialId

FOUND = {
    "latency": "the fastest student found",
    "size": "the smallest student found",
    "parameters": "the student found with the fewest parameters",
}
LESS = {"latency": "as fast as", "size": "smaller than", "parameters": "fewer than"}


def cheapest_in_words(rule: Cheapest, metric: str) -> str:
    """`least size, accuracy within 1 point of the teacher`."""
    return f"least {rule.least}, {metric} within {in_points(rule.within)} of {_of(rule.of)}"


def _of(of: str) -> str:
    return "the teacher" if of == "teacher" else "the best student"


@dataclass(frozen=True)
class _Candidate:
    """What a strategy puts forward. values: its metric on validation, by seed."""

    id: TrialId
    values: tuple[float | None, ...]
    cost: float


def cheapest_student(
    rule: Cheapest | None,
    metric: str,
    teacher: TeacherFacts | None,
    strategies: Mapping[str, StrategyResult],
    records: Sequence[TrialRecord],
) -> CheapestStudent | None:
    """The cheapest of what the strategies put forward that is good enough, else the nearest.

    Until finalists are judged, a trial's one value in the search stands for it. None without one,
    and where the sweep looks for something else.
    """
    if rule is None:
        return None
    reference = None if teacher is None else teacher.validation
    costs = _costs(rule, records)
    judged = [one.values for found in strategies.values() for one in found.finalists]
    chosen = [
        _Candidate(TrialId(name, one.trial), one.values, costs[TrialId(name, one.trial)])
        for name, found in strategies.items()
        for one in found.finalists
        if one.chosen and TrialId(name, one.trial) in costs
    ]
    bar = judged_bar(rule, reference, judged)
    if not chosen:
        searched = [one.best(metric) for one in records if one.is_complete_search]
        bar = bar_of(rule, reference, [one for one in searched if one is not None])
        chosen = [
            _Candidate(
                TrialId(name, found.best.trial),
                (found.best.validation,),
                costs[TrialId(name, found.best.trial)],
            )
            for name, found in strategies.items()
            if found.best and TrialId(name, found.best.trial) in costs
        ]
    if bar is None or not chosen:
        return None
    lows = {
        i: one.values[0] or 0.0 if len(one.values) == 1 else lower_end(one.values)
        for i, one in enumerate(chosen)
    }
    first = cheapest_first(lows, {i: one.cost for i, one in enumerate(chosen)}, bar)[0]
    best, mean = chosen[first], mean_of(chosen[first].values)
    is_known = len(best.values) > 1 and math.isfinite(lows[first])
    return CheapestStudent(
        least=rule.least,
        within=rule.within,
        of=rule.of,
        reference=bar.reference,
        strategy=best.id.strategy,
        trial=best.id.number,
        good_enough=None if len(best.values) == 1 else bar.short(lows[first]) <= 0,
        cost=best.cost,
        teachers_cost=_of_teacher(rule, teacher),
        seeds=len(best.values),
        loss=None if mean is None else bar.reference - mean,
        most_loss=bar.reference - lows[first] if is_known else None,
    )


def _costs(rule: Cheapest, records: Sequence[TrialRecord]) -> dict[TrialId, float]:
    measure = COSTS[rule.least]
    return {
        one.id: one.result.student[measure]
        for one in records
        if one.is_complete_search and one.result and one.result.student
    }


def _of_teacher(rule: Cheapest, teacher: TeacherFacts | None) -> float | None:
    if teacher is None:
        return None
    match rule.least:
        case "latency":
            return teacher.latency_ms
        case "size":
            return teacher.size_mb
        case "parameters":
            return teacher.parameters


# --- in words ------------------------------------------------------------------------------------


def cheapest_verdict(
    metric: str, found: CheapestStudent | None, strategies: Mapping[str, StrategyResult]
) -> Verdict | None:
    """Which student, how much cheaper than the teacher, and the interval of what it loses; None
    where there is no such student."""
    if found is None:
        return None
    strategy = strategies[found.strategy]
    assert strategy.best is not None
    name = _student(TrialId(found.strategy, found.trial), strategy.best.settings)
    limit = f"within {in_points(found.within)} of {_of(found.of)}"
    open_ones = [] if found.seeds == 1 else _not_judged(strategies)
    so_far = " so far" if open_ones else ""
    if found.good_enough is None:
        assert found.loss is not None
        may_be = "is the nearest"
        if found.loss <= found.within + ROUNDING:
            may_be = f"is {FOUND[found.least]} that may be"
        says = (
            f"No student is shown to be {limit} yet; by one trial each, {name} {may_be}: "
            f"{_cost(found)}."
        )
    elif found.good_enough:
        says = f"{name} is {FOUND[found.least]}{so_far} that is {limit}: {_cost(found)}."
    else:
        says = f"No student is shown to be {limit}{so_far}; {name} is the nearest: {_cost(found)}."
    confirm = strategy.confirm
    on_test = confirm.against_teacher if confirm and found.of == "teacher" else None
    rests_on = f"Validation {metric}: {_loss(found)}{_on_test(found, on_test)}."
    if open_ones:
        todo = f"Finalists of {joined(open_ones)} aren't judged yet: run the sweep to its end."
        return Verdict(says, rests_on, todo)
    return Verdict(says, rests_on, _next_step(found, on_test))


def _not_judged(strategies: Mapping[str, StrategyResult]) -> list[str]:
    """The strategies that have a complete trial and have put forward none yet."""
    return [
        name
        for name, found in strategies.items()
        if found.best and not any(one.chosen for one in found.finalists)
    ]


def _student(trial: TrialId, settings: TrialSettings) -> str:
    shape = settings.student.shape.removeprefix(", ")
    return f"{trial.name} ({shape})" if shape else trial.name


def _cost(found: CheapestStudent) -> str:
    """`2.3 MB, 5.2 times smaller than the teacher`."""
    words = {
        "latency": milliseconds(found.cost),
        "size": megabytes(found.cost),
        "parameters": f"{found.cost:,.0f} parameters",
    }[found.least]
    if not found.teachers_cost or not found.cost:
        return words
    ratio = found.teachers_cost / found.cost
    if ratio > 1:
        return f"{words}, {ratio:.1f} times {LESS[found.least]} the teacher"
    return f"{words}, not less than the teacher"


def _loss(found: CheapestStudent) -> str:
    against = _of(found.of)
    if found.loss is None:
        return "all of its runs with fresh seeds failed"
    loss = f"its loss against {against} is {100 * found.loss:.1f} points"
    if found.seeds == 1:
        return f"{loss}, in one trial"
    if found.most_loss is None:
        return f"{loss}, and a run with a fresh seed failed"
    most = f"at most {100 * found.most_loss:.1f} (one-sided {100 * LEVEL:.0f}%)"
    return f"{loss}, {most}, over {count(found.seeds, 'seed')}"


def _on_test(found: CheapestStudent, on_test: AgainstTeacher | None) -> str:
    if on_test is None:
        return ""
    loss = f"; on test its loss is {-100 * on_test.difference:.1f} points"
    if on_test.ci95 is None:
        return f"{loss}, in one seed"
    low, high = on_test.ci95
    shown, limit = "is not shown to be", in_points(found.within)
    if is_not_worse(found, on_test):
        shown = "is shown to be"
    return f"{loss} ({points_range(-high, -low)}), which {shown} less than {limit}"


def is_not_worse(found: CheapestStudent, on_test: AgainstTeacher) -> bool:
    """Whether test shows that it isn't below the teacher by `within` or more (non-inferiority)."""
    return on_test.ci95 is not None and on_test.ci95[0] > -found.within


def _next_step(found: CheapestStudent, on_test: AgainstTeacher | None) -> str | None:
    if found.seeds == 1:
        return (
            "One trial is partly luck. Finalists are judged with fresh seeds if `confirm.seeds` is "
            "above 0 and the sweep runs to its end."
        )
    if not found.good_enough:
        return "More trials, larger students or a larger `within` may find one."
    if on_test is not None and not is_not_worse(found, on_test):
        return "More seeds (confirm.seeds), or more test rows, make the interval on test narrower."
    return None
