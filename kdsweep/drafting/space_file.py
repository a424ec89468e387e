"""A draft as a commented YAML file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from kdsweep.core.data.sources import PACKAGE
from kdsweep.core.evaluation.metric_table import metrics_for
from kdsweep.core.tasks import DEFAULT_KIND
from kdsweep.core.tasks.base import TaskKind
from kdsweep.drafting.columns import Column, quoted, shown
from kdsweep.drafting.draft import Draft

# Twice the length costs more than twice the time.
LENGTHS = (64, 128, 256)
# The share of letters beyond ASCII. Hardly any language in Latin letters has that many.
FOREIGN = 0.2
ENGLISH = ("google-bert/bert-base-uncased", "distilbert/distilbert-base-uncased")
MULTILINGUAL = (
    "google-bert/bert-base-multilingual-cased",
    "distilbert/distilbert-base-multilingual-cased",
)
WIDEST = 100
TOKENS_A_WORD = 1.35
LETTERS_A_TOKEN = 6.0
FOREIGN_LETTERS_A_TOKEN = 1.5
SPECIAL_TOKENS = 3

MODELS = """\
# --- the models ---
# The teacher is fine-tuned on the task first, then frozen. Every trial trains the student.
# Names on the Hugging Face Hub, or folders. For a smaller student, `layers: 3` keeps that many
# evenly spaced layers of `model`, and `model: teacher` takes them from the fine-tuned teacher.
# For a teacher that is fine-tuned already: `teacher: {{checkpoint: FOLDER}}`.
teacher: {{model: {teacher}, training: {{epochs: 3, learning_rate: 2.0e-5}}}}
student: {{model: {student}}}

# How every student is trained.
{why_length}
training: {{epochs: 3, batch_size: 32, max_length: {length}, evaluations_per_epoch: 2}}
"""

STRATEGIES = """\
# --- the strategies that are compared ---
LOSS
# A value is one of:
#   a constant                        0.5
#   a range                           {low: 1, high: 10}, with `log: true` or `step: 0.5`
#   one of a list                     {choices: [16, 32]}
#   a schedule over the training      {shape: linear, start: 0.0, end: 1.0}; also cosine, step,
#                                     per_epoch
#   one of several values             {any_of: [VALUE, VALUE]}
# The trials of `start_with` run first, then the search chooses. Remove the strategies that you
# don't want to compare, and add your own.
strategies:
  finetune: # the labels only, without the teacher
    alpha: 1.0
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with: [{learning_rate: 2.0e-5}]
  distill: # the labels and the teacher, with one weight from start to end
    alpha: {low: 0.0, high: 1.0}
    temperature: {low: 1.0, high: 10.0}
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with: [{alpha: 0.5, temperature: 4.0, learning_rate: 5.0e-5}]
  combined: # an alpha that moves, in both directions: the report says which one won
    alpha:
      any_of:
        - {shape: per_epoch, values: [0.7, 0.5, 0.3], after: 0.2}
        - {shape: linear, start: {low: 0.0, high: 0.5}, end: {low: 0.5, high: 1.0}}
        - {shape: linear, start: {low: 0.5, high: 1.0}, end: {low: 0.0, high: 0.5}}
    temperature:
      any_of: [{low: 1.0, high: 10.0}, {shape: linear, start: {low: 4.0, high: 10.0}, end: 1.0}]
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with:
      - alpha: {shape: per_epoch, values: [0.7, 0.5, 0.3], after: 0.2}
        temperature: 4.0
        learning_rate: 5.0e-5
  distill_then_finetune: # the teacher only first, then the labels only
    alpha: {shape: step, values: [0.0, 1.0], at: {low: 0.4, high: 0.8}}
    temperature: {low: 1.0, high: 10.0}
    learning_rate: {low: 1.0e-5, high: 1.0e-4, log: true}
    start_with:
      - alpha: {shape: step, values: [0.0, 1.0], at: 0.5}
        temperature: 4.0
        learning_rate: 5.0e-5
"""


def as_yaml(draft: Draft) -> str:
    """The whole space. The guesses are filled in; the rest is what suits a first sweep."""
    length, why_length = _max_length(draft.text_columns)
    is_foreign = any(column.foreign > FOREIGN for column in draft.text_columns)
    teacher, student = MULTILINGUAL if is_foreign else ENGLISH
    rows = ", ".join(f"{name} {len(split):,}" for name, split in draft.data.splits.items())
    head = [
        f"# {draft.name}: a search space, guessed by `kdsweep init` from "
        f"{shown(draft.task.dataset, 80)}",
        f"# (rows: {rows}).",
        *(line for note in draft.notes for line in _comment(shown(note, 500), indent="")),
        "# Read it, fix what is wrong, then check it without training anything:",
        f"#   kdsweep plan {shown(shlex.quote(draft.file.name), 80)}",
        f"name: {scalar(draft.name)}",
        "",
        "# --- the task: rows, text, label, metric ---",
        "task:",
    ]
    models = MODELS.format(
        teacher=teacher,
        student=student,
        length=length,
        why_length="\n".join(_comment(why_length, indent="")),
    )
    return "\n".join([*head, *_task_lines(draft), "", models, _strategies(draft.data.kind)])


def _strategies(kind: TaskKind) -> str:
    """The strategies; without a temperature if the kind has no probabilities to soften."""
    loss = _comment(f"loss = {kind.loss_formula}", indent="")
    text = STRATEGIES.replace("LOSS", "\n".join(loss))
    if kind.has_probabilities:
        return text
    # `any_of` is indented below the temperature of `combined`.
    text = re.sub(r"\n +temperature:\n +any_of: .*", "", text)
    text = re.sub(r"\n +temperature: .*", "", text)
    return text.replace("temperature: 4.0, ", "")


def _task_lines(draft: Draft) -> list[str]:
    task = draft.task
    reasons = draft.reasons
    lines = []
    if _is_relative(task.dataset):
        lines.append("  # A relative path is relative to this file's folder.")
    lines.append(f"  dataset: {scalar(task.dataset)}")
    if task.subset is not None:
        lines.append(f"  subset: {scalar(task.subset)}")
    lines += _comment(
        f"text: {quoted(task.text)}, {reasons.text}. Two columns make a pair: text: [first, second]"
    )
    lines.append(f"  text: {_flow(task.text)}")
    lines += _label_lines(draft)
    lines += _comment(f"splits: {reasons.splits}")
    if task.splits:
        named = ", ".join(f"{role}: {scalar(name)}" for role, name in task.splits.items())
        lines.append(f"  splits: {{{named}}}")
    if task.holdout is not None:
        lines.append("  # The share of train for each split that is held out. No text is in two.")
        lines.append(f"  holdout: {task.holdout}")
    if task.blank_labels is not None:
        lines += _comment(
            "blank_labels: rows whose label is empty are dropped. `unlabelled` can name them as "
            "text that the teacher labels"
        )
        lines.append(f"  blank_labels: {task.blank_labels}")
    lines += _comment(
        f"metric: {task.metric}, {reasons.metric}. The others: {', '.join(_other_metrics(draft))}"
    )
    lines.append(f"  metric: {task.metric}")
    return lines


def _is_relative(dataset: str) -> bool:
    if dataset.startswith((PACKAGE, "/", "~")):
        return False
    return bool(Path(dataset).suffix) or dataset.startswith(".")


def _other_metrics(draft: Draft) -> list[str]:
    """The metrics of the kind that fit too; f1 is that of the second of two classes."""
    for_two = () if len(draft.data.label_names) == 2 else ("f1", "accuracy_and_f1")
    used = (draft.task.metric, *for_two)
    return [metric for metric in metrics_for(draft.data.kind) if metric not in used]


def _label_lines(draft: Draft) -> list[str]:
    task = draft.task
    names = draft.data.label_names
    short = [shown(name, 30) for name in names]
    lines = _comment(f"label: {quoted(task.label)}, {draft.reasons.label}")
    lines.append(f"  label: {_flow(task.label)}")
    lines += _comment(draft.data.kind.describe_labels(draft.data.train.labels, short))
    are_numbers = all(name.isdigit() for name in names)
    if len(task.label) == 1 and are_numbers and task.kind.outputs_are_labels:
        meanings = [f"name of {name}" for name in names[:3]] + (["..."] if len(names) > 3 else [])
        lines.append(f"  # labels: [{', '.join(meanings)}] # what the numbers mean, in their order")
    if task.kind is not DEFAULT_KIND:
        lines += _comment(f"kind: {task.kind.name}, {task.kind.description}")
        lines.append(f"  kind: {task.kind.name}")
    return lines


def _max_length(columns: Sequence[Column]) -> tuple[int, str]:
    """Tokens that 95% of the texts fit into, roughly, and why.

    Subwords are shorter than words. Languages without blanks are counted by characters.
    """
    tokens = float(SPECIAL_TOKENS)
    for column in columns:
        is_foreign = column.foreign > FOREIGN
        letters_a_token = FOREIGN_LETTERS_A_TOKEN if is_foreign else LETTERS_A_TOKEN
        by_characters = column.long_characters / letters_a_token
        tokens += max(TOKENS_A_WORD * column.long_words, by_characters)
    chosen = next((length for length in LENGTHS if length >= tokens), LENGTHS[-1])
    longer = "" if tokens <= chosen else f"; what is longer than {chosen} is cut"
    words = sum(column.long_words for column in columns)
    return chosen, (
        f"95% of the texts have at most {words:,} words, about {tokens:.0f} tokens{longer}."
    )


# --- YAML ---


def _flow(names: Sequence[str]) -> str:
    return scalar(names[0]) if len(names) == 1 else f"[{', '.join(map(scalar, names))}]"


def _comment(text: str, indent: str = "  ") -> list[str]:
    """The text as comment lines, wrapped at blanks."""
    start = f"{indent}#"
    lines = []
    line = start
    for word in text.split():
        if len(line) + len(word) >= WIDEST and line != start:
            lines.append(line)
            line = f"{start}  "
        line += f" {word}"
    return [*lines, line]


PLAIN_SCALAR = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
WORDS_OF_YAML = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def scalar(text: str) -> str:
    """A string as YAML 1.2, quoted if it would mean something else, also inside [...] and {...}."""
    is_number_like = re.fullmatch(r"[._]\d.*|\.inf|\.nan", text.lower()) is not None
    is_word = text.lower() in WORDS_OF_YAML
    if PLAIN_SCALAR.fullmatch(text) and not is_word and not is_number_like:
        return text
    # JSON's strings are YAML's. What YAML doesn't allow as it is, or reads as the end of a line,
    # is written by its number.
    inside = json.dumps(text, ensure_ascii=False)
    return "".join(
        one if one == " " or one.isprintable() else f"\\U{ord(one):08x}" for one in inside
    )
