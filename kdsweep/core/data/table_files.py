"""From one file to a table: csv, tsv, json, jsonl and parquet, also compressed."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep.core.data.delimited import read_delimited
from kdsweep.core.data.raw_table import RawTable, named_once, table_of_objects, without_nan
from kdsweep.core.data.sources import COMPRESSED, DATA_SUFFIXES
from kdsweep.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow

OPENERS: dict[str, Callable[[Path], bytes]] = {
    ".gz": lambda path: gzip.decompress(path.read_bytes()),
    ".bz2": lambda path: bz2.decompress(path.read_bytes()),
    ".xz": lambda path: lzma.decompress(path.read_bytes()),
}
assert OPENERS.keys() == COMPRESSED
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
        suffixes = ", ".join(sorted(DATA_SUFFIXES))
        raise DataError(f"task.dataset: {path} is none of {suffixes}; save it as one of these")
    try:
        if kind == ".parquet":
            return _read_parquet(path, wanted)
        return _read_text(_decoded(_content(path)), kind)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{path}: can't be read as {kind[1:]}: it is nested too deeply") from error
    except (ValueError, csv.Error, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: can't be read as {kind[1:]}: {first_line(error)}") from error


def _content(path: Path) -> bytes:
    opener = OPENERS.get(path.suffix.lower(), Path.read_bytes)
    return opener(path)


def _decoded(content: bytes) -> str:
    """The text: UTF-8, or what its byte order mark says."""
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    for mark, (what, suffix) in OTHER_FORMATS.items():
        if content.startswith(mark):
            raise ValueError(f"is a {what} file; give it a name that ends in {suffix}")
    if content[:1000].count(b"\0") > len(content[:1000]) / 10:
        raise ValueError("holds NUL characters, as UTF-16 does; save it as UTF-8")
    return content.decode("utf-8")


def _read_text(text: str, kind: str) -> RawTable:
    match kind:
        case ".csv":
            return read_delimited(text, ",")
        case ".tsv":
            return read_delimited(text, "\t")
        case ".jsonl":
            return table_of_objects(_objects(_json_lines(text)))
    return _parse_json(text)


def _parse_json(text: str) -> RawTable:
    """A list of objects, a mapping of columns, a list under "data", or one object a line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = _json_lines(text)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        lengths = {name: len(column) for name, column in value.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"its columns have different numbers of rows: {lengths}")
        return RawTable({name: [without_nan(one) for one in rows] for name, rows in value.items()})
    return table_of_objects(_objects(value))


def _json_lines(text: str) -> list[object]:
    """One value a line. A line ends at LF alone: U+2028 may stand inside of a text."""
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number:,}: {error.msg} (column {error.colno})") from error
    return found


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
