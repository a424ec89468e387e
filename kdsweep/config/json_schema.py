"""JSON schemas of spaces and sweeps, for editors, from the models' own fields.

pydantic says what each model holds. What it can't know is added here: that a field of a space is a
value of the grammar for some setting, what one value alone stands for, and what may be overridden.
Rules that need several keys stay with the loader.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic.json_schema import JsonSchemaValue as Schema
from pydantic_core import core_schema

from kdsweep.config.section_values import (
    AttentionValues,
    AugmentValues,
    CosineValues,
    DistillValues,
    HiddenValues,
    MaskedWordsValues,
    Strategy,
    StudentValues,
    TrainingValues,
)
from kdsweep.config.setting_types import SECTIONS, setting_named
from kdsweep.config.space import SearchSpace
from kdsweep.config.space_loading import STAND_INS
from kdsweep.config.sweep import SweepConfig
from kdsweep.config.teacher_values import TeacherValues
from kdsweep.config.values import Range, Value
from kdsweep.core.distill_settings import BOUNDS
from kdsweep.core.schedules import SHAPES

# When a schedule moves on.
WHEN = "at"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Models with values of the grammar -> the prefix of the settings that these are for.
PREFIXES: dict[type[BaseModel], str] = {
    TrainingValues: "",
    Strategy: "",
    StudentValues: "student.",
    TeacherValues: "teacher.",
    DistillValues: "distill.",
    HiddenValues: "distill.hidden.",
    AttentionValues: "distill.attention.",
    CosineValues: "distill.cosine.",
    AugmentValues: "augment.",
    MaskedWordsValues: "augment.masked_lm.",
}
# How pydantic writes the bounds of a number that is also checked by a function.
_BOUNDS_OF_PYDANTIC = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}
_LENGTHS_OF_PYDANTIC = {"minLength": "minItems", "maxLength": "maxItems"}
_SHORT_FOR = "shortFor"
_REF = "#/$defs/"


def space_schema() -> Schema:
    """The schema of a search space's file."""
    schema = _of_model(SearchSpace)
    # A mark of the loader, where the file has the sections that replace others.
    schema["properties"]["embedded"] = _overrides(
        schema, STAND_INS, "What replaces the sections above with --embedded, whole or in parts."
    )
    return _finished(schema, "kdsweep search space")


def sweep_schema() -> Schema:
    """The schema of a sweep's file."""
    schema, space = _of_model(SweepConfig), _of_model(SearchSpace)
    keys = [key for key in space["properties"] if key not in ("name", "embedded")]
    schema["properties"]["set"] = _overrides(
        space, keys, "What the sweep overrides in the space: sections, or parts by their path."
    )
    schema["$defs"] |= space["$defs"]
    return _finished(schema, "kdsweep sweep")


def _finished(schema: Schema, title: str) -> Schema:
    """The schema with its title first, without what nothing refers to."""
    definitions = schema.pop("$defs")
    used: dict[str, None] = {}
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in used:
            used[name] = None
            waiting += _references(definitions[name])
    kept = {name: definitions[name] for name in sorted(used)}
    return {"$schema": DIALECT, "title": title, **schema, "$defs": kept}


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].removeprefix(_REF)
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _references(inner)


# --- what pydantic says ---


class _Generator(GenerateJsonSchema):
    """Says too what a function makes of one value alone: a list of one, or a section's one key."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Says nothing of what JSON can't hold, such as a default that is an object here."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> Schema:
        inner = self.generate_inner(schema["schema"])
        if schema["function"]["type"] != "no-info":
            return inner
        probes: tuple[object, ...] = ("x", {})
        for probe in probes:
            made = _made_of(schema["function"]["function"], probe)
            if isinstance(made, tuple):
                return {"anyOf": [inner.get("items", {"type": "string"}), inner]}
            if isinstance(made, dict) and probe == "x":
                return {"anyOf": [{_SHORT_FOR: next(iter(made))}, inner]}
        return inner


def _made_of(function: Callable[..., object], probe: object) -> object:
    """What a validator makes of a value, or the value if it refuses it."""
    try:
        return function(probe)
    except (ValueError, TypeError, AttributeError):
        return probe


def _of_model(model: type[BaseModel]) -> Schema:
    schema: Schema = model.model_json_schema(schema_generator=_Generator)
    definitions = schema.setdefault("$defs", {})
    definitions[WHEN] = _value(WHEN, {"type": "number"}, is_schedule=False)
    every = [model, *_models_in(model)]
    for one in every:
        found = schema if one is model else definitions.get(one.__name__)
        if found is not None:
            _describe(found, one)
            _with_values(found, one, definitions)
    for node in _nodes(schema):
        _tidy(node, definitions)
    return schema


def _models_in(model: type[BaseModel]) -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {}
    waiting: list[object] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, BaseModel):
            if one not in found:
                found[one] = None
                waiting += [field.annotation for field in one.model_fields.values()]
        else:
            waiting += get_args(one)
    return list(found)


def _nodes(node: object) -> Iterator[Schema]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from _nodes(inner)


def _tidy(node: Schema, definitions: Schema) -> None:
    """In place: standard words for bounds, no titles made of names, and short forms spelled out."""
    for key, standard in _BOUNDS_OF_PYDANTIC.items():
        if isinstance(node.get(key), int | float):
            node[standard] = node.pop(key)
    # pydantic takes the length of a list for that of a text where one alone may stand for a list.
    for key, standard in _LENGTHS_OF_PYDANTIC.items():
        if key in node and node.get("type") != "string":
            node[standard] = node.pop(key)
    if isinstance(node.get("title"), str):
        del node["title"]
    if node.get("default", 0) is None:
        del node["default"]
    if "patternProperties" in node:
        node.setdefault("additionalProperties", False)
    if (tag := node.pop("discriminator", None)) is not None:
        for name in _references(node):
            required = definitions[name].setdefault("required", [])
            required += [] if tag["propertyName"] in required else [tag["propertyName"]]
    options = node.get("anyOf", [])
    if options and _SHORT_FOR in options[0]:
        key = options[0][_SHORT_FOR]
        name = next(_references(options[1]))
        options[0] = definitions[name]["properties"][key]


# --- descriptions ---


def _describe(schema: Schema, model: type[BaseModel]) -> None:
    """Each property with what the model's docstring says of it."""
    settings = SECTIONS.get(PREFIXES.get(model, "none"), model)
    # A strategy also has training settings, but its own description.
    documented = model if model is Strategy else settings
    if head := _docs(documented)[0]:
        schema["description"] = head
    for one in (*reversed(model.__mro__), settings):
        if issubclass(one, BaseModel):
            for name, text in _docs(one)[1].items():
                if name in schema["properties"]:
                    schema["properties"][name]["description"] = text


def _docs(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """What a docstring says of the model, and of fields: `epoch: take the teacher after ...`."""
    text = " ".join(inspect.cleandoc(model.__dict__.get("__doc__") or "").split())
    one = "|".join(sorted(model.model_fields, key=len, reverse=True))
    marks = [*re.finditer(rf"(?:^|(?<=[.:] ))((?:{one})(?:, (?:{one}))*): ", text)] if one else []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    found = {
        name: text[mark.end() : end].strip()
        for mark, end in zip(marks, ends, strict=False)
        for name in mark[1].split(", ")
    }
    return text[: marks[0].start() if marks else None].strip(), found


# --- values of the grammar ---


def _with_values(schema: Schema, model: type[BaseModel], definitions: Schema) -> None:
    """In place: each field that is a value of the grammar, as a value for its setting."""
    for name, field in model.model_fields.items():
        if field.annotation != get_args(Value)[0]:
            continue
        setting = PREFIXES[model] + name
        is_schedule = name in BOUNDS and model is not TeacherValues
        if setting not in definitions:
            constant = _bounded(name) if is_schedule else _constant(setting)
            definitions[setting] = _value(setting, constant, is_schedule=is_schedule)
        kept = {key: schema["properties"][name].get(key) for key in ("description", "default")}
        given = {key: text for key, text in kept.items() if text is not None}
        schema["properties"][name] = {"$ref": _REF + setting, **given}


def _bounded(name: str) -> Schema:
    least, greatest, inclusive, _ = BOUNDS[name]
    bounds: Schema = {"minimum" if inclusive else "exclusiveMinimum": least}
    return {"type": "number", **bounds} | ({"maximum": greatest} if greatest < 1e300 else {})


def _constant(setting: str) -> Schema:
    """What a setting may be."""
    field = setting_named(setting)
    assert field is not None
    return _plain(field.rebuild_annotation())


def _plain(kind: type[object]) -> Schema:
    """What pydantic says of a type without sections."""
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    schema = adapter.json_schema(schema_generator=_Generator)
    for node in _nodes(schema):
        _tidy(node, {})
    return schema


def _value(setting: str, constant: Schema, *, is_schedule: bool) -> Schema:
    """A constant, one of a list, one of several values, and where it fits a range or a schedule."""
    parts = constant.get("anyOf", [constant])
    scalars = [part for part in parts if part.get("type") != "array"]
    numbers = [part for part in scalars if part.get("type") in ("number", "integer")]
    this = {"$ref": _REF + setting}
    one_of_a_list = {"type": "array", "items": _any(scalars), "minItems": 1, "uniqueItems": True}
    options = [
        *parts,
        *(_range(number) for number in numbers),
        _mapping({"choices": one_of_a_list}),
        _mapping({"any_of": {"type": "array", "items": this, "minItems": 2}}),
    ]
    if is_schedule:
        options += [_schedule(shape, this) for shape in SHAPES]
    return {"anyOf": options}


def _any(options: list[Schema]) -> Schema:
    return options[0] if len(options) == 1 else {"anyOf": options}


def _mapping(properties: Schema, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _range(number: Schema) -> Schema:
    """A range whose ends are numbers of the setting."""
    own = _plain(Range)["properties"]
    return _mapping(own | {"low": number, "high": number}, ["low", "high"])


def _schedule(shape: str, value: Schema) -> Schema:
    """A schedule whose fields are values again; `at` says when, so no bound holds for it."""
    plain = SHAPES[shape].model_json_schema()
    properties: Schema = {}
    for key, field in plain["properties"].items():
        properties[key] = {"const": shape}
        if key == "shape":
            continue
        inner = {"$ref": _REF + WHEN} if key == "at" else value
        properties[key] = inner
        if field.get("type") == "array":
            several = {"type": "array", "items": inner, "minItems": field.get("minItems", 0)}
            properties[key] = _any([inner, several]) if key == "at" else several
    return _mapping(properties, ["shape", *plain["required"]])


# --- overrides ---


def _overrides(space: Schema, keys: tuple[str, ...] | list[str], description: str) -> Schema:
    """A mapping of a space's sections, and of paths into them (`strategies.distill.alpha`)."""
    whole = {key: _or_nothing(space["properties"][key]) for key in keys}
    parts: Schema = {}
    for key in keys:
        for path, found in _paths(space["properties"][key], key, space["$defs"]):
            parts[rf"^{path}$"] = _or_nothing(found)
            if not _sections(found, space["$defs"]):
                parts[rf"^{path}\..+$"] = True
    return {
        "type": "object",
        "description": description,
        "properties": whole,
        "patternProperties": parts,
        "additionalProperties": False,
    }


def _or_nothing(schema: Schema) -> Schema:
    """Nothing removes the key."""
    return {"anyOf": [schema, {"type": "null"}]}


def _paths(schema: Schema, here: str, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """The path of each key below `here`, as a pattern, and what it may be."""
    for section, step in _sections(schema, definitions):
        if "properties" in section:
            for name, inner in section["properties"].items():
                path = rf"{here}{step}\.{name}"
                yield path, inner
                yield from _paths(inner, path, definitions)
        else:
            (inner,) = section["patternProperties"].values()
            path = rf"{here}\.[^.]+"
            yield path, inner
            yield from _paths(inner, path, definitions)


def _sections(schema: Schema, definitions: Schema) -> list[tuple[Schema, str]]:
    """The mappings of known keys that a schema allows, and the pattern of an index before them."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return [] if "." in name or "anyOf" in definitions[name] else [(definitions[name], "")]
    found = [
        section
        for option in (*schema.get("anyOf", []), *schema.get("oneOf", []))
        for section in _sections(option, definitions)
    ]
    if "items" in schema:
        found += [(one, r"\.\d+") for one, _ in _sections(schema["items"], definitions)]
    if "patternProperties" in schema and "$ref" in str(schema):
        found.append((schema, ""))
    return found
