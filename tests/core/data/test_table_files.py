"""Files as people have them: each gives all of its rows, or one line says what is wrong."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest

from kdsweep.core.data.table_files import read_table
from kdsweep.errors import DataError

LINES = [f"text number {i}" for i in range(12)]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def separated(separator: str = ",", lines: list[str] = LINES, end: str = "\n") -> str:
    rows = [f"{text}{separator}{i % 2}" for i, text in enumerate(lines)]
    return end.join([f"text{separator}label", *rows, ""])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", separated(";")),
        ("tabs.csv", separated("\t")),
        ("bars.csv", separated("|")),
        ("excel.csv", "sep=;\r\n" + separated(";", end="\r\n")),
        ("quoted-sep.csv", '"sep=;"\n' + separated(";")),
        ("crlf.csv", separated(end="\r\n")),
        ("old-mac.csv", separated(end="\r")),
        ("bom.csv", b"\xef\xbb\xbf" + separated().encode()),
        ("utf-16.csv", separated("\t").encode("utf-16")),
        ("big-endian.txt.tsv", b"\xfe\xff" + separated("\t").encode("utf-16-be")),
        ("UPPER.CSV", separated()),
        ("rows.csv.gz", gzip.compress(separated().encode(), mtime=0)),
        ("rows.tsv.bz2", bz2.compress(separated("\t").encode())),
        ("rows.CSV.XZ", lzma.compress(separated().encode())),
        ("blank.csv", separated() + "\n\n"),
    ],
)
def test_every_row_of_a_table_is_read(tmp_path: Path, name: str, content: str | bytes) -> None:
    table = read_table(written(tmp_path / name, content))
    assert table.columns == {"text": LINES, "label": [str(i % 2) for i in range(12)]}


def test_another_separator_is_reported(tmp_path: Path) -> None:
    found = read_table(written(tmp_path / "rows.csv", separated(";")))
    assert found.notes == ("columns are separated by ';'",)
    assert read_table(written(tmp_path / "rows.csv", separated())).notes == ()


def test_a_semicolon_in_a_text_is_no_separator(tmp_path: Path) -> None:
    lines = [f"one; two; {i}" for i in range(5)]
    assert read_table(written(tmp_path / "a.csv", separated(lines=lines))).columns["text"] == lines


@pytest.mark.parametrize("line", ["\u2028", "\x85", "\x0b", "\x0c", "\x1e", "\u2029"])
def test_a_line_ends_at_line_feeds_alone(tmp_path: Path, line: str) -> None:
    texts = [f"one{line}two {i}" for i in range(3)]
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    if line in "\u2028\u2029\x85":
        found = read_table(written(tmp_path / "rows.jsonl", "\r\n".join(rows)))
        assert found.columns["text"] == texts
    found = read_table(written(tmp_path / "rows.csv", separated(lines=texts)))
    assert found.columns["text"] == texts


# --- quotes ---


@pytest.mark.parametrize("uneven", [None, 15, 45, 100])
def test_one_uneven_line_changes_no_other_row_of_a_tsv(tmp_path: Path, uneven: int | None) -> None:
    quoted = {10, 30, 60, 80}
    rows = [
        f"{chr(34) if i in quoted else ''}text {i}\t{i % 2}" + ("" if i == uneven else "\ta")
        for i in range(120)
    ]
    path = written(tmp_path / "rows.tsv", "\n".join(["text\tlabel\tannotator", *rows]))
    table = read_table(path)
    assert len(table.columns["text"]) == 120
    assert table.columns["text"][10] == '"text 10'
    if uneven is not None:
        note = f"1 row with fewer fields than the 3 columns of the header (line {uneven + 2})"
        assert any(one.startswith(note) for one in table.notes)
        assert table.columns["annotator"][uneven] is None


def test_quotes_that_pair_by_chance_swallow_no_rows_of_a_tsv(tmp_path: Path) -> None:
    """A field opens in one line and closes at the end of a field in another one."""
    rows = [f"text {i}\t{i % 2}" for i in range(40)]
    rows[5], rows[20], rows[30] = '"text 5\t1', 'text 20"\t0', "text 30"
    table = read_table(written(tmp_path / "rows.tsv", "\n".join(["text\tlabel", *rows])))
    assert len(table.columns["text"]) == 40


def test_unpaired_quotes_of_a_csv_swallow_no_rows(tmp_path: Path) -> None:
    lines = [f'"text {i}' if i in (20, 60, 100, 140) else f"text {i}" for i in range(300)]
    table = read_table(written(tmp_path / "rows.csv", separated(lines=lines)))
    assert table.columns["text"] == lines
    assert table.notes == ("its quotes are read as plain characters, because some are unpaired",)


def test_a_csv_whose_rows_have_several_lines_says_so(tmp_path: Path) -> None:
    lines = ["one", '"two\nlines, ""quoted"""', '"a\nb\nc\nd"', *(f"more {i}" for i in range(9))]
    table = read_table(written(tmp_path / "rows.csv", separated(lines=lines)))
    assert table.columns["text"][:3] == ["one", 'two\nlines, "quoted"', "a\nb\nc\nd"]
    assert table.notes == (
        "17 lines are 13 rows with the header: 2 rows of several lines, the longest from line 5 "
        "to 8",
    )


def test_rows_inside_of_a_quoted_field_are_pointed_out(tmp_path: Path) -> None:
    rows = [f"text {i},with,{i % 2}" for i in range(30)]
    rows[3], rows[9], rows[20] = '"text 3,with,1', 'text 9",with,1', "text 20,0"
    table = read_table(written(tmp_path / "rows.csv", "\n".join(["text,more,label", *rows])))
    assert any("is a quote unpaired?" in note for note in table.notes)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.csv",
            separated() + '"never closed,1\nmore,0\n',
            "quote in line 14 is never closed",
        ),
        ("b.csv", separated() + "one, two,1\n", "Expected 2 fields in line 14, saw 3"),
        ("c.csv", "sep=;\n" + separated(";") + "a;b;1\n", "Expected 2 fields in line 15, saw 3"),
        ("d.csv", separated().encode("utf-16-le"), "NUL characters, as UTF-16"),
        ("e.csv.gz", b"no gzip", "can't be read as csv"),
        ("f.csv.gz", gzip.compress(separated().encode(), mtime=0)[:-20], "can't be read as csv"),
        ("g.jsonl", '{"text": "a"}\n{"text": "b"\n', r"line 2: Expecting ',' delimiter"),
        ("h.json", '{"text": ["a", "b"], "label": [1]}', "different numbers of rows"),
        ("i.xlsx", b"PK", "is none of"),
        ("j.parquet", b"PAR1", "can't be read as parquet"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_table(written(tmp_path / name, content))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_a_parquet_file_stay_whole_beside_gaps(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns = {"number": [1234567890123456789, None, 7], "flag": [True, None, False]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    assert read_table(tmp_path / "rows.parquet").columns == columns


def test_quotes_that_are_escaped_by_backslashes_are_quotes_of_the_text(tmp_path: Path) -> None:
    """Spark and MySQL write a csv so. A backslash elsewhere is one."""
    lines = [
        r"text,label",
        r'"he said \"well, no\"",1',
        r'"C:\new",0',
        r'"\"all of it\"",1',
        r'"ends in \\",0',
    ]
    table = read_table(written(tmp_path / "rows.csv", "\n".join(lines)))
    assert table.columns == {
        "text": ['he said "well, no"', r"C:\new", '"all of it"', r"ends in \\"],
        "label": ["1", "0", "1", "0"],
    }
    assert "escaped by backslashes" in table.notes[0]


def test_columns_of_the_same_name_are_reported(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "rows.csv", "text,label,label\na,1,0\nb,0,1\n"))
    assert table.columns["label"] == ["1", "0"] and table.columns["label.1"] == ["0", "1"]
    assert "several columns are named 'label'" in table.notes[0]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"text,label"), r"is a gzip file; give it a name that ends in \.gz"),
        (b"PK\x03\x04\0\0", "is a zip file; give it a name that ends in .* and unpack it"),
        (b"PAR1\x15\x04", r"is a parquet file; give it a name that ends in \.parquet"),
        (separated().encode("utf-16-le"), "holds NUL characters, as UTF-16 does"),
        (b"[" * 100_000, "can't be read as json"),
    ],
    # What gzip writes holds the time.
    ids=["gzip", "zip", "parquet", "UTF-16", "deep JSON"],
)
def test_a_file_that_is_something_else_is_named_in_one_line(
    content: bytes, told: str, tmp_path: Path
) -> None:
    name = "rows.json" if content.startswith(b"[") else "rows.csv"
    with pytest.raises(DataError, match=told) as caught:
        read_table(written(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_single_nul_character_is_part_of_its_text(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "rows.csv", separated() + "a\0b,1\n"))
    early = read_table(written(tmp_path / "rows.csv", "text,label\na\0b,1\n" + separated()[11:]))
    assert table.columns["text"][-1] == early.columns["text"][0] == "a\0b"
