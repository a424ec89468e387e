"""Where the teacher and the recommended student differ on the rows of the test split, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.core.tasks.base import TaskKind
from kdsweep.formatting import MISSING, count

MOST_ROWS = 10
MOST_CLASSES = 12
MOST_PAIRS = 20
MOST_LABELS = 40
BINS = 5
MOST_LETTERS = 160

# The texts of the rows with these numbers; None where they aren't at hand.
ReadTexts = Callable[[Sequence[int]], Mapping[int, str] | None]
Cells = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """The test split. labels: of its rows; teacher, student: logits [rows, outputs]."""

    kind: TaskKind
    names: Sequence[str]
    labels: np.ndarray
    teacher: np.ndarray
    student: np.ndarray


@dataclass(frozen=True)
class Table:
    title: str
    note: str
    head: Cells
    rows: tuple[Cells, ...]


@dataclass(frozen=True)
class Differences:
    """note: why the rows have no texts; empty where they have."""

    student: str
    tables: tuple[Table, ...]
    note: str


def cut(text: str) -> str:
    """At most MOST_LETTERS letters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= MOST_LETTERS else f"{line[: MOST_LETTERS - 1]}…"


def differences(student: str, judged: Judged, read_texts: ReadTexts, note: str) -> Differences:
    """The rows that one of the two gets right alone, and what the student confuses.

    In a regression: the rows where one of the two is farther off than the other. note: what to say
    where `read_texts` has none.
    """
    kind = judged.kind
    teacher, answers = kind.predictions(judged.teacher), kind.predictions(judged.student)
    if kind.has_probabilities:
        right = [_per_row(found == judged.labels) for found in (teacher, answers)]
        lists = {
            "The teacher is right, the student isn't": np.flatnonzero(right[0] & ~right[1]),
            "The student is right, the teacher isn't": np.flatnonzero(right[1] & ~right[0]),
        }
    else:
        off = np.abs(answers - judged.labels) - np.abs(teacher - judged.labels)
        order = np.argsort(-off, kind="stable")
        lists = {
            "The student is farther off than the teacher": order[off[order] > 0],
            "The teacher is farther off than the student": order[::-1][off[order[::-1]] < 0],
        }
    shown = sorted({int(row) for found in lists.values() for row in found[:MOST_ROWS]})
    texts = read_texts(shown) if shown else {}
    columns = (judged.labels, teacher, answers)
    tables = [_rows_table(judged, title, rows, columns, texts) for title, rows in lists.items()]
    tables.append(_confusion(judged, teacher, answers))
    return Differences(student, tuple(tables), note if texts is None else "")


def _per_row(equal: np.ndarray) -> np.ndarray:
    """Whether the whole row is right: all its labels, where there are several."""
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1))


def _rows_table(
    judged: Judged,
    title: str,
    rows: np.ndarray,
    columns: Sequence[np.ndarray],
    texts: Mapping[int, str] | None,
) -> Table:
    total = len(judged.labels)
    order = "" if judged.kind.has_probabilities else " The largest differences are first."
    note = f"{len(rows):,} of {count(total, 'test row')}.{order}"
    if len(rows) > MOST_ROWS:
        note += f" Here are {MOST_ROWS}."
    head: Cells = ("row", "label", "teacher", "student")
    cells = [
        (f"{row:,}", *(_answer(judged, column[row]) for column in columns))
        for row in rows[:MOST_ROWS].tolist()
    ]
    if texts is not None:
        head = (*head, "text")
        found = rows[:MOST_ROWS].tolist()
        cells = [
            (*one, cut(texts.get(row, MISSING))) for one, row in zip(cells, found, strict=True)
        ]
    return Table(title, note, head, tuple(cells))


def _answer(judged: Judged, value: np.ndarray) -> str:
    """A label or a prediction of one row, in words."""
    if judged.kind.picks_one_class:
        return str(judged.names[int(value)])
    if judged.kind.has_probabilities:
        return ", ".join(judged.names[at] for at in np.flatnonzero(value).tolist()) or "none"
    return f"{float(value):.4g}"


# --- what is confused ----------------------------------------------------------------------------


def _confusion(judged: Judged, teacher: np.ndarray, answers: np.ndarray) -> Table:
    if judged.kind.picks_one_class:
        return _of_classes(judged, answers)
    if judged.kind.has_probabilities:
        return _of_labels(judged, answers)
    return _of_numbers(judged, teacher, answers)


def _of_classes(judged: Judged, answers: np.ndarray) -> Table:
    names, classes = judged.names, len(judged.names)
    numbers = judged.labels.astype(np.int64) * classes + answers
    table = np.bincount(numbers, minlength=classes**2).reshape(classes, classes)
    title = "What the student confuses"
    if classes <= MOST_CLASSES:
        rows = tuple(
            (name, *(f"{found:,}" for found in own))
            for name, own in zip(names, table.tolist(), strict=True)
        )
        return Table(title, "Rows: the label. Columns: the student.", ("label", *names), rows)
    wrong = table * (1 - np.eye(classes, dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS].tolist()
    pairs = [divmod(at, classes) for at in order]
    rows = tuple((names[a], names[b], f"{wrong[a, b]:,}") for a, b in pairs if wrong[a, b])
    note = f"The most frequent mistakes among {classes:,} classes."
    return Table(title, note, ("label", "student", "rows"), rows)


def _of_labels(judged: Judged, answers: np.ndarray) -> Table:
    has, says = judged.labels.astype(bool), answers.astype(bool)
    both, wrongly, missed = has & says, ~has & says, has & ~says
    found = np.stack([one.sum(axis=0) for one in (both, missed, wrongly, ~(has | says))], axis=1)
    order = np.argsort(-(found[:, 1] + found[:, 2]), kind="stable")[:MOST_LABELS].tolist()
    note = "For each label, how many test rows; those with the most mistakes first."
    head = ("label", "found", "missed", "given wrongly", "rightly not given")
    rows = tuple((judged.names[at], *(f"{one:,}" for one in found[at].tolist())) for at in order)
    return Table("What the student confuses", note, head, rows)


def _of_numbers(judged: Judged, teacher: np.ndarray, answers: np.ndarray) -> Table:
    """The mean errors where labels are low, and where they are high."""
    labels = judged.labels.astype(np.float64)
    edges = np.unique(np.quantile(labels, np.linspace(0, 1, BINS + 1)))
    bins = np.searchsorted(edges[1:-1], labels, side="right")
    rows = []
    for at in sorted(set(bins.tolist())):
        own = bins == at
        error, of_teacher = answers[own] - labels[own], teacher[own] - labels[own]
        numbers = (error.mean(), np.abs(error).mean(), np.abs(of_teacher).mean())
        between = f"{labels[own].min():.4g} to {labels[own].max():.4g}"
        rows.append((between, f"{own.sum():,}", *(f"{one:.4g}" for one in numbers)))
    head = ("labels", "rows", "student's mean error", "size of its error", "of the teacher's")
    note = "Rows in groups of about the same size, by label. A mean error below 0: too low."
    return Table("How far off the student is", note, head, tuple(rows))
