"""YAML files with the line of every key, and values that replace others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config.loading import (
    Document,
    Origin,
    dotted,
    parse_yaml,
    read_document,
    show,
    split_assignment,
)


def write(folder: Path, text: str, name: str = "file.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("2E3", 2000.0),
        ("1", 1),
        ("'1'", "1"),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("1:30", "1:30"),
        ("010", 10),
        ("0o10", 8),
        ("2020-01-01", "2020-01-01"),
        ("[1, a]", [1, "a"]),
    ],
)
def test_yaml_1_2_is_read(text: str, value: Any) -> None:
    parsed, _ = parse_yaml(text, "f")
    assert parsed == value
    assert type(parsed) is type(value)


def test_each_key_and_item_has_its_line(tmp_path: Path) -> None:
    document = read_document(
        write(tmp_path, "# a comment\n\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    )
    lines = {dotted(path): line for path, (_, line) in document.origins.items()}
    assert lines == {"": 3, "a": 3, "a.b": 4, "a.c": 5, "a.c.0": 6, "a.c.1": 7, "a.c.1.d": 7}


def test_an_alias_is_a_copy_of_its_anchor(tmp_path: Path) -> None:
    data = read_document(write(tmp_path, "a: &x {low: 1.0, high: 2.0}\nb: *x\n")).data
    assert data["a"] == data["b"] == {"low": 1.0, "high": 2.0}
    assert data["a"] is not data["b"]


def test_a_value_in_a_message_is_short_and_on_one_line() -> None:
    assert show({"a": 1}) == "a mapping"
    assert show([1]) == "a list"
    assert show(None) == "nothing"
    assert show("a\nb") == "'a\\nb'"
    assert len(show("x" * 1000)) == 60


def replaced(data: dict[str, Any], *assignments: str) -> Document:
    document = Document("f", data, {(): Origin("f", 1)})
    for text in assignments:
        document.replace(split_assignment(text))
    return document


def test_a_path_replaces_one_key_and_leaves_its_neighbors() -> None:
    assert replaced({"a": {"b": 1, "c": 2}}, "a.b=5").data == {"a": {"b": 5, "c": 2}}


def test_a_path_makes_the_mappings_that_it_needs() -> None:
    assert replaced({}, "a.b.c=5").data == {"a": {"b": {"c": 5}}}
    assert replaced({"a": None}, "a.b=5").data == {"a": {"b": 5}}


def test_a_number_in_a_path_is_an_index_in_a_list_and_else_a_key() -> None:
    assert replaced({"a": [1, {"b": 2}]}, "a.0=7", "a.1.b=8").data == {"a": [7, {"b": 8}]}
    assert replaced({"a": {"1": 2}}, "a.1=3").data == {"a": {"1": 3}}
    assert replaced({}, "a.007=3").data == {"a": {"007": 3}}


@pytest.mark.parametrize("value", ["null", "~", ""])
def test_null_removes_a_key(value: str) -> None:
    assert replaced({"a": {"b": 1, "c": 2}}, f"a.b={value}").data == {"a": {"c": 2}}
    assert replaced({"a": 1}, f"b={value}").data == {"a": 1}


def test_the_value_of_a_set_is_yaml_and_can_contain_equals_signs() -> None:
    assert replaced({}, "a={low: 1.0e-5, high: 1}").data == {"a": {"low": 1e-5, "high": 1}}
    assert replaced({}, "a='x=y'").data == {"a": "x=y"}
    assert replaced({}, "a=b=c").data == {"a": "b=c"}
    assert replaced({}, " a.b = 3").data == {"a": {"b": 3}}


def test_the_later_of_two_sets_wins() -> None:
    assert replaced({}, "a={b: 1, c: 2}", "a.b=5", "a.c=null").data == {"a": {"b": 5}}


def test_an_error_in_a_replaced_value_names_the_override() -> None:
    document = replaced({"a": {"b": {"c": 1}}}, "a.b={d: 1}")
    assert str(document.error(("a", "b", "d"), "wrong")) == "--set a.b={d: 1}: wrong"
    assert str(document.error(("a",), "wrong")) == "f:1: wrong"


def test_an_error_in_a_mapping_that_an_override_made_names_the_override() -> None:
    assert str(replaced({}, "x.y=1").error(("x",), "wrong")) == "--set x.y=1: wrong"


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    heavy = ("torch", "optuna", "mlflow", "transformers", "ray", "datasets", "pandas", "numpy")
    code = f"import sys, kdsweep.config; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
