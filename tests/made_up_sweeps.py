"""Sweeps that never ran: reports and trials of any size. The numbers are drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from kdsweep.compare.findings import Pair, Question
from kdsweep.compare.records import TrialRecord
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.report.model import (
    BestTrial,
    ConfirmResult,
    ModelCosts,
    Report,
    Reproduction,
    SlotUse,
    StrategyResult,
    TeacherFacts,
    TrialCounts,
)
from kdsweep.trial_id import TrialId

NAMES = ("finetune", "distill", "combined", "distill_then_finetune")
TEACHER = TeacherFacts(
    validation=0.93,
    test=0.925,
    parameters=109_483_778,
    size_mb=437.9,
    latency_ms=31.2,
    latency_p95_ms=36.0,
)
VERDICT = (
    "No strategy is shown to be the best. combined has the highest mean on the test split: "
    "accuracy 0.9162 (0.9101 to 0.9223); the teacher has 0.9250, 99.0% of it. Between combined and "
    "distill or finetune: no difference shown; about 14 seeds would be needed to show a difference "
    "of 0.5 points."
)
NO_DIFFERENCE = (
    "no difference shown; about 14 seeds would be needed to show a difference of 0.5 points"
)
QUESTIONS = (
    Question("does a rising, falling or constant alpha do best?", "not enough trials (n = 3)", n=3),
    Question(
        "does lowering the temperature during training help?",
        "yes: 0.8 points over a constant temperature (0.3 to 1.3). The trials differ in other "
        "settings too.",
        n=61,
        effect=0.008,
        ci95=(0.003, 0.013),
    ),
)
IMPORTANCE = {
    "learning_rate": 0.61,
    "alpha.linear_rising.start": 0.2,
    "temperature.any_of": 0.12,
    "temperature": 0.07,
}
REPRODUCTION = Reproduction(
    command="kdsweep run search_spaces/sst2.yaml --sweep sweeps/quick.yaml --embedded",
    versions={
        "kdsweep": "0.1.0",
        "torch": "2.13.0",
        "transformers": "5.23.0",
        "optuna": "5.0.0",
    },
    hashes={"sweep": "0123456789abcdef", "data": None},
)


# --- trials --------------------------------------------------------------------------------------


def settings_of(
    alpha: Any = 0.5,
    temperature: Any = 4.0,
    learning_rate: Any = 2.0e-5,
    *,
    epochs: int = 3,
    batch_size: int = 32,
    layers: int | None = None,
) -> TrialSettings:
    """A trial's settings; the schedules are given as in a space."""
    return TrialSettings.model_validate(
        {
            "task": {"dataset": "reviews.csv", "text": "text", "label": "label"},
            "teacher": {"model": "teacher"},
            "student": {"model": "student", "layers": layers},
            "training": {"epochs": epochs, "batch_size": batch_size},
            "alpha": alpha,
            "temperature": temperature,
            "learning_rate": learning_rate,
        }
    )


def draw_settings(draw: random.Random, kind: str) -> dict[str, Any]:
    """alpha, temperature and learning rate as one of the shipped strategies has them."""
    alpha: Any = 1.0
    temperature: Any = draw.uniform(1, 10)
    if kind == "distill":
        alpha = draw.random()
    elif kind == "combined":
        low, high = draw.uniform(0, 0.5), draw.uniform(0.5, 1)
        by_epoch = {"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2}
        rising = {"shape": "linear", "start": low, "end": high}
        falling = {"shape": "cosine", "start": high, "end": low}
        alpha = draw.choice([by_epoch, rising, falling])
        cooling = {"shape": "linear", "start": draw.uniform(4, 10), "end": 1.0}
        temperature = draw.choice([temperature, cooling])
    elif kind == "distill_then_finetune":
        alpha = {"shape": "step", "values": [0.0, 1.0], "at": draw.uniform(0.4, 0.8)}
    else:
        temperature = 1.0
    return {
        "alpha": alpha,
        "temperature": temperature,
        "learning_rate": 10 ** draw.uniform(-5, -4),
    }


def trial(
    strategy: str,
    number: int,
    value: float | None,
    settings: TrialSettings | None = None,
    *,
    state: str = "complete",
    metric: str = "accuracy",
    seed_index: int | None = None,
) -> TrialRecord:
    """A trial whose curve rises to `value` over three epochs; a pruned one stops on its way."""
    draw = random.Random(f"{strategy}{number}{seed_index}")
    chosen = draw_settings(draw, strategy)
    batch, layers = draw.choice([16, 32]), draw.choice([3, 6])
    if settings is None:
        settings = settings_of(**chosen, batch_size=batch, layers=layers)
    evaluations = _curve(draw, value, state, metric, number)
    best = max(evaluations, key=lambda one: one.metrics[f"validation/{metric}"], default=None)
    student = {
        "parameters": 11_000_000 * layers,
        "size_mb": 44.0 * layers,
        "latency_ms": 2.1 * layers + draw.random(),
        "latency_p95_ms": 2.6 * layers + 1,
    }
    return TrialRecord(
        TrialId(strategy, number, seed_index),
        state=state,
        settings=settings,
        params={"learning_rate": 1e-5, "batch_size": batch, "student.layers": layers},
        evaluations=evaluations,
        result=TrialResult(
            state,
            50 * len(evaluations),
            20.0 * max(len(evaluations), 1),
            best,
            student if state == "complete" else None,
        ),
    )


def _curve(
    draw: random.Random, value: float | None, state: str, metric: str, number: int
) -> tuple[Evaluation, ...]:
    steps = 0
    if value is not None:
        steps = 2 if state == "pruned" else 6
    reached = [
        (value or 0.0) - 0.12 * 0.5**i + draw.gauss(0, 0.003) * (i < 5) for i in range(steps)
    ]
    if value is not None and steps == 6:
        reached[5] = value
    return tuple(
        Evaluation(
            50 * (i + 1),
            (i + 1) / 2,
            {f"validation/{metric}": one, "validation/loss": 1 - one},
            20.0 * (i + 1),
            1_700_000_000_000 + number,
        )
        for i, one in enumerate(reached)
    )


# --- reports -------------------------------------------------------------------------------------


def outcome(
    records: Sequence[TrialRecord],
    strategy: str,
    *,
    metric: str = "accuracy",
    seeds: int = 5,
    teacher: float | None = 0.925,
) -> StrategyResult:
    """What a report says about a strategy."""
    own = [one for one in records if one.id.strategy == strategy and one.id.phase == "search"]
    complete = [one for one in own if one.state == "complete"]
    best = None
    if complete:
        record = max(complete, key=lambda one: one.best(metric) or -9.0)
        value = record.best(metric)
        assert value is not None and record.result is not None
        best = BestTrial(
            trial=record.id.number,
            params=record.params,
            settings=record.settings,
            validation=value,
            student=ModelCosts.from_json(record.result.student),
        )
    return StrategyResult(
        trials=TrialCounts(
            complete=len(complete),
            pruned=sum(one.state == "pruned" for one in own),
            failed=sum(one.state == "failed" for one in own),
        ),
        best=best,
        slot_hours=sum(one.result.seconds for one in own if one.result) / 3600,
        confirm=_confirmed(strategy, best.validation, seeds, teacher) if best and seeds else None,
    )


def _confirmed(strategy: str, value: float, seeds: int, teacher: float | None) -> ConfirmResult:
    draw = random.Random(strategy)
    test = tuple(value - 0.008 + draw.gauss(0, 0.003) for _ in range(seeds))
    mean = sum(test) / seeds
    return ConfirmResult(
        seeds=seeds,
        asked=seeds,
        failed=0,
        test=test,
        validation=test,
        mean=mean,
        ci95=(mean - 0.006, mean + 0.006) if seeds > 1 else None,
        retention=mean / teacher if teacher else None,
    )


def report_of(
    records: Sequence[TrialRecord],
    strategies: Sequence[str],
    *,
    metric: str = "accuracy",
    seeds: int = 5,
    teacher: TeacherFacts | None = None,
    **more: Any,
) -> Report:
    """A report of these trials; `more`: its other fields."""
    found = {
        name: outcome(
            records, name, metric=metric, seeds=seeds, teacher=teacher.test if teacher else None
        )
        for name in strategies
    }
    fields: dict[str, Any] = {
        "sweep": "sst2-made-up",
        "metric": metric,
        "teacher": teacher,
        "strategies": found,
        "pairs": _pairs(found, seeds),
        "questions": QUESTIONS,
        "verdict": VERDICT,
        "importance": {
            name: IMPORTANCE if one.trials.complete >= 5 else None for name, one in found.items()
        },
        "winner": _winner(found),
        "slots": SlotUse(
            busy=0.978, slot_seconds=1000.0, training=0.9, evaluating=0.078, lost=0.022
        ),
        "reproduce": REPRODUCTION,
    }
    return Report(**(fields | more))


def _winner(found: Mapping[str, StrategyResult]) -> TrialId | None:
    for name, one in found.items():
        if one.best:
            return TrialId(name, one.best.trial, 2 if one.confirm else None)
    return None


def _pairs(found: Mapping[str, StrategyResult], seeds: int) -> tuple[Pair, ...]:
    means = {name: one.confirm.mean for name, one in found.items() if one.confirm}
    return tuple(
        Pair(
            a,
            b,
            difference=(means[a] or 0.0) - (means[b] or 0.0),
            ci95=(-0.004, 0.011) if seeds > 1 else None,
            p=0.21 if seeds > 1 else None,
            seeds=seeds,
            seeds_needed=14,
            verdict=NO_DIFFERENCE,
        )
        for a, b in combinations(means, 2)
    )


def full_sweep(trials: int = 125) -> tuple[Report, list[TrialRecord]]:
    """Four strategies, `trials` each, of every state, and five runs of confirm each."""
    draw, records = random.Random(0), []
    for at, name in enumerate(NAMES):
        own = []
        for number in range(trials):
            state = "complete"
            if number % 40 == 39:
                state = "failed"
            elif number % 4 == 3:
                state = "pruned"
            value = None
            if state != "failed":
                collapsed = 0.3 if number % 50 == 7 else 0.0
                value = 0.86 + 0.012 * at + 0.02 * draw.random() - collapsed
            own.append(trial(name, number, value, state=state))
        complete = [one for one in own if one.state == "complete"]
        best = max(complete, key=lambda one: one.best("accuracy") or 0.0)
        top = best.best("accuracy")
        assert top is not None
        records += own
        records += [
            trial(name, best.id.number, top + 0.002 * (i - 2), best.settings, seed_index=i)
            for i in range(5)
        ]
    return report_of(records, NAMES, teacher=TEACHER), records
