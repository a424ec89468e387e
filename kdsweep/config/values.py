"""The value grammar: what may stand where a trial needs a value.

    5.0                                              a constant
    {low: 1.0, high: 10.0, log: true, step: 0.5}     a range
    {choices: [16, 32]}                              one of a list
    {shape: linear, start: 1.0, end: {low: ...}}     a schedule, its fields values again
    {any_of: [value, value]}                         one of several values; the parameters of one exist only when it is taken

`settle` turns a value into what one trial runs with, asking a `Suggest` for each parameter. Optuna, a random draw, the list
of all parameters and the settings to start with are all such askers, so that they can't disagree.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from kdsweep.core.schedules import SHAPES, Number
from kdsweep.core.settings import Strict, unknown_key
from kdsweep.errors import did_you_mean

Scalar = bool | int | float | str | None


class Range(Strict):
    """Numbers from `low` to `high`, both included."""

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

    def count(self) -> int | None:
        """How many numbers it has, or None where there is no end of them."""
        return (
            None if self.step is None else math.floor((self.high - self.low) / self.step + 1e-9) + 1
        )

    def points(self) -> list[float] | None:
        """All its numbers, or None where there is no end of them."""
        count = self.count()
        return (
            None
            if count is None or self.step is None
            else [self.low + i * self.step for i in range(count)]
        )


def _distinct(choices: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise ValueError("choices must differ from each other")
    return choices


class Choices(Strict):
    """One of a list of plain values."""

    choices: Annotated[
        tuple[Scalar, ...],
        BeforeValidator(lambda value: _a_list("choices", value)),
        Field(min_length=1),
        AfterValidator(_distinct),
    ]


class AnyOf(Strict):
    """One of several values."""

    any_of: Annotated[
        tuple[Value, ...],
        BeforeValidator(lambda value: _a_list("any_of", value)),
        Field(min_length=2),
    ]

    def options(self, name: str) -> dict[str, tuple[Value, str]]:
        """label -> (value, prefix of its parameters' names). The prefix is `name` unless two options, or one and the choice, would share a parameter."""
        kinds = [_kind(option) for option in self.any_of]
        of_kind, so_far = Counter(kinds), Counter[str]()
        used = [
            {parameter.name for parameter in parameters(option, name)} for option in self.any_of
        ]
        users = Counter(parameter for names in used for parameter in names)
        users[f"{name}.any_of"] += 1
        out: dict[str, tuple[Value, str]] = {}
        for kind, names, option in zip(kinds, used, self.any_of, strict=True):
            so_far[kind] += 1
            label = kind if of_kind[kind] == 1 else f"{kind}_{so_far[kind]}"
            while label in out:  # a text can look like another's label
                label += "_"
            shared = any(users[parameter] > 1 for parameter in names)
            out[label] = (option, f"{name}.{label}" if shared else name)
        return out


class ScheduleValue(Strict):
    """A schedule whose fields may be values."""

    shape: Literal["constant", "linear", "cosine", "step", "per_epoch"]
    fields: dict[str, FieldValue]


def _a_list(name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be a list")
    return tuple(value)


def _read_schedule(data: Any) -> Any:
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


def _tag(value: Any) -> str:
    if isinstance(value, dict):
        if "shape" in value:
            return "schedule"
        for key, tag in (
            ("any_of", "any_of"),
            ("choices", "choices"),
            ("low", "range"),
            ("high", "range"),
        ):
            if key in value:
                return tag
        return "unclear"
    kinds: dict[type, str] = {
        Range: "range",
        Choices: "choices",
        AnyOf: "any_of",
        ScheduleValue: "schedule",
    }
    return kinds.get(type(value), "constant")


def _unclear(value: Any) -> Any:
    keys = ", ".join(map(str, value)) or "nothing"
    raise ValueError(
        f"a value is a constant, {{low, high}}, {{choices}}, {{shape, ...}} or {{any_of}}; this mapping has {keys}"
    )


def _constant(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Value = Annotated[
    Annotated[Range, Tag("range")]
    | Annotated[Choices, Tag("choices")]
    | Annotated[AnyOf, Tag("any_of")]
    | Annotated[ScheduleValue, BeforeValidator(_read_schedule), Tag("schedule")]
    | Annotated[Any, BeforeValidator(_unclear), Tag("unclear")]
    | Annotated[Scalar | list[Any], BeforeValidator(_constant), Tag("constant")],
    Discriminator(_tag),
]
FieldValue = Annotated[
    Annotated[list[Value], Tag("list")] | Annotated[Value, Tag("one")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "one"),
]

AnyOf.model_rebuild()
ScheduleValue.model_rebuild()


# --- settling --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """One dimension of a study: `domain` is a Range or a tuple of choices; `when` says which choices it depends on."""

    name: str
    domain: Range | tuple[Scalar, ...]
    whole: bool
    when: tuple[tuple[str, str], ...] = ()

    def points(self) -> list[Any] | None:
        """All its values, or None where there is no end of them."""
        if isinstance(self.domain, tuple):
            return list(self.domain)
        if self.whole and not self.domain.log:
            return list(
                range(
                    round(self.domain.low),
                    round(self.domain.high) + 1,
                    round(self.domain.step or 1),
                )
            )
        return self.domain.points()

    def count(self) -> int | None:
        """How many values it has, without listing them: there may be billions."""
        if isinstance(self.domain, tuple):
            return len(self.domain)
        if self.whole and not self.domain.log:
            return round(self.domain.high - self.domain.low) // round(self.domain.step or 1) + 1
        return self.domain.count()

    def describe(self) -> str:
        if isinstance(self.domain, tuple):
            text = "one of " + ", ".join(map(str, self.domain))
        else:
            text = f"{self.domain.low:g} to {self.domain.high:g}" + (
                ", log" if self.domain.log else ""
            )
            text += f", step {self.domain.step:g}" if self.domain.step is not None else ""
        return text + "".join(f" (when {name} is {label})" for name, label in self.when)


class Suggest(Protocol):
    """Whoever knows the value of a parameter."""

    def __call__(self, parameter: Parameter) -> Any: ...


def settle(value: Any, name: str, suggest: Suggest, *, whole: bool = False) -> Any:
    """`value` with each of its parameters as `suggest` says; plain data."""
    match value:
        case Range():
            return suggest(Parameter(name, value, whole))
        case Choices():
            return suggest(Parameter(name, value.choices, whole))
        case AnyOf():
            options = value.options(name)
            option, prefix = options[suggest(Parameter(f"{name}.any_of", tuple(options), False))]
            return settle(option, prefix, suggest, whole=whole)
        case ScheduleValue():
            return {"shape": value.shape} | {
                key: settle(inner, f"{name}.{key}", suggest) for key, inner in value.fields.items()
            }
        case list() | tuple():
            return [
                settle(inner, f"{name}.{i}", suggest, whole=whole) for i, inner in enumerate(value)
            ]
    return value


def parameters(
    value: Any, name: str, *, whole: bool = False, when: tuple[tuple[str, str], ...] = ()
) -> list[Parameter]:
    """Every parameter of `value`, in the order in which they are asked for."""
    match value:
        case Range():
            return [Parameter(name, value, whole, when)]
        case Choices():
            return [Parameter(name, value.choices, whole, when)]
        case AnyOf():
            options = value.options(name)
            choice = f"{name}.any_of"
            out = [Parameter(choice, tuple(options), False, when)]
            for label, (option, prefix) in options.items():
                out += parameters(option, prefix, whole=whole, when=(*when, (choice, label)))
            return out
        case ScheduleValue():
            return [
                found
                for key, inner in value.fields.items()
                for found in parameters(inner, f"{name}.{key}", when=when)
            ]
        case list() | tuple():
            return [
                found
                for i, inner in enumerate(value)
                for found in parameters(inner, f"{name}.{i}", whole=whole, when=when)
            ]
    return []


def count_points(value: Any, name: str, *, whole: bool = False) -> int | None:
    """How many different settled values there are, or None where there is no end of them."""
    match value:
        case Range() | Choices():
            return parameters(value, name, whole=whole)[0].count()
        case AnyOf():
            counts = [count_points(option, name, whole=whole) for option in value.any_of]
            return None if None in counts else sum(count for count in counts if count)
        case ScheduleValue():
            return _product(count_points(inner, name) for inner in value.fields.values())
        case list() | tuple():
            return _product(count_points(inner, name, whole=whole) for inner in value)
    return 1


def _product(counts: Iterator[int | None]) -> int | None:
    found = list(counts)
    return None if None in found else math.prod(count for count in found if count)


class NotAdmitted(ValueError):
    """A settled value that the grammar doesn't give."""


def admit(value: Any, settled: Any, name: str, *, whole: bool = False) -> dict[str, Any]:
    """The parameters with which `value` settles to `settled`. Raises NotAdmitted with the reason."""
    match value:
        case Range():
            if (
                not isinstance(settled, int | float)
                or isinstance(settled, bool)
                or not value.low <= settled <= value.high
            ):
                raise NotAdmitted(
                    f"{name}: {settled!r} is not between {value.low:g} and {value.high:g}"
                )
            if whole and not float(settled).is_integer():
                raise NotAdmitted(f"{name}: {settled!r} is not a whole number")
            steps = 0.0 if value.step is None else (settled - value.low) / value.step
            if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
                raise NotAdmitted(
                    f"{name}: {settled!r} is not {value.low:g} and a multiple of the step {value.step:g}"
                )
            return {name: int(settled) if whole else float(settled)}
        case Choices():
            if settled not in value.choices:
                raise NotAdmitted(
                    f"{name}: {settled!r} is none of {', '.join(map(str, value.choices))}"
                )
            return {name: settled}
        case AnyOf():
            reasons = []
            for label, (option, prefix) in value.options(name).items():
                try:
                    return {f"{name}.any_of": label} | admit(option, settled, prefix, whole=whole)
                except NotAdmitted as error:
                    reasons.append(f"{label}: {error}")
            raise NotAdmitted(f"{name}: no option of any_of gives it ({'; '.join(reasons)})")
        case ScheduleValue():
            if not isinstance(settled, dict) or settled.get("shape") != value.shape:
                raise NotAdmitted(f"{name}: a schedule of shape {value.shape} is expected")
            if settled.keys() - {"shape"} != value.fields.keys():
                raise NotAdmitted(f"{name}: shape {value.shape} has here {', '.join(value.fields)}")
            return {
                key: found
                for field, inner in value.fields.items()
                for key, found in admit(inner, settled[field], f"{name}.{field}").items()
            }
        case list() | tuple():
            if not isinstance(settled, list | tuple) or len(settled) != len(value):
                raise NotAdmitted(f"{name}: a list of {len(value)} is expected")
            return {
                key: found
                for i, inner in enumerate(value)
                for key, found in admit(inner, settled[i], f"{name}.{i}", whole=whole).items()
            }
    if settled != value or isinstance(settled, bool) != isinstance(value, bool):
        raise NotAdmitted(f"{name}: {settled!r} is not {value!r}")
    return {}


def each_number(
    value: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every plain value that `value` can bring into a trial, with its path: a rule that each of them keeps, all trials keep.

    The boundaries of a step schedule are no values of it.
    """
    match value:
        case Range():
            yield (*path, "low"), value.low
            yield (*path, "high"), value.high
        case Choices():
            for i, choice in enumerate(value.choices):
                yield (*path, "choices", i), choice
        case AnyOf():
            for i, option in enumerate(value.any_of):
                yield from each_number(option, (*path, "any_of", i))
        case ScheduleValue():
            for key, inner in value.fields.items():
                if key != "at":
                    yield from each_number(inner, (*path, key))
        case list() | tuple():
            for i, inner in enumerate(value):
                yield from each_number(inner, (*path, i))
        case _:
            yield path, value


def extremes(value: Any, *, whole: bool = False) -> Iterator[Any]:
    """Settled values in which each choice, each option and each end of a range occurs at least once."""
    match value:
        case Range():
            yield from (
                round(end) if whole and end.is_integer() else end for end in (value.low, value.high)
            )
        case Choices():
            yield from value.choices
        case AnyOf():
            for option in value.any_of:
                yield from extremes(option, whole=whole)
        case ScheduleValue():
            for settled in _combined([list(extremes(inner)) for inner in value.fields.values()]):
                yield {"shape": value.shape} | dict(zip(value.fields, settled, strict=True))
        case list() | tuple():
            yield from _combined([list(extremes(inner, whole=whole)) for inner in value])
        case _:
            yield value


def _combined(parts: list[list[Any]]) -> Iterator[list[Any]]:
    """Each part at its first value, each of the others in turn, then all at their last value."""
    first = [part[0] for part in parts]
    yield first
    for i, part in enumerate(parts):
        for other in part[1:]:
            yield [*first[:i], other, *first[i + 1 :]]
    if any(len(part) > 1 for part in parts):
        yield [part[-1] for part in parts]


def crossing_boundaries(value: Any) -> str | None:
    """The rule that a step schedule in `value` breaks whose boundaries could come in the wrong order; None where none does."""
    match value:
        case AnyOf():
            return next(filter(None, map(crossing_boundaries, value.any_of)), None)
        case ScheduleValue() if value.shape == "step" and isinstance(value.fields["at"], list):
            reach = [[number for _, number in each_number(inner)] for inner in value.fields["at"]]
            for i, (earlier, later) in enumerate(itertools.pairwise(reach)):
                if max(earlier) >= min(later):
                    return f"the numbers in 'at' must rise: number {i + 1} reaches {max(earlier):g}, number {i + 2} begins at {min(later):g}"
    return None


def _kind(value: Any) -> str:
    """What an option of `any_of` is called: readable in a table, and the same for the same YAML."""
    match value:
        case Range():
            return "range"
        case Choices():
            return "choices"
        case AnyOf():
            return "nested"  # not "any_of", which is the name of the choice itself
        case ScheduleValue():
            return f"{value.shape}{_direction(value)}"
        case list():
            return "_".join(map(str, value))
    return str(value) if isinstance(value, str) else "constant"


def _direction(value: ScheduleValue) -> str:
    start, end = (
        [number for _, number in each_number(value.fields.get(key, 0.0))]
        for key in ("start", "end")
    )
    if (
        not start
        or not end
        or not all(isinstance(number, int | float) for number in (*start, *end))
    ):
        return ""
    if max(start) <= min(end) and min(start) < max(end):
        return "_rising"
    if min(start) >= max(end) and max(start) > min(end):
        return "_falling"
    return ""
