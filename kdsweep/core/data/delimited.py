"""csv and tsv: which character separates fields, what quotes mean, and which lines make a row.

Every value is text: 'null', 'NA' and '007' stay as written. Lines are read again for each question,
so that they may be those of a file that doesn't fit into memory.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from kdsweep.core.data.raw_table import RawTable, named_once
from kdsweep.errors import first_few
from kdsweep.formatting import count

# Excel's first line, which names the separator.
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
# A quote after an odd number of backslashes.
ESCAPED_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')
SEPARATORS = (",", ";", "\t", "|")
# How many rows are asked whether they have as many fields as the header.
ROWS_LOOKED_AT = 100
AS_PLAIN = "its quotes are read as plain characters, because some are unpaired"


@dataclass(frozen=True)
class Dialect:
    """How lines are cut into fields.

    quotes: they enclose fields, and are doubled inside of them ("doubled") or have a backslash
    ("escaped"); or they are characters like others ("plain"). skipped: lines before the header.
    """

    separator: str
    quotes: Literal["doubled", "escaped", "plain"] = "doubled"
    skipped: int = 0


@dataclass(frozen=True)
class Delimited:
    """How a csv or tsv is read, and what is in it.

    columns: their names, each once. rows: how many, without the header. notes: what a user should
    know about how it is read.
    """

    dialect: Dialect
    columns: tuple[str, ...]
    rows: int
    notes: tuple[str, ...]

    def fields(self, lines: Iterable[str]) -> Iterator[list[str | None]]:
        """The values of each row, one for each column; None where a row is too short."""
        for one in islice(_records(lines, self.dialect), 1, None):
            yield [*one.fields, *[None] * (len(self.columns) - len(one.fields))]


def read_delimited(text: str, separator: str) -> RawTable:
    """The table of a csv (separator: a comma) or a tsv (a tab). Raises as `look_at_delimited`."""
    # A line ends at LF, CR or CRLF and nowhere else: not at U+2028, as in str.splitlines.
    lines = list(io.StringIO(text, newline=""))
    found = look_at_delimited(lines, separator)
    rows = list(found.fields(lines))
    columns: dict[str, list[object]] = {
        name: [fields[i] for fields in rows] for i, name in enumerate(found.columns)
    }
    return RawTable(columns, {}, found.notes)


def look_at_delimited(lines: Iterable[str], separator: str) -> Delimited:
    """How to read a csv (separator: a comma) or a tsv (a tab).

    lines: can be iterated again, each with its end. Another separator is used if the first line
    names it, or if the header has more columns by it and the rows agree. Raises ValueError for rows
    with more fields than the header, and for a quote that is never closed.
    """
    csv.field_size_limit(sys.maxsize)
    first = next(iter(lines), "")
    if named := EXCEL_SEPARATOR.fullmatch(first):
        dialect = Dialect(named[1], skipped=1)
    else:
        dialect = Dialect(_separator(lines, separator))
    if not any(line.strip() for line in islice(lines, dialect.skipped, None)):
        raise ValueError("No columns: the file is empty")
    dialect, survey, notes = _settle_quotes(lines, dialect, quotes_first=separator == ",")
    if dialect.separator != separator:
        notes.insert(0, f"columns are separated by {dialect.separator!r}")
    columns, more_notes = _columns(survey)
    return Delimited(dialect, columns, survey.records - 1, (*notes, *more_notes))


def _separator(lines: Iterable[str], usual: str) -> str:
    """The usual one, unless the header has more columns by another and the rows agree with it.

    A name in the header may hold a comma (`text, body;label`): then no row has as many fields.
    """
    filled = list(islice((line for line in lines if line.strip()), 1 + ROWS_LOOKED_AT))

    def fit(separator: str) -> tuple[bool, int]:
        header, *rows = [*csv.reader(filled, delimiter=separator)] or [[]]
        as_wide = sum(len(row) == len(header) for row in rows)
        return len(header) > 1 and 2 * as_wide >= len(rows), len(header)

    return max((usual, *SEPARATORS), key=fit)


# --- rows ---


@dataclass(frozen=True)
class _Record:
    """The fields of one row, and the lines that it takes, from 1.

    inside: the lines between the first and the last one.
    """

    fields: list[str]
    first: int
    last: int
    inside: tuple[str, ...] = ()


def _records(lines: Iterable[str], dialect: Dialect, *, strict: bool = False) -> Iterator[_Record]:
    """Every row that isn't blank, the header first. Raises csv.Error for a wrong quote if
    `strict`.
    """
    taken: list[str] = []

    def taking() -> Iterator[str]:
        for line in islice(lines, dialect.skipped, None):
            taken.append(line)
            is_escaped = dialect.quotes == "escaped"
            yield ESCAPED_QUOTE.sub(r'\1""', line) if is_escaped else line

    reader = csv.reader(
        taking(),
        delimiter=dialect.separator,
        quoting=csv.QUOTE_NONE if dialect.quotes == "plain" else csv.QUOTE_MINIMAL,
        strict=strict,
    )
    first = dialect.skipped + 1
    for fields in reader:
        last = dialect.skipped + reader.line_num
        if fields and (len(fields) > 1 or fields[0].strip()):
            yield _Record(fields, first, last, tuple(taken[1:-1]))
        first = last + 1
        taken.clear()


@dataclass
class _Survey:
    """What one way to read the lines makes of them.

    records: the rows and the header. last: the line in which the last one starts. long: rows of
    several lines. holds_rows: whether lines inside of them could be rows by themselves. short,
    wide: rows with fewer and with more fields than the header.
    """

    header: list[str] = field(default_factory=list)
    records: int = 0
    last: int = 1
    widths: set[int] = field(default_factory=set)
    long: int = 0
    longest: _Record | None = None
    holds_rows: bool = False
    short: int = 0
    first_short: int = 0
    wide: int = 0
    first_wide: _Record | None = None

    @property
    def is_even(self) -> bool:
        return len(self.widths) == 1

    def add(self, one: _Record, separator: str) -> None:
        if not self.records:
            self.header = one.fields
        width = len(self.header)
        self.records += 1
        self.last = one.first
        self.widths.add(len(one.fields))
        if one.last > one.first:
            self._add_long(one, separator)
        if len(one.fields) < width:
            self.short += 1
            self.first_short = self.first_short or one.first
        elif len(one.fields) > width:
            self.wide += 1
            self.first_wide = self.first_wide or one

    def _add_long(self, one: _Record, separator: str) -> None:
        self.long += 1
        if self.longest is None or one.last - one.first > self.longest.last - self.longest.first:
            self.longest = one
        width = len(self.header)
        self.holds_rows |= width > 1 and any(
            line.count(separator) == width - 1 for line in one.inside
        )


def _survey(lines: Iterable[str], dialect: Dialect, *, strict: bool = False) -> _Survey:
    """Raises csv.Error for a wrong quote if `strict`."""
    found = _Survey()
    for one in _records(lines, dialect, strict=strict):
        found.add(one, dialect.separator)
    return found


# --- quotes ---

_Settled = tuple[Dialect, _Survey, list[str]]


def _settle_quotes(lines: Iterable[str], dialect: Dialect, *, quotes_first: bool) -> _Settled:
    """The dialect with what its quotes mean, its rows, and what a user should know of the quotes.

    A csv quotes its fields. Most tab-separated corpora (GLUE's own among them) write quotes as
    plain characters, and some quote as csv does: those whose lines have different numbers of
    fields, if their quotes are right throughout.
    """
    plain = replace(dialect, quotes="plain")
    if not quotes_first and (as_plain := _survey(lines, plain)).is_even:
        return plain, as_plain, []
    try:
        quoted = _survey(lines, dialect, strict=True)
    except csv.Error as error:
        if not quotes_first:
            return plain, as_plain, [AS_PLAIN]
        return _settle_wrong_quotes(lines, dialect, error)
    if not quotes_first and quoted.holds_rows:
        return plain, as_plain, [AS_PLAIN]
    return dialect, quoted, _notes_of_long_rows(lines, dialect, quoted)


def _settle_wrong_quotes(lines: Iterable[str], dialect: Dialect, error: csv.Error) -> _Settled:
    """Of a csv in which a quote is unpaired, or not doubled inside of a quoted field."""
    escaped = replace(dialect, quotes="escaped")
    if (survey := _with_backslashes(lines, escaped)) is not None:
        note = 'its quotes are escaped by backslashes (\\"), and read as quotes'
        return escaped, survey, [note, *_notes_of_long_rows(lines, escaped, survey)]
    quoted = _survey(lines, dialect)
    if "unexpected end of data" in str(error):
        raise ValueError(
            f"EOF inside string: the quote in line {quoted.last} is never closed; close it, or "
            "double each quote that is part of a text"
        )
    if quoted.long:
        plain = replace(dialect, quotes="plain")
        if (as_plain := _survey(lines, plain)).is_even:
            return plain, as_plain, [AS_PLAIN]
    return dialect, quoted, _notes_of_long_rows(lines, dialect, quoted)


def _with_backslashes(lines: Iterable[str], escaped: Dialect) -> _Survey | None:
    """The rows if a backslash stands before each quote in a field, as Spark and MySQL write it."""
    if not any(map(ESCAPED_QUOTE.search, lines)):
        return None
    try:
        found = _survey(lines, escaped, strict=True)
    except csv.Error:
        return None
    return found if found.is_even else None


# --- what a user should know ---


def _notes_of_long_rows(lines: Iterable[str], dialect: Dialect, survey: _Survey) -> list[str]:
    """A note if lines and rows differ in number."""
    longest = survey.longest
    if longest is None:
        return []
    filled = sum(1 for line in islice(lines, dialect.skipped, None) if line.strip())
    note = (
        f"{filled:,} lines are {survey.records:,} rows with the header: "
        f"{count(survey.long, 'row')} of several lines, the longest from line {longest.first:,} to "
        f"{longest.last:,}"
    )
    if survey.holds_rows:
        note += ", and some of these lines look like rows: is a quote unpaired?"
    return [note]


def _columns(survey: _Survey) -> tuple[tuple[str, ...], list[str]]:
    """The columns' names, and notes about them and about short rows. Raises ValueError."""
    width = len(survey.header)
    if not width:
        raise ValueError("No columns: the file is empty")
    if survey.wide and survey.wide == survey.records - 1:
        raise ValueError(
            "its rows have more fields than the header has columns; a text with the separator in "
            "it must be quoted"
        )
    if (wide := survey.first_wide) is not None:
        raise ValueError(
            f"Expected {width} fields in line {wide.first}, saw {len(wide.fields)}; a text with "
            "the separator in it must be quoted"
        )
    notes = []
    if survey.short:
        notes.append(
            f"{count(survey.short, 'row')} with fewer fields than the {width} columns of the "
            f"header (line {survey.first_short:,}); what is missing is empty"
        )
    if repeated := [name for name, times in Counter(survey.header).items() if name and times > 1]:
        notes.append(
            f"several columns are named {first_few(map(repr, repeated))}: the first one has the "
            f"name, the next one is {repeated[0] + '.1'!r}"
        )
    names = named_once(name or f"Unnamed: {i}" for i, name in enumerate(survey.header))
    return tuple(names), notes
