"""`kdsweep init`: the guesses as a commented search space. What is written was read again as `kdsweep plan` reads it."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsweep.config import checked_name
from kdsweep.config.loading import Document, parse_yaml
from kdsweep.config.space import build_space
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.sources import PACKAGE, local_path
from kdsweep.core.files import write_atomically
from kdsweep.core.settings import METRICS, Kind, TaskSettings
from kdsweep.drafting.columns import Column, Table, look_at, read_tables, shown
from kdsweep.drafting.guessing import (
    guess_label,
    guess_metric,
    guess_splits,
    guess_text,
    listed,
    passed_over,
    quoted,
    settle_splits,
)
from kdsweep.errors import DataError, KdsweepError

LENGTHS = (64, 128, 256)  # twice the length costs more than twice the time
FEW_ROWS = 1_000
FOREIGN = 0.2  # of the letters: hardly any language in Latin letters has so many beyond ASCII
ENGLISH = ("google-bert/bert-base-uncased", "distilbert/distilbert-base-uncased")
MULTILINGUAL = (
    "google-bert/bert-base-multilingual-cased",
    "distilbert/distilbert-base-multilingual-cased",
)
WIDEST = 150


@dataclass(frozen=True)
class Draft:
    """A space to be: `task` as it is written, each guess with its reason, and what they were made from."""

    name: str
    file: Path
    task: dict[str, Any]
    reasons: dict[str, str]
    data: TaskData
    columns: list[Column]
    text_columns: list[Column]


def init(
    data: str,
    destination: Path | None = None,
    *,
    name: str | None = None,
    subset: str | None = None,
    text: Sequence[str] = (),
    label: Sequence[str] = (),
) -> dict[str, Any]:
    """Look at `data`, write a space that `kdsweep plan` accepts, and return what was guessed and why.

    `destination` is NAME.yaml in the current folder without it. Raises DataError where nothing can be guessed and KdsweepError where
    the file is there already or can't be written.
    """
    checked = checked_name(name) if name is not None else _name_of(data, subset)
    file = destination or Path(f"{checked}.yaml")
    _check_free(file)
    draft = guess(data, file, checked, subset, text, label)
    content = as_yaml(draft)
    _check_reads_back(draft, content)
    try:
        write_atomically(file, lambda handle: handle.write(content.encode()))
    except OSError as error:
        raise KdsweepError(f"{file}: can't be written: {error.strerror or error}") from error
    return {
        "file": str(file),
        "name": draft.name,
        "task": draft.task,
        "kind": draft.data.kind,
        "reasons": draft.reasons,
        "rows": {split: len(rows) for split, rows in draft.data.splits.items()},
        "labels": list(draft.data.label_names),
        "columns": [
            {
                "name": column.name,
                "kind": column.kind,
                "distinct": column.distinct,
                "seen": column.describe(),
            }
            for column in draft.columns
        ],
        "next": f"kdsweep plan {shlex.quote(str(file))}",
    }


def guess(
    data: str, file: Path, name: str, subset: str | None, text: Sequence[str], label: Sequence[str]
) -> Draft:
    tables = read_tables(data, subset)
    splits = guess_splits(data, tables)
    columns = look_at(tables[splits.get("train", "")])
    chosen_label = guess_label(data, columns, label)
    chosen_text = guess_text(data, columns, chosen_label.columns, text)
    chosen_splits = settle_splits(splits, tables, chosen_label.columns)
    if both := next((name for name in chosen_text.value if name in chosen_label.columns), None):
        raise DataError(
            f"--text: {data}: `{shown(both)}` is the label; give --label too, or another text column"
        )
    train: Table = tables[splits.get("train", "")]
    few = len(next(iter(train.columns.values()))) < FEW_ROWS
    task: dict[str, Any] = {"dataset": _as_written(data, file)}
    task |= {} if subset is None else {"subset": subset}
    task |= {"text": _one_or_list(chosen_text.value), "label": _one_or_list(chosen_label.columns)}
    task |= {} if chosen_label.kind == "classification" else {"kind": chosen_label.kind}
    task |= {"splits": chosen_splits.value} if chosen_splits.value else {}
    task |= {"holdout": 0.2 if few else 0.1} if len(chosen_splits.value) < 3 else {}
    path = local_path(data, DataError)
    read = {
        "dataset": data if path is None or data.startswith(PACKAGE) else str(path.resolve()),
        "metric": METRICS[chosen_label.kind][0],
    }
    try:
        settings = TaskSettings.model_validate(task | read)
    except ValidationError as error:  # what was asked for, such as three text columns
        broken = error.errors(include_url=False)[0]
        raise DataError(f"{data}: task.{broken['loc'][0]}: {broken['msg']}") from error
    loaded = load_task(settings)  # whatever `plan` would find wrong with the rows is said now
    metric = guess_metric(loaded)
    passed = passed_over(columns, [*chosen_text.value, *chosen_label.columns])
    why_label = "; ".join(filter(None, [chosen_label.reason, passed]))
    reasons = {
        "text": chosen_text.reason,
        "label": why_label,
        "splits": chosen_splits.reason,
        "metric": metric.reason,
    }
    text_columns = [column for column in columns if column.name in chosen_text.value]
    return Draft(
        name, file, task | {"metric": metric.value}, reasons, loaded, columns, text_columns
    )


def _one_or_list(names: Sequence[str]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def _name_of(data: str, subset: str | None) -> str:
    """A name for the space: the file's or folder's, the subset's, or the dataset's own."""
    base = subset or Path(data.rstrip("/") or "data").stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", base).strip("-_")
    return name[:100] or "task"


def _check_free(file: Path) -> None:
    if os.path.lexists(file):
        raise KdsweepError(
            f"{file} is there already and is not written over; name another file (kdsweep init DATA OTHER.yaml) or remove it"
        )
    if not file.parent.is_dir():
        raise KdsweepError(f"{file}: there is no folder {str(file.parent)!r}")


def _as_written(data: str, file: Path) -> str:
    """The dataset as the space names it: a relative path is meant from the space's own folder."""
    path = local_path(data, DataError)
    if path is None or data.startswith((PACKAGE, "/", "~")):
        return data
    relative = os.path.relpath(path.resolve(), file.parent.resolve())
    return (
        relative if path.is_file() or relative.startswith("..") else f"./{relative}"
    )  # a bare word could be a dataset on the Hub


def _check_reads_back(draft: Draft, content: str) -> None:
    """A name or path that YAML would change is never written."""
    data, origins = parse_yaml(content, str(draft.file))
    assert isinstance(data, dict) and isinstance(data["task"], dict)
    document = Document(str(draft.file), data, origins)
    # `build_space` makes paths absolute in place.
    written = dict(data["task"])
    build_space(document)
    if written != draft.task or document.data["name"] != draft.name:
        changed = next((key for key in draft.task if written.get(key) != draft.task[key]), "name")
        raise KdsweepError(
            f"{draft.file}: task.{changed} can't be written as YAML: {draft.task.get(changed, draft.name)!r}; rename the column or file"
        )


def as_lines(facts: dict[str, Any]) -> list[str]:
    """What was guessed, why, and what to do next, for a person."""
    task, rows = (
        facts["task"],
        ", ".join(f"{name} {count:,}" for name, count in facts["rows"].items()),
    )
    lines = [f"{facts['file']}: a search space named {facts['name']} (rows: {rows})"]
    for key in ("text", "label", "splits", "metric"):
        value = task.get(key, "")
        said = (
            listed([*map(shown, value)])
            if isinstance(value, list)
            else ", ".join(value.values())
            if isinstance(value, dict)
            else shown(value)
        )
        lines.append(f"  {key:<7} {said + ': ' if said else ''}{facts['reasons'][key]}")
        if key == "label" and "kind" in task:
            lines.append(f"  kind    {task['kind']}: {KINDS[task['kind']]}")
    return [*lines, "read it, mend what is wrong, then:", f"  {facts['next']}"]


# --- the file --------------------------------------------------------------------------------------------------------


def as_yaml(draft: Draft) -> str:
    """The whole space. What was guessed is filled in; the rest is what a newcomer would begin with."""
    length, why_length = _max_length(draft.text_columns)
    teacher, student = _models(draft.text_columns)
    rows = ", ".join(f"{name} {len(split):,}" for name, split in draft.data.splits.items())
    head = [
        f"# {draft.name}: a search space, guessed by `kdsweep init` from {shown(str(draft.task['dataset']), 80)} (rows: {rows}).",
        "# Read it, mend what is wrong, then check it without training anything:",
        f"#   kdsweep plan {shown(shlex.quote(draft.file.name), 80)}",
        f"name: {scalar(draft.name)}",
        "",
        "# --- the task: rows, text, label, metric ---",
        "task:",
    ]
    models = MODELS.format(teacher=teacher, student=student, length=length, why_length=why_length)
    return "\n".join([*head, *_task_lines(draft), "", models, _strategies(draft.data.kind)])


def _strategies(kind: Kind) -> str:
    """Those of every space, without a temperature where it plays no part."""
    text = STRATEGIES.replace("LOSS", LOSSES[kind])
    if kind != "regression":
        return text
    lines = [
        line.replace("temperature: 4.0, ", "")
        for line in text.split("\n")
        if not line.strip().startswith("temperature:")
    ]
    return "\n".join(lines)


def _task_lines(draft: Draft) -> list[str]:
    task, reasons = draft.task, draft.reasons
    dataset = task["dataset"]
    is_relative = not dataset.startswith((PACKAGE, "/", "~")) and (
        Path(dataset).suffix or dataset.startswith(".")
    )
    lines = ["  # A relative path is meant from this file's folder."] if is_relative else []
    lines += [f"  dataset: {scalar(dataset)}"] + (
        [f"  subset: {scalar(task['subset'])}"] if "subset" in task else []
    )
    lines += _comment(
        f"text: {_quoted(task['text'])}, {reasons['text']}. Two columns make a pair: text: [first, second]"
    )
    lines += [f"  text: {_flow(task['text'])}", *_label_lines(draft)]
    lines += _comment(f"splits: {reasons['splits']}")
    if "splits" in task:
        lines += [
            "  splits: {"
            + ", ".join(f"{role}: {scalar(name)}" for role, name in task["splits"].items())
            + "}"
        ]
    if "holdout" in task:
        lines += [
            f"  holdout: {task['holdout']} # the share of train for each split that is held out; no text is in two splits"
        ]
    for_two = () if len(draft.data.label_names) == 2 else ("f1", "accuracy_and_f1")
    others = ", ".join(
        metric for metric in METRICS[draft.data.kind] if metric not in (task["metric"], *for_two)
    )
    lines += _comment(f"metric: {task['metric']}, {reasons['metric']}. The others: {others}")
    return [*lines, f"  metric: {task['metric']}"]


def _label_lines(draft: Draft) -> list[str]:
    task, names = draft.task, draft.data.label_names
    lines = _comment(f"label: {_quoted(task['label'])}, {draft.reasons['label']}")
    lines += [f"  label: {_flow(task['label'])}", *_comment(_rows_of_train(draft.data))]
    if (
        isinstance(task["label"], str)
        and all(name.isdigit() for name in names)
        and draft.data.kind != "regression"
    ):
        meanings = ", ".join(f"name of {name}" for name in names[:3]) + (
            ", ..." if len(names) > 3 else ""
        )
        lines += [f"  # labels: [{meanings}] # what the numbers mean, in their order"]
    if "kind" in task:
        lines += [
            *_comment(f"kind: {task['kind']}, {KINDS[task['kind']]}"),
            f"  kind: {task['kind']}",
        ]
    return lines


def _rows_of_train(data: TaskData) -> str:
    labels = data.train.labels
    if data.kind == "regression":
        return f"rows of train: {len(labels):,}, from {labels.min():g} to {labels.max():g}, {labels.mean():.3g} on average"
    found = (
        [int((labels == i).sum()) for i in range(len(data.label_names))]
        if data.kind == "classification"
        else [int(count) for count in labels.sum(axis=0)]
    )
    counts = dict(zip(data.label_names, found, strict=True))
    common = sorted(counts, key=lambda name: -counts[name])
    more = f" and {len(common) - 8} more" if len(common) > 8 else ""
    return (
        "rows of train: "
        + ", ".join(f"{shown(name, 30)} ({counts[name]:,})" for name in common[:8])
        + more
        + _labels_a_row(data)
    )


def _labels_a_row(data: TaskData) -> str:
    if data.kind != "multi_label":
        return ""
    counts = data.train.labels.sum(axis=1)
    if (counts == 1).all():
        return (
            "; every row has exactly one, so a column with its name would do, as a classification"
        )
    return f"; {counts.mean():.1f} labels a row on average, {int((counts == 0).sum()):,} rows have none"


def _quoted(names: str | Sequence[str]) -> str:
    return quoted([names] if isinstance(names, str) else names)


def _flow(names: str | Sequence[str]) -> str:
    return scalar(names) if isinstance(names, str) else f"[{', '.join(map(scalar, names))}]"


def _comment(text: str) -> list[str]:
    """The text as comment lines of the task section, cut at blanks."""
    lines, line = [], "  #"
    for word in text.split():
        if len(line) + len(word) >= WIDEST and line != "  #":
            lines.append(line)
            line = "  #  "
        line += f" {word}"
    return [*lines, line]


def _max_length(columns: Sequence[Column]) -> tuple[int, str]:
    """Tokens that 95% of the texts fit into, roughly: subwords are shorter than words, and where there are no blanks, characters count."""
    tokens = (
        sum(
            max(
                1.35 * column.long_words,
                column.long_characters / (1.5 if column.foreign > FOREIGN else 6),
            )
            for column in columns
        )
        + 3
    )
    chosen = next((length for length in LENGTHS if length >= tokens), LENGTHS[-1])
    longer = "" if tokens <= chosen else f"; what is longer than {chosen} is cut"
    return (
        chosen,
        f"95% of the texts have at most {sum(column.long_words for column in columns):,} words, about {tokens:.0f} tokens{longer}",
    )


def _models(columns: Sequence[Column]) -> tuple[str, str]:
    return MULTILINGUAL if any(column.foreign > FOREIGN for column in columns) else ENGLISH


PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
WORDS_OF_YAML = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def scalar(text: str) -> str:
    """A string as YAML 1.2, in quotes where it would mean something else without them, also inside [...] and {...}."""
    if (
        PLAIN.fullmatch(text)
        and text.lower() not in WORDS_OF_YAML
        and not re.fullmatch(r"[._]\d.*|\.inf|\.nan", text.lower())
    ):
        return text
    # JSON's strings are YAML's; what YAML doesn't allow as it is, or takes for the end of a line, is written by its number.
    inside = json.dumps(text, ensure_ascii=False)
    return "".join(
        one if one == " " or one.isprintable() else f"\\U{ord(one):08x}" for one in inside
    )


KINDS: dict[Kind, str] = {
    "classification": "the label is one of several classes",
    "regression": "the label is a number; labels and teacher are matched by squared error, and temperature plays no part",
    "multi_label": "each label is a yes or no of its own; a row may have several, or none",
}
LOSSES: dict[Kind, str] = {
    "classification": "alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher || student): alpha weighs the labels, T is `temperature`.",
    "regression": "alpha * MSE(student, labels) + (1 - alpha) * MSE(student, teacher): alpha weighs the labels.",
    "multi_label": "alpha * CE(student, labels) + (1 - alpha) * T^2 * KL(teacher || student), both for the yes or no of each label: alpha weighs\n"
    "# the labels of the rows, T is `temperature`.",
}

MODELS = """\
# --- the models: the teacher is fine-tuned on the task first, then frozen; every trial trains the student ---
# Names on the Hugging Face Hub, or folders. Smaller students: `layers: 3` keeps that many evenly spaced layers of `model`, and `model: teacher`
# takes them from the fine-tuned teacher. A teacher that is fine-tuned already: `teacher: {{checkpoint: FOLDER}}`.
teacher: {{model: {teacher}, training: {{epochs: 3, learning_rate: 2.0e-5}}}}
student: {{model: {student}}}

# How every student is trained. {why_length}.
training: {{epochs: 3, batch_size: 32, max_length: {length}, evaluations_per_epoch: 2}}
"""

STRATEGIES = """\
# --- the strategies that are compared ---
# loss = LOSS
# Every value is one of: a constant (0.5) | a range ({low: 1, high: 10}, with `log: true` or `step: 0.5`) | a list ({choices: [16, 32]}) |
# a schedule over the training ({shape: linear, start: 0.0, end: 1.0}; also cosine, step, per_epoch) | one of several ({any_of: [VALUE, VALUE]}).
# `start_with` are trials to try before the search goes its own way. Take out what you don't want to compare; add your own.
strategies:
  finetune: # the labels alone: no teacher is asked
    alpha: 1.0
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with: [{learning_rate: 2.0e-5}]
  distill: # the labels and the teacher, weighed the same from beginning to end
    alpha: {low: 0.0, high: 1.0}
    temperature: {low: 1.0, high: 10.0}
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with: [{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}]
  combined: # an alpha that moves, both ways: the report says which one won
    alpha:
      any_of:
        - {shape: per_epoch, values: [0.7, 0.5, 0.3], after: 0.2}
        - {shape: linear, start: {low: 0.0, high: 0.5}, end: {low: 0.5, high: 1.0}}
        - {shape: linear, start: {low: 0.5, high: 1.0}, end: {low: 0.0, high: 0.5}}
    temperature: {any_of: [{low: 1.0, high: 10.0}, {shape: linear, start: {low: 4.0, high: 10.0}, end: 1.0}]}
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with: [{alpha: {shape: per_epoch, values: [0.7, 0.5, 0.3], after: 0.2}, temperature: 4.0, learning_rate: 5.0e-5}]
  distill_then_finetune: # the teacher alone first, then the labels alone
    alpha: {shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 0.8}}
    temperature: {low: 1.0, high: 10.0}
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with: [{alpha: {shape: step, values: [0.0, 1.0], at: 0.5}, temperature: 4.0, learning_rate: 5.0e-5}]
"""
