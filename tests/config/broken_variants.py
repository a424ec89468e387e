"""Variants of the shipped YAMLs that are broken in one place.

Every key is misspelt, every value has a wrong type, and every required part is removed.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML, MappingNode, Node, SequenceNode

ROOT = Path(__file__).parents[2]


SPACE = ROOT / "search_spaces" / "sst2.yaml"


SWEEPS = {name: ROOT / "sweeps" / f"{name}.yaml" for name in ("quick", "local")}


TEXTS = {"sst2": SPACE.read_text("utf-8")} | {
    name: path.read_text("utf-8") for name, path in SWEEPS.items()
}


KeyPath = tuple[str | int, ...]

WRONG_TYPE = (
    "must be|unknown (key|shape|type)|expected a mapping|is expected|none of|is not|"
    "a value is a constant|no option"
)
INCOMPLETE = "a value is a constant|must be|is expected|has here"


@dataclass(frozen=True)
class Broken:
    """A variant of a shipped file, the line where it is broken, and the rule that is named."""

    title: str
    file: str
    text: str
    line: int | None
    rule: str
    embedded: bool = False


def shortened(text: str, broken: int | None = None) -> str:
    """A space without `embedded`, which is half the text to parse. Each line keeps its number.

    With the line where it is broken, also without the strategies that don't matter for it: all but
    the first and the one of that line, or the first two.
    """
    lines = [*text.split("\nembedded:")[0].split("\n"), ""]
    starts = [
        i
        for i, line in enumerate(lines)
        if re.match(r"  \S+: *(#.*)?$", line) and "strategies:" in lines[:i]
    ]
    blocks = list(itertools.pairwise([*starts, len(lines)]))
    if broken is not None:
        own = [block for block in blocks if block[0] < broken <= block[1]] or blocks[1:2]
        for first, end in blocks[1:]:
            if (first, end) not in own:
                lines[first:end] = [""] * (end - first)
    return "\n".join(lines)


# --- where each key is ---


@dataclass(frozen=True)
class Entry:
    """A key with its value, or an item of a list (`key` is None), with their places in the text."""

    path: KeyPath
    key: Node | None
    value: Node
    flow: bool


def entries(node: Node, path: KeyPath = ()) -> Iterator[Entry]:
    for name, key, value in children(node):
        yield Entry((*path, name), key, value, bool(node.flow_style))
        yield from entries(value, (*path, name))


def children(node: Node) -> list[tuple[str | int, Node | None, Node]]:
    """(name, key, value) of each key of a mapping, or each item of a list."""
    if isinstance(node, MappingNode):
        return [(key.value, key, value) for key, value in node.value]
    if isinstance(node, SequenceNode):
        return [(i, None, item) for i, item in enumerate(node.value)]
    return []


def compose(text: str) -> Node:
    return YAML(typ="safe", pure=True).compose(text)


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line of the key at each path; of the whole at ()."""
    root = compose(text)
    return {(): root.start_mark.line + 1} | {
        entry.path: (entry.key or entry.value).start_mark.line + 1 for entry in entries(root)
    }


def end_of(text: str, entry: Entry) -> int:
    """Where the value ends: after its last character; for a block, where the next line starts."""
    end = entry.value.end_mark.index
    block = not isinstance(entry.value.value, str) and not entry.value.flow_style
    return text.rfind("\n", 0, end) + 1 if block and end < len(text) else end


def with_value(text: str, entry: Entry, value: str) -> str:
    start, end = entry.value.start_mark.index, end_of(text, entry)
    return text[:start] + value + ("\n" if text[end - 1] == "\n" else "") + text[end:]


def without(text: str, entry: Entry) -> str:
    assert entry.key is not None
    start, end = entry.key.start_mark.index, end_of(text, entry)
    if not entry.flow:
        line_end = text.find("\n", end - 1) + 1
        return text[: text.rfind("\n", 0, start) + 1] + text[line_end or len(text) :]
    after = text[end:].lstrip(", ") if text[end] == "," else text[end:]
    before = text[:start].rstrip(", ") if text[end] != "," else text[:start]
    return before + after


def is_free(path: KeyPath) -> bool:
    """Whether any word may be the key at `path`: a column of `where`, the name of a strategy."""
    return path[-2:-1] == ("where",) or (len(path) == 2 and path[0] == "strategies")


def entries_once(text: str) -> Iterator[Entry]:
    """Every key and item; those that several strategies share, once."""
    seen = set()
    for entry in entries(compose(text)):
        key = re.sub(r"strategies\.\w+\.", "strategies.*.", ".".join(map(str, entry.path)))
        if key not in seen:
            seen.add(key)
            yield entry


# --- one thing broken ---


REQUIRED = [
    r"name|task|teacher|student|strategies",
    r"(embedded\.)?task\.(dataset|text|label)",
    r"(embedded\.)?(teacher|student)\.model",
    r"strategies\.\w+\.(alpha|learning_rate)",
    r"(embedded\.)?strategies\..*\.(low|high|shape|start|end|values|at)",
    r"strategies\..*\.any_of",
]


REQUIRED_IN_SWEEPS = [r"(sampler|pruner)\.type"]


def misspelt(file: str) -> Iterator[Broken]:
    text, lines = TEXTS[file], lines_of(TEXTS[file])
    for entry in entries_once(text):
        if entry.key is None or is_free(entry.path):
            continue
        dotted = ".".join(map(str, entry.path))
        key = str(entry.path[-1])
        end = entry.key.end_mark.index
        broken = text[:end] + "x" + text[end:]
        path = entry.path
        rule = f"unknown key '{re.escape(key.split('.')[-1])}x'"
        if "start_with" in dotted:
            rule += "|is expected|has here"
        elif key in ("shape", "any_of"):
            path = entry.path[:-1]
            rule = "a value is a constant"
        elif key == "type":
            rule += "|'type' is missing"
        yield Broken(
            f"{file}: {dotted} misspelt",
            file,
            broken,
            lines[path],
            rule,
            embedded=entry.path[0] == "embedded" and len(entry.path) > 1,
        )


def of_wrong_type(file: str) -> Iterator[Broken]:
    text, lines = TEXTS[file], lines_of(TEXTS[file])
    for entry in entries_once(text):
        dotted = ".".join(map(str, entry.path))
        wrong = "{wrong: 1}" if isinstance(entry.value.value, str) else "wrong"
        broken = with_value(text, entry, wrong)
        yield Broken(
            f"{file}: {dotted} of a wrong type",
            file,
            broken,
            lines[entry.path],
            WRONG_TYPE,
            embedded=entry.path[0] == "embedded",
        )


def incomplete(file: str) -> Iterator[Broken]:
    text, lines = TEXTS[file], lines_of(TEXTS[file])
    patterns = REQUIRED if file == "sst2" else REQUIRED_IN_SWEEPS
    for entry in entries(compose(text)):
        dotted = ".".join(map(str, entry.path))
        if not any(re.fullmatch(pattern, dotted) for pattern in patterns):
            continue
        broken, key = without(text, entry), str(entry.path[-1])
        line = lines["strategies",] - 1 if entry.path == ("teacher",) else lines[entry.path[:-1]]
        rule = f"{key}'? is missing|{key}: is missing|needs (either )?'{key}'|{INCOMPLETE}"
        yield Broken(
            f"{file}: no {dotted}", file, broken, line, rule, embedded=entry.path[0] == "embedded"
        )


def edited(
    file: str, marker: str, old: str, new: str, rule: str, *, shift: int = 0, embedded: bool = False
) -> Broken:
    """`new` instead of `old` in the first line with `old`, from the first line with `marker` on."""
    lines = TEXTS[file].split("\n")
    first = next(i for i, line in enumerate(lines) if marker in line)
    number = next(i for i in range(first, len(lines)) if old in lines[i])
    lines[number] = lines[number].replace(old, new, 1)
    title = f"{file}: {marker.strip()} {new.strip()}"[:90]
    return Broken(title, file, "\n".join(lines), number + 1 + shift, rule, embedded)
