"""Reads the rows of a file, lets a student answer, and writes both."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kdsweep.core.data.raw_rows import read_texts
from kdsweep.core.data.row_files import Added, NewColumns, RowFile, open_rows
from kdsweep.core.data.sources import DATA_SUFFIXES, nearest_file
from kdsweep.core.data.table_files import kind_of_file, wrong_kind
from kdsweep.core.files import write_atomically
from kdsweep.errors import (
    DataError,
    Interrupted,
    KdsweepError,
    SettingsConflict,
    did_you_mean,
    first_few,
)
from kdsweep.export.students import Choice, Student
from kdsweep.formatting import count
from kdsweep.predict.facts import Predictions, Tally
from kdsweep.predict.request import Request, endings
from kdsweep.serving import Answers, Classifier, load
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer


def predict(
    home: Home, sweep: str, request: Request, observer: Observer | None = None
) -> Predictions:
    """Write the rows of a file with a student's answers to another file of the same kind.

    The new columns are `prediction`, and `probability_LABEL` for each label unless the task is a
    regression. A row without text has nothing there. The file is read twice, a part at a time: once
    to check all of it, and once to predict. It is written beside its destination and renamed.

    Raises SettingsConflict if the destination is in use, DataError if the file can't be read, lacks
    a column or has no text, and UnknownSweep, KdsweepError, ModelError and TrackingUnreachable as
    `export` does. Nothing is written then.
    """
    observer = observer or Observer()
    _check_paths(request)
    folder = home.existing(sweep)
    choice = Choice(home, folder, request.trial, request.strategy, observer.say)
    with _nothing_written(request.target):
        return _predict(choice, request, observer)


def _predict(choice: Choice, request: Request, observer: Observer) -> Predictions:
    started = time.monotonic()
    sweep = choice.folder.name
    source = choice.source()
    observer.say(f"{request.file.name}: checking all rows")
    rows = open_rows(request.file)
    _text_columns(request, source.student, rows)
    with tempfile.TemporaryDirectory(prefix="kdsweep-predict-") as temporary:
        student_folder = Path(temporary) / "student"
        student_folder.mkdir()
        # Another student may have taken its place meanwhile.
        student = choice.fetch(source, student_folder).student
        student.write_settings(student_folder)
        trust = student.settings.student.trust_remote_code
        classifier = load(student_folder, trust_remote_code=trust)
        writing = _Writing(request, rows, classifier, observer)
        observer.say(f"{student.id.name} of {sweep} predicts {count(rows.rows, 'row')}")
        writing.write(_text_columns(request, student, rows))
    return Predictions(
        sweep=sweep,
        trial=student.id,
        file=request.file,
        out=request.target,
        columns=tuple(writing.new),
        rows=rows.rows,
        tally=writing.tally,
        notes=rows.notes,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _nothing_written(target: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {target} was not written") from None
    except OSError as error:
        where = error.filename or target
        raise KdsweepError(
            f"{where}: {error.strerror or error}; {target} was not written"
        ) from error


# --- what a user can get wrong ---


def _check_paths(request: Request) -> None:
    file, target = request.file, request.target
    if kind_of_file(file) not in DATA_SUFFIXES:
        raise DataError(wrong_kind(file))
    if not file.exists():
        raise DataError(f"{file}: there is no such file{nearest_file(str(file))}")
    if file.is_dir():
        raise DataError(f"{file} is a folder; name one of its files")
    if endings(target) != endings(file):
        raise SettingsConflict(
            f"--out {target}: the file is of the same kind as {file.name}; let it end in "
            f"{''.join(endings(file))}"
        )
    if target.exists() and target.samefile(file):
        raise SettingsConflict(f"--out {target}: this is the file that is read; name another one")
    if target.is_dir():
        raise SettingsConflict(f"--out {target} is a folder; name a file")
    if target.exists() and not request.overwrite:
        raise SettingsConflict(
            f"{target} exists; name another file with --out, or replace it with --overwrite"
        )


def _text_columns(request: Request, student: Student, rows: RowFile) -> list[str]:
    """The columns of the file that hold the text. Raises DataError."""
    if not rows.rows:
        raise DataError(f"{request.file} has no rows")
    task = student.settings.task
    columns = list(request.text or task.text)
    if len(columns) != len(task.text):
        raise DataError(
            f"--text: the task reads {count(len(task.text), 'column')} "
            f"({' and '.join(task.text)}), not {len(columns)}"
        )
    for column in columns:
        if column not in rows.columns:
            found = first_few(map(repr, rows.columns))
            hint = did_you_mean(column, rows.columns)
            if not hint and not request.text:
                hint = "; name the column that holds the text with --text"
            raise DataError(f"{request.file} has no column {column!r}, only {found}{hint}")
    return columns


def _new_columns(classifier: Classifier, request: Request, rows: RowFile) -> NewColumns:
    """The names of the new columns, and what they hold. Raises SettingsConflict."""
    new: dict[str, type[str] | type[float]] = {f"{request.prefix}prediction": float}
    if classifier.kind.has_probabilities:
        names = [f"{request.prefix}probability_{label}" for label in classifier.outputs]
        new = {f"{request.prefix}prediction": str, **dict.fromkeys(names, float)}
    if taken := [name for name in new if name in rows.columns]:
        raise SettingsConflict(
            f"{request.file} has a column {taken[0]!r} already; start the names of the new ones "
            f"with something else, such as --prefix student_"
        )
    return new


# --- the work ---


class _Writing:
    """Reads a part of the rows, lets the student answer, and writes them; then the next part."""

    def __init__(
        self, request: Request, rows: RowFile, classifier: Classifier, observer: Observer
    ) -> None:
        self.request, self.rows, self.observer = request, rows, observer
        self.classifier = classifier
        self.new = _new_columns(classifier, request, rows)
        self.tally = Tally()
        self.done = 0
        self.columns: list[str] = []

    def write(self, columns: list[str]) -> None:
        """columns: those that hold the text."""
        self.columns = columns
        what = f"predicting {self.request.file.name}"
        self.observer.rows(what, 0, self.rows.rows)

        def answer(values: list[list[object]]) -> Added:
            added = self._answered(values)
            self.done += len(values[0])
            self.observer.rows(what, self.done, self.rows.rows)
            return added

        def write(file: IO[bytes]) -> None:
            self.rows.write_with(file, columns, self.new, answer)
            if not self.tally.answered:
                named = " and ".join(map(repr, columns))
                raise DataError(f"{self.request.file}: no row has a text in {named}")

        write_atomically(self.request.target, write)
        self.observer.over(what)

    def _answered(self, values: list[list[object]]) -> Added:
        texts = [
            read_texts(column, f"{self.request.file}: {name}", self.done + 1)
            for name, column in zip(self.columns, values, strict=True)
        ]
        # Text that is empty says nothing, as in training.
        filled = [i for i, row in enumerate(zip(*texts, strict=True)) if all(map(str.strip, row))]
        added: list[list[str | float | None]] = [[None] * len(values[0]) for _ in self.new]
        if filled:
            answers = self.classifier.answer([[column[i] for i in filled] for column in texts])
            self.tally.add(answers)
            for column, found in zip(added, _by_column(answers), strict=True):
                for i, value in zip(filled, found, strict=True):
                    column[i] = value
        return added


def _by_column(answers: Answers) -> list[Sequence[str | float]]:
    """The answers to all rows in each of the new columns."""
    if answers.probabilities is None:
        return [_rounded(answers.scores.tolist())]
    return [answers.labels, *(_rounded(column) for column in answers.probabilities.T.tolist())]


def _rounded(values: Sequence[float]) -> list[float]:
    """With six digits. Sums of fp32 numbers have no more, and depend on a row's neighbours."""
    return [float(f"{value:.6g}") for value in values]
