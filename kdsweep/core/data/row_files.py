"""Files of rows that are read a part at a time, and written again with more columns.

A csv, tsv, jsonl or parquet file is never in memory as a whole. A json file that is one value is,
once.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Generic, TypeVar

from kdsweep.core.data.delimited import EXCEL_SEPARATOR, look_at_delimited
from kdsweep.core.data.raw_table import named_once
from kdsweep.core.data.sources import DATA_SUFFIXES
from kdsweep.core.data.table_files import (
    TextLines,
    encoding_of,
    json_lines,
    json_rows,
    kind_of_file,
    one_line_if_unreadable,
    open_content,
    packing,
    wrong_kind,
)
from kdsweep.errors import DataError

if TYPE_CHECKING:
    import pyarrow

# Rows that are read and answered at once.
ROWS_A_PART = 4096
# How many of them a parquet file keeps in one group.
ROWS_A_GROUP = 65_536

Part = TypeVar("Part")
# The new columns by name, and what they hold.
NewColumns = Mapping[str, type[str] | type[float]]
# A value for each row of a part, in each new column. None is nothing.
Added = Sequence[Sequence[str | float | None]]
Answer = Callable[[list[list[object]]], Added]


class RowFile(ABC):
    """The rows of one file, which was read once to the end: what is wrong with it is known.

    columns: their names. rows: how many. notes: what a user should know about how it is read.
    """

    columns: tuple[str, ...]
    rows: int
    notes: tuple[str, ...] = ()

    @abstractmethod
    def write_with(
        self, file: IO[bytes], columns: Sequence[str], new: NewColumns, answer: Answer
    ) -> None:
        """Write all rows and their new columns as a file of this kind, in the same encoding and
        compression.

        answer: gets the values of `columns` for a part of the rows, [columns] of [rows], and
        returns those of the new ones. Raises DataError if the file can't be read any more.
        """


class _PartedFile(RowFile, Generic[Part]):
    def __init__(self, path: Path) -> None:
        self.path = path

    def write_with(
        self, file: IO[bytes], columns: Sequence[str], new: NewColumns, answer: Answer
    ) -> None:
        answered = (
            (part, answer([self.values(part, column) for column in columns]))
            for part in self._readable_parts()
        )
        self.write(file, new, answered)

    def _readable_parts(self) -> Iterator[Part]:
        with one_line_if_unreadable(self.path):
            yield from self.parts()

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """All rows in their order, ROWS_A_PART at a time."""

    @abstractmethod
    def values(self, part: Part, column: str) -> list[object]:
        """One of the columns, [rows of the part]."""

    @abstractmethod
    def write(
        self, file: IO[bytes], new: NewColumns, parts: Iterable[tuple[Part, Added]]
    ) -> None: ...


def open_rows(path: Path) -> RowFile:
    """The rows of a csv, tsv, json, jsonl or parquet file. Raises DataError if any part of it can't
    be read.
    """
    kind = kind_of_file(path)
    if kind not in DATA_SUFFIXES:
        raise DataError(wrong_kind(path))
    with one_line_if_unreadable(path):
        match kind:
            case ".csv" | ".tsv":
                return _DelimitedRows(path, "," if kind == ".csv" else "\t")
            case ".parquet":
                return _ParquetRows(path)
        lines = TextLines(path, "\n")
        return _ObjectLines(lines) if kind == ".jsonl" or _has_lines(lines) else _JsonRows(path)


def _has_lines(lines: TextLines) -> bool:
    """Whether each line is a value: the first one is, and there is another."""
    filled = list(itertools.islice((line for line in lines if line.strip()), 2))
    try:
        return len(filled) == 2 and isinstance(json.loads(filled[0]), dict)
    except ValueError:
        return False


# --- csv, tsv ---


class _DelimitedRows(_PartedFile[list[list[str | None]]]):
    def __init__(self, path: Path, usual: str) -> None:
        super().__init__(path)
        self.lines = TextLines(path, "")
        self.found = look_at_delimited(self.lines, usual)
        self.columns, self.rows, self.notes = (
            self.found.columns,
            self.found.rows,
            self.found.notes,
        )
        self.first = next(iter(self.lines))
        # A tab-separated file whose quotes are plain characters stays one. In any other file they
        # are doubled, as the next reader expects.
        self.is_plain = self.found.dialect.quotes == "plain" and usual == "\t"

    def parts(self) -> Iterator[list[list[str | None]]]:
        rows = self.found.fields(self.lines)
        while part := list(itertools.islice(rows, ROWS_A_PART)):
            yield part

    def values(self, part: list[list[str | None]], column: str) -> list[object]:
        number = self.columns.index(column)
        return [fields[number] for fields in part]

    def write(
        self,
        file: IO[bytes],
        new: NewColumns,
        parts: Iterable[tuple[list[list[str | None]], Added]],
    ) -> None:
        with packing(file, self.path) as packed:
            # Unlike a TextIOWrapper, it starts any file of UTF-16 with a byte order mark.
            text = codecs.getwriter(self.lines.encoding)(packed)
            if EXCEL_SEPARATOR.fullmatch(self.first):
                text.write(self.first)
            write = self._write_plain if self.is_plain else self._write_quoted
            header: list[str | float | None] = [*self.columns, *new]
            write(text, itertools.chain([header], _answered(parts)))

    @property
    def _line_end(self) -> str:
        return "\r\n" if self.first.endswith("\r\n") else "\n"

    def _write_quoted(
        self, text: codecs.StreamWriter, rows: Iterable[list[str | float | None]]
    ) -> None:
        separator = self.found.dialect.separator
        csv.writer(text, delimiter=separator, lineterminator=self._line_end).writerows(rows)

    def _write_plain(
        self, text: codecs.StreamWriter, rows: Iterable[list[str | float | None]]
    ) -> None:
        separator = self.found.dialect.separator
        for row in rows:
            # Only the name of a label can hold a separator or a line's end.
            fields = ("" if value is None else str(value) for value in row)
            cleaned = (" ".join(field.split(separator)) for field in fields)
            text.write(separator.join(cleaned) + self._line_end)


def _answered(
    parts: Iterable[tuple[list[list[str | None]], Added]],
) -> Iterator[list[str | float | None]]:
    for part, added in parts:
        for fields, answers in zip(part, zip(*added, strict=True), strict=True):
            yield [*fields, *answers]


# --- jsonl, json ---


class _ObjectLines(_PartedFile[list[dict[str, object]]]):
    """One object a line."""

    def __init__(self, lines: TextLines) -> None:
        super().__init__(lines.path)
        self.lines = lines
        names: dict[str, None] = {}
        self.rows = 0
        for part in self.parts():
            self.rows += len(part)
            for row in part:
                names.update(dict.fromkeys(row))
        self.columns = tuple(names)

    def parts(self) -> Iterator[list[dict[str, object]]]:
        values = json_lines(self.lines)
        while part := list(itertools.islice(values, ROWS_A_PART)):
            yield _all_objects(part)

    def values(self, part: list[dict[str, object]], column: str) -> list[object]:
        return [row.get(column) for row in part]

    def write(
        self,
        file: IO[bytes],
        new: NewColumns,
        parts: Iterable[tuple[list[dict[str, object]], Added]],
    ) -> None:
        with packing(file, self.path) as packed:
            for part, added in parts:
                for row in _with_answers(part, new, added):
                    packed.write(_as_json(row) + b"\n")


class _JsonRows(_PartedFile[slice]):
    """One JSON value: a list of objects, a mapping of columns, or one of these under `data`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with open_content(path) as file:
            content = file.read()
        self.value = json.loads(content.decode(encoding_of(content)))
        self.found = json_rows(self.value)
        if isinstance(self.found, dict):
            self.columns = tuple(self.found)
            self.rows = len(next(iter(self.found.values()), []))
        else:
            self.columns = tuple(dict.fromkeys(name for row in self.found for name in row))
            self.rows = len(self.found)

    def parts(self) -> Iterator[slice]:
        for start in range(0, self.rows, ROWS_A_PART):
            yield slice(start, min(start + ROWS_A_PART, self.rows))

    def values(self, part: slice, column: str) -> list[object]:
        if isinstance(self.found, dict):
            return self.found[column][part]
        return [row.get(column) for row in self.found[part]]

    def write(self, file: IO[bytes], new: NewColumns, parts: Iterable[tuple[slice, Added]]) -> None:
        with packing(file, self.path) as packed:
            if isinstance(self.found, dict):
                answers: dict[str, list[object]] = {name: [] for name in new}
                for _, added in parts:
                    for column, values in zip(answers.values(), added, strict=True):
                        column.extend(values)
                rows = _as_json({**self.found, **answers})
                packed.write(self._before + rows + self._after)
                return
            found = self.found
            objects = (_with_answers(found[part], new, added) for part, added in parts)
            separator = self._before + b"[\n"
            for row in itertools.chain.from_iterable(objects):
                packed.write(separator + _as_json(row))
                separator = b",\n"
            packed.write(b"\n]" + self._after)

    @property
    def _before(self) -> bytes:
        """What stands before the rows, where they are under `data`."""
        if self.value is self.found:
            return b""
        others = (
            _as_json(name) + b": " + _as_json(one) + b",\n"
            for name, one in self.value.items()
            if name != "data"
        )
        return b"{" + b"".join(others) + b'"data": '

    @property
    def _after(self) -> bytes:
        return b"\n" if self.value is self.found else b"}\n"


def _all_objects(values: list[object]) -> list[dict[str, object]]:
    found = json_rows(values)
    assert isinstance(found, list)
    return found


def _with_answers(
    part: list[dict[str, object]], new: NewColumns, added: Added
) -> Iterator[dict[str, object]]:
    for row, answers in zip(part, zip(*added, strict=True), strict=True):
        yield {**row, **dict(zip(new, answers, strict=True))}


def _as_json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair can only be escaped.
        return json.dumps(value).encode()


# --- parquet ---


class _ParquetRows(_PartedFile["pyarrow.RecordBatch"]):
    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        super().__init__(path)
        with parquet.ParquetFile(path) as file:
            self.schema = file.schema_arrow
            self.columns = tuple(named_once(self.schema.names))
            self.rows = file.metadata.num_rows

    def parts(self) -> Iterator[pyarrow.RecordBatch]:
        from pyarrow import parquet

        with parquet.ParquetFile(self.path) as file:
            yield from file.iter_batches(batch_size=ROWS_A_PART)

    def values(self, part: pyarrow.RecordBatch, column: str) -> list[object]:
        found: list[object] = part.column(self.columns.index(column)).to_pylist()
        return found

    def write(
        self, file: IO[bytes], new: NewColumns, parts: Iterable[tuple[pyarrow.RecordBatch, Added]]
    ) -> None:
        import pyarrow
        from pyarrow import parquet

        types = [pyarrow.string() if kind is str else pyarrow.float64() for kind in new.values()]
        schema = self.schema
        for name, kind in zip(new, types, strict=True):
            schema = schema.append(pyarrow.field(name, kind))
        batches = (
            pyarrow.RecordBatch.from_arrays(
                [*part.columns, *map(pyarrow.array, added, types)], schema=schema
            )
            for part, added in parts
        )
        with parquet.ParquetWriter(file, schema) as writer:
            while group := list(itertools.islice(batches, ROWS_A_GROUP // ROWS_A_PART)):
                table = pyarrow.Table.from_batches(group)
                writer.write_table(table, row_group_size=ROWS_A_GROUP)
