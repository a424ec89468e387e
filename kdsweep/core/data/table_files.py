"""From one file to a table: csv, tsv, json, jsonl and parquet, also compressed."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

from kdsweep.core.data.delimited import read_delimited
from kdsweep.core.data.raw_table import RawTable, named_once, table_of_objects, without_nan
from kdsweep.core.data.sources import COMPRESSED, DATA_SUFFIXES
from kdsweep.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow

# How a file of each encoding starts. The mark of UTF-16 is the beginning of that of UTF-32.
MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


# How files start that are no text, and how they must be named to be read.
OTHER_FORMATS = {
    b"\x1f\x8b": ("gzip", ".gz"),
    b"BZh": ("bzip2", ".bz2"),
    b"\xfd7zXZ\0": ("xz", ".xz"),
    b"PAR1": ("parquet", ".parquet"),
    b"PK\x03\x04": ("zip", ".csv, .json or .parquet, and unpack it"),
    b"\x28\xb5\x2f\xfd": ("zstandard", ".csv, .json or .parquet, and unpack it"),
}


def kind_of_file(path: Path) -> str:
    """The suffix that says what is in the file, in lower case: `.csv` of `ROWS.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def read_table(path: Path, wanted: Container[str] | None = None) -> RawTable:
    """The columns of a csv, tsv, json, jsonl or parquet file. Raises DataError.

    wanted: of other columns a parquet file gives the names alone, without rows.
    """
    kind = kind_of_file(path)
    if kind not in DATA_SUFFIXES:
        raise DataError(f"task.dataset: {wrong_kind(path)}")
    with one_line_if_unreadable(path):
        if kind == ".parquet":
            return _read_parquet(path, wanted)
        return _read_text(_text(path), kind)


def wrong_kind(path: Path) -> str:
    """Why the file can't be read, whatever is in it."""
    return f"{path} is none of {', '.join(sorted(DATA_SUFFIXES))}; save it as one of these"


@contextlib.contextmanager
def one_line_if_unreadable(path: Path) -> Iterator[None]:
    """Raises DataError for whatever is wrong with the content that is read inside."""
    kind = kind_of_file(path)[1:]
    try:
        yield
    except UnicodeDecodeError as error:
        raise _not_utf_8(path, error.start) from error
    except RecursionError as error:
        raise DataError(f"{path}: can't be read as {kind}: it is nested too deeply") from error
    except (ValueError, csv.Error, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: can't be read as {kind}: {first_line(error)}") from error


@contextlib.contextmanager
def open_content(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it is compressed."""
    with path.open("rb") as file, _as_if_unpacked(file, path, "rb") as content:
        yield content


@contextlib.contextmanager
def packing(file: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """What is written is compressed as the name `path` says, and goes to `file`."""
    with _as_if_unpacked(file, path, "wb") as packed:
        yield packed


def _as_if_unpacked(
    file: IO[bytes], path: Path, mode: Literal["rb", "wb"]
) -> contextlib.AbstractContextManager[IO[bytes]]:
    """The content of a file, compressed as the name `path` says. It leaves `file` open."""
    match path.suffix.lower():
        case ".gz":
            # Without the name and the time, which would make equal content differ.
            return cast(IO[bytes], gzip.GzipFile("", mode, fileobj=file, mtime=0))
        case ".bz2":
            return cast(IO[bytes], bz2.open(file, mode))
        case ".xz":
            return cast(IO[bytes], lzma.open(file, mode))
    return contextlib.nullcontext(file)


def _text(path: Path) -> str:
    with open_content(path) as file:
        content = file.read()
    return content.decode(encoding_of(content))


def encoding_of(content: bytes) -> str:
    """UTF-8, or what the byte order mark at the start says. Raises ValueError if it is no text."""
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    for mark, (what, suffix) in OTHER_FORMATS.items():
        if content.startswith(mark):
            raise ValueError(f"is a {what} file; give it a name that ends in {suffix}")
    if content[:1000].count(b"\0") > len(content[:1000]) / 10:
        raise ValueError("holds NUL characters, as UTF-16 does; save it as UTF-8")
    return "utf-8"


def _not_utf_8(path: Path, byte: int) -> DataError:
    return DataError(f"{path}: not UTF-8 text (byte {byte}); save it as UTF-8")


class TextLines:
    """The lines of a text file, each with its end. Each iteration reads the file again.

    newline: as of `open`: "" ends a line at LF, CR and CRLF, and "\n" at LF alone.
    """

    def __init__(self, path: Path, newline: Literal["", "\n"]) -> None:
        """Raises ValueError if it is no text."""
        self.path = path
        self.newline = newline
        with open_content(path) as file:
            self.encoding = encoding_of(file.read(1000))

    def __iter__(self) -> Iterator[str]:
        with (
            open_content(self.path) as file,
            io.TextIOWrapper(file, encoding=self.encoding, newline=self.newline) as text,
        ):
            try:
                yield from text
            except UnicodeDecodeError as error:
                # What was decoded last ends where the file is now.
                start = file.tell() - len(error.object) + error.start
                raise _not_utf_8(self.path, start) from error


def _read_text(text: str, kind: str) -> RawTable:
    match kind:
        case ".csv":
            return read_delimited(text, ",")
        case ".tsv":
            return read_delimited(text, "\t")
        case ".jsonl":
            return table_of_objects(_objects(list(json_lines(text.split("\n")))))
    return _parse_json(text)


def _parse_json(text: str) -> RawTable:
    """A list of objects, a mapping of columns, a list under "data", or one object a line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = list(json_lines(text.split("\n")))
    rows = json_rows(value)
    if isinstance(rows, dict):
        return RawTable(
            {name: [without_nan(one) for one in column] for name, column in rows.items()}
        )
    return table_of_objects(rows)


def json_rows(value: object) -> list[dict[str, object]] | dict[str, list[object]]:
    """The rows of a file that is one JSON value: objects, or columns. Raises ValueError."""
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"its columns have different numbers of rows: {lengths}")
        return value
    return _objects(value)


def json_lines(lines: Iterable[str]) -> Iterator[object]:
    """One value a line. A line ends at LF alone: U+2028 may stand inside of a text."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line.removesuffix("\n"))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number:,}: {error.msg} (column {error.colno})") from error


def _objects(rows: object) -> list[dict[str, object]]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one object per row")
    return rows


# --- parquet ---


def _read_parquet(path: Path, wanted: Container[str] | None) -> RawTable:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    # pandas writes its row numbers as one more column.
    names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
    read = [name for name in names if wanted is None or name in wanted]
    table = file.read(columns=read)
    columns: dict[str, list[object]] = {}
    for name in named_once(names):
        values = table.column(name).to_pylist() if name in read else []
        columns[name] = [without_nan(one) for one in values]
    return RawTable(columns, _class_names(file.schema_arrow))


def _class_names(schema: pyarrow.Schema) -> dict[str, tuple[str, ...]]:
    """The class names that `datasets` keeps in a parquet file."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    import datasets

    features = datasets.Features.from_arrow_schema(schema)
    return {name: found for name, one in features.items() if (found := names_of_feature(one))}


def names_of_feature(feature: object) -> tuple[str, ...]:
    """The class names of a feature of `datasets`, or of what is in its lists; empty without any."""
    inner = getattr(feature, "feature", feature)
    return tuple(getattr(inner, "names", None) or ())
