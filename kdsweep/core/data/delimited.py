"""csv and tsv: which character separates fields, what quotes mean, and which lines make a row.

Every value is text: 'null', 'NA' and '007' stay as written.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Record:
    """The fields of one row, and the lines that it takes, from 1."""

    fields: list[str]
    first: int
    last: int


def read_delimited(text: str, separator: str) -> RawTable:
    """The table of a csv (separator: a comma) or a tsv (a tab).

    Another separator is used if the first line names it, or if the header has more columns by it.
    Raises ValueError for rows with more fields than the header.
    """
    # A line ends at LF, CR or CRLF and nowhere else: not at U+2028, as in str.splitlines.
    lines = list(io.StringIO(text, newline=""))
    skipped = 0
    if lines and (named := EXCEL_SEPARATOR.fullmatch(lines[0])):
        found, skipped = named[1], 1
    else:
        found = _separator(lines, separator)
    if not any(line.strip() for line in lines[skipped:]):
        raise ValueError("No columns: the file is empty")
    records, notes = _records(lines[skipped:], found, quotes_first=separator == ",")
    if found != separator:
        notes.insert(0, f"columns are separated by {found!r}")
    return _as_table(records, skipped, notes)


def _separator(lines: list[str], usual: str) -> str:
    """The usual one, unless the header has more columns by another and the rows agree with it.

    A name in the header may hold a comma (`text, body;label`): then no row has as many fields.
    """
    filled = [line for line in lines if line.strip()][: 1 + ROWS_LOOKED_AT]

    def fit(separator: str) -> tuple[bool, int]:
        header, *rows = [*csv.reader(filled, delimiter=separator)] or [[]]
        as_wide = sum(len(row) == len(header) for row in rows)
        return len(header) > 1 and 2 * as_wide >= len(rows), len(header)

    return max((usual, *SEPARATORS), key=fit)


def _records(
    lines: list[str], separator: str, *, quotes_first: bool
) -> tuple[list[_Record], list[str]]:
    """The rows, and what a user should know of their quotes.

    A csv quotes its fields. Most tab-separated corpora (GLUE's own among them) write quotes as
    plain characters, and some quote as csv does: those whose lines have different numbers of
    fields, if their quotes are right throughout.
    """
    plain = _parse(lines, separator, quoting=csv.QUOTE_NONE)
    widths = {len(one.fields) for one in plain}
    if not quotes_first and len(widths) == 1:
        return plain, []
    try:
        quoted = _parse(lines, separator, strict=True)
    except csv.Error as error:
        return _with_wrong_quotes(lines, separator, plain, error, quotes_first=quotes_first)
    long = [one for one in quoted if one.last > one.first]
    if not quotes_first and _hold_whole_rows(long, lines, separator, quoted):
        return plain, ["its quotes are read as plain characters, because some are unpaired"]
    return quoted, _notes_of_long_rows(lines, separator, quoted)


def _with_wrong_quotes(
    lines: list[str],
    separator: str,
    plain: list[_Record],
    error: csv.Error,
    *,
    quotes_first: bool,
) -> tuple[list[_Record], list[str]]:
    """The rows of a file in which a quote is unpaired, or not doubled inside of a quoted field."""
    as_plain = ["its quotes are read as plain characters, because some are unpaired"]
    if not quotes_first:
        return plain, as_plain
    if (escaped := _with_backslashes(lines, separator)) is not None:
        note = 'its quotes are escaped by backslashes (\\"), and read as quotes'
        return escaped, [note, *_notes_of_long_rows(lines, separator, escaped)]
    if "unexpected end of data" in str(error):
        start = _parse(lines, separator)[-1].first
        raise ValueError(
            f"EOF inside string: the quote in line {start} is never closed; close it, or double "
            "each quote that is part of a text"
        )
    quoted = _parse(lines, separator)
    is_even = len({len(one.fields) for one in plain}) == 1
    if is_even and any(one.last > one.first for one in quoted):
        return plain, as_plain
    return quoted, _notes_of_long_rows(lines, separator, quoted)


def _with_backslashes(lines: list[str], separator: str) -> list[_Record] | None:
    """The rows if a backslash stands before each quote in a field, as Spark and MySQL write it."""
    doubled = [ESCAPED_QUOTE.sub(r'\1""', line) for line in lines]
    if doubled == lines:
        return None
    try:
        found = _parse(doubled, separator, strict=True)
    except csv.Error:
        return None
    return found if len({len(one.fields) for one in found}) == 1 else None


def _parse(
    lines: list[str], separator: str, *, quoting: int = csv.QUOTE_MINIMAL, strict: bool = False
) -> list[_Record]:
    """Every row that isn't blank. Raises csv.Error for a wrong quote if `strict`."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(
        lines,
        delimiter=separator,
        quoting=quoting,  # type: ignore[arg-type]
        strict=strict,
    )
    found = []
    first = 1
    for fields in reader:
        if fields and (len(fields) > 1 or fields[0].strip()):
            found.append(_Record(fields, first, reader.line_num))
        first = reader.line_num + 1
    return found


def _hold_whole_rows(
    long: list[_Record], lines: list[str], separator: str, records: list[_Record]
) -> bool:
    """Whether a row of several lines holds lines that could be rows by themselves."""
    width = len(records[0].fields)
    return any(
        line.count(separator) == width - 1 and width > 1
        for one in long
        for line in lines[one.first : one.last - 1]
    )


def _notes_of_long_rows(lines: list[str], separator: str, records: list[_Record]) -> list[str]:
    """A note if lines and rows differ in number."""
    long = [one for one in records if one.last > one.first]
    if not long:
        return []
    longest = max(long, key=lambda one: one.last - one.first)
    filled = sum(1 for line in lines if line.strip())
    note = (
        f"{filled:,} lines are {len(records):,} rows with the header: "
        f"{count(len(long), 'row')} of several lines, the longest from line {longest.first:,} to "
        f"{longest.last:,}"
    )
    if _hold_whole_rows(long, lines, separator, records):
        note += ", and some of these lines look like rows: is a quote unpaired?"
    return [note]


def _as_table(records: list[_Record], skipped: int, notes: list[str]) -> RawTable:
    header, *rows = records
    width = len(header.fields)
    wide = [one for one in rows if len(one.fields) > width]
    if wide and len(wide) == len(rows):
        raise ValueError(
            "its rows have more fields than the header has columns; a text with the separator in "
            "it must be quoted"
        )
    if wide:
        raise ValueError(
            f"Expected {width} fields in line {wide[0].first + skipped}, saw "
            f"{len(wide[0].fields)}; a text with the separator in it must be quoted"
        )
    if short := [one for one in rows if len(one.fields) < width]:
        notes.append(
            f"{count(len(short), 'row')} with fewer fields than the {width} columns of the header "
            f"(line {short[0].first + skipped:,}); what is missing is empty"
        )
    if repeated := [name for name, times in Counter(header.fields).items() if name and times > 1]:
        notes.append(
            f"several columns are named {first_few(map(repr, repeated))}: the first one has the "
            f"name, the next one is {repeated[0] + '.1'!r}"
        )
    names = named_once([name or f"Unnamed: {i}" for i, name in enumerate(header.fields)])
    columns: dict[str, list[object]] = {
        name: [one.fields[i] if i < len(one.fields) else None for one in rows]
        for i, name in enumerate(names)
    }
    return RawTable(columns, {}, tuple(notes))
