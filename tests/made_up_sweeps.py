"""Sweeps that nobody ran: reports and trials of any size, for the page. The numbers are drawn, their shape is that of real ones."""

from __future__ import annotations

import random
from typing import Any

from kdsweep.compare.records import TrialRecord
from kdsweep.core.schedules import parse_schedule
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.trial_id import TrialId

NAMES = ("finetune", "distill", "combined", "distill_then_finetune")
TEACHER = {
    "validation": 0.93,
    "test": 0.925,
    "parameters": 109_483_778,
    "size_mb": 437.9,
    "latency_ms": 31.2,
    "latency_p95_ms": 36.0,
}


def schedule(value: Any) -> dict[str, Any]:
    return parse_schedule(value).model_dump(mode="json")


def draw_settings(draw: random.Random, kind: str) -> dict[str, Any]:
    """alpha, temperature and learning rate as one of the shipped strategies has them."""
    alpha: Any = 1.0
    temperature: Any = draw.uniform(1, 10)
    if kind == "distill":
        alpha = draw.random()
    elif kind == "combined":
        low, high = draw.uniform(0, 0.5), draw.uniform(0.5, 1)
        rising, falling = (
            {"shape": "linear", "start": low, "end": high},
            {"shape": "cosine", "start": high, "end": low},
        )
        alpha = draw.choice(
            [{"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2}, rising, falling]
        )
        temperature = draw.choice(
            [temperature, {"shape": "linear", "start": draw.uniform(4, 10), "end": 1.0}]
        )
    elif kind == "distill_then_finetune":
        alpha = {"shape": "step", "values": [0.0, 1.0], "at": draw.uniform(0.4, 0.8)}
    else:
        temperature = 1.0
    rate = 10 ** draw.uniform(-5, -4)
    return {
        "alpha": schedule(alpha),
        "temperature": schedule(temperature),
        "learning_rate": schedule(rate),
    }


def trial(
    strategy: str,
    number: int,
    value: float | None,
    settings: dict[str, Any] | None = None,
    *,
    state: str = "complete",
    metric: str = "accuracy",
    seed_index: int | None = None,
    **changed: Any,
) -> TrialRecord:
    """A trial whose curve rises to `value` over three epochs; a pruned one is stopped on its way."""
    draw = random.Random(f"{strategy}{number}{seed_index}")
    chosen = settings or draw_settings(draw, strategy)
    batch = draw.choice([16, 32])
    whole = {
        "training": {"epochs": 3, "batch_size": batch},
        "student": {"model": "m", "layers": draw.choice([3, 6])},
        "teacher": None,
    } | chosen
    steps = 0 if value is None else 2 if state == "pruned" else 6
    metrics = [
        (value or 0.0) - 0.12 * 0.5**i + draw.gauss(0, 0.003) * (i < 5) for i in range(steps)
    ]
    metrics = [value if value is not None and i == 5 else one for i, one in enumerate(metrics)]
    evaluations = tuple(
        Evaluation(
            50 * (i + 1),
            (i + 1) / 2,
            {f"validation/{metric}": one, "validation/loss": 1 - one},
            20.0 * (i + 1),
            1_700_000_000_000 + number,
        )
        for i, one in enumerate(metrics)
    )
    layers = whole["student"]["layers"]
    student = {
        "parameters": 11_000_000 * layers,
        "size_mb": 44.0 * layers,
        "latency_ms": 2.1 * layers + draw.random(),
        "latency_p95_ms": 2.6 * layers + 1,
    }
    best = max(evaluations, key=lambda one: one.metrics[f"validation/{metric}"], default=None)
    result = TrialResult(
        state, 50 * steps, 20.0 * max(steps, 1), best, student if state == "complete" else None
    )
    fields = {
        "params": {"learning_rate": 1e-5, "batch_size": batch, "student.layers": layers},
        "result": result,
    } | changed
    return TrialRecord(
        TrialId(strategy, number, seed_index),
        state=state,
        settings=whole,
        evaluations=evaluations,
        **fields,
    )


def outcome(
    records: list[TrialRecord],
    strategy: str,
    *,
    metric: str = "accuracy",
    seeds: int = 5,
    teacher: float | None = 0.925,
) -> dict[str, Any]:
    """What a report says of a strategy."""
    own = [one for one in records if one.id.strategy == strategy and one.id.phase == "search"]
    complete = [one for one in own if one.state == "complete"]
    counts = {
        "complete": len(complete),
        "pruned": sum(one.state == "pruned" for one in own),
        "failed": sum(one.state == "failed" for one in own),
    }
    found: dict[str, Any] = {
        "trials": counts,
        "best": None,
        "confirm": None,
        "slot_hours": sum(one.result.seconds for one in own if one.result) / 3600,
    }
    if not complete:
        return found
    best = max(complete, key=lambda one: one.best(metric) or -9.0)
    value, student = best.best(metric), best.result.student if best.result else None
    assert value is not None
    found["best"] = {
        "trial": best.id.number,
        "params": best.params,
        "settings": best.settings,
        "validation": value,
        "student": student,
    }
    if seeds:
        draw = random.Random(strategy)
        test = [value - 0.008 + draw.gauss(0, 0.003) for _ in range(seeds)]
        mean = sum(test) / seeds
        interval = [mean - 0.006, mean + 0.006] if seeds > 1 else None
        kept = mean / teacher if teacher else None
        found["confirm"] = {
            "seeds": seeds,
            "asked": seeds,
            "failed": 0,
            "test": test,
            "mean": mean,
            "ci95": interval,
            "retention": kept,
            "validation": test,
        }
    return found


def report_of(
    records: list[TrialRecord],
    strategies: tuple[str, ...] | list[str],
    *,
    metric: str = "accuracy",
    seeds: int = 5,
    teacher: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A report as `kdsweep compare --json` prints it."""
    found = {
        name: outcome(
            records, name, metric=metric, seeds=seeds, teacher=(teacher or {}).get("test")
        )
        for name in strategies
    }
    confirmed = [name for name in strategies if found[name]["confirm"]]
    pairs = [
        {
            "a": a,
            "b": b,
            "difference": found[a]["confirm"]["mean"] - found[b]["confirm"]["mean"],
            "ci95": [-0.004, 0.011] if seeds > 1 else None,
            "p": 0.21 if seeds > 1 else None,
            "verdict": "no difference shown; about 14 seeds would be needed to tell 0.5 points apart",
        }
        for i, a in enumerate(confirmed)
        for b in confirmed[i + 1 :]
    ]
    questions = [
        {
            "question": "does a rising, falling or constant alpha do best?",
            "answer": "not enough trials (n = 3)",
            "n": 3,
            "effect": None,
            "ci95": None,
        },
        {
            "question": "does lowering the temperature during training help?",
            "answer": "yes: 0.8 points over a constant temperature (0.3 to 1.3). The trials differ in other settings too.",
            "n": 61,
            "effect": 0.008,
            "ci95": [0.003, 0.013],
        },
    ]
    shares = {
        "learning_rate": 0.61,
        "alpha.linear_rising.start": 0.2,
        "temperature.any_of": 0.12,
        "temperature": 0.07,
    }
    top = next((name for name in strategies if found[name]["best"]), None)
    return {
        "sweep": "sst2-made-up",
        "metric": metric,
        "state": "done",
        "teacher": teacher,
        "strategies": found,
        "pairs": pairs,
        "questions": questions,
        "importance": {
            name: shares if found[name]["trials"]["complete"] >= 5 else None for name in strategies
        },
        "winner": None
        if top is None
        else {
            "strategy": top,
            "trial": found[top]["best"]["trial"],
            "seed_index": 2 if confirmed else None,
        },
        "slots": {
            "busy": 0.978,
            "slot_seconds": 1000.0,
            "training": 0.9,
            "evaluating": 0.078,
            "lost": 0.022,
        },
        "reproduce": {
            "command": "kdsweep run search_spaces/sst2.yaml --sweep sweeps/quick.yaml --embedded",
            "versions": {
                "kdsweep": "0.1.0",
                "torch": "2.13.0",
                "transformers": "5.23.0",
                "optuna": "5.0.0",
            },
            "hashes": {"sweep": "0123456789abcdef", "data": None},
        },
        "verdict": "No strategy is shown to be the best. combined has the highest mean on the test split: accuracy 0.9162 (0.9101 to 0.9223); the teacher "
        "has 0.9250, 99.0% of it; between combined and distill or finetune: no difference shown; about 14 seeds would be needed to tell 0.5 points apart.",
    } | more


def full_sweep(trials: int = 125) -> tuple[dict[str, Any], list[TrialRecord]]:
    """Four strategies, `trials` each: complete, pruned, diverged and failed ones, and five runs of confirm each."""
    draw, records = random.Random(0), []
    for at, name in enumerate(NAMES):
        for number in range(trials):
            state = "failed" if number % 40 == 39 else "pruned" if number % 4 == 3 else "complete"
            value = (
                None
                if state == "failed"
                else 0.86 + 0.012 * at + 0.02 * draw.random() - (0.3 if number % 50 == 7 else 0.0)
            )
            records.append(trial(name, number, value, state=state))
        best = max(
            (one for one in records if one.id.strategy == name and one.state == "complete"),
            key=lambda one: one.best("accuracy") or 0.0,
        )
        top = best.best("accuracy")
        assert top is not None
        records += [
            trial(
                name,
                best.id.number,
                top + 0.002 * (i - 2),
                best.settings,
                seed_index=i,
            )
            for i in range(5)
        ]
    return report_of(records, NAMES, teacher=TEACHER), records
