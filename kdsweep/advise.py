"""`kdsweep advise`: which strategy fits a situation, before any sweep by rule, and after one by what it showed.

The rule is a vote of what is known before: rows of labels, how far the teacher is to be compressed, and what the user can spend,
where the student will run and what counts. Fine-tune with little compute, a student that is not small and many labels; distill from a
strong teacher under strong compression for constrained deployment; combine to balance accuracy and efficiency.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from kdsweep.config import Plan, SearchSpace
from kdsweep.config.extremes import numbers_in
from kdsweep.config.teacher_values import TeacherValues
from kdsweep.config.values import AnyOf, ScheduleValue
from kdsweep.core.data.loading import load_task
from kdsweep.core.files import read_json
from kdsweep.core.models.describing import parameter_count
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, new_model
from kdsweep.core.models.loading import load_config, with_labels
from kdsweep.core.settings import StudentSettings
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import ModelError
from kdsweep.report.model import Report
from kdsweep.sweep.folders import Home

Kind = Literal["finetune", "distill", "combined", "distill_then_finetune"]
Compute = Literal["low", "medium", "high"]
Deploy = Literal["server", "desktop", "mobile", "edge"]
Goal = Literal["accuracy", "balance", "size", "speed"]

MANY_ROWS, FEW_ROWS = 20_000, 2_000
STRONG_COMPRESSION, WEAK_COMPRESSION = 4.0, 1.5
RELATIVE: dict[Kind, Kind] = {
    "combined": "distill_then_finetune",
    "distill_then_finetune": "combined",
}
WHAT_IT_DOES: dict[Kind, str] = {
    "finetune": "learn from the labels alone",
    "distill": "learn from the teacher, with the labels at one weight throughout",
    "combined": "let the weight of the labels move while the student trains",
    "distill_then_finetune": "first the teacher, later the task",
}
FOR_COMPUTE: dict[str, tuple[Kind | None, str]] = {
    "low": ("finetune", "no teacher has to be trained or asked"),
    "medium": (None, "enough for a teacher, and it asks for none"),
    "high": (
        "combined",
        "a teacher is affordable, and so is the search for how its weight should move",
    ),
}
FOR_DEPLOY: dict[str, tuple[Kind | None, str]] = {
    "server": (None, "it sets no limit to the student"),
    "desktop": ("combined", "it sets some limit to the student"),
    "mobile": ("distill", "the student must be small, and small students gain most from a teacher"),
    "edge": ("distill", "the student must be small, and small students gain most from a teacher"),
}
FOR_GOAL: dict[str, tuple[Kind | None, str]] = {
    "accuracy": (
        "combined",
        "labels and teacher know different things; a weight that moves uses both",
    ),
    "balance": ("combined", "it balances accuracy and efficiency"),
    "size": ("distill", "a small student needs the teacher"),
    "speed": ("distill", "a fast student is a small one, and that needs the teacher"),
}


@dataclass(frozen=True)
class Vote:
    """What one criterion says: `value` as found, `votes_for` a strategy or None, and why."""

    criterion: str
    value: str
    votes_for: Kind | None
    reason: str


def advise(
    plan: Plan,
    home: Path,
    *,
    compute: Compute | None = None,
    deploy: Deploy | None = None,
    goal: Goal | None = None,
) -> dict[str, Any]:
    """The strategy that the rule gives, how each criterion voted, and what sweeps of this space in `home` showed.

    Raises DataError or ModelError where rows or models can't be read. Only configs of models are read, no weights.
    """
    space = plan.space
    data = load_task(space.task, Home(home).cache, publish=False)
    sizes = model_sizes(space, data.label_names)
    votes = [_by_rows(len(data.train), len(data.label_names)), _by_compression(space, sizes)]
    for criterion, value, table in (
        ("compute", compute, FOR_COMPUTE),
        ("deploy", deploy, FOR_DEPLOY),
        ("goal", goal, FOR_GOAL),
    ):
        votes.append(
            Vote(criterion, value, *table[value])
            if value
            else Vote(criterion, "not said", None, f"say --{criterion} {'|'.join(table)}")
        )
    advised, reason = decide(votes, has_teacher=space.teacher is not None)
    kinds = {name: kind_of(space, name) for name in space.strategies}
    return {
        "space": space.name,
        "rows": len(data.train),
        "labels": len(data.label_names),
        "parameters": sizes,
        "votes": [asdict(vote) for vote in votes],
        "rule": {
            "advice": advised,
            "means": WHAT_IT_DOES[advised],
            "reason": reason,
            "relative": RELATIVE.get(advised),
            "strategies": [name for name, kind in kinds.items() if kind == advised],
        },
        "evidence": [
            found
            for name in sweeps_of(plan, Home(home))
            if (found := evidence(Home(home), name, advised, kinds))
        ],
    }


# --- what is known before --------------------------------------------------------------------------------------------


def model_sizes(space: SearchSpace, label_names: tuple[str, ...]) -> dict[str, int | None]:
    """Parameters of the teacher and of the smallest student, from their configs alone."""
    teacher = next(iter(space.teachers()), None) or (
        space.teacher.every()[0] if isinstance(space.teacher, TeacherValues) else None
    )
    source = teacher.source if teacher else None
    students = [
        _parameters(
            source if shape.model == "teacher" and source else shape.model,
            label_names,
            space.task.kind,
            shape,
        )
        for shape in space.students()
    ]
    whole = (
        StudentSettings(model=source, trust_remote_code=teacher.trust_remote_code)
        if source and teacher
        else None
    )
    return {
        "teacher": _parameters(whole.model, label_names, space.task.kind, whole) if whole else None,
        "student": min(students),
    }


def _parameters(
    source: str, label_names: tuple[str, ...], kind: TaskKind, shape: StudentSettings
) -> int:
    """How many a model of this config has. On the meta device: only shapes, no memory."""
    config = with_labels(
        load_config(source, trust_remote_code=shape.trust_remote_code), label_names, kind
    )
    with torch.device("meta"):
        try:
            if shape.start == "scratch":
                return parameter_count(new_model(shape, label_names, source, kind))
            model = kind.model_class().from_config(
                config, trust_remote_code=shape.trust_remote_code
            )
        except (ValueError, ImportError) as error:
            raise ModelError(
                f"model: {source} is no model that classifies texts: {(str(error).strip().splitlines() or [''])[0]}"
            ) from error
        if shape.layers is not None:
            model = keep_layers(
                model, kept_layers(layer_count(model, source), shape.layers, source), source
            )
    return parameter_count(model)


def _by_rows(rows: int, labels: int) -> Vote:
    value = (
        f"{rows:,} rows for {labels} classes" if labels > 1 else f"{rows:,} rows for a regression"
    )
    if rows >= MANY_ROWS:
        return Vote(
            "labels",
            value,
            "finetune",
            f"many ({MANY_ROWS:,} or more): they teach a student well by themselves",
        )
    if rows < FEW_ROWS:
        return Vote(
            "labels",
            value,
            "distill",
            f"few (below {FEW_ROWS:,}): the teacher's answers say more about each row than its label does",
        )
    return Vote(
        "labels",
        value,
        "combined",
        f"neither few (below {FEW_ROWS:,}) nor many ({MANY_ROWS:,} or more): labels and teacher add to each other",
    )


def _by_compression(space: SearchSpace, sizes: dict[str, int | None]) -> Vote:
    teacher, student = sizes["teacher"], sizes["student"] or 0
    if teacher is None or not student:
        return Vote(
            "size",
            f"student {_millions(student)} parameters",
            "finetune",
            "the space names no teacher",
        )
    ratio = teacher / student
    value = (
        f"teacher {_millions(teacher)}, student {_millions(student)} parameters: {ratio:.1f} to 1"
    )
    if ratio >= STRONG_COMPRESSION:
        return Vote(
            "size",
            value,
            "distill",
            f"strong compression ({STRONG_COMPRESSION:g} to 1 or more): so small a student gains most from a strong teacher",
        )
    if ratio < WEAK_COMPRESSION:
        return Vote(
            "size",
            value,
            "finetune",
            f"the student is not small beside its teacher (below {WEAK_COMPRESSION:g} to 1): it can learn the task by itself",
        )
    return Vote(
        "size",
        value,
        "combined",
        f"some compression ({WEAK_COMPRESSION:g} to {STRONG_COMPRESSION:g} to 1): between learning from the teacher and from the labels",
    )


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e5 else f"{parameters:,}"


def decide(votes: list[Vote], *, has_teacher: bool) -> tuple[Kind, str]:
    """The strategy with the most votes, and the reason in words. What pulls both ways is combined, or done one after the other."""
    if not has_teacher:
        return "finetune", "the space names no teacher, and every other strategy needs one"
    counts = {
        kind: sum(vote.votes_for == kind for vote in votes)
        for kind in ("finetune", "distill", "combined")
    }
    most = max(counts.values())
    top = [kind for kind, count in counts.items() if count == most]
    tally = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    if top == ["finetune", "distill"]:
        return (
            "distill_then_finetune",
            f"as much speaks for the labels as for the teacher ({tally}): first the one, then the other",
        )
    if len(top) > 1:
        return (
            "combined",
            f"{', '.join(top[:-1])} and {top[-1]} have as many votes ({tally}), and combined stands between",
        )
    chosen: Kind = (
        "finetune" if top == ["finetune"] else "distill" if top == ["distill"] else "combined"
    )
    because = ", ".join(vote.criterion for vote in votes if vote.votes_for == chosen)
    return chosen, f"{most} of {sum(counts.values())} votes ({tally}): {because}"


def kind_of(space: SearchSpace, strategy: str) -> Kind:
    """Which of the four a strategy is, whatever it is called, by how its alpha may move."""
    alpha = space.strategies[strategy].alpha
    options = list(alpha.any_of) if isinstance(alpha, AnyOf) else [alpha]
    moving = [
        option
        for option in options
        if isinstance(option, ScheduleValue) and option.shape != "constant"
    ]
    if moving:
        return (
            "distill_then_finetune"
            if all(_is_rising_step(option) for option in moving) and len(moving) == len(options)
            else "combined"
        )
    return "finetune" if all(number == 1 for number in numbers_in(alpha)) else "distill"


def _is_rising_step(option: ScheduleValue) -> bool:
    values = option.fields.get("values")
    if option.shape != "step" or not isinstance(values, list) or len(values) != 2:
        return False
    first, last = (numbers_in(value) for value in values)
    return max(first) < min(last)


# --- what sweeps showed ----------------------------------------------------------------------------------------------


def sweeps_of(plan: Plan, home: Home) -> list[str]:
    """The sweeps of this space in home that have a report, the last used first."""
    return [
        name
        for name in home.names()
        if home.sweep(name).report.exists()
        and home.sweep(name).read_facts().experiment == plan.experiment
    ]


def evidence(home: Home, name: str, advised: Kind, kinds: dict[str, Kind]) -> dict[str, Any] | None:
    """What one sweep says, and whether that is what the rule says; None where no trial finished."""
    report = Report.from_json(read_json(home.sweep(name).report))
    reached = {
        strategy: found.reached
        for strategy, found in report.strategies.items()
        if found.reached is not None
    }
    if not reached:
        return None
    best = max(reached, key=lambda strategy: reached[strategy])
    level = [
        strategy for strategy in reached if strategy != best and not _beats(report, best, strategy)
    ]
    agreed = [strategy for strategy in (best, *level) if kinds.get(strategy, strategy) == advised]
    if agreed[:1] == [best]:
        says = f"the same as the rule: {best} did best" + (
            f", though not shown to beat {' and '.join(level)}" if level else ""
        )
    elif agreed:
        says = f"{best} did best, but it isn't shown to beat {agreed[0]}, which the rule advises"
    elif not any(kinds.get(strategy, strategy) == advised for strategy in reached):
        says = f"{best} did best; of what the rule advises ({advised}) there is no result"
    else:
        says = f"another than the rule: {best} did best, where the rule advises {advised}; what was measured on your task counts more"
    return {
        "sweep": name,
        "state": report.state,
        "metric": report.metric,
        "best": best,
        "reached": reached,
        "level": level,
        "agrees": bool(agreed),
        "says": says,
        "verdict": report.verdict,
    }


def _beats(report: Report, winner: str, other: str) -> bool:
    """Whether the report shows a difference between the two."""
    return any(
        pair.shows_a_difference for pair in report.pairs if {pair.a, pair.b} == {winner, other}
    )


# --- in words --------------------------------------------------------------------------------------------------------


def as_lines(advice: dict[str, Any]) -> list[str]:
    """The advice for a person: the rule, how each criterion voted, and what sweeps showed."""
    rule, votes = advice["rule"], advice["votes"]
    lines = [
        f"{advice['space']}: the rule advises {rule['advice']}: {rule['means']}",
        f"  {rule['reason']}",
        "",
    ]
    width = max(len(vote["value"]) for vote in votes)
    for vote in votes:
        lines.append(
            f"  {vote['criterion']:<8} {vote['value']:<{width}}  {vote['votes_for'] or '-':<9} {vote['reason']}"
        )
    called = rule["strategies"]
    lines += [
        "",
        f"in this space that is {', '.join(called)}"
        if called
        else f"this space has no such strategy; docs/search-spaces.md says how {rule['advice']} is written",
    ]
    if rule["relative"]:
        lines.append(f"a close relative is {rule['relative']}: {WHAT_IT_DOES[rule['relative']]}")
    if not advice["evidence"]:
        return [
            *lines,
            "no sweep of this space has ended in this home: this is a rule of thumb, and kdsweep run measures it",
        ]
    for found in advice["evidence"]:
        stopped = "" if found["state"] == "done" else f" ({found['state']} before its end)"
        lines += [
            "",
            f"sweep {found['sweep']}{stopped} says {found['says']}",
            f"  {found['verdict']}",
        ]
    return lines
