"""The teachers of a space as values: trials may learn from different ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag

from kdsweep.config.loading import Plain, Scalar
from kdsweep.config.parameters import parameters
from kdsweep.config.setting_types import is_whole
from kdsweep.config.values import AnyOf, Choices, Range, Value
from kdsweep.core.settings import TeacherSettings, TeacherTraining
from kdsweep.core.strict_model import Strict, Text, added_later, as_tuple

TEACHER_CONSTANTS = (
    "checkpoint",
    "revision",
    "labels",
    "trust_remote_code",
    "training",
    "seeds",
)
TEACHER_VALUES = ("model", "epoch", "folds", "weight")


class TeacherValues(Strict):
    """TeacherSettings, some of its fields values of the grammar.

    Under a strategy, one without `model` and `checkpoint` is the space's teacher with these fields
    changed.
    """

    model: Value = None
    checkpoint: Text | None = None
    revision: Text | None = added_later(None)
    labels: Annotated[tuple[Text, ...], BeforeValidator(as_tuple), Field(min_length=2)] | None = (
        None
    )
    trust_remote_code: bool = False
    training: TeacherTraining = TeacherTraining()
    epoch: Value = added_later(None)
    seeds: Annotated[int, Field(ge=1)] = added_later(1)
    folds: Value = added_later(None)
    weight: Value = added_later(1.0)

    @property
    def is_whole(self) -> bool:
        """Whether it is a teacher of its own and not a change of the space's."""
        return self.model is not None or self.checkpoint is not None

    def values(self, prefix: str) -> dict[str, Value]:
        """Its values that are given, by their dotted names."""
        values = {f"{prefix}{name}": getattr(self, name) for name in TEACHER_VALUES}
        return {name: value for name, value in values.items() if value is not None}

    def settled(self, values: Mapping[str, Plain]) -> TeacherSettings:
        """The teacher with `values` in place of its own."""
        plain = {name: getattr(self, name) for name in TEACHER_CONSTANTS}
        return TeacherSettings.model_validate({**plain, **values})

    def every(self) -> list[TeacherSettings]:
        """Each teacher that its values can mean. Its weight is no part of what it is."""
        values = self.values("")
        values.pop("weight")
        choices = [every_settled(value, name) for name, value in values.items()]
        return [
            self.settled(dict(zip(values, chosen, strict=True))) for chosen in product(*choices)
        ]

    def on(self, base: TeacherValues) -> TeacherValues:
        """`base` with the fields that are given here."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if "training" in given:
            changed = {
                name: getattr(self.training, name) for name in self.training.model_fields_set
            }
            given["training"] = base.training.model_copy(update=changed)
        return base.model_copy(update=given)

    def reading_at_most(self, max_length: int) -> TeacherValues:
        """The teacher with the student's `max_length`, unless it has its own."""
        if not self.is_whole or "max_length" in self.training.model_fields_set:
            return self
        training = self.training.model_copy(update={"max_length": max_length})
        return self.model_copy(update={"training": training})


def every_settled(value: Value, name: str) -> list[Scalar]:
    """Every settled value of a teacher's field `name`; none if a range in it is continuous."""
    if isinstance(value, AnyOf):
        found = [settled for option in value.any_of for settled in every_settled(option, name)]
        return list(dict.fromkeys(found))
    if isinstance(value, Range | Choices):
        setting = f"teacher.{name}"
        (parameter,) = parameters(value, setting, whole=is_whole(setting))
        return parameter.points() or []
    return [cast(Scalar, value)]


# One teacher, or a list of them.
Teachers = Annotated[
    Annotated[TeacherValues, Tag("one")]
    | Annotated[
        tuple[TeacherValues, ...], BeforeValidator(as_tuple), Field(min_length=1), Tag("several")
    ],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]


def as_teachers(teachers: Teachers | None) -> tuple[TeacherValues, ...]:
    """One teacher, several or none, as a tuple."""
    if teachers is None:
        return ()
    return teachers if isinstance(teachers, tuple) else (teachers,)
