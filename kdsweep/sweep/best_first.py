"""A strategy's trials by what the sweep looks for: the best metric, or the cheapest student."""

from __future__ import annotations

from kdsweep.compare.cheapest import bar_of, cheapest_first, judge_cheapest
from kdsweep.compare.finalists import Judged, judge
from kdsweep.config.sweep import Cheapest, SweepConfig
from kdsweep.sweep.cheapest_search import teachers_metric
from kdsweep.sweep.studies import Studies


def best_first(sweep: SweepConfig, studies: Studies, strategy: str) -> list[int]:
    """The complete trials of the search, the best first."""
    progress, rule = studies.progress(strategy), sweep.cheapest
    if rule is None:
        return progress.order
    bar = bar_of(rule, _teacher(studies, rule), list(progress.values.values()))
    return cheapest_first(progress.values, _costs(studies, strategy), bar)


def judge_finalists(
    sweep: SweepConfig,
    studies: Studies,
    strategy: str,
    ended: dict[tuple[int, int], float | None],
) -> Judged:
    """What the runs so far say. ended: (trial, index of the seed) -> what the run reached."""
    progress, rule = studies.progress(strategy), sweep.cheapest
    finalists = sweep.confirm.finalists
    if rule is None:
        return judge(progress.order, finalists, ended if finalists > 1 else {})
    costs = _costs(studies, strategy)
    return judge_cheapest(rule, _teacher(studies, rule), progress.values, costs, finalists, ended)


def _teacher(studies: Studies, rule: Cheapest) -> float | None:
    if rule.of != "teacher":
        return None
    return teachers_metric(studies.folder, studies.space.task.metric)


def _costs(studies: Studies, strategy: str) -> dict[int, float]:
    """Of each complete trial: the value after the metric."""
    order = studies.progress(strategy).values
    return {one.number: one.values[1] for one in studies.trials(strategy) if one.number in order}
