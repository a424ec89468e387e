"""Sweeps of unusual size or outcome, for the page and the charts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from made_up_sweeps import NAMES, TEACHER, report_of, settings_of, trial

from kdsweep.compare.records import TrialRecord
from kdsweep.report.model import ConfirmResult, Report

Made = tuple[Report, list[TrialRecord]]


def made(
    *names: str,
    trials: int = 6,
    value: Callable[[int], float] = lambda number: 0.8 + 0.01 * number,
    metric: str = "accuracy",
    **more: Any,
) -> Made:
    records = [
        trial(name, number, value(number), metric=metric)
        for name in names
        for number in range(trials)
    ]
    return report_of(records, names, metric=metric, **more), records


def one_has_failed() -> Made:
    records = [trial("finetune", number, 0.8) for number in range(3)]
    records += [trial("distill", number, None, state="failed") for number in range(3)]
    return report_of(records, ("finetune", "distill"), teacher=TEACHER), records


def only_pruned_and_one() -> Made:
    records = [trial("combined", number, 0.7, state="pruned") for number in range(4)]
    records += [trial("combined", 4, 0.8), trial("combined", 5, 0.6, state="running")]
    return report_of(records, ("combined",), teacher=TEACHER, state="stopped"), records


def nothing_finished() -> Made:
    records = [trial("combined", number, None, state="failed") for number in range(2)]
    return report_of(records, ("combined",), seeds=0), records


def confirm_has_failed() -> Made:
    report, records = made("finetune", "distill", seeds=0, teacher=TEACHER)
    failed = ConfirmResult(
        seeds=0,
        asked=5,
        failed=5,
        test=(),
        validation=(),
        mean=None,
        ci95=None,
        retention=None,
    )
    distill = report.strategies["distill"].model_copy(update={"confirm": failed})
    strategies = report.strategies | {"distill": distill}
    return report.model_copy(update={"strategies": strategies}), records


def other_epochs() -> Made:
    """Per-epoch schedules that end before, and long after, the training."""
    lists = [
        {"shape": "per_epoch", "values": [0.9 - 0.1 * i for i in range(length)]}
        for length in (1, 3, 8)
    ]
    records = [
        trial("combined", number, 0.8 + 0.001 * number, settings_of(lists[number % 3], 2.0, 1e-4))
        for number in range(9)
    ]
    return report_of(records, ("combined",)), records


def worse_teacher() -> Made:
    teacher = TEACHER.model_copy(update={"validation": 0.5, "test": 0.48})
    return made(*NAMES[:2], teacher=teacher)


def metric_below_zero() -> Made:
    return made(
        *NAMES[:2],
        metric="matthews",
        value=lambda number: -0.2 + 0.05 * number,
        teacher=TEACHER.model_copy(update={"validation": 0.0, "test": -0.1}),
    )


ODD: dict[str, Callable[[], Made]] = {
    "one strategy": lambda: made("distill", teacher=TEACHER),
    "two trials": lambda: made("distill", trials=2, teacher=TEACHER),
    "one trial": lambda: made("distill", trials=1, seeds=0),
    "all alike": lambda: made("distill", "combined", value=lambda number: 0.75, teacher=TEACHER),
    "no confirm": lambda: made(*NAMES, seeds=0, teacher=TEACHER.model_copy(update={"test": None})),
    "one seed": lambda: made(*NAMES[:2], seeds=1, teacher=TEACHER),
    "no teacher": lambda: made("finetune"),
    "a worse teacher": worse_teacher,
    "a metric below zero": metric_below_zero,
    "ten strategies": lambda: made(*(f"s{i}" for i in range(10)), trials=2, teacher=TEACHER),
    "one has failed": one_has_failed,
    "only pruned, and one": only_pruned_and_one,
    "confirm has failed": confirm_has_failed,
    "other epochs": other_epochs,
    "nothing finished": nothing_finished,
}
