"""YAML files with the place of every key, so that an error can name file and line.

A Document is plain data plus a place for each path into it. Overlays (`embedded`, a sweep's `set`, `--set`) replace values
and bring their own places along.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kdsweep.errors import SpaceError, did_you_mean

LARGEST_FILE = 1_000_000
MOST_NODES = 50_000
DEEPEST = 24
LARGEST_NUMBER = 2**63 - 1

Path_ = tuple[str | int, ...]
Place = tuple[str, int | None]
Model = TypeVar("Model", bound=BaseModel)


@dataclass
class Document:
    """What a file says (`data`) and where it says it (`places`: path -> file and line)."""

    file: str
    data: dict[str, Any]
    places: dict[Path_, Place] = field(default_factory=dict)

    def error(self, path: Path_, message: str) -> SpaceError:
        """An error at `path`, or at its nearest parent that stands in a file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return SpaceError(*self.places[path[:length]], message)
        return SpaceError(self.file, 1, message)

    def take_out(self, key: str) -> Document | None:
        """Remove a top-level section; return it as a document of its own."""
        if key not in self.data:
            return None
        section = self.data.pop(key)
        if not isinstance(section, dict):
            raise self.error((key,), f"{key}: expected a mapping of keys, not {show(section)}")
        places = {path[1:]: place for path, place in self.places.items() if path[:1] == (key,)}
        self._forget((key,))
        return Document(self.file, section, places)

    def replace(self, path: Path_, value: Any, places: dict[Path_, Place]) -> None:
        """Let `value` take the place of what is at `path`; None takes the key out.

        A number in the path is an index where there is a list, else a key. What is wrong with the path itself is said at
        the place of the override.
        """
        origin = places[()]
        here: Any = self.data
        inside: Path_ = ()
        for key in path[:-1]:
            inside = (*inside, self._part(here, inside, key, origin))
            if isinstance(here, dict) and here.get(inside[-1]) is None:
                here[inside[-1]] = {}
                self.places[inside] = origin
            here = here[inside[-1]]
            if not isinstance(here, dict | list):
                raise SpaceError(
                    *origin, f"{dotted(inside)} is {show(here)}, so nothing can be set inside it"
                )
        last = self._part(here, inside, path[-1], origin)
        if value is None and isinstance(here, dict):
            here.pop(last, None)
        else:
            here[last] = value
        inside = (*inside, last)
        self._forget(inside)
        self.places |= {inside + inner: place for inner, place in places.items()}

    @staticmethod
    def _part(
        here: dict[str, Any] | list[Any], inside: Path_, key: str | int, origin: Place
    ) -> Any:
        """The key or index that `key` means in `here`."""
        if isinstance(here, dict):
            return str(key)
        index = int(key) if re.fullmatch(r"[0-9]{1,6}", str(key)) else len(here)
        if index >= len(here):
            raise SpaceError(
                *origin,
                f"{dotted(inside)} is a list of {len(here)}: it has no {str(key)[:60]!r} (the first is 0)",
            )
        return index

    def _forget(self, path: Path_) -> None:
        for known in [known for known in self.places if known[: len(path)] == path]:
            del self.places[known]


def dotted(path: Path_) -> str:
    return ".".join(map(str, path))


def show(value: Any) -> str:
    """A value as it would stand in a message: short, on one line."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_document(path: Path | str) -> Document:
    """Read a YAML file (1.2: `1e-5` is a number, `no` is a word). Raises SpaceError with file and line."""
    file = str(path)
    where = Path(path)
    try:
        if where.is_dir():
            raise SpaceError(file, None, "is a folder; expected a YAML file")
        with where.open("rb") as opened:
            raw = opened.read(LARGEST_FILE + 1)  # not its size: a device such as /dev/zero has none
        if len(raw) > LARGEST_FILE:
            raise SpaceError(
                file,
                None,
                f"is larger than {LARGEST_FILE // 1_000_000} MB: that is no search space or sweep",
            )
    except (FileNotFoundError, NotADirectoryError):
        near = (
            did_you_mean(where.name, [other.name for other in where.parent.glob("*.y*ml")])
            if where.parent.is_dir()
            else ""
        )
        raise SpaceError(file, None, f"there is no such file{near}") from None
    except (OSError, ValueError) as error:
        raise SpaceError(
            file, None, f"can't be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpaceError(file, line, "is not UTF-8 text; expected a YAML file") from error
    value, places = parse_yaml(text, file)
    if not isinstance(value, dict):
        raise SpaceError(file, 1, f"expected a mapping of keys, not {show(value)}")
    return Document(file, value, places)


def parse_yaml(text: str, file: str, *, numbered: bool = True) -> tuple[Any, dict[Path_, Place]]:
    """Plain data, and the place of each path. Without `numbered`, places have no line (the text is an argument, no file)."""
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        builder = _Builder(yaml, file, numbered)
        value = None if node is None else builder.build(node, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "\\t" in problem or "\t" in _line(text, mark):
            problem += "; YAML indents with spaces, not tabs"
        raise SpaceError(
            file, mark.line + 1 if mark and numbered else None, f"is no YAML: {problem}"
        ) from error
    except RecursionError:
        raise SpaceError(
            file,
            None,
            f"is nested more than {DEEPEST} levels deep: that is no search space or sweep",
        ) from None
    except (YAMLError, ValueError) as error:
        line = (
            text[: error.position].count("\n") + 1
            if hasattr(error, "position") and numbered
            else None
        )
        reason = (
            getattr(error, "reason", None)
            or (str(error).strip().splitlines() or [type(error).__name__])[0]
        )
        raise SpaceError(file, line, f"is no YAML: {reason}") from error
    return value, builder.places


def _line(text: str, mark: Any) -> str:
    lines = text.splitlines()
    return lines[mark.line] if mark is not None and mark.line < len(lines) else ""


class _Builder:
    def __init__(self, yaml: YAML, file: str, numbered: bool) -> None:
        self.yaml, self.file, self.numbered, self.nodes = yaml, file, numbered, 0
        self.places: dict[Path_, Place] = {}

    def place(self, node: Node) -> Place:
        return (self.file, node.start_mark.line + 1 if self.numbered else None)

    def build(self, node: Node, path: Path_) -> Any:
        self.nodes += 1
        if len(path) > DEEPEST:
            raise SpaceError(
                *self.place(node),
                f"is nested more than {DEEPEST} levels deep: that is no search space or sweep",
            )
        if self.nodes > MOST_NODES:
            raise SpaceError(
                *self.place(node),
                f"holds more than {MOST_NODES:,} values: that is no search space or sweep",
            )
        self.places.setdefault(path, self.place(node))
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node)
        raise SpaceError(
            *self.place(node), "holds something that is neither a mapping, a list nor a value"
        )

    def _mapping(self, node: MappingNode, path: Path_) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                raise SpaceError(*self.place(key_node), "a key must be a word")
            if key in out:
                raise SpaceError(*self.place(key_node), f"key {key!r} is there twice")
            self.places[(*path, key)] = self.place(key_node)
            out[key] = self.build(value_node, (*path, key))
        return out

    def _scalar(self, node: ScalarNode) -> Any:
        try:
            value = self.yaml.constructor.construct_object(node)
        except ValueError as error:
            raise SpaceError(
                *self.place(node), f"is no YAML: {show(node.value)} can't be read as a value"
            ) from error
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise SpaceError(
                *self.place(node),
                f"a whole number must be at most {LARGEST_NUMBER} (64 bits), not {show(node.value)}",
            )
        if isinstance(value, str | int | float | bool) or value is None:
            return value
        return node.value  # dates and the like stay text


def split_assignment(text: str) -> tuple[Path_, Any, dict[Path_, Place]]:
    """`key.path=value` of a `--set`, its value read as YAML."""
    origin = "--set " + " ".join((text if len(text) <= 80 else text[:77] + "...").split())
    key, equals, value = text.partition("=")
    path = split_path(key.strip())
    if not equals or not all(path):
        raise SpaceError(origin, None, "expected key.path=value, such as training.epochs=2")
    parsed, places = parse_yaml(value, origin, numbered=False)
    return path, parsed, places or {(): (origin, None)}


def split_path(key: str) -> tuple[str, ...]:
    return tuple(key.split("."))


def validate(model: type[Model], document: Document) -> Model:
    """The document as `model`. Raises SpaceError for its first broken rule, by line, and counts the others."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        broken = [
            details
            for details in error.errors(include_url=False)
            if details["type"] != "default_factory_not_called"
        ]  # for another mistake
        found = [
            _broken_rule(document, details)
            for details in broken
            if not _said_inside(details, error)
        ]
    found.sort(key=lambda broken: (broken.line is None, broken.line or 0))
    first = found[0]
    others = sorted(
        {str(other.line) for other in found[1:] if other.line and other.line != first.line}, key=int
    )
    more = (
        f" (more to mend in line{'s' if len(others) > 1 else ''} {', '.join(others)})"
        if others
        else ""
    )
    raise SpaceError(first.file, first.line, first.rule + more)


def _said_inside(details: Any, error: ValidationError) -> bool:
    """Whether `details` only says that a mapping isn't text, where another error says what is wrong inside the mapping."""
    if details["type"] != "string_type" or not isinstance(details["input"], dict):
        return False
    whole = details["loc"][:-1]  # without the name of the union's member
    return any(
        other["loc"][: len(whole)] == whole and len(other["loc"]) > len(details["loc"])
        for other in error.errors(include_url=False)
    )


def _broken_rule(document: Document, details: Any) -> SpaceError:
    # Pydantic puts the names of union members into the path; only what is in the document is a place.
    path: Path_ = ()
    here: Any = document.data
    for part in details["loc"]:
        inside = (isinstance(here, dict) and part in here) or (
            isinstance(here, list) and isinstance(part, int) and part < len(here)
        )
        if inside:
            path, here = (*path, part), here[part]
        elif part == details["loc"][-1] and details["type"] == "missing":
            name = dotted((*path, part))
            return document.error(path, f"{name} is missing")
    name = dotted(path)
    if details["type"] == "unknown_key":
        path = (*path, details["ctx"]["name"])
    if details["type"] == "union_tag_invalid":
        path = (*path, "type")
    return document.error(path, f"{name + ': ' if name else ''}{rule(details, here)}")


def rule(details: Any, value: Any) -> str:
    """The rule that `value` breaks, from pydantic's account of it, in plain words."""
    context = details.get("ctx", {})
    message = str(details["msg"]).removeprefix("Value error, ")
    if details["type"] in _PLAIN_RULES:
        message = _PLAIN_RULES[details["type"]].format(**context)
    if details["type"] == "literal_error":
        message += did_you_mean(str(value), re.findall(r"'([^']*)'", str(context["expected"])))
    if details["type"] == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", str(context["expected_tags"]))
        message = f"unknown type {str(context['tag'])!r}{did_you_mean(str(context['tag']), known) or '; known here: ' + ', '.join(known)}"
    said = (
        details["type"] in {"unknown_key", "unknown_shape"}
        or isinstance(value, dict | list)
        or repr(value) in message
    )
    return message if said else f"{message}, not {show(value)}"


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
