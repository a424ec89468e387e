"""`kdsweep advise`: which strategy fits a situation, by a rule and by the sweeps that have ended.

The rule is a vote. Known from the space: the number of labeled rows and how far the teacher is to
be compressed. The user states the compute to spend, where the student will run, and what counts.
Fine-tune with little compute, a student that is not small, and many labels. Distill from a strong
teacher under strong compression for constrained deployment. Combine to balance accuracy and
efficiency.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from kdsweep.config import Plan, SearchSpace
from kdsweep.config.extremes import numbers_in
from kdsweep.config.teacher_values import TeacherValues
from kdsweep.config.values import AnyOf, ScheduleValue
from kdsweep.core.data.loading import load_task
from kdsweep.core.hub.snapshots import hub_cache, looking_in
from kdsweep.core.models.describing import parameter_count
from kdsweep.core.models.layers import keep_layers, kept_layers, layer_count, new_model
from kdsweep.core.models.loading import consenting_to_code, load_config, with_labels
from kdsweep.core.settings import StudentSettings
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import ModelError, NewerFiles
from kdsweep.formatting import joined
from kdsweep.formatting import parameters as parameters_in_words
from kdsweep.report.model import Report
from kdsweep.sweep.folders import Home

Approach = Literal["finetune", "distill", "combined", "distill_then_finetune"]
Compute = Literal["low", "medium", "high"]
Deploy = Literal["server", "desktop", "mobile", "edge"]
Goal = Literal["accuracy", "balance", "size", "speed"]
Choice = tuple[Approach | None, str]  # what it votes for, and why

MANY_ROWS, FEW_ROWS = 20_000, 2_000
STRONG_COMPRESSION, WEAK_COMPRESSION = 4.0, 1.5
RELATIVE: dict[Approach, Approach] = {
    "combined": "distill_then_finetune",
    "distill_then_finetune": "combined",
}
WHAT_IT_DOES: dict[Approach, str] = {
    "finetune": "learn from the labels alone",
    "distill": "learn from the teacher, with a constant weight for the labels",
    "combined": "change the weight of the labels while the student trains",
    "distill_then_finetune": "learn from the teacher first, then from the labels",
}
SMALL_STUDENT = "the student must be small, and small students gain most from a teacher"
FOR_COMPUTE: dict[str, Choice] = {
    "low": ("finetune", "no teacher has to be trained or run"),
    "medium": (None, "a teacher is affordable but not required"),
    "high": (
        "combined",
        "a teacher is affordable, and so is the search for how its weight should change",
    ),
}
FOR_DEPLOY: dict[str, Choice] = {
    "server": (None, "no limit on the student"),
    "desktop": ("combined", "some limit on the student"),
    "mobile": ("distill", SMALL_STUDENT),
    "edge": ("distill", SMALL_STUDENT),
}
FOR_GOAL: dict[str, Choice] = {
    "accuracy": (
        "combined",
        "labels and teacher know different things, and a changing weight uses both",
    ),
    "balance": ("combined", "it balances accuracy and efficiency"),
    "size": ("distill", "a small student needs the teacher"),
    "speed": ("distill", "a fast student is a small one, and that needs the teacher"),
}


@dataclass(frozen=True)
class Vote:
    """What one criterion says: `value` as found, `votes_for` an approach or None, and why."""

    criterion: str
    value: str
    votes_for: Approach | None
    reason: str


@dataclass(frozen=True)
class Rule:
    """What the votes give. relative: a similar approach. strategies: those of the space."""

    advice: Approach
    means: str
    reason: str
    relative: Approach | None
    strategies: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What one sweep showed.

    reached: the metric by strategy. level: strategies that the best one isn't shown to beat.
    agrees: whether the best, or one that is level with it, is what the rule advises.
    """

    sweep: str
    state: str
    metric: str
    best: str
    reached: dict[str, float]
    level: tuple[str, ...]
    agrees: bool
    says: str
    verdict: str


@dataclass(frozen=True)
class ModelSizes:
    """Parameters of the teacher, or None without one, and of the smallest student."""

    teacher: int | None
    student: int


@dataclass(frozen=True)
class Advice:
    """The rule's advice for a space, with the votes, and what sweeps showed."""

    space: str
    rows: int
    labels: int
    parameters: ModelSizes
    votes: tuple[Vote, ...]
    rule: Rule
    evidence: tuple[Evidence, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def advise(
    plan: Plan,
    home: Path,
    *,
    compute: Compute | None = None,
    deploy: Deploy | None = None,
    goal: Goal | None = None,
) -> Advice:
    """The approach that the rule gives, each vote, and what sweeps of this space in `home` showed.

    Raises DataError or ModelError where rows or models can't be read. Of models only the configs
    are read, no weights.
    """
    space = plan.space
    cache = Home(home).cache
    with looking_in(hub_cache(cache)):
        data = load_task(space.task, cache, publish=False)
        sizes = model_sizes(space, data.label_names)
    classes = f"{len(data.label_names)} classes"
    votes = [
        _by_rows(len(data.train), classes if data.kind.outputs_are_labels else data.kind.noun),
        _by_compression(sizes),
        _by_user("compute", compute, FOR_COMPUTE),
        _by_user("deploy", deploy, FOR_DEPLOY),
        _by_user("goal", goal, FOR_GOAL),
    ]
    advised, reason = decide(votes, has_teacher=space.teacher is not None)
    approaches = {name: approach_of(space, name) for name in space.strategies}
    found = [
        evidence(Home(home), name, advised, approaches) for name in sweeps_of(plan, Home(home))
    ]
    return Advice(
        space=space.name,
        rows=len(data.train),
        labels=len(data.label_names),
        parameters=sizes,
        votes=tuple(votes),
        rule=Rule(
            advice=advised,
            means=WHAT_IT_DOES[advised],
            reason=reason,
            relative=RELATIVE.get(advised),
            strategies=tuple(name for name, approach in approaches.items() if approach == advised),
        ),
        evidence=tuple(one for one in found if one is not None),
    )


# --- the votes -----------------------------------------------------------------------------------


def model_sizes(space: SearchSpace, label_names: tuple[str, ...]) -> ModelSizes:
    """Parameters of the teacher and of the smallest student, from their configs alone."""
    teacher = next(iter(space.teachers()), None) or (
        space.teacher.every()[0] if isinstance(space.teacher, TeacherValues) else None
    )
    source = teacher.loads_from if teacher else None
    students = [
        _parameters(
            source if shape.model == "teacher" and source else shape.loads_from,
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
    teacher_size = None
    if whole is not None:
        teacher_size = _parameters(whole.model, label_names, space.task.kind, whole)
    return ModelSizes(teacher=teacher_size, student=min(students))


def _parameters(
    source: str, label_names: tuple[str, ...], kind: TaskKind, shape: StudentSettings
) -> int:
    """How many a model of this config has. The meta device needs no memory."""
    config = with_labels(
        load_config(source, trust_remote_code=shape.trust_remote_code), label_names, kind
    )
    with torch.device("meta"):
        try:
            if shape.start == "scratch":
                return parameter_count(new_model(shape, label_names, source, kind))
            with consenting_to_code(source, trust_remote_code=shape.trust_remote_code):
                model = kind.model_class().from_config(
                    config, trust_remote_code=shape.trust_remote_code
                )
        except (ValueError, ImportError) as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(f"model: {source} can't classify texts: {first_line}") from error
        if shape.layers is not None:
            model = keep_layers(
                model, kept_layers(layer_count(model, source), shape.layers, source), source
            )
    return parameter_count(model)


def _by_rows(rows: int, task: str) -> Vote:
    """The vote of the number of rows. task: what they are for, `2 classes`."""
    value = f"{rows:,} rows for {task}"
    if rows >= MANY_ROWS:
        why = f"many ({MANY_ROWS:,} or more), enough to teach a student well"
        return Vote("labels", value, "finetune", why)
    if rows < FEW_ROWS:
        why = (
            f"few (below {FEW_ROWS:,}): the teacher's predictions say more about each row than its "
            "label does"
        )
        return Vote("labels", value, "distill", why)
    why = (
        f"neither few (below {FEW_ROWS:,}) nor many ({MANY_ROWS:,} or more): labels and teacher "
        "add to each other"
    )
    return Vote("labels", value, "combined", why)


def _by_compression(sizes: ModelSizes) -> Vote:
    student = parameters_in_words(sizes.student)
    if sizes.teacher is None or not sizes.student:
        value = f"student {student} parameters"
        return Vote("size", value, "finetune", "the space names no teacher")
    ratio = sizes.teacher / sizes.student
    teacher = parameters_in_words(sizes.teacher)
    value = f"teacher {teacher}, student {student} parameters: {ratio:.1f} to 1"
    if ratio >= STRONG_COMPRESSION:
        why = (
            f"strong compression ({STRONG_COMPRESSION:g} to 1 or more): a student this small gains "
            "most from a strong teacher"
        )
        return Vote("size", value, "distill", why)
    if ratio < WEAK_COMPRESSION:
        why = (
            f"the student is not much smaller than its teacher (below {WEAK_COMPRESSION:g} to 1): "
            "it can learn the task by itself"
        )
        return Vote("size", value, "finetune", why)
    why = (
        f"some compression ({WEAK_COMPRESSION:g} to {STRONG_COMPRESSION:g} to 1): between learning "
        "from the teacher and from the labels"
    )
    return Vote("size", value, "combined", why)


def _by_user(criterion: str, value: str | None, table: Mapping[str, Choice]) -> Vote:
    if value is None:
        return Vote(criterion, "not given", None, f"set --{criterion} {'|'.join(table)}")
    return Vote(criterion, value, *table[value])


def decide(votes: Sequence[Vote], *, has_teacher: bool) -> tuple[Approach, str]:
    """The approach with the most votes, and the reason.

    With as many votes for the labels as for the teacher: first the teacher, then the labels.
    """
    if not has_teacher:
        return "finetune", "the space names no teacher, and every other approach needs one"
    approaches: tuple[Approach, ...] = ("finetune", "distill", "combined")
    counts = {one: sum(vote.votes_for == one for vote in votes) for one in approaches}
    most = max(counts.values())
    top = [one for one in approaches if counts[one] == most]
    tally = ", ".join(f"{one} {number}" for one, number in counts.items())
    if top == ["finetune", "distill"]:
        return (
            "distill_then_finetune",
            f"as many votes for the teacher as for the labels ({tally}), so first one, then the "
            "other",
        )
    if len(top) > 1:
        return "combined", f"{joined(top)} have as many votes ({tally}), and combined is in between"
    because = ", ".join(vote.criterion for vote in votes if vote.votes_for == top[0])
    return top[0], f"{most} of {sum(counts.values())} votes ({tally}): {because}"


def approach_of(space: SearchSpace, strategy: str) -> Approach:
    """Which of the four a strategy is, whatever it is called, by how its alpha may move."""
    alpha = space.strategies[strategy].alpha
    options = list(alpha.any_of) if isinstance(alpha, AnyOf) else [alpha]
    moving = [
        option
        for option in options
        if isinstance(option, ScheduleValue) and option.shape != "constant"
    ]
    if moving:
        only_steps = len(moving) == len(options) and all(map(_is_rising_step, moving))
        return "distill_then_finetune" if only_steps else "combined"
    return "finetune" if all(number == 1 for number in numbers_in(alpha)) else "distill"


def _is_rising_step(option: ScheduleValue) -> bool:
    values = option.fields.get("values")
    if option.shape != "step" or not isinstance(values, list) or len(values) != 2:
        return False
    first, last = (numbers_in(value) for value in values)
    return max(first) < min(last)


# --- what sweeps showed --------------------------------------------------------------------------


def sweeps_of(plan: Plan, home: Home) -> list[str]:
    """The sweeps of this space in home that have a report, the last used first."""
    found: list[str] = []
    for name in home.names():
        folder = home.sweep(name)
        # What another version wrote is no evidence that this one can read.
        with contextlib.suppress(NewerFiles):
            if folder.report.exists() and folder.read_facts().experiment == plan.experiment:
                found.append(name)
    return found


def evidence(
    home: Home, name: str, advised: Approach, approaches: Mapping[str, Approach]
) -> Evidence | None:
    """What one sweep showed, and whether the rule says so too; None if no trial finished."""
    report = Report.read(home.sweep(name).report)
    reached = {
        strategy: found.reached
        for strategy, found in report.strategies.items()
        if found.reached is not None
    }
    if not reached:
        return None
    best = max(reached, key=lambda strategy: reached[strategy])
    # Reports of version 0.1 have no recommendation, but the winner was chosen in a similar way.
    if (chosen := report.recommended or report.winner) is not None:
        best = chosen.strategy
    level = [one for one in reached if one != best and not _beats(report, best, one)]
    is_advised = {one: approaches.get(one, one) == advised for one in reached}
    agreed = [one for one in (best, *level) if is_advised[one]]
    if agreed[:1] == [best]:
        says = f"the same as the rule: it recommends {best}"
        if level:
            says += f", though not shown to beat {' and '.join(level)}"
    elif agreed:
        says = (
            f"it recommends {best}, which isn't shown to beat {agreed[0]}, which the rule advises"
        )
    elif not any(is_advised.values()):
        says = f"it recommends {best}; there is no result for the rule's advice ({advised})"
    else:
        says = (
            f"not what the rule says: it recommends {best}, but the rule advises {advised}; a "
            "result measured on your task counts more"
        )
    return Evidence(
        sweep=name,
        state=report.state,
        metric=report.metric,
        best=best,
        reached=reached,
        level=tuple(level),
        agrees=bool(agreed),
        says=says,
        verdict=report.verdict,
    )


def _beats(report: Report, winner: str, other: str) -> bool:
    """Whether the report shows a difference between the two."""
    return any(
        pair.shows_a_difference for pair in report.pairs if {pair.a, pair.b} == {winner, other}
    )


# --- words ---------------------------------------------------------------------------------------


def as_lines(advice: Advice) -> list[str]:
    """The advice for a person: the rule, each vote, and what sweeps showed."""
    rule = advice.rule
    lines = [
        f"{advice.space}: the rule advises {rule.advice}: {rule.means}",
        f"  {rule.reason}",
        "",
    ]
    width = max(len(vote.value) for vote in advice.votes)
    for vote in advice.votes:
        choice = vote.votes_for or "-"
        lines.append(f"  {vote.criterion:<8} {vote.value:<{width}}  {choice:<9} {vote.reason}")
    lines.append("")
    if rule.strategies:
        lines.append(f"in this space: {', '.join(rule.strategies)}")
    else:
        lines.append(
            "this space has no such strategy; docs/search-spaces.md shows how to write "
            f"{rule.advice}"
        )
    if rule.relative:
        lines.append(f"a close relative is {rule.relative}: {WHAT_IT_DOES[rule.relative]}")
    if not advice.evidence:
        lines.append(
            "no sweep of this space has ended in this home, so this is only a rule of thumb; "
            "`kdsweep run` measures it"
        )
    for found in advice.evidence:
        stopped = "" if found.state == "done" else f" ({found.state} before its end)"
        lines += ["", f"sweep {found.sweep}{stopped}: {found.says}", f"  {found.verdict}"]
    return lines
