"""From pydantic's account of a mistake to one message with file, line, rule and value."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kdsweep.config.known_keys import meant
from kdsweep.config.loading import Document, KeyPath, Plain, dotted, show
from kdsweep.core.strict_model import of_newer_version
from kdsweep.errors import SpaceError, did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], document: Document) -> Model:
    """The document as `model`.

    Raises SpaceError for the first broken rule by line, with the lines of the others, and
    NewerFiles where a sweep stored keys that this version doesn't know.
    """
    try:
        if not document.is_stored:
            return model.model_validate(document.data)
        with of_newer_version(f"{document.file} has"):
            return model.model_validate(document.data)
    except ValidationError as error:
        # A default that wasn't made is the consequence of another mistake.
        broken = [
            details
            for details in error.errors(include_url=False)
            if details["type"] != "default_factory_not_called"
        ]
    found = [
        _as_error(document, details, model)
        for details in broken
        if not _is_said_inside(details, broken)
    ]
    found.sort(key=lambda error: (error.line is None, error.line or 0))
    first = found[0]
    lines = sorted({error.line for error in found[1:] if error.line and error.line != first.line})
    more = ""
    if lines:
        noun = "line" if len(lines) == 1 else "lines"
        more = f" (more mistakes in {noun} {', '.join(map(str, lines))})"
    raise SpaceError(first.file, first.line, first.rule + more)


def _is_said_inside(details: ErrorDetails, every: list[ErrorDetails]) -> bool:
    """Whether another error says what is wrong inside a mapping that isn't text."""
    if details["type"] != "string_type" or not isinstance(details["input"], dict):
        return False
    # The last part is the name of the union's member.
    whole = details["loc"][:-1]
    return any(
        other["loc"][: len(whole)] == whole and len(other["loc"]) > len(details["loc"])
        for other in every
    )


def _as_error(document: Document, details: ErrorDetails, model: type[BaseModel]) -> SpaceError:
    # Pydantic puts the names of union members into the path; only what the document has counts.
    path: KeyPath = ()
    here: Plain = document.data
    for part in details["loc"]:
        if isinstance(here, dict) and isinstance(part, str) and part in here:
            here = here[part]
            path = (*path, part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            path = (*path, part)
            here = here[part]
        elif part == details["loc"][-1] and details["type"] == "missing":
            return document.error(path, f"{dotted((*path, part))} is missing")
    name = dotted(path)
    if details["type"] == "unknown_key":
        path = (*path, details["ctx"]["name"])
    if details["type"] == "union_tag_invalid":
        path = (*path, "type")
    prefix = f"{name}: " if name else ""
    message = rule(details, here)
    if details["type"] == "unknown_key" and "did you mean" not in details["ctx"]["hint"]:
        hint = elsewhere(_as_deep_as_written(document, path), model)
        message = f"unknown key {details['ctx']['key']}{hint}" if hint else message
    error = document.error(path, prefix + message)
    if error.rule.endswith(_HINTS["string_type"]) and str(error.file).startswith("--set "):
        # The shell takes away the outer ones.
        return SpaceError(error.file, error.line, f"{error.rule} (--set 'KEY=\"VALUE\"')")
    return error


def elsewhere(written: KeyPath, model: type[BaseModel]) -> str:
    """`; did you mean 'task.holdout'?` for a key that other sections have, or an empty string."""
    named = meant(written, model)
    return f"; did you mean {named}?" if named else ""


def _as_deep_as_written(document: Document, path: KeyPath) -> KeyPath:
    """The path of an unknown section, down to the one key that it has: `splits.holdout`."""
    here: Plain = document.data
    for part in path:
        if isinstance(here, dict):
            here = here.get(str(part))
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part]
    while isinstance(here, dict) and len(here) == 1:
        ((key, here),) = here.items()
        path = (*path, key)
    return path


def first_rule(error: ValidationError) -> str:
    """The first rule that pydantic found broken, in plain words."""
    details = error.errors(include_url=False)[0]
    return rule(details, details["input"])


def rule(details: ErrorDetails, value: object) -> str:
    """The rule that `value` breaks, from pydantic's account of it, in plain words."""
    context = details.get("ctx", {})
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] in _PLAIN_RULES:
        message = _PLAIN_RULES[details["type"]].format(**context)
    hint = ""
    if details["type"] == "literal_error":
        hint = did_you_mean(str(value), re.findall(r"'([^']*)'", str(context["expected"])))
    if details["type"] == "union_tag_invalid":
        tag = str(context["tag"])
        known = re.findall(r"'([^']*)'", str(context["expected_tags"]))
        others = did_you_mean(tag, known) or f"; known here: {', '.join(known)}"
        message = f"unknown type {tag!r}{others}"
    if isinstance(value, str | int | float):
        hint += _HINTS.get(details["type"], "")
    says_the_value = (
        details["type"] in {"unknown_key", "unknown_shape"}
        or isinstance(value, dict | list)
        or repr(value) in message
    )
    return message + hint if says_the_value else f"{message}, not {show(value)}{hint}"


# What to write instead of a value that stands alone.
_HINTS = {
    "string_type": "; put quotes around it",
    "tuple_type": "; put brackets around it",
}
_PLAIN_RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping of keys",
    "union_tag_not_found": "'type' is missing",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
}
