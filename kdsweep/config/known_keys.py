"""Every key of a space and of a sweep, from the models' own fields; and which one was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import get_args, get_origin

from pydantic import BaseModel

from kdsweep.config.loading import KeyPath, dotted
from kdsweep.config.values import AnyOf, Choices, Range, ScheduleValue
from kdsweep.core.strict_model import Strict

# Stands for a key that the user chooses: the name of a strategy.
ANY_NAME = "NAME"
# Of the grammar of values, which are no sections.
_VALUES = (Range, Choices, AnyOf, ScheduleValue)
# A key that is far from the one that was written is another key, not a slip.
_NEAR = 0.8
_MOST_SHOWN = 3


@cache
def keys_of(model: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    """The path of every key that the model can have, in its order; sections come too."""
    return tuple(_walk(model, ()))


def _walk(model: type[BaseModel], here: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        path = (*here, field.alias or name)
        yield path
        for inner, is_named in _sections(field.annotation):
            yield from _walk(inner, (*path, ANY_NAME) if is_named else path)


def _sections(annotation: object) -> Iterator[tuple[type[BaseModel], bool]]:
    """Each model in a type, and whether it is the value of a mapping by name."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        if annotation not in _VALUES:
            yield annotation, False
        return
    is_mapping = get_origin(annotation) is dict
    for inner in get_args(annotation):
        for found, is_named in _sections(inner):
            yield found, is_named or is_mapping


def meant(written: KeyPath, model: type[BaseModel]) -> str:
    """The keys of other sections that `written` may have meant: `'task.holdout'`, or nothing.

    written: the path of a key that its section doesn't have. Of several keys with that name, those
    whose last sections are the same are named, the shortest path first.
    """
    *_, last = map(str, written)
    by_name: dict[str, list[tuple[str, ...]]] = {}
    for path in keys_of(model):
        by_name.setdefault(path[-1], []).append(path)
    near = difflib.get_close_matches(last, by_name, n=1, cutoff=_NEAR)
    if not near:
        return ""
    asked = (*map(str, written[:-1]), near[0])
    alike = {path: _same_end(path, asked) for path in by_name[near[0]]}
    best = sorted((path for path in alike if alike[path] == max(alike.values())), key=len)
    names = dict.fromkeys(dotted(_with_name(path, written)) for path in best)
    return " or ".join(map(repr, list(names)[:_MOST_SHOWN]))


def _same_end(path: tuple[str, ...], asked: tuple[str, ...]) -> int:
    """How many of their last keys are the same."""
    same = 0
    for one, other in zip(reversed(path), reversed(asked), strict=False):
        if one != other:
            break
        same += 1
    return same


def _with_name(path: KeyPath, written: KeyPath) -> KeyPath:
    """The path with the strategy's name that was written."""
    if len(path) > 1 and path[1] == ANY_NAME and written[0] == path[0] and len(written) > 2:
        return (path[0], written[1], *path[2:])
    return path
