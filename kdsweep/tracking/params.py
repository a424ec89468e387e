"""The parameters that a tracker shows of a run: flat, with dotted names."""

from __future__ import annotations

from collections.abc import Mapping

from kdsweep.core.settings import TeacherSettings, TrialSettings

SETTLED = {"alpha", "temperature", "learning_rate", "student", "distill"}
OF_A_TEACHER = {"epoch", "seeds", "folds", "weight"}


def trial_params(settings: TrialSettings) -> dict[str, object]:
    """The settled values of a trial, its teachers, and how it trains."""
    params: dict[str, object] = {}
    for name, value in settings.model_dump(mode="json", include=SETTLED).items():
        params |= flat(name, value)
    if settings.teacher is not None:
        params |= _teacher_params((settings.teacher, *settings.further_teachers))
    for name, value in settings.training.model_dump().items():
        if value is not None:
            params[name] = value
    return params | {"seed": settings.seed}


def _teacher_params(teachers: tuple[TeacherSettings, ...]) -> dict[str, object]:
    """`teacher.model` names all of them; the first one's values are `teacher.epoch`, the second
    one's `teacher.1.epoch`."""
    params: dict[str, object] = {"teacher.model": " + ".join(one.source for one in teachers)}
    for number, teacher in enumerate(teachers):
        prefix = f"teacher.{number}." if number else "teacher."
        for name, value in teacher.model_dump(include=OF_A_TEACHER).items():
            params[prefix + name] = value
    return params


def flat(name: str, value: object) -> dict[str, object]:
    """What `value` holds, by dotted names. None is left out.

    A constant schedule becomes its number, so that a tracker can draw it.
    """
    if not isinstance(value, Mapping):
        return {} if value is None else {name: value}
    if value.get("shape") == "constant":
        return {name: value["value"]}
    params: dict[str, object] = {}
    for part, inner in value.items():
        params |= flat(f"{name}.{part}", inner)
    return params
