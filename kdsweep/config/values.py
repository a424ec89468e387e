"""The value grammar: what a space may write where a trial needs a value.

    5.0                                              a constant
    {low: 1.0, high: 10.0, log: true, step: 0.5}     a range
    {choices: [16, 32]}                              one of a list
    {shape: linear, start: 1.0, end: {low: ...}}     a schedule; its fields are values again
    {any_of: [value, value]}                         one of several values

Only the types are here. `parameters` says what a value asks a trial for, `extremes` how far it
can reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, NoReturn

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from kdsweep.config.loading import Scalar
from kdsweep.core.schedules import SHAPES, Number
from kdsweep.core.strict_model import Strict, as_tuple, unknown_key
from kdsweep.errors import did_you_mean

# A constant list is judged as a whole by the setting that it is for.
Constant = Scalar | list[object]


class Range(Strict):
    """Numbers from `low` to `high`, both included if a `step` reaches `high`."""

    low: Number
    high: Number
    log: bool = False
    step: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _possible(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range must stay above 0: low is {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a log range has no step")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(
                f"step ({self.step:g}) must be at most high - low ({self.high - self.low:g})"
            )
        return self

    @property
    def last(self) -> float:
        """The largest number that a trial can get: `high`, or the last whole step below it.

        In decimals, as Optuna does it, so that both name the same number.
        """
        if self.step is None:
            return self.high
        low, high, step = (Decimal(str(one)) for one in (self.low, self.high, self.step))
        steps, rest = divmod(high - low, step)
        return float(low + steps * step) if rest else self.high

    def count(self) -> int | None:
        """How many numbers it has, or None for a continuous range."""
        if self.step is None:
            return None
        return round((self.last - self.low) / self.step) + 1

    def points(self) -> list[float] | None:
        """All its numbers, or None for a continuous range."""
        count = self.count()
        if count is None or self.step is None:
            return None
        return [self.low + i * self.step for i in range(count)]


def _distinct(choices: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise ValueError("choices must differ from each other")
    return choices


class Choices(Strict):
    """One of a list of plain values."""

    choices: Annotated[
        tuple[Scalar, ...],
        BeforeValidator(as_tuple),
        Field(min_length=1),
        AfterValidator(_distinct),
    ]


class AnyOf(Strict):
    """One of several values. The parameters of one exist only in trials that take it."""

    any_of: Annotated[
        tuple[Value, ...],
        BeforeValidator(as_tuple),
        Field(min_length=2),
    ]


class ScheduleValue(Strict):
    """A schedule whose fields may be values."""

    shape: Literal["constant", "linear", "cosine", "step", "per_epoch"]
    fields: dict[str, FieldValue]


def _read_schedule(data: Mapping[str, object] | ScheduleValue) -> object:
    """{shape, start, end} as {shape, fields: {start, end}}, each field read as a value."""
    if isinstance(data, ScheduleValue):
        return data
    shape = data.get("shape")
    if not isinstance(shape, str) or shape not in SHAPES:
        hint = did_you_mean(str(shape), SHAPES) or f"; known shapes: {', '.join(SHAPES)}"
        raise PydanticCustomError(
            "unknown_shape", "unknown shape {shape}{hint}", {"shape": repr(shape), "hint": hint}
        )
    known = {field.alias or name: field for name, field in SHAPES[shape].model_fields.items()}
    for key in data:
        if key not in known:
            raise unknown_key(key, list(known))
    for key, field in known.items():
        if field.is_required() and key not in data:
            raise ValueError(f"shape {shape} needs {key!r}")
    return {"shape": shape, "fields": {key: value for key, value in data.items() if key != "shape"}}


_TAGS_OF_KEYS = {
    "shape": "schedule",
    "any_of": "any_of",
    "choices": "choices",
    "low": "range",
    "high": "range",
}
_TAGS_OF_TYPES: dict[type, str] = {
    Range: "range",
    Choices: "choices",
    AnyOf: "any_of",
    ScheduleValue: "schedule",
}

# A mapping with one of these keys is a value, any other one is a section.
VALUE_KEYS = frozenset(_TAGS_OF_KEYS)


def _tag(value: object) -> str:
    if isinstance(value, dict):
        return next((tag for key, tag in _TAGS_OF_KEYS.items() if key in value), "unclear")
    return _TAGS_OF_TYPES.get(type(value), "constant")


def _unclear(value: Mapping[str, object]) -> NoReturn:
    keys = ", ".join(map(str, value)) or "nothing"
    raise ValueError(
        "a value is a constant, {low, high}, {choices}, {shape, ...} or {any_of}; "
        f"this mapping has {keys}"
    )


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Value = Annotated[
    Annotated[Range, Tag("range")]
    | Annotated[Choices, Tag("choices")]
    | Annotated[AnyOf, Tag("any_of")]
    | Annotated[ScheduleValue, BeforeValidator(_read_schedule), Tag("schedule")]
    | Annotated[None, BeforeValidator(_unclear), Tag("unclear")]
    | Annotated[Constant, BeforeValidator(_finite), Tag("constant")],
    Discriminator(_tag),
]
FieldValue = Annotated[
    Annotated[list[Value], Tag("list")] | Annotated[Value, Tag("one")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "one"),
]

AnyOf.model_rebuild()
ScheduleValue.model_rebuild()
