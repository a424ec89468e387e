"""The rules of a space that no single key can check.

Each function raises SpaceError at the value that breaks a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, cast

from pydantic import TypeAdapter, ValidationError

from kdsweep.config.broken_rules import first_rule, rule
from kdsweep.config.extremes import (
    crossing_boundaries,
    extremes,
    is_number,
    numbers_in,
    plain_values,
)
from kdsweep.config.loading import Document, KeyPath, dotted, show
from kdsweep.config.older_spaces import is_read_as_default
from kdsweep.config.parameters import NotAdmitted, parameters
from kdsweep.config.section_values import given_fields, values_of
from kdsweep.config.setting_types import is_whole, setting_named
from kdsweep.config.space import SearchSpace
from kdsweep.config.teacher_values import TeacherValues, as_teachers, every_settled
from kdsweep.config.values import AnyOf, Range, Value
from kdsweep.core.data.sources import may_be_on_hub
from kdsweep.core.distill_settings import BOUNDS, STATES_OF_FOLDS, outside_bounds
from kdsweep.core.schedules import parse_schedule

KINDS_OF_VIEWS = ("mask", "ngram", "swap", "masked_lm")
# Sections of a strategy whose values are checked by themselves.
SECTIONS = ("start_with", "distill", "teacher", "augment")


def check_space(space: SearchSpace, document: Document) -> None:
    """Check every value that a trial can have, and what the sections mean together."""
    for key, value in given_fields(space.training).items():
        _check_value(document, ("training", key), key, value)
        _check_kind(document, ("training", key), key, value, space)
    for key, value in values_of(space.student, "student.").items():
        _check_value(document, tuple(key.split(".")), key, value)
    if space.student.width is not None and space.student.start != "scratch":
        raise document.error(
            ("student", "width"),
            "student.width: needs 'start: scratch': weights of another width can't be kept",
        )
    _check_revisions(space, document)
    if space.teacher is not None:
        _check_each_teacher(document, ("teacher",), space.teacher)
    for name in space.strategies:
        _check_strategy(space, document, name)
    for name in space.strategies:
        if space.may_need_teacher(name) and not space.teachers_of(name):
            raise document.error(
                ("strategies",),
                "teacher is missing: an alpha below 1, or a student with 'model: teacher', "
                "needs one",
            )


def _check_strategy(space: SearchSpace, document: Document, name: str) -> None:
    strategy = space.strategies[name]
    here: KeyPath = ("strategies", name)
    for key, value in given_fields(strategy).items():
        if key not in SECTIONS:
            _check_value(document, (*here, key), key, value)
            _check_kind(document, (*here, key), key, value, space)
    _check_teachers(space, document, name)
    for key, value in values_of(strategy.distill, "distill.").items():
        path = (*here, *key.split("."))
        if key == "distill.logits" and _is_short_form(document, name):
            path = (*here, "distill")
        _check_value(document, path, key, value)
        _check_kind(document, path, key, value, space)
    _check_states_of_folds(space, document, name)
    if strategy.augment is not None:
        _check_augment(space, document, name)
    if "learning_rate" not in strategy.model_fields_set | space.training.model_fields_set:
        raise document.error(
            here, f"strategies.{name}: learning_rate is missing (here or under training)"
        )
    for i, entry in enumerate(strategy.start_with):
        try:
            space.admit(name, entry)
        except NotAdmitted as error:
            raise document.error(
                (*here, "start_with", i), f"strategies.{name}.start_with: {error}"
            ) from error


def _check_revisions(space: SearchSpace, document: Document) -> None:
    """A revision is of one repository on the Hub."""
    if document.is_stored:
        return
    named: list[tuple[KeyPath, object, str | None]] = [
        (("task",), space.task.dataset, space.task.revision),
        (("student",), space.student.model, space.student.revision),
    ]
    if (more := space.task.unlabelled) is not None:
        named.append((("task", "unlabelled"), more.dataset, more.revision))
    for i, teacher in enumerate(as_teachers(space.teacher)):
        path: KeyPath = ("teacher", i) if isinstance(space.teacher, tuple) else ("teacher",)
        named.append((path, teacher.model or teacher.checkpoint, teacher.revision))
    for path, source, revision in named:
        if revision is None or may_be_on_hub(source):
            continue
        what = "several" if not isinstance(source, str) else repr(source)
        raise document.error(
            (*path, "revision"),
            f"{dotted(path)}.revision: is for one name on the Hub, not for {what}; leave it out",
        )


def _is_short_form(document: Document, strategy: str) -> bool:
    """Whether the strategy has `distill: mse` for `distill: {logits: mse}`."""
    distill = document.at("strategies", strategy, "distill")
    return not (isinstance(distill, dict) and "logits" in distill)


# --- teachers and views ---


def _check_teachers(space: SearchSpace, document: Document, strategy: str) -> None:
    """Check the strategy's own teachers, if it has some."""
    own = space.strategies[strategy].teacher
    if own is None:
        return
    here: KeyPath = ("strategies", strategy, "teacher")
    if isinstance(own, TeacherValues) and not own.is_whole:
        if not isinstance(space.teacher, TeacherValues):
            raise document.error(
                here,
                f"{dotted(here)}: changes the space's teacher, and there is not just one: "
                "name 'model' or 'checkpoint' here",
            )
        own = own.on(space.teacher)
    _check_each_teacher(document, here, own)


def _check_each_teacher(
    document: Document, here: KeyPath, teachers: TeacherValues | tuple[TeacherValues, ...]
) -> None:
    if isinstance(teachers, TeacherValues):
        _check_teacher(document, here, teachers)
        return
    for i, teacher in enumerate(teachers):
        _check_teacher(document, (*here, i), teacher)


def _check_teacher(document: Document, here: KeyPath, teacher: TeacherValues) -> None:
    """Every teacher that the values can mean must be one, and they must be few."""
    for name, value in teacher.values("").items():
        path = (*here, name)
        if name != "weight" and not all(every_settled(one, name) for one in _ranges(value)):
            raise document.error(
                path,
                f"{dotted(path)}: each of its values is a teacher to be made: a range must not "
                "be log",
            )
        _check_against(document, path, f"teacher.{name}", value)
    try:
        teacher.every()
    except ValidationError as error:
        raise document.error(here, f"{dotted(here)}: {first_rule(error)}") from error


def _ranges(value: Value) -> list[Range]:
    if isinstance(value, AnyOf):
        return [found for option in value.any_of for found in _ranges(option)]
    return [value] if isinstance(value, Range) else []


def _check_states_of_folds(space: SearchSpace, document: Document, strategy: str) -> None:
    """Inner states come from one teacher in each step. Earlier versions took one of all rows."""
    first = space.teachers_of(strategy)[:1]
    if document.is_stored or all(one.folds is None for one in first):
        return
    for key, value in values_of(space.strategies[strategy].distill, "distill.").items():
        if key.endswith(".weight") and any(weight > 0 for weight in numbers_in(value)):
            path = ("strategies", strategy, *key.split(".")[:-1])
            raise document.error(path, f"{dotted(path)}: {STATES_OF_FOLDS}")


def _check_augment(space: SearchSpace, document: Document, name: str) -> None:
    augment = space.strategies[name].augment
    assert augment is not None
    here: KeyPath = ("strategies", name, "augment")
    for key, value in values_of(augment, "augment.").items():
        _check_value(document, ("strategies", name, *key.split(".")), key, value)
    if not augment.model_fields_set & set(KINDS_OF_VIEWS):
        raise document.error(
            here,
            f"{dotted(here)}: says how many views, but not how they differ from their rows; "
            f"give one of {', '.join(KINDS_OF_VIEWS)}",
        )
    if not space.may_be_taught(name) and not augment.may_augment_finetuning:
        raise document.error(
            here,
            f"{dotted(here)}: views are labeled by the teacher, and where alpha is always 1 no "
            "teacher teaches; 'in_finetuning: true' gives them the label of their row",
        )


# --- one value ---


def _check_kind(
    document: Document, path: KeyPath, key: str, value: Value, space: SearchSpace
) -> None:
    """The value must make sense for the task's kind."""
    kind = space.task.kind
    for _, settled in plain_values(value):
        is_divergence = key == "distill.logits"
        if document.is_stored and is_divergence and is_read_as_default(kind, settled):
            continue
        if broken := kind.unfit(key, settled):
            raise document.error(path, f"{dotted(path)}: {broken}")


def _check_value(document: Document, path: KeyPath, key: str, value: Value) -> None:
    if key.rpartition(".")[2] in BOUNDS:
        _check_schedule(document, path, key, value)
    else:
        _check_against(document, path, key, value)


def _check_schedule(document: Document, path: KeyPath, key: str, value: Value) -> None:
    """Every number of an alpha, temperature, learning rate or weight must be in its bounds."""
    for inner, number in plain_values(value):
        name = dotted(path + inner)
        if not is_number(number):
            raise document.error(
                path + inner,
                f"{name}: must be a number, a range or a schedule, not {show(number)}",
            )
        if broken := outside_bounds(key.rpartition(".")[2], cast(float, number)):
            raise document.error(path + inner, f"{name}: {broken}")
    for schedule in extremes(value):
        try:
            parse_schedule(schedule)
        except ValidationError as error:
            # The first part of the location is the shape.
            field = dotted(error.errors(include_url=False)[0]["loc"][1:])
            prefix = f"{dotted(path)}: {field}: " if field else f"{dotted(path)}: "
            raise document.error(path, prefix + first_rule(error)) from error
    if crossing := crossing_boundaries(value):
        raise document.error(path, f"{dotted(path)}: {crossing}")
    if key == "learning_rate" and all(number == 0 for number in numbers_in(value)):
        raise document.error(path, f"{dotted(path)}: learning_rate must be above 0, not 0")


def _check_against(document: Document, path: KeyPath, key: str, value: Value) -> None:
    """Every value that the setting can take must be one that the setting allows."""
    field = setting_named(key)
    assert field is not None
    whole = is_whole(key)
    # Layers may be lists, and those are judged as a whole.
    is_listed = key.endswith(".layers")
    for settled in extremes(value, whole=whole):
        if isinstance(settled, dict) or (isinstance(settled, list) and not is_listed):
            found = "a schedule" if isinstance(settled, dict) else "a list"
            raise document.error(
                path, f"{dotted(path)}: takes one value for the whole training, not {found}"
            )
    allowed: TypeAdapter[object] = TypeAdapter(
        cast(Any, Annotated[cast(Any, field.annotation), *(field.metadata or [None])])
    )
    for inner, candidate in _candidates(value, whole, is_listed):
        try:
            allowed.validate_python(candidate, strict=True)
        except ValidationError as error:
            # Of a list, the last error is what is wrong with it as a list.
            details = error.errors(include_url=False)[-1 if isinstance(candidate, list) else 0]
            raise document.error(
                path + inner, f"{dotted(path + inner)}: {rule(details, details['input'])}"
            ) from error
    for parameter in parameters(value, key, whole=whole):
        step = parameter.domain.step if isinstance(parameter.domain, Range) else None
        if whole and step is not None and not step.is_integer():
            raise document.error(path, f"{dotted(path)}: step must be a whole number, not {step:g}")


def _candidates(value: Value, whole: bool, is_listed: bool) -> Iterator[tuple[KeyPath, object]]:
    """What the setting must allow, each with its path inside `value`."""
    if is_listed:
        for settled in extremes(value, whole=whole):
            yield (), settled
        return
    for path, plain in plain_values(value):
        is_end = path[-1:] in (("low",), ("high",))
        if whole and is_end and isinstance(plain, float) and plain.is_integer():
            yield path, int(plain)
        else:
            yield path, plain
