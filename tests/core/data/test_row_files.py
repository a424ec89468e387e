"""Files of rows are written again as they are, with more columns at the end."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from kdsweep.core.data import row_files
from kdsweep.core.data.row_files import Added, NewColumns, open_rows
from kdsweep.core.data.table_files import read_table
from kdsweep.errors import DataError

NEW: NewColumns = {"length": float, "shout": str}


def answer(values: list[list[object]]) -> Added:
    """Nothing for a row without a text."""
    (texts,) = values
    lengths = [len(text) + 0.5 if isinstance(text, str) and text else None for text in texts]
    return [lengths, [text.upper() if isinstance(text, str) and text else None for text in texts]]


def written_again(path: Path) -> Path:
    rows = open_rows(path)
    target = path.with_name(f"again-{path.name}")
    with target.open("wb") as file:
        rows.write_with(file, ["text"], NEW, answer)
    return target


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "ROWS_A_PART", 2)
    monkeypatch.setattr(row_files, "ROWS_A_GROUP", 4)


@pytest.mark.parametrize(
    ("name", "content", "again"),
    [
        (
            "rows.csv",
            'id,text\r\n007,"a, ""b"""\r\n1,\r\n2,"two\nlines"\r\n',
            'id,text,length,shout\r\n007,"a, ""b""",6.5,"A, ""B"""\r\n1,,,\r\n'
            '2,"two\nlines",9.5,"TWO\nLINES"\r\n',
        ),
        ("excel.csv", "sep=;\ntext;id\nä;1\n", "sep=;\ntext;id;length;shout\nä;1;1.5;Ä\n"),
        # Quotes that are plain characters stay so; in a csv they are doubled for the next reader.
        ("glue.tsv", 'text\tid\n"a\t1\n', 'text\tid\tlength\tshout\n"a\t1\t2.5\t"A\n'),
        ("backslash.csv", 'text\n"a \\"b\\""\n', 'text,length,shout\n"a ""b""",5.5,"A ""B"""\n'),
        ("short.csv", "text,id\na\n", "text,id,length,shout\na,,1.5,A\n"),
        (
            "rows.jsonl",
            '{"text": "a\u2028b", "n": {"x": [1, null]}}\n\n{"n": 2}\n',
            '{"text": "a\u2028b", "n": {"x": [1, null]}, "length": 3.5, "shout": "A\u2028B"}\n'
            '{"n": 2, "length": null, "shout": null}\n',
        ),
        (
            "lines.json",
            '{"text": "a"}\n{"text": "b"}\n',
            '{"text": "a", "length": 1.5, "shout": "A"}\n'
            '{"text": "b", "length": 1.5, "shout": "B"}\n',
        ),
    ],
)
def test_a_text_file_keeps_its_rows_and_how_it_is_written(
    tmp_path: Path, name: str, content: str, again: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert written_again(path).read_bytes().decode() == again


@pytest.mark.parametrize(
    "value",
    [
        [{"text": "a"}, {"text": "b", "n": [1.5]}, {"text": "c"}],
        {"text": ["a", "b", "c"], "n": [1, 2, 3]},
        {"version": "ü", "data": [{"text": "a"}, {"text": "b"}, {"text": "c"}], "more": [None]},
        {"data": [{"text": "\ud83d"}]},
    ],
)
def test_a_json_value_keeps_its_form(tmp_path: Path, value: object) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(value, indent=1))
    again = json.loads(written_again(path).read_bytes())
    expected: Any = json.loads(json.dumps(value))
    rows = expected["data"] if isinstance(expected, dict) and "data" in expected else expected
    if isinstance(rows, dict):
        rows |= {"length": [1.5] * 3, "shout": ["A", "B", "C"]}
    else:
        for row in rows:
            row |= {"length": 1.5, "shout": row["text"].upper()}
    assert again == expected


def test_a_parquet_file_keeps_its_types_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pyarrow.table(
        {"text": ["a", None, "b", "", "c"], "list": pyarrow.array([[1], [], None, [2], [3]])}
    ).replace_schema_metadata({"who": "me"})
    parquet.write_table(table, path)
    again = parquet.read_table(written_again(path))
    before = parquet.read_table(path)
    assert before.schema.metadata[b"who"] == b"me"
    assert again.select(["text", "list"]).equals(before, check_metadata=True)
    assert again.column("length").to_pylist() == [1.5, None, 1.5, None, 1.5]
    assert again.column("shout").type == pyarrow.string()


@pytest.mark.parametrize(
    ("ending", "pack", "unpack"),
    [
        (".gz", gzip.compress, gzip.decompress),
        (".bz2", bz2.compress, bz2.decompress),
        (".xz", lzma.compress, lzma.decompress),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_compression_and_encoding_stay(
    tmp_path: Path,
    ending: str,
    pack: Callable[[bytes], bytes],
    unpack: Callable[[bytes], bytes],
    encoding: str,
) -> None:
    path = tmp_path / f"rows.csv{ending}"
    path.write_bytes(pack("text\n«a»\n".encode(encoding)))
    again = unpack(written_again(path).read_bytes())
    assert again == "text,length,shout\n«a»,3.5,«A»\n".encode(encoding)


def test_what_is_wrong_at_the_end_of_a_file_is_known_before_anything_is_written(
    tmp_path: Path,
) -> None:
    fine = b"text,label\n" + b"superb,pos\n" * 20_000
    for name, content, said in [
        ("latin.csv", fine + b"caf\xe9,pos\n", f"not UTF-8 text (byte {len(fine) + 3})"),
        ("wide.csv", fine + b"a,b,c\n", "Expected 2 fields in line 20002, saw 3"),
        ("open.csv", fine + b'"never closed\n', "the quote in line 20002 is never closed"),
        ("quote.csv", b'"', "the quote in line 1 is never closed"),
        ("rows.jsonl", b'{"text": "a"}\n' * 9 + b'{"text": "b"\n', "line 10: Expecting ','"),
        ("list.jsonl", b'{"text": "a"}\n[1]\n', "expected one object per row"),
        ("cut.csv.gz", gzip.compress(fine)[:-20], "Compressed file ended"),
        ("rows.parquet", b"PAR1 and no more", "can't be read as parquet"),
        ("rows.txt", b"text", "is none of .csv, .json, .jsonl, .parquet, .tsv"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as told:
            open_rows(tmp_path / name)
        assert name in str(told.value) and said in str(told.value)
        # The task's reader says the same.
        with pytest.raises(DataError) as told_there:
            read_table(tmp_path / name)
        assert str(told_there.value).removeprefix("task.dataset: ") == str(told.value)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_large_file_is_never_in_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "ROWS_A_PART", 500)
    text = "the film was superb and the plot was fine " * 5
    line = f"{text}\n" if name == "rows.csv" else json.dumps({"text": text}) + "\n"
    (tmp_path / name).write_text("text\n" * (name == "rows.csv") + line * 20_000)
    tracemalloc.start()
    written_again(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < (tmp_path / name).stat().st_size / 3
