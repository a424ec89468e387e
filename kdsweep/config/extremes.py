"""How far a value can reach: every plain value in it, and the settled values at its ends.

A rule that holds for all of them holds for every trial, so a space is checked before it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import cast

from kdsweep.config.loading import KeyPath, Plain
from kdsweep.config.values import AnyOf, Choices, Range, ScheduleValue


def plain_values(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every plain value that `value` can bring into a trial, each with its path.

    The boundaries (`at`) of a step schedule say when, not what, and are left out.
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
                yield from plain_values(option, (*path, "any_of", i))
        case ScheduleValue():
            for key, inner in value.fields.items():
                if key != "at":
                    yield from plain_values(inner, (*path, key))
        case list() | tuple():
            for i, inner in enumerate(value):
                yield from plain_values(inner, (*path, i))
        case _:
            yield path, value


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def numbers_in(value: object) -> list[float]:
    """The numbers among the plain values of `value`, in order."""
    return [cast(float, plain) for _, plain in plain_values(value) if is_number(plain)]


def extremes(value: object, *, whole: bool = False) -> Iterator[Plain]:
    """Plain values in which each choice, each option and each end of a range occurs."""
    match value:
        case Range():
            for end in (value.low, value.last):
                yield round(end) if whole and end.is_integer() else end
        case Choices():
            yield from value.choices
        case AnyOf():
            for option in value.any_of:
                yield from extremes(option, whole=whole)
        case ScheduleValue():
            for settled in _combined([list(extremes(inner)) for inner in value.fields.values()]):
                fields = dict(zip(value.fields, settled, strict=True))
                yield {"shape": value.shape, **fields}
        case list() | tuple():
            yield from _combined([list(extremes(inner, whole=whole)) for inner in value])
        case _:
            yield cast(Plain, value)


def _combined(parts: list[list[Plain]]) -> Iterator[list[Plain]]:
    """Each part at its first value, each of the others in turn, then all at their last value."""
    first = [part[0] for part in parts]
    yield first
    for i, part in enumerate(parts):
        for other in part[1:]:
            yield [*first[:i], other, *first[i + 1 :]]
    if any(len(part) > 1 for part in parts):
        yield [part[-1] for part in parts]


def crossing_boundaries(value: object) -> str | None:
    """The rule that a step schedule breaks if its boundaries could come in the wrong order.

    None if no schedule in `value` can break it.
    """
    match value:
        case AnyOf():
            return next(filter(None, map(crossing_boundaries, value.any_of)), None)
        case ScheduleValue() if value.shape == "step" and isinstance(value.fields["at"], list):
            boundaries = [numbers_in(inner) for inner in value.fields["at"]]
            for i, (earlier, later) in enumerate(itertools.pairwise(boundaries), start=1):
                if max(earlier) >= min(later):
                    return (
                        f"the numbers in 'at' must rise: number {i} reaches {max(earlier):g}, "
                        f"number {i + 1} begins at {min(later):g}"
                    )
    return None
