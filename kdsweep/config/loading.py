"""YAML files with the line of every key, so that an error can name file and line.

A Document is plain data and the origin (file and line) of each path into it. Overlays
(`embedded`, a sweep's `set`, `--set`) replace values and bring their own origins along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kdsweep.errors import SpaceError, did_you_mean, first_line

LARGEST_FILE = 1_000_000
MOST_NODES = 50_000
DEEPEST = 24
LARGEST_NUMBER = 2**63 - 1
# Keys whose value is a text even if it looks like a number: a commit may have digits alone.
TEXT_KEYS = ("revision",)
TOO_DEEP = f"is nested more than {DEEPEST} levels deep: that is no search space or sweep"

Scalar = bool | int | float | str | None
# What YAML and JSON hold.
Plain = Scalar | list["Plain"] | dict[str, "Plain"]
# The keys and list indices that lead to a value.
KeyPath = tuple[str | int, ...]


class Origin(NamedTuple):
    """Where a value is written: a file (or `--set ...`), and a line from 1 if there is one."""

    file: str
    line: int | None


Origins = dict[KeyPath, Origin]


@dataclass(frozen=True)
class Override:
    """A value that replaces the one at `path`; `origins` are relative to it."""

    path: KeyPath
    value: Plain
    origins: Origins


@dataclass
class Document:
    """What a file says (`data`) and where it says it (`origins`).

    is_stored: a sweep stored it, perhaps an older version: it may say what is refused today.
    """

    file: str
    data: dict[str, Plain]
    origins: Origins = field(default_factory=dict)
    is_stored: bool = False

    def error(self, path: KeyPath, message: str) -> SpaceError:
        """An error at `path`, or at its nearest parent with an origin."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return SpaceError(*self.origins[path[:length]], message)
        return SpaceError(self.file, 1, message)

    def at(self, *path: str) -> Plain:
        """The value at these keys, or None if there is none."""
        here: Plain = self.data
        for key in path:
            if not isinstance(here, dict):
                return None
            here = here.get(key)
        return here

    def origins_under(self, key: str) -> Origins:
        """The origins of a top-level section, relative to it."""
        return {path[1:]: origin for path, origin in self.origins.items() if path[:1] == (key,)}

    def take_out(self, key: str) -> Document | None:
        """Remove a top-level section; return it as a document of its own."""
        if key not in self.data:
            return None
        section = self.data.pop(key)
        if not isinstance(section, dict):
            raise self.error((key,), f"{key}: expected a mapping of keys, not {show(section)}")
        origins = self.origins_under(key)
        self._forget((key,))
        return Document(self.file, section, origins)

    def replace(self, override: Override) -> None:
        """Put the value at the override's path; None removes the key.

        A number in the path is an index where the data has a list, else a key. If the path itself
        is wrong, the error names the override's origin.
        """
        origin = override.origins[()]
        here: Plain = self.data
        inside: KeyPath = ()
        for key in override.path[:-1]:
            here, inside = self._step_into(here, inside, key, origin)
        *_, key = override.path
        last = self._set(here, inside, key, override.value, origin)
        inside = (*inside, last)
        self._forget(inside)
        for path, written_at in override.origins.items():
            self.origins[inside + path] = written_at

    def _step_into(
        self, here: Plain, inside: KeyPath, key: str | int, origin: Origin
    ) -> tuple[Plain, KeyPath]:
        """What `key` leads to, made where a mapping has nothing there, and its path."""
        found: Plain
        if isinstance(here, list):
            index = _index(here, inside, key, origin)
            inside, found = (*inside, index), here[index]
        else:
            assert isinstance(here, dict)
            inside = (*inside, str(key))
            if here.get(str(key)) is None:
                here[str(key)] = {}
                self.origins[inside] = origin
            found = here[str(key)]
        if not isinstance(found, dict | list):
            raise SpaceError(
                *origin, f"{dotted(inside)} is {show(found)}, so nothing can be set inside it"
            )
        return found, inside

    @staticmethod
    def _set(
        here: Plain, inside: KeyPath, key: str | int, value: Plain, origin: Origin
    ) -> str | int:
        """Set or remove the last key of an override; returns it as the data has it."""
        if isinstance(here, list):
            index = _index(here, inside, key, origin)
            here[index] = value
            return index
        assert isinstance(here, dict)
        if value is None:
            here.pop(str(key), None)
        else:
            here[str(key)] = value
        return str(key)

    def _forget(self, path: KeyPath) -> None:
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]


def _index(here: list[Plain], inside: KeyPath, key: str | int, origin: Origin) -> int:
    index = int(key) if re.fullmatch(r"[0-9]{1,6}", str(key)) else len(here)
    if index >= len(here):
        raise SpaceError(
            *origin,
            f"{dotted(inside)} is a list of {len(here)}: it has no {str(key)[:60]!r} "
            "(the first is 0)",
        )
    return index


def dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def show(value: object) -> str:
    """A value for a message: short, on one line."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# --- files ---


def read_document(path: Path | str) -> Document:
    """A YAML 1.2 file: `1e-5` is a number, `no` is a word. Raises SpaceError with file and line."""
    file = str(path)
    raw = _read_bytes(Path(path), file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SpaceError(file, line, "is not UTF-8 text; expected a YAML file") from error
    value, origins = parse_yaml(text, file)
    if not isinstance(value, dict):
        raise SpaceError(file, 1, f"expected a mapping of keys, not {show(value)}")
    return Document(file, value, origins)


def _read_bytes(path: Path, file: str) -> bytes:
    try:
        if path.is_dir():
            raise SpaceError(file, None, "is a folder; expected a YAML file")
        # We read up to the limit instead of asking for the size: /dev/zero has none.
        with path.open("rb") as opened:
            raw = opened.read(LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        near = ""
        if path.parent.is_dir():
            near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise SpaceError(file, None, f"there is no such file{near}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpaceError(file, None, f"can't be read: {reason}") from error
    if len(raw) > LARGEST_FILE:
        limit = LARGEST_FILE // 1_000_000
        raise SpaceError(file, None, f"is larger than {limit} MB: that is no search space or sweep")
    return raw


def parse_yaml(text: str, file: str, *, numbered: bool = True) -> tuple[Plain, Origins]:
    """Plain data, and the origin of each path.

    Without `numbered`, origins have no line: the text is an argument, not a file.
    """
    yaml = YAML(typ="safe", pure=True)
    builder = _Builder(yaml, file, numbered)
    try:
        node = yaml.compose(text)
        value = None if node is None else builder.build(node, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        problem = " ".join(str(part) for part in (error.context, error.problem) if part)
        if "\\t" in problem or (line is not None and "\t" in _line(text, line)):
            problem += "; YAML indents with spaces, not tabs"
        raise SpaceError(file, line if numbered else None, f"is no YAML: {problem}") from error
    except RecursionError:
        raise SpaceError(file, None, TOO_DEEP) from None
    except (YAMLError, ValueError) as error:
        line = None
        if hasattr(error, "position") and numbered:
            line = text[: error.position].count("\n") + 1
        reason = getattr(error, "reason", None) or first_line(error)
        raise SpaceError(file, line, f"is no YAML: {reason}") from error
    return value, builder.origins


def _line(text: str, number: int) -> str:
    lines = text.splitlines()
    return lines[number - 1] if number <= len(lines) else ""


class _Builder:
    """Plain data from YAML's nodes, within limits that no real space or sweep reaches."""

    def __init__(self, yaml: YAML, file: str, numbered: bool) -> None:
        self.yaml = yaml
        self.file = file
        self.numbered = numbered
        self.nodes = 0
        self.origins: Origins = {}

    def origin(self, node: Node) -> Origin:
        return Origin(self.file, node.start_mark.line + 1 if self.numbered else None)

    def build(self, node: Node, path: KeyPath) -> Plain:
        self.nodes += 1
        if len(path) > DEEPEST:
            raise SpaceError(*self.origin(node), TOO_DEEP)
        if self.nodes > MOST_NODES:
            raise SpaceError(
                *self.origin(node),
                f"holds more than {MOST_NODES:,} values: that is no search space or sweep",
            )
        self.origins.setdefault(path, self.origin(node))
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node)
        raise SpaceError(
            *self.origin(node), "holds something that is neither a mapping, a list nor a value"
        )

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Plain]:
        out: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                raise SpaceError(*self.origin(key_node), "a key must be a word")
            if key in out:
                raise SpaceError(*self.origin(key_node), f"key {key!r} is there twice")
            self.origins[(*path, key)] = self.origin(key_node)
            if key in TEXT_KEYS and _looks_like_a_number(value_node):
                out[key] = str(value_node.value)
            else:
                out[key] = self.build(value_node, (*path, key))
        return out

    def _scalar(self, node: ScalarNode) -> Scalar:
        try:
            value: object = self.yaml.constructor.construct_object(node)
        except ValueError as error:
            raise SpaceError(
                *self.origin(node), f"is no YAML: {show(node.value)} can't be read as a value"
            ) from error
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise SpaceError(
                *self.origin(node),
                f"a whole number must be at most {LARGEST_NUMBER} (64 bits), "
                f"not {show(node.value)}",
            )
        if value is None or isinstance(value, str | int | float | bool):
            return value
        # Dates and the like stay text.
        return str(node.value)


def _looks_like_a_number(node: Node) -> bool:
    return isinstance(node, ScalarNode) and str(node.tag).endswith((":int", ":float"))


# --- overrides ---


def split_assignment(text: str) -> Override:
    """`key.path=value` of a `--set`, its value read as YAML."""
    shortened = text if len(text) <= 80 else text[:77] + "..."
    file = "--set " + " ".join(shortened.split())
    key, equals, value = text.partition("=")
    path = split_path(key.strip())
    if not equals or not all(path):
        raise SpaceError(file, None, "expected key.path=value, such as training.epochs=2")
    if path[-1] in TEXT_KEYS and re.fullmatch(r"[\d.eE+-]+", value.strip()):
        return Override(path, value.strip(), {(): Origin(file, None)})
    parsed, origins = parse_yaml(value, file, numbered=False)
    return Override(path, parsed, origins or {(): Origin(file, None)})


def split_path(key: str) -> tuple[str, ...]:
    return tuple(key.split("."))
