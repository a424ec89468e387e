"""The base of everything that a user writes or that is stored: strict, frozen models.

And the types of their fields. No torch here.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError

from kdsweep import __version__
from kdsweep.core.objective.divergences import DIVERGENCES, known_divergences
from kdsweep.core.tasks import KINDS, kind_named
from kdsweep.core.tasks.base import TaskKind
from kdsweep.errors import NewerFiles, did_you_mean, first_few


class Strict(BaseModel):
    """Frozen, every key known, no type guessed: `epochs: "3"` is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, serialize_by_alias=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in known:
                    raise unknown_key(key, known)
        return data


def unknown_key(key: object, known: list[str]) -> PydanticCustomError:
    hint = did_you_mean(str(key), known) or f"; known here: {', '.join(known)}"
    return PydanticCustomError(
        "unknown_key", "unknown key {key}{hint}", {"key": repr(key), "hint": hint, "name": str(key)}
    )


@contextlib.contextmanager
def of_newer_version(what_has: str, writer: str = "a newer version") -> Iterator[None]:
    """Raises NewerFiles where values that kdsweep itself stored have keys unknown to this version.

    what_has: begins the message, as in `FILE has`. writer: the version that wrote them.
    """
    try:
        yield
    except ValidationError as error:
        unknown = [
            ".".join(str(part) for part in (*one["loc"], one["ctx"]["name"]))
            for one in error.errors()
            if one["type"] == "unknown_key"
        ]
        if not unknown:
            raise
        raise NewerFiles(
            f"{what_has} {first_few(unknown)}, which kdsweep {__version__} doesn't know; {writer} "
            "wrote it: upgrade kdsweep"
        ) from error


# pydantic's own signatures return Any for a default, so this one does too.
def added_later(default: Any) -> Any:
    """The default of a field that earlier versions didn't have.

    It is written only if it differs, so that what they cached and saved stays valid.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


NAME = r"^(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _name(value: str) -> str:
    if not re.search(NAME, value) or value.endswith("\n"):
        raise ValueError(
            "a name is 1 to 100 letters, digits, '-', '_' and single '.', and starts with a "
            "letter or digit"
        )
    return value


def _text(value: str) -> str:
    if not value.strip() or "\0" in value:
        raise ValueError("must not be empty")
    return value


def as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def one_or_more(value: object) -> object:
    """A list's values. One alone is a list of one, so that a wrong one is named itself."""
    is_alone = isinstance(value, str | int | float)
    return (value,) if is_alone else as_tuple(value)


def named_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names. Raises ValueError if two are the same but for blanks and Unicode's form."""
    alike = [unicodedata.normalize("NFC", name).strip() for name in names]
    for name in alike:
        if alike.count(name) > 1:
            raise ValueError(f"names {name!r} twice")
    return names


def short_for(key: str) -> BeforeValidator:
    """A name alone is short for the settings with that key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME})]
Text = Annotated[str, AfterValidator(_text), WithJsonSchema({"type": "string", "pattern": r"\S"})]
LayerNumbers = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)
]


# --- names of what a table holds ---------------------------------------------------------------


def _none_of(known: Sequence[str]) -> PydanticKnownError:
    """pydantic's own error for a closed choice, which is shown with "did you mean"."""
    *first, last = [repr(name) for name in known]
    return PydanticKnownError("literal_error", {"expected": f"{', '.join(first)} or {last}"})


# Installed packages are searched only for a name that isn't kdsweep's own.


def _metric(name: str) -> str:
    # Imported here: the table needs numpy, and a command that reads no task should start without.
    from kdsweep.core.evaluation.metric_table import METRICS, known_metrics

    if name not in METRICS and name not in known_metrics():
        raise _none_of(known_metrics())
    return name


def _divergence(name: str) -> str:
    if name not in DIVERGENCES and name not in known_divergences():
        raise _none_of(known_divergences())
    return name


def _as_kind(value: object) -> TaskKind:
    if isinstance(value, TaskKind):
        return value
    if not isinstance(value, str) or value not in KINDS:
        raise _none_of(list(KINDS))
    return kind_named(value)


def _known_metrics() -> Iterable[str]:
    from kdsweep.core.evaluation.metric_table import known_metrics

    return known_metrics()


@dataclass(frozen=True)
class _Named:
    """Says in a JSON schema which names there are."""

    names: Callable[[], Iterable[str]]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"type": "string", "enum": list(self.names())}


MetricName = Annotated[str, AfterValidator(_metric), _Named(_known_metrics)]
DivergenceName = Annotated[str, AfterValidator(_divergence), _Named(known_divergences)]
# An object here, its name in YAML and JSON.
Kind = Annotated[
    TaskKind,
    PlainValidator(_as_kind),
    PlainSerializer(str, return_type=str),
    _Named(lambda: KINDS),
]
