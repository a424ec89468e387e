"""What the driver says of the data, and of each trial that has ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from kdsweep import metric_names
from kdsweep.compare.finalists import Judged, mean_of
from kdsweep.config.loading import Scalar
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.files import write_array
from kdsweep.core.trial_folder import TrialResult
from kdsweep.formatting import count, score
from kdsweep.report.cheapest import cheapest_in_words
from kdsweep.sweep.input_check import check_same_inputs, complete_pins
from kdsweep.sweep.open_sweep import OpenSweep
from kdsweep.sweep.seed_runs import SeedRuns
from kdsweep.sweep.teacher_stage import TeacherStage
from kdsweep.trial_id import TrialId

# Why a finalist is chosen in a search for the cheapest student.
CHEAPEST = "the cheapest that is good enough, or else the nearest,"


def read_data(sweep: OpenSweep, teachers: TeacherStage) -> TaskData:
    """The task's rows; says how many there are, and where teachers come from."""
    say = sweep.observer.say
    task = sweep.plan.space.task
    data = load_task(task, sweep.home.cache, say=say)
    shown = dict(data.splits)
    notes = list(data.notes)
    if task.unlabelled is not None:
        unlabelled, more = load_unlabelled(task, data, sweep.home.cache, say=say)
        shown["unlabelled"] = unlabelled
        notes += more
    _pin(sweep, data, list(shown.values()))
    for note in notes:
        say(f"data: {note}")
    say("data: " + ", ".join(f"{name} {len(split):,} rows" for name, split in shown.items()))
    if (rule := sweep.plan.sweep.cheapest) is not None:
        say(f"objective: {cheapest_in_words(rule, task.metric)}; nothing is pruned")
    elif sweep.plan.sweep.costs:
        objectives = ", ".join(sweep.plan.sweep.named_objectives)
        say(f"objectives: {objectives}; nothing is pruned: no pruner handles several")
    if not sweep.plan.space.needs_teacher:
        say("teacher: no strategy needs one")
    elif teachers.cached():
        say("teacher: from the cache")
    return data


def _pin(sweep: OpenSweep, data: TaskData, splits: Collection[Split]) -> None:
    """Keep what the sweep's numbers will rest on, and the labels that judge its students.

    Raises DataError if the rows have changed since another run of the sweep.
    """
    check_same_inputs(sweep.home, sweep.folder, sweep.plan.space)
    facts = sweep.folder.read_facts()
    pins = complete_pins(facts.pins, sweep.plan.space, data, splits)
    sweep.folder.write_facts(replace(facts, pins=pins))
    if not sweep.folder.test_labels.exists():
        write_array(sweep.folder.test_labels, np.asarray(data.test.labels))


def ended_lines(
    sweep: OpenSweep, trial: TrialId, result: TrialResult, drawn: Mapping[str, Scalar]
) -> list[str]:
    """How the trial ended; then which finalist is confirmed, where that is known with this trial.

    drawn: what the sampler drew for a trial of the search.
    """
    lines = [ended_line(trial, result, sweep.plan.space.task.metric, drawn)]
    if trial.phase == "finalist":
        judged = SeedRuns(sweep.plan, sweep.folder, sweep.studies).judged(trial.strategy)
        if judged is not None and judged.chosen is not None:
            why = "the best" if sweep.plan.sweep.cheapest is None else CHEAPEST
            lines.append(_chosen_line(trial.strategy, sweep.plan.space.task.metric, judged, why))
    return lines


def _chosen_line(strategy: str, metric: str, judged: Judged, why: str) -> str:
    """`distill: trial 3 is confirmed, the best of 3 finalists on validation (mean accuracy 3:
    0.8123 over 2 seeds, 0: 0.8100 over 2 seeds, 5: 0.8010 over 1 seed)`."""
    found = []
    for number in judged.order:
        mean = mean_of(judged.values[number])
        reached = "failed" if mean is None else score(mean)
        found.append(f"{number}: {reached} over {count(len(judged.values[number]), 'seed')}")
    return (
        f"{strategy}: trial {judged.chosen} is confirmed, {why} of {len(found)} finalists on "
        f"validation (mean {metric} {', '.join(found)})"
    )


def ended_line(
    trial: TrialId, result: TrialResult, metric: str, drawn: Mapping[str, Scalar]
) -> str:
    """`distill-3: complete, accuracy 0.8100 (12 s; alpha 0.5, temperature 4)`.

    drawn: what the sampler drew for the trial; nothing for a run of confirm.
    """
    how = result.reason or f"after {result.steps} steps"
    if result.state == "complete" and result.best:
        how = f"{metric} {result.best.metrics[metric_names.validation(metric)]:.4f}"
    tested = f", {result.test[metric]:.4f} on test" if result.test else ""
    words = f"; {_drawn(drawn)}" if drawn else ""
    return f"{trial.name}: {result.state}, {how}{tested} ({result.seconds:.0f} s{words})"


def _drawn(params: Mapping[str, Scalar]) -> str:
    """`alpha 0.5, temperature 4`."""
    shown = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    ]
    return ", ".join(shown)
