"""What a value asks a trial for: its parameters, and what it settles to once they are known.

`settle` turns a value into what one trial runs with, and asks a `Suggest` for each parameter.
Optuna, a random draw and the settings of `start_with` all answer the same questions, so they
can't disagree about a parameter's name or domain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from kdsweep.config.extremes import is_number, numbers_in
from kdsweep.config.loading import Plain, Scalar
from kdsweep.config.values import AnyOf, Choices, Range, ScheduleValue, Value


@dataclass(frozen=True)
class Parameter:
    """One dimension of a study.

    domain: a range, or the choices. whole: only whole numbers. when: the choices that a trial must
    have made for this parameter to exist, each as (parameter's name, label of the option).
    """

    name: str
    domain: Range | tuple[Scalar, ...]
    whole: bool
    when: tuple[tuple[str, str], ...] = ()

    def points(self) -> list[Scalar] | None:
        """All its values, or None for a continuous range."""
        if isinstance(self.domain, tuple):
            return list(self.domain)
        if self.whole and not self.domain.log:
            first = round(self.domain.low)
            last = round(self.domain.high)
            return list(range(first, last + 1, round(self.domain.step or 1)))
        points = self.domain.points()
        return None if points is None else list(points)

    def count(self) -> int | None:
        """How many values it has, without listing them: there may be billions."""
        if isinstance(self.domain, tuple):
            return len(self.domain)
        if self.whole and not self.domain.log:
            return round(self.domain.high - self.domain.low) // round(self.domain.step or 1) + 1
        return self.domain.count()

    def describe(self) -> str:
        """The domain and its conditions in a few words."""
        if isinstance(self.domain, tuple):
            text = "one of " + ", ".join(map(str, self.domain))
        else:
            text = f"{self.domain.low:g} to {self.domain.last:g}"
            text += ", log" if self.domain.log else ""
            text += f", step {self.domain.step:g}" if self.domain.step is not None else ""
            if f"{self.domain.last:g}" != f"{self.domain.high:g}":
                text += f" (high is {self.domain.high:g}, which no step reaches)"
        return text + "".join(f" (when {name} is {label})" for name, label in self.when)


class Suggest(Protocol):
    """Knows the value of each parameter of a trial."""

    def __call__(self, parameter: Parameter) -> Scalar: ...


def settle(value: object, name: str, suggest: Suggest, *, whole: bool = False) -> Plain:
    """`value` with each of its parameters as `suggest` says; plain data."""
    match value:
        case Range():
            return suggest(Parameter(name, value, whole))
        case Choices():
            return suggest(Parameter(name, value.choices, whole))
        case AnyOf():
            options = options_of(value, name)
            label = suggest(Parameter(f"{name}.any_of", tuple(options), False))
            option, prefix = options[str(label)]
            return settle(option, prefix, suggest, whole=whole)
        case ScheduleValue():
            fields = {
                key: settle(inner, f"{name}.{key}", suggest) for key, inner in value.fields.items()
            }
            return {"shape": value.shape, **fields}
        case list() | tuple():
            return [
                settle(inner, f"{name}.{i}", suggest, whole=whole) for i, inner in enumerate(value)
            ]
    return cast(Scalar, value)


def parameters(
    value: object, name: str, *, whole: bool = False, when: tuple[tuple[str, str], ...] = ()
) -> list[Parameter]:
    """Every parameter of `value`, in the order in which `settle` asks for them."""
    match value:
        case Range():
            return [Parameter(name, value, whole, when)]
        case Choices():
            return [Parameter(name, value.choices, whole, when)]
        case AnyOf():
            options = options_of(value, name)
            choice = f"{name}.any_of"
            found = [Parameter(choice, tuple(options), False, when)]
            for label, (option, prefix) in options.items():
                found += parameters(option, prefix, whole=whole, when=(*when, (choice, label)))
            return found
        case ScheduleValue():
            return [
                parameter
                for key, inner in value.fields.items()
                for parameter in parameters(inner, f"{name}.{key}", when=when)
            ]
        case list() | tuple():
            return [
                parameter
                for i, inner in enumerate(value)
                for parameter in parameters(inner, f"{name}.{i}", whole=whole, when=when)
            ]
    return []


def count_points(value: object, name: str, *, whole: bool = False) -> int | None:
    """How many different settled values there are, or None if a range in it is continuous."""
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


def _product(counts: Iterable[int | None]) -> int | None:
    found = list(counts)
    return None if None in found else math.prod(count for count in found if count)


# --- admitting: from settled values back to parameters ---


class NotAdmitted(ValueError):
    """A settled value that the grammar doesn't give."""


def admit(value: object, settled: object, name: str, *, whole: bool = False) -> dict[str, Scalar]:
    """The parameters with which `value` settles to `settled`. Raises NotAdmitted."""
    match value:
        case Range():
            return {name: _number_in_range(value, settled, name, whole)}
        case Choices():
            if settled not in value.choices:
                known = ", ".join(map(str, value.choices))
                raise NotAdmitted(f"{name}: {settled!r} is none of {known}")
            return {name: settled}
        case AnyOf():
            return _first_option(value, settled, name, whole)
        case ScheduleValue():
            if not isinstance(settled, dict) or settled.get("shape") != value.shape:
                raise NotAdmitted(f"{name}: a schedule of shape {value.shape} is expected")
            if settled.keys() - {"shape"} != value.fields.keys():
                raise NotAdmitted(f"{name}: shape {value.shape} has here {', '.join(value.fields)}")
            found: dict[str, Scalar] = {}
            for field, inner in value.fields.items():
                found |= admit(inner, settled[field], f"{name}.{field}")
            return found
        case list() | tuple():
            if not isinstance(settled, list | tuple) or len(settled) != len(value):
                raise NotAdmitted(f"{name}: a list of {len(value)} is expected")
            found = {}
            for i, inner in enumerate(value):
                found |= admit(inner, settled[i], f"{name}.{i}", whole=whole)
            return found
    # True == 1 in Python, but not in a space.
    if settled != value or isinstance(settled, bool) != isinstance(value, bool):
        raise NotAdmitted(f"{name}: {settled!r} is not {value!r}")
    return {}


def _number_in_range(value: Range, settled: object, name: str, whole: bool) -> int | float:
    number = cast(float, settled)
    if not is_number(settled) or not value.low <= number <= value.high:
        raise NotAdmitted(f"{name}: {settled!r} is not between {value.low:g} and {value.high:g}")
    if whole and not float(number).is_integer():
        raise NotAdmitted(f"{name}: {settled!r} is not a whole number")
    if value.step is not None:
        steps = (number - value.low) / value.step
        if abs(steps - round(steps)) > 1e-9 * max(1.0, steps):
            raise NotAdmitted(
                f"{name}: {settled!r} is not {value.low:g} and a multiple of the step "
                f"{value.step:g}"
            )
    return int(number) if whole else float(number)


def _first_option(value: AnyOf, settled: object, name: str, whole: bool) -> dict[str, Scalar]:
    """The choice and the parameters of the first option that gives `settled`."""
    reasons = []
    for label, (option, prefix) in options_of(value, name).items():
        try:
            return {f"{name}.any_of": label} | admit(option, settled, prefix, whole=whole)
        except NotAdmitted as error:
            reasons.append(f"{label}: {error}")
    raise NotAdmitted(f"{name}: no option of any_of gives it ({'; '.join(reasons)})")


def fitting(parameters: Iterable[Parameter], drawn: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Of the drawn values, those that these parameters can have."""
    found: dict[str, Scalar] = {}
    for parameter in parameters:
        exists = all(found.get(name) == label for name, label in parameter.when)
        if exists and parameter.name in drawn and _fits(parameter, drawn[parameter.name]):
            found[parameter.name] = drawn[parameter.name]
    return found


def _fits(parameter: Parameter, value: Scalar) -> bool:
    if isinstance(parameter.domain, tuple):
        # True == 1 in Python, but not in a space.
        return any(one == value and type(one) is type(value) for one in parameter.domain)
    try:
        admit(parameter.domain, value, parameter.name, whole=parameter.whole)
    except NotAdmitted:
        return False
    return True


# --- the options of `any_of` and their labels ---


def options_of(value: AnyOf, name: str) -> dict[str, tuple[Value, str]]:
    """label -> (option, prefix of its parameters' names).

    The prefix is `name`, and gets the label where two options would share a parameter's name, or
    one of them the name of the choice itself.
    """
    kinds = [_kind(option) for option in value.any_of]
    names = [{parameter.name for parameter in parameters(one, name)} for one in value.any_of]
    of_kind = Counter(kinds)
    so_far = Counter[str]()
    users = Counter(parameter for used in names for parameter in used)
    users[f"{name}.any_of"] += 1
    options: dict[str, tuple[Value, str]] = {}
    for kind, used, option in zip(kinds, names, value.any_of, strict=True):
        so_far[kind] += 1
        label = kind if of_kind[kind] == 1 else f"{kind}_{so_far[kind]}"
        # A text can look like the label of another option.
        while label in options:
            label += "_"
        is_shared = any(users[parameter] > 1 for parameter in used)
        options[label] = (option, f"{name}.{label}" if is_shared else name)
    return options


def _kind(value: object) -> str:
    """What an option is called: readable in a table, and the same for the same YAML."""
    match value:
        case Range():
            return "range"
        case Choices():
            return "choices"
        case AnyOf():
            # Not "any_of", which is the name of the choice itself.
            return "nested"
        case ScheduleValue():
            return f"{value.shape}{_direction(value)}"
        case list():
            return "_".join(map(str, value))
    return str(value) if isinstance(value, str) else "constant"


def _direction(value: ScheduleValue) -> str:
    """`_rising` or `_falling` for a schedule that can only do that, else nothing."""
    start = numbers_in(value.fields.get("start", 0.0))
    end = numbers_in(value.fields.get("end", 0.0))
    if not start or not end:
        return ""
    if max(start) <= min(end) and min(start) < max(end):
        return "_rising"
    if min(start) >= max(end) and max(start) > min(end):
        return "_falling"
    return ""
