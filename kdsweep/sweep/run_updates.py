"""What a tracker should show of a trial or a teacher, read from the files that training wrote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from kdsweep import metric_names
from kdsweep.core.settings import TeacherSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.trial_folder import Evaluation, TrialFolder, TrialResult
from kdsweep.sweep.swept_trial import SweptTrial, Tracked
from kdsweep.tracking.base import MetricValue, RunState, RunUpdate
from kdsweep.tracking.params import flat, trial_params


def trial_update(
    files: SweptTrial,
    tracked: Tracked,
    *,
    paused: bool,
    look: int | None = None,
    outside: bool = False,
) -> tuple[RunUpdate, Tracked]:
    """What is new about the trial since `tracked`, and `tracked` as it is once that was sent.

    paused: the sweep stops before the trial has ended. look: which one a confirm run belongs to.
    outside: whether the trial is from an earlier space.
    """
    result = files.read_result()
    evaluations = [
        one for one in files.read_evaluations() if result is None or one.step <= result.steps
    ]
    metrics = evaluation_metrics(evaluations[tracked.evaluations :])
    state: RunState = "paused" if paused else "running"
    ended = None
    if result is not None:
        state = cast(RunState, result.state)
        ended = int(files.result.stat().st_mtime * 1000)
        metrics += once(_final_metrics(result), ended)
    update = RunUpdate(
        state=state,
        params=trial_params(files.read_settings()) if tracked.run_id is None else {},
        tags=_tags(files, result, look) | _space_tag(tracked, outside),
        metrics=metrics,
        started=start_time(evaluations),
        ended=ended,
    )
    return update, Tracked(
        run_id=tracked.run_id,
        evaluations=len(evaluations),
        state=None if result is None else result.state,
        student=tracked.student,
        look=look,
        outside=outside,
    )


def teacher_update(
    settings: TeacherSettings, teacher: Teacher, metric: str, test: Mapping[str, float] | None
) -> RunUpdate:
    """Everything about a teacher that is ready.

    metric: the task's. test: the teacher's scores on the test split, once it was judged.
    """
    evaluations: list[Evaluation] = []
    if teacher.training_folder is not None:
        evaluations = TrialFolder(teacher.training_folder).read_evaluations()
    if settings.epoch is not None:
        evaluations = [one for one in evaluations if one.epoch <= settings.epoch]
    if evaluations:
        ended = evaluations[-1].timestamp
    else:
        ended = int((teacher.folder / "teacher.json").stat().st_mtime * 1000)
    started = start_time(evaluations)
    return RunUpdate(
        state="complete",
        params=flat("teacher", settings.model_dump(mode="json", exclude_none=True)),
        tags={"kdsweep.state": "complete"},
        metrics=[
            *evaluation_metrics(evaluations),
            *once(_teacher_metrics(teacher, metric, test or {}), ended),
        ],
        started=ended if started is None else started,
        ended=ended,
    )


def _teacher_metrics(teacher: Teacher, metric: str, test: Mapping[str, float]) -> dict[str, float]:
    metrics = {metric_names.SECONDS: teacher.seconds}
    for quantity in ("parameters", "size_mb", "latency_ms", "latency_p95_ms"):
        # Teachers of older versions lack some of these.
        if (value := getattr(teacher, quantity)) is not None:
            metrics[metric_names.student(quantity)] = float(value)
    for quantity in ("margin", "entropy"):
        if (value := getattr(teacher, quantity)) is not None:
            metrics[metric_names.teacher(quantity)] = value
    for name, value in teacher.validation.items():
        metrics[metric_names.best(metric_names.validation(name))] = value
    for seed, reached in (teacher.selected or {}).items():
        if reached is not None:
            metrics[metric_names.of_seed(seed, metric_names.validation(metric))] = reached
    for name, value in test.items():
        metrics[metric_names.test(name)] = value
    return metrics


def evaluation_metrics(evaluations: Iterable[Evaluation]) -> list[MetricValue]:
    """Every metric of every evaluation."""
    return [
        MetricValue(name, value, one.timestamp, one.step)
        for one in evaluations
        for name, value in one.metrics.items()
    ]


def once(metrics: Mapping[str, float], timestamp: int) -> list[MetricValue]:
    """Metrics that are measured once per run, at its end."""
    return [MetricValue(name, value, timestamp, 0) for name, value in metrics.items()]


def start_time(evaluations: Sequence[Evaluation]) -> int | None:
    """When training started, in milliseconds since 1970. None before the first evaluation."""
    if not evaluations:
        return None
    return evaluations[0].timestamp - int(1000 * evaluations[0].seconds)


def _final_metrics(result: TrialResult) -> dict[str, float]:
    metrics = {metric_names.SECONDS: result.seconds}
    for quantity, value in (result.student or {}).items():
        metrics[metric_names.student(quantity)] = value
    if result.best is not None and result.state == "complete":
        for name, value in result.best.metrics.items():
            if metric_names.is_validation(name):
                metrics[metric_names.best(name)] = value
    for metric, value in (result.test or {}).items():
        metrics[metric_names.test(metric)] = value
    return metrics


def _space_tag(tracked: Tracked, outside: bool) -> dict[str, str]:
    """Only where the space has changed: a trial may be outside of it, and inside again later."""
    if outside:
        return {"kdsweep.space": "earlier"}
    return {"kdsweep.space": "current"} if tracked.outside else {}


def _tags(files: SweptTrial, result: TrialResult | None, look: int | None) -> dict[str, str]:
    tags: dict[str, str] = {}
    if look is not None:
        tags["kdsweep.look"] = str(look)
    if lost := files.read_lost():
        # A trial that failed has used up its attempts; otherwise one more is running or ended it.
        last = result is None or result.state != "failed"
        tags["kdsweep.attempts"] = str(len(lost) + last)
    if result is not None:
        tags["kdsweep.state"] = result.state
        if result.reason:
            tags["kdsweep.reason"] = result.reason
        if result.micro_batch:
            tags["kdsweep.micro_batch"] = str(result.micro_batch)
    return tags
