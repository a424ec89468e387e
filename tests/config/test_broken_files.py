"""A broken space, sweep or --set is one line that names file, line and rule; it is never another exception, and nothing is written.

The variants are made from the shipped YAMLs: every key misspelt, every value of a wrong type, every required part removed, and
a list of impossible values.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML, MappingNode, Node, SequenceNode

from kdsweep.config import SpaceError, load

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "search_spaces" / "sst2.yaml"
SWEEPS = {name: ROOT / "sweeps" / f"{name}.yaml" for name in ("quick", "local")}
TEXTS = {"sst2": SPACE.read_text("utf-8")} | {
    name: path.read_text("utf-8") for name, path in SWEEPS.items()
}

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Broken:
    """A variant of one of the shipped files, the line where it is broken, and the rule that the message must say."""

    title: str
    file: str
    text: str
    line: int | None
    rule: str
    embedded: bool = False


@pytest.fixture(scope="module")
def short_space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped space without its last section: half the text to parse where nothing is embedded."""
    path = tmp_path_factory.mktemp("space") / "sst2.yaml"
    path.write_text(shortened(TEXTS["sst2"]), encoding="utf-8")
    load(path)
    return path


def shortened(text: str, broken: int | None = None) -> str:
    """A space without `embedded`: half the text to parse. With the line where it is broken, also without the strategies that
    don't matter for it: all but the first and the one of that line, or the first two. Each line stays where it is."""
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


def broken_loads(variant: Broken, folder: Path, space: Path) -> SpaceError:
    """The error of loading the variant: a broken space alone, a broken sweep with the shipped space."""
    path = folder / f"{variant.file}.yaml"
    path.write_text(
        variant.text
        if variant.embedded or variant.file != "sst2"
        else shortened(variant.text, variant.line),
        encoding="utf-8",
    )
    with pytest.raises(SpaceError) as caught:
        load(
            path if variant.file == "sst2" else space,
            None if variant.file == "sst2" else path,
            embedded=variant.embedded,
        )
    assert caught.value.file == str(path)
    return caught.value


# --- where each key stands -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A key with its value, or an item of a list (`key` is None): where it starts and ends in the text."""

    path: Path_
    key: Node | None
    value: Node
    flow: bool


def entries(node: Node, path: Path_ = ()) -> Iterator[Entry]:
    pairs = (
        [(key.value, key, value) for key, value in node.value]
        if isinstance(node, MappingNode)
        else []
    )
    pairs += (
        [(i, None, item) for i, item in enumerate(node.value)]
        if isinstance(node, SequenceNode)
        else []
    )
    for name, key, value in pairs:
        yield Entry((*path, name), key, value, bool(node.flow_style))
        yield from entries(value, (*path, name))


def compose(text: str) -> Node:
    return YAML(typ="safe", pure=True).compose(text)


def lines_of(text: str) -> dict[Path_, int]:
    """The line of the key at each path; of the whole at ()."""
    root = compose(text)
    return {(): root.start_mark.line + 1} | {
        entry.path: (entry.key or entry.value).start_mark.line + 1 for entry in entries(root)
    }


def end_of(text: str, entry: Entry) -> int:
    """Where the value ends: behind its last character, or where it is a block, at the start of the line that follows."""
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


def is_free(path: Path_) -> bool:
    """Whether any word may be the key at `path`: a column of `where`, the name of a strategy."""
    return path[-2:-1] == ("where",) or (len(path) == 2 and path[0] == "strategies")


def entries_once(text: str) -> Iterator[Entry]:
    """Every key and item; one that stands in several strategies alike, once."""
    seen = set()
    for entry in entries(compose(text)):
        key = re.sub(r"strategies\.\w+\.", "strategies.*.", ".".join(map(str, entry.path)))
        if key not in seen:
            seen.add(key)
            yield entry


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
        dotted, key, end = (
            ".".join(map(str, entry.path)),
            str(entry.path[-1]),
            entry.key.end_mark.index,
        )
        broken = text[:end] + "x" + text[end:]
        place = entry.path
        rule = f"unknown key '{re.escape(key.split('.')[-1])}x'"
        if "start_with" in dotted:
            rule += "|is expected|has here"
        elif key in ("shape", "any_of"):
            place, rule = entry.path[:-1], "a value is a constant"
        elif key == "type":
            rule += "|'type' is missing"
        yield Broken(
            f"{file}: {dotted} misspelt",
            file,
            broken,
            lines[place],
            rule,
            embedded=entry.path[0] == "embedded" and len(entry.path) > 1,
        )


def of_wrong_type(file: str) -> Iterator[Broken]:
    text, lines = TEXTS[file], lines_of(TEXTS[file])
    for entry in entries_once(text):
        dotted = ".".join(map(str, entry.path))
        wrong = "{wrong: 1}" if isinstance(entry.value.value, str) else "wrong"
        broken = with_value(text, entry, wrong)
        rule = "must be|unknown (key|shape|type)|expected a mapping|is expected|none of|is not|a value is a constant|no option"
        yield Broken(
            f"{file}: {dotted} of a wrong type",
            file,
            broken,
            lines[entry.path],
            rule,
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
        rule = f"{key}'? is missing|{key}: is missing|needs (either )?'{key}'|a value is a constant|must be|is expected|has here"
        yield Broken(
            f"{file}: no {dotted}", file, broken, line, rule, embedded=entry.path[0] == "embedded"
        )


# --- impossible values -----------------------------------------------------------------------------------------------


def edited(
    file: str, marker: str, old: str, new: str, rule: str, *, shift: int = 0, embedded: bool = False
) -> Broken:
    """`old` replaced by `new` in the first line from the one that holds `marker` on which has it."""
    lines = TEXTS[file].split("\n")
    first = next(i for i, line in enumerate(lines) if marker in line)
    number = next(i for i in range(first, len(lines)) if old in lines[i])
    lines[number] = lines[number].replace(old, new, 1)
    title = f"{file}: {marker.strip()} {new.strip()}"[:90]
    return Broken(title, file, "\n".join(lines), number + 1 + shift, rule, embedded)


ALPHA, HEAT, RATE = (
    "{low: 0.0, high: 1.0}",
    "{low: 1.0, high: 10.0}",
    "{low: 1.0e-5, high: 1.0e-4, log: true}",
)
STEP = "{shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 0.8}}"


def impossible() -> Iterator[Broken]:
    def distill(old: str, new: str, rule: str) -> Broken:
        return edited("sst2", "  distill:", old, new, rule)

    for alpha, rule in [
        ("1.5", "alpha must be between 0 and 1, not 1.5"),
        ("-0.1", "alpha must be between 0 and 1, not -0.1"),
        (".nan", "must be a finite number"),
        (".inf", "must be a finite number"),
        ("-.inf", "must be a finite number"),
        ("1e400", "must be a finite number"),
        ("1" + "0" * 400, "at most 9223372036854775807"),
        ("1" * 5000, "can't be read as a value"),
        ("true", "must be a number"),
        ("no", "must be a number"),
        ("null", "must be a number"),
        ("'0.5'", "must be a number"),
        ("2020-01-01", "must be a number"),
        ("[]", "must be a"),
        ("[0.5]", "must be a"),
        ("{}", "this mapping has nothing"),
        ("{low: 1.0, high: 0.0}", r"low \(1\) must be below high \(0\)"),
        ("{low: 0.5, high: 0.5}", r"low \(0.5\) must be below high \(0.5\)"),
        ("{low: 0.0, high: 1.0, log: true}", "a log range must stay above 0"),
        ("{low: 0.0, high: 1.5}", "alpha must be between 0 and 1, not 1.5"),
        ("{low: -0.5, high: 1.0}", "alpha must be between 0 and 1, not -0.5"),
        ("{low: .nan, high: 1.0}", "must be a finite number"),
        ("{low: 0.0, high: .inf}", "must be a finite number"),
        ("{low: 0.0, high: 1.0, step: 2.0}", "step .* must be at most high - low"),
        ("{low: 0.0, high: 1.0, step: 0.0}", "must be above 0"),
        ("{low: 0.0, high: 1.0, step: -0.1}", "must be above 0"),
        ("{low: 0.1, high: 1.0, log: true, step: 0.1}", "a log range has no step"),
        ("{low: 0.0, high: 1.0, log: 1}", "must be true or false"),
        ("{low: '0', high: 1.0}", "must be a number"),
        ("{low: 0.0}", "high is missing"),
        ("{high: 1.0}", "low is missing"),
        ("{low: 0.0, high: 1.0, choices: [0.5]}", "unknown key"),
        ("{choices: []}", "must have at least 1"),
        ("{choices: 0.5}", "choices must be a list"),
        ("{choices: [0.5, 0.5]}", "choices must differ"),
        ("{choices: [0.5, 1.5]}", "alpha must be between 0 and 1, not 1.5"),
        ("{choices: [0.5, .nan]}", "alpha must be between 0 and 1, not nan"),
        ("{choices: [0.5, high]}", "must be a number"),
        ("{choices: [0.5, true]}", "must be a number"),
        ("{choices: [[0.5]]}", "must be"),
        ("{any_of: [0.5]}", "must have at least 2"),
        ("{any_of: []}", "must have at least 2"),
        ("{any_of: 0.5}", "any_of must be a list"),
        ("{any_of: [0.5, 1.5]}", "alpha must be between 0 and 1, not 1.5"),
        (
            "{any_of: [0.5, {any_of: [0.5, {low: 0.0, high: 2.0}]}]}",
            "alpha must be between 0 and 1, not 2",
        ),
        ("{any_of: [0.5, {low: 1.0, high: 0.0}]}", "must be below high"),
        ("{shape: liner, start: 0.0, end: 1.0}", "unknown shape 'liner'; did you mean 'linear'"),
        ("{shape: 3, start: 0.0, end: 1.0}", "unknown shape 3"),
        ("{shape: null}", "unknown shape None"),
        ("{shape: linear, start: 0.0}", "shape linear needs 'end'"),
        ("{shape: linear, start: 0.0, end: 1.0, at: 0.5}", "unknown key 'at'"),
        ("{shape: linear, start: 0.0, end: 1.1}", "alpha must be between 0 and 1, not 1.1"),
        (
            "{shape: linear, start: {low: 0.0, high: 1.1}, end: 1.0}",
            "alpha must be between 0 and 1, not 1.1",
        ),
        ("{shape: linear, start: [], end: 1.0}", "start: must be a number"),
        ("{any_of: [0.5, {shape: linear, start: [], end: 1.0}]}", "start: must be a number"),
        (
            "{shape: linear, start: {shape: linear, start: 0.0, end: 1.0}, end: 1.0}",
            "start: must be a number",
        ),
        ("{shape: cosine, start: 0.0, end: x}", "must be a number"),
        ("{shape: constant}", "shape constant needs 'value'"),
        ("{shape: per_epoch, values: []}", "values: must have at least 1"),
        ("{shape: per_epoch, values: 0.5}", "values: must be a list"),
        ("{shape: per_epoch, values: [0.5, 1.5]}", "alpha must be between 0 and 1, not 1.5"),
        ("{shape: per_epoch, values: [0.5], after: -1.0}", "alpha must be between 0 and 1, not -1"),
        ("{shape: per_epoch, values: [0.5, x]}", "must be a number"),
    ]:
        yield distill(ALPHA, alpha, rule)
    for step, rule in [
        ("{shape: step, values: [0.0, 1.0], at: 0.0}", "'at' must lie between 0 and 1"),
        ("{shape: step, values: [0.0, 1.0], at: 1.0}", "'at' must lie between 0 and 1"),
        ("{shape: step, values: [0.0, 1.0], at: 1.5}", "'at' must lie between 0 and 1"),
        ("{shape: step, values: [0.0, 1.0], at: -0.5}", "'at' must lie between 0 and 1"),
        ("{shape: step, values: [0.0, 1.0], at: .nan}", "must be a finite number"),
        ("{shape: step, values: [0.0, 1.0], at: half}", "at: must be a list"),
        (
            "{shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 1.0}}",
            "'at' must lie between 0 and 1",
        ),
        (
            "{shape: step, values: [0.0, 1.0], at: {low: 0.0, high: 0.5}}",
            "'at' must lie between 0 and 1",
        ),
        (
            "{shape: step, values: [0.0, 1.0], at: {choices: [0.5, 1.2, 0.6]}}",
            "'at' must lie between 0 and 1",
        ),
        (
            "{shape: step, values: [0.0, 1.0], at: [0.3, 0.6]}",
            "2 values need 1 numbers in 'at', not 2",
        ),
        (
            "{shape: step, values: [0.0, 0.5, 1.0], at: 0.5}",
            "3 values need 2 numbers in 'at', not 1",
        ),
        ("{shape: step, values: [0.0, 0.5, 1.0], at: [0.6, 0.3]}", "the numbers in 'at' must rise"),
        ("{shape: step, values: [0.0, 0.5, 1.0], at: [0.5, 0.5]}", "the numbers in 'at' must rise"),
        (
            "{shape: step, values: [0.0, 0.5, 1.0], at: [{low: 0.2, high: 0.6}, {low: 0.5, high: 0.8}]}",
            "the numbers in 'at' must rise",
        ),
        (
            "{any_of: [0.5, {shape: step, values: [0.0, 0.5, 1.0], at: [{choices: [0.3, 0.7]}, {choices: [0.6, 0.8]}]}]}",
            "'at' must rise",
        ),
        ("{shape: step, values: [1.0], at: 0.5}", "values: must have at least 2"),
        ("{shape: step, values: [], at: []}", "values: must have at least 2"),
        (
            "{shape: step, values: {any_of: [[0.0, 1.0], [0.0, 0.5, 1.0]]}, at: 0.5}",
            "3 values need 2 numbers",
        ),
    ]:
        yield edited("sst2", "  distill_then_finetune:", STEP, step, rule)
    for heat, rule in [
        ("0", "temperature must be above 0, not 0"),
        ("-1.0", "temperature must be above 0, not -1"),
        (".nan", "must be a finite number"),
        (".inf", "must be a finite number"),
        ("hot", "must be a number"),
        ("{low: 0.0, high: 10.0}", "temperature must be above 0, not 0"),
        ("{low: -4.0, high: -1.0}", "temperature must be above 0, not -4"),
        ("{choices: [4.0, 0.0]}", "temperature must be above 0, not 0"),
        ("{shape: linear, start: 4.0, end: 0.0}", "temperature must be above 0, not 0"),
        (
            "{shape: cosine, start: {low: 0.0, high: 4.0}, end: 1.0}",
            "temperature must be above 0, not 0",
        ),
        (
            "{shape: per_epoch, values: [4.0, 2.0], after: 0.0}",
            "temperature must be above 0, not 0",
        ),
        ("{low: 10.0, high: 1.0}", "must be below high"),
        ("{low: 1.0, high: 10.0, log: yes}", "must be true or false"),
    ]:
        yield distill(HEAT, heat, rule)
    for rate, rule in [
        ("0.0", "learning_rate must be above 0"),
        ("-1.0e-5", "learning_rate must not be below 0"),
        ("1.0e-5x", "must be a number"),
        ("{low: 1.0e-3, high: 1.0e-4, log: true}", r"low \(0.001\) must be below high \(0.0001\)"),
        ("{low: 0.0, high: 1.0e-4, log: true}", "a log range must stay above 0"),
        ("{low: -1.0e-4, high: 1.0e-4}", "learning_rate must not be below 0"),
        ("{choices: [-1.0e-5]}", "learning_rate must not be below 0"),
        ("{shape: linear, start: 0.0, end: 0.0}", "learning_rate must be above 0"),
    ]:
        yield distill(RATE, rate, rule)
    for old, new, rule in [
        ("epochs: 3", "epochs: 0", "must be at least 1, not 0"),
        ("epochs: 3", "epochs: -3", "must be at least 1, not -3"),
        ("epochs: 3", "epochs: 2.5", "must be a whole number, not 2.5"),
        ("epochs: 3", "epochs: '3'", "must be a whole number, not '3'"),
        ("epochs: 3", "epochs: true", "must be a whole number, not True"),
        ("epochs: 3", "epochs: .inf", "must be"),
        ("epochs: 3", "epochs: [3]", "takes one value|must be"),
        ("epochs: 3", "epochs: {low: 0, high: 3}", "must be at least 1, not 0"),
        ("epochs: 3", "epochs: {low: 1.5, high: 3}", "must be a whole number, not 1.5"),
        (
            "epochs: 3",
            "epochs: {low: 1, high: 3, step: 0.5}",
            "step must be a whole number, not 0.5",
        ),
        ("epochs: 3", "epochs: {choices: [1, two]}", "must be a whole number, not 'two'"),
        ("epochs: 3", "epochs: {any_of: [1, {choices: [2, 0]}]}", "must be at least 1, not 0"),
        (
            "epochs: 3",
            "epochs: {shape: constant, value: 3}",
            "takes one value for the whole training",
        ),
        ("epochs: 3", "epochs: 99999999999999999999", "at most 9223372036854775807"),
        ("batch_size: 32", "batch_size: 0", "must be at least 1"),
        ("max_length: 128", "max_length: 2", "training.max_length: must be at least 4, not 2"),
        ("evaluations_per_epoch: 2", "evaluations_per_epoch: 0", "must be at least 1"),
        ("batch_size: 32", "batch_size: 32, warmup: 1.0", "must be below 1"),
        ("batch_size: 32", "batch_size: 32, warmup: {low: 0.0, high: 1.0}", "must be below 1"),
        ("batch_size: 32", "batch_size: 32, weight_decay: -0.1", "must be at least 0"),
        ("batch_size: 32", "batch_size: 32, gradient_clip: 0.0", "must be above 0"),
        ("batch_size: 32", "batch_size: 32, precision: bf61", "did you mean 'bf16'"),
        (
            "batch_size: 32",
            "batch_size: 32, scheduler: {choices: [linear, cosin]}",
            "did you mean 'cosine'",
        ),
        ("batch_size: 32", "batch_size: 32, batch_size: 16", "key 'batch_size' is there twice"),
    ]:
        yield edited("sst2", "training: {epochs: 3, batch_size", old, new, rule)
    for old, new, rule in [
        ("name: sst2", "name: ..", "a name is 1 to 100"),
        ("name: sst2", "name: ../sst2", "a name is 1 to 100"),
        ("name: sst2", "name: a/b", "a name is 1 to 100"),
        ("name: sst2", "name: " + "n" * 300, "a name is 1 to 100"),
        ("name: sst2", "name: ''", "a name is 1 to 100"),
        ("name: sst2", "name: .hidden", "a name is 1 to 100"),
        ("name: sst2", "name: -x", "a name is 1 to 100"),
        ("name: sst2", "name: été", "a name is 1 to 100"),
        ("name: sst2", 'name: "a\\nb"', "a name is 1 to 100"),
        ("name: sst2", "name: 2", "must be text, not 2"),
        ("dataset: nyu-mll/glue", "dataset: ''", "must not be empty"),
        ("dataset: nyu-mll/glue", "dataset: 3", "must be text, not 3"),
        ("dataset: nyu-mll/glue", "dataset: [a.csv]", "must be text"),
        (
            "dataset: nyu-mll/glue",
            "dataset: {trian: a.csv}",
            "task.dataset.trian: must be 'train', 'validation' or 'test'",
        ),
        ("text: sentence", "text: []", "must have at least 1"),
        ("text: sentence", "text: [a, b, c]", "must have at most 2"),
        ("text: sentence", "text: sentence\n  text: again", "key 'text' is there twice"),
        ("metric: accuracy", "metric: acuracy", "did you mean 'accuracy'"),
        ("metric: accuracy", "metric: accuracy\n  holdout: 0.5", "must be below 0.5"),
        ("metric: accuracy", "metric: accuracy\n  limit: {train: 0}", "must be at least 1"),
        ("metric: accuracy", "metric: accuracy\n  labels: [one]", "must have at least 2"),
        ("  distill:", "  a/b:", "a name is 1 to 100"),
        ("  distill:", "  finetune:", "key 'finetune' is there twice"),
        ("model: distilbert", "layers: 0, model: distilbert", "must be at least 1"),
        (
            "model: distilbert",
            "layers: {shape: constant, value: 3}, model: distilbert",
            "takes one value",
        ),
        ("model: distilbert/distilbert-base-uncased", "model: [distilbert]", "takes one value"),
        (
            "model: distilbert",
            "trust_remote_code: maybe, model: distilbert",
            "must be true or false",
        ),
        (
            "model: google-bert",
            "checkpoint: here, model: google-bert",
            "either 'model' .* or 'checkpoint'",
        ),
        (
            "model: google-bert",
            "labels: [a, b], model: google-bert",
            "'labels' names the outputs of a 'checkpoint'",
        ),
        ("learning_rate: 2.0e-5}}", "learning_rate: 0.0}}", "must be above 0"),
    ]:
        yield edited("sst2", old, old, new, rule, shift=new.count("\n"))
    for entry, rule in [
        ("{alpha: 1.5}", "is not between 0 and 1"),
        ("{alpha: yes}", "is not between 0 and 1"),
        ("{alpha: {shape: linear, start: 0.0, end: 1.0}}", "is not between 0 and 1"),
        ("{learning_rate: 1.0}", "is not between 1e-05 and 0.0001"),
        ("{temprature: 4.0}", "did you mean 'temperature'"),
        ("{epochs: 4}", "4 is not 3"),
        ("3", "must be a mapping"),
    ]:
        yield distill("{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}", entry, rule)
    yield edited(
        "sst2",
        "  combined:",
        "temperature: 4.0, ",
        "temperature.any_of: rnage, ",
        "'rnage' is none of range, linear_falling",
    )
    yield edited(
        "sst2",
        "strategies.finetune.learning_rate",
        "low: 1.5e-4",
        "low: 1.5e-2",
        "must be below high",
        embedded=True,
    )
    yield edited(
        "sst2",
        "strategies.finetune.learning_rate",
        "strategies.finetune.learning_rate",
        "name",
        "embedded: unknown key 'name'",
        embedded=True,
    )
    yield edited(
        "sst2",
        "    labels:",
        "[negative, positive]",
        "[negative]",
        "must have at least 2",
        embedded=True,
    )
    head = TEXTS["sst2"].split("strategies:")[0]
    at = head.count("\n") + 1
    yield Broken(
        "sst2: strategies {}",
        "sst2",
        head + "strategies: {}\n",
        at,
        "strategies: must have at least 1",
    )
    yield Broken(
        "sst2: strategies nothing",
        "sst2",
        head + "strategies:\n",
        at,
        "strategies: must be a mapping",
    )
    yield Broken(
        "sst2: strategies a list",
        "sst2",
        head + "strategies: [finetune]\n",
        at,
        "strategies: must be a mapping",
    )
    yield Broken(
        "sst2: no embedded",
        "sst2",
        TEXTS["sst2"].split("embedded:")[0],
        2,
        "has no 'embedded' section",
        embedded=True,
    )


def impossible_sweeps() -> Iterator[Broken]:
    for file, old, new, rule in [
        ("local", "trials: 20", "trials: 0", "must be at least 1, not 0"),
        ("local", "trials: 20", "trials: -1", "must be at least 1, not -1"),
        ("local", "trials: 20", "trials: 2.5", "must be a whole number"),
        ("local", "trials: 20", "trials: many", "must be a whole number, not 'many'"),
        ("local", "trials: 20", "trials: 20\ntrials: 20", "key 'trials' is there twice"),
        ("local", "type: tpe", "type: tpee", "unknown type 'tpee'; did you mean 'tpe'"),
        ("local", "type: tpe", "type: grid", "grid needs 'choices' or 'step' everywhere"),
        ("local", "seed: 0", "seed: -1", "must be at least 0"),
        ("local", "seed: 0", "seed: .nan", "must be a whole number"),
        ("local", "{type: tpe, seed: 0}", "tpe", "must be a mapping of keys, not 'tpe'"),
        (
            "local",
            "{type: tpe, seed: 0}",
            "{type: random, startup_trials: 3}",
            "unknown key 'startup_trials'",
        ),
        ("local", "type: asha", "type: ashes", "did you mean 'asha'"),
        ("local", "type: asha", "type: asha, reduction_factor: 1", "must be at least 2"),
        ("local", "type: asha", "type: median, warmup_evaluations: -1", "must be at least 0"),
        ("local", "hours: null", "hours: 0", "must be above 0"),
        ("local", "hours: null", "hours: -2", "must be above 0"),
        ("local", "hours: null", "hours: .nan", "must be a finite number"),
        ("local", "hours: null", "hours: .inf", "must be a finite number"),
        ("local", "patience: null", "patience: 0", "must be at least 1"),
        ("local", "students: 3", "students: -1", "must be at least 0"),
        ("local", "students: 3", "students: all", "must be a whole number"),
        ("local", "storage: sqlite", "storage: ''", "must not be empty"),
        ("local", "tracking: sqlite", "tracking: 5", "must be text, not 5"),
        ("local", "type: auto", "type: atuo", "auto"),
        ("local", "type: auto", "type: ray, gpus_per_trial: 2", "gpus_per_trial"),
        ("quick", "name: quick", "name: a/b", "a name is 1 to 100"),
        ("quick", "name: quick", "name: ..", "a name is 1 to 100"),
        ("quick", "training.epochs: 1", "training.epochs: 0", "must be at least 1, not 0"),
        (
            "quick",
            "training.epochs: 1",
            "trainin.epochs: 1",
            "unknown key 'trainin'; did you mean 'training'",
        ),
        (
            "quick",
            "training.epochs: 1",
            "training.epoch: 1",
            "unknown key 'epoch'; did you mean 'epochs'",
        ),
        ("quick", "training.epochs: 1", "trials: 1", "'trials' is no key of a search space"),
        ("quick", "training.epochs: 1", "name: other", "'name' is no key of a search space"),
        ("quick", "training.epochs: 1", "training..epochs: 1", "is no key of a search space"),
        ("quick", "training.epochs: 1", "name.first: 1", "is no key of a search space"),
        (
            "quick",
            "training.epochs: 1",
            "task.text.0: 1",
            "task.text is 'sentence', so nothing can be set inside it",
        ),
        (
            "quick",
            "training.epochs: 1",
            "strategies.combined.alpha.any_of.3: 0.5",
            "is a list of 3: it has no '3'",
        ),
        (
            "quick",
            "training.epochs: 1",
            "strategies.combined.alpha.any_of.1.start: {low: 0.7, high: 0.5}",
            "must be below high",
        ),
        (
            "quick",
            "training.epochs: 1",
            "strategies.distill.temperature: 0",
            "temperature must be above 0",
        ),
        ("quick", "training.epochs: 1", "embedded: true", "'embedded' can't be set"),
        ("quick", "train: 800", "trian: 800", "unknown key 'trian'; did you mean 'train'"),
    ]:
        yield edited(file, old, old, new, rule, shift=new.count("\n"))
    yield Broken(
        "quick: set nothing", "quick", "set:\n", 1, "set: expected a mapping of keys, not nothing"
    )
    yield Broken(
        "quick: set a list",
        "quick",
        "trials: 3\nset: [1]\n",
        2,
        "set: expected a mapping of keys, not a list",
    )


VARIANTS = [
    variant
    for file in TEXTS
    for make in (misspelt, of_wrong_type, incomplete)
    for variant in make(file)
] + [*impossible(), *impossible_sweeps()]  # fmt: skip


def test_the_shipped_files_are_whole_and_the_variants_many() -> None:
    for embedded in (False, True):
        for sweep in (None, *SWEEPS.values()):
            load(SPACE, sweep, embedded=embedded)
    assert len(VARIANTS) >= 400
    assert all(variant.text != TEXTS[variant.file] for variant in VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.title)
def test_a_broken_variant_is_one_line_with_file_line_and_rule(
    variant: Broken, tmp_path: Path, short_space: Path
) -> None:
    error = broken_loads(variant, tmp_path, short_space)
    assert error.line == variant.line, str(error)
    assert re.search(variant.rule, error.rule), str(error)
    assert "\n" not in str(error)
    assert str(error).startswith(f"{error.file}:{error.line}: ")
    assert not re.search(r"pydantic|Traceback|Input should|NoneType|<class", str(error))


# --- what is no YAML, or no file -------------------------------------------------------------------------------------

WHOLE = "name: x\ntask: {dataset: d, text: t, label: l}\nstudent: {model: m}\nstrategies: {a: {alpha: 1.0, learning_rate: 1.0e-5}}\n"
LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

NO_YAML: dict[str, tuple[str | bytes, int | None, str]] = {
    "empty": ("", 1, "expected a mapping of keys, not nothing"),
    "only a comment": ("# nothing\n", 1, "expected a mapping of keys, not nothing"),
    "only spaces": ("  \n\n  \n", 1, "expected a mapping of keys, not nothing"),
    "a list": ("- name: x\n- b\n", 1, "expected a mapping of keys, not a list"),
    "a word": ("hello\n", 1, "expected a mapping of keys, not 'hello'"),
    "a number": ("42", 1, "expected a mapping of keys, not 42"),
    "tabs": ("name: x\ntask:\n\tdataset: d\n", 3, "spaces, not tabs"),
    "tabs after spaces": ("name: x\ntask:\n  text: t\n\tdataset: d\n", 4, "spaces, not tabs"),
    "binary": (bytes(range(256)), 2, "is not UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", 1, "is not UTF-8 text"),
    "NUL": (WHOLE + "training: {epochs: \0}\n", 5, "special characters are not allowed"),
    "only NULs": ("\0" * 100, 1, "special characters are not allowed"),
    "UTF-16": (WHOLE.encode("utf-16"), 1, "is not UTF-8 text"),
    "UTF-16 without a mark": (WHOLE.encode("utf-16-le"), 1, "special characters are not allowed"),
    "Latin-1": ("name: x\n# été\n".encode("latin-1"), 2, "is not UTF-8 text"),
    "two documents": (WHOLE + "---\n" + WHOLE, 5, "single document"),
    "an open bracket": (WHOLE + "training: {epochs: 3\n", 6, "is no YAML"),
    "an open quote": (WHOLE + 'training: "\n', 6, "is no YAML"),
    "wrong indentation": ("name: x\ntask:\n    text: t\n  label: l\n", 4, "is no YAML"),
    "an unknown anchor": (WHOLE + "training: *nobody\n", 5, "undefined alias"),
    "a tag": (WHOLE + "training: !secret 3\n", 5, "tag"),
    "a Python tag": (WHOLE + "training: !!python/name:os.system x\n", 5, "tag"),
    "a number that is none": (WHOLE + "seed: !!int abc\n", 5, "can't be read as a value"),
    "a mapping as a key": (WHOLE + "? {a: b}\n: c\n", 5, "a key must be a word"),
    "keys twice": (WHOLE + "name: y\n", 5, "key 'name' is there twice"),
    "merged keys": (WHOLE + "<<: {embedded: x}\n", 5, "unknown key '<<'"),
    "laughs": (LAUGHS, 1, "holds more than 50,000 values"),
    "an anchor in itself": (WHOLE + "training: &t {epochs: *t}\n", 5, "nested more than"),
    "deep lists": (WHOLE + "training: " + "[" * 60 + "]" * 60 + "\n", 5, "nested more than"),
    "deep values": (
        WHOLE.replace("alpha: 1.0", "alpha: " + "{any_of: [0.1, " * 18 + "0.5" + "]}" * 18),
        4,
        "nested more than",
    ),
    "very deep blocks": ("\n".join(" " * i + "a:" for i in range(1000)), None, "nested more than"),
    "huge": (WHOLE + "#" * 1_100_000, None, "larger than 1 MB"),
}


@pytest.mark.parametrize("title", NO_YAML)
@pytest.mark.parametrize("role", ["space", "sweep"])
def test_what_is_no_yaml_is_said_with_its_line(title: str, role: str, tmp_path: Path) -> None:
    content, line, rule = NO_YAML[title]
    space = tmp_path / "whole.yaml"
    space.write_text(WHOLE, encoding="utf-8")
    path = tmp_path / "broken.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    began = time.perf_counter()
    with pytest.raises(SpaceError) as caught:
        load(path if role == "space" else space, None if role == "space" else path)
    assert time.perf_counter() - began < 30
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    if role == "space" or WHOLE not in str(content):  # a sweep's first unknown key is `task`
        assert caught.value.line == line, str(caught.value)
        assert re.search(rule, caught.value.rule), str(caught.value)


def test_the_text_that_the_broken_ones_are_made_of_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    load(path)
    path.write_bytes(
        b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode()
    )  # as Windows' Notepad writes it
    load(path)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nowhere.yaml", "there is no such file"),
        ("no/where.yaml", "there is no such file"),
        ("spcae.yaml", "there is no such file; did you mean 'space.yaml'"),
        ("space.yaml/inside.yaml", "there is no such file"),
        (".", "is a folder"),
        ("..", "is a folder"),
        ("x" * 300 + ".yaml", "can't be read"),
        ("a\0b.yaml", "can't be read"),
    ],
)
@pytest.mark.parametrize("role", ["space", "sweep"])
def test_a_path_that_is_no_file_is_said(name: str, rule: str, role: str, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(WHOLE, encoding="utf-8")
    path = str(tmp_path / name)
    with pytest.raises(SpaceError, match=rule) as caught:
        load(
            path if role == "space" else tmp_path / "space.yaml", None if role == "space" else path
        )
    assert caught.value.line is None
    assert Path(caught.value.file) == Path(path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    path.chmod(0)
    with pytest.raises(SpaceError, match="can't be read: Permission denied"):
        load(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_a_device_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(SpaceError, match="larger than 1 MB"):
        load("/dev/zero")


# --- --set and --name ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "rule"),
    [
        ("training.epochs", "expected key.path=value"),
        ("", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("=", "expected key.path=value"),
        ("training..epochs=3", "expected key.path=value"),
        (".training=3", "expected key.path=value"),
        ("training.=3", "expected key.path=value"),
        ("training.epochs=[", "is no YAML"),
        ("training.epochs={a: 1, a: 2}", "is there twice"),
        ("training.epochs=a\tb: c: d", "is no YAML"),
        ("training.epochs=\0", "is no YAML"),
        ("training.epochs=" + "[" * 50, "is no YAML"),
        ("training.epochs=" + "[" * 50 + "]" * 50, "nested more than"),
        ("training.epochs=0", "training.epochs: must be at least 1, not 0"),
        ("training.epochs=-1", "must be at least 1, not -1"),
        ("training.epochs=3.0", "must be a whole number, not 3.0"),
        ("training.epochs='3'", "must be a whole number, not '3'"),
        ("training.epochs=3\n4", "must be a whole number"),
        ("training.epoch=3", "training: unknown key 'epoch'; did you mean 'epochs'"),
        ("trainin.epochs=3", "unknown key 'trainin'; did you mean 'training'"),
        ("training.epochs.first=3", "training.epochs is 3, so nothing can be set inside it"),
        ("training.new.key=3", "training: unknown key 'new'"),
        ("task.0=3", "task: unknown key '0'"),
        ("task.²=3", "task: unknown key '²'"),
        ("task." + "9" * 5000 + "=3", "task: unknown key '999"),
        ("strategies.combined.alpha.any_of.3=0.5", "is a list of 3: it has no '3'"),
        ("strategies.combined.alpha.any_of.-1=0.5", "is a list of 3: it has no '-1'"),
        ("strategies.combined.alpha.any_of.x.start=0.5", "is a list of 3: it has no 'x'"),
        (
            "strategies.combined.alpha.any_of.0.values.1=1.5",
            "alpha must be between 0 and 1, not 1.5",
        ),
        ("strategies.distill.temperature=0", "temperature must be above 0, not 0"),
        ("strategies.distil.temperature=4", "strategies.distil.alpha is missing"),
        ("strategies={}", "strategies: must have at least 1"),
        ("name=other", "use --name"),
        ("name.x=other", "name is 'sst2', so nothing can be set inside it"),
        ("embedded=true", "'embedded' can't be set: use --embedded"),
        ("embedded.task.label=x", "'embedded' can't be set: use --embedded"),
        ("trials=0", "trials: must be at least 1, not 0"),
        ("trials=many", "trials: must be a whole number, not 'many'"),
        ("trials.x=3", "trials: must be a whole number"),
        ("trails=3", "unknown key 'trails'"),
        ("sampler=grid", "sampler: must be a mapping of keys, not 'grid'"),
        ("sampler.type=grdi", "sampler: unknown type 'grdi'; did you mean 'grid'"),
        ("sampler.type=grid", "grid needs 'choices' or 'step' everywhere"),
        ("sampler.typ=tpe", "sampler: 'type' is missing"),
        ("pruner={}", "pruner: 'type' is missing"),
        ("budget.hours=.nan", "budget.hours: must be a finite number"),
        ("keep.students=-1", "keep.students: must be at least 0, not -1"),
    ],
)
def test_a_broken_set_names_itself_as_the_place(
    assignment: str, rule: str, short_space: Path
) -> None:
    with pytest.raises(SpaceError, match=rule) as caught:
        load(short_space, assignments=(assignment,))
    assert caught.value.file.startswith("--set")
    assert caught.value.line is None
    assert "\n" not in str(caught.value)
    assert len(caught.value.file) < 100


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "../x", "/etc", "x" * 300, "a b", ".x", "a\nb", "a\0b", "é"]
)
def test_a_broken_name_is_said(name: str, short_space: Path) -> None:
    with pytest.raises(SpaceError, match="a name is 1 to 100") as caught:
        load(short_space, name=name)
    assert caught.value.file == "--name"
    assert "\n" not in str(caught.value)


# --- the command itself ----------------------------------------------------------------------------------------------


Command = tuple[Callable[[Path], list[str]], str]


def from_variant(title: str, rule: str) -> Command:
    variant = next(variant for variant in VARIANTS if variant.title == title)

    def arguments(folder: Path) -> list[str]:
        path = folder / "broken.yaml"
        path.write_text(variant.text, encoding="utf-8")
        return (
            [str(path), *(["--embedded"] if variant.embedded else [])]
            if variant.file == "sst2"
            else [str(SPACE), "--sweep", str(path)]
        )

    return arguments, f"broken.yaml:{variant.line}: {rule}"


def from_bytes(title: str, rule: str) -> Command:
    def arguments(folder: Path) -> list[str]:
        content = NO_YAML[title][0]
        path = folder / "broken.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return [str(path)]

    return arguments, f"broken.yaml:{NO_YAML[title][1]}: {rule}"


COMMANDS: dict[str, Command] = {
    "a misspelt key": from_variant(
        "sst2: training.epochs misspelt", "training: unknown key 'epochsx'; did you mean 'epochs'?"
    ),
    "a wrong type": from_variant("sst2: task of a wrong type", "task: must be a mapping of keys"),
    "a missing part": from_variant("sst2: no student.model", "student.model is missing"),
    "an impossible range": from_variant(
        "sst2: distill: {low: 1.0, high: 0.0}",
        "strategies.distill.alpha: low (1) must be below high (0)",
    ),
    "a broken embedded section": from_variant(
        "sst2: embedded.task.label of a wrong type", "task.label: must be text"
    ),
    "a broken sweep": from_variant(
        "local: trials: 20 trials: 0", "trials: must be at least 1, not 0"
    ),
    "tabs": from_bytes("tabs", "is no YAML"),
    "binary": from_bytes("binary", "is not UTF-8 text"),
    "laughs": from_bytes("laughs", "holds more than 50,000 values"),
    "a folder": (lambda folder: [str(folder)], "is a folder"),
    "no file": (
        lambda folder: [str(folder / "nowhere.yaml")],
        "nowhere.yaml: there is no such file",
    ),
    "a broken --set": (
        lambda folder: [str(SPACE), "--set", "strategies.distill.temperature=\n-1"],
        "temperature must be above 0, not -1",
    ),
    "a broken --name": (
        lambda folder: [str(SPACE), "--name", "../../x"],
        "--name: a name is 1 to 100",
    ),
}


@pytest.mark.parametrize("title", COMMANDS)
def test_the_command_says_it_in_one_line_and_writes_nothing(title: str, tmp_path: Path) -> None:
    make, said = COMMANDS[title]
    arguments, home = make(tmp_path), tmp_path / "my home"
    command = [sys.executable, "-m", "kdsweep", "run", *arguments, "--home", str(home)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.endswith("\n"), done.stderr
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not home.exists()
    assert not (tmp_path / "runs").exists()
