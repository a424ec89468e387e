"""A file that can't be read, or that is no YAML, is one line that says where and why."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from broken_yaml import NO_YAML, WHOLE

from kdsweep.config import SpaceError, load


@pytest.mark.parametrize("title", NO_YAML)
@pytest.mark.parametrize("role", ["space", "sweep"])
def test_what_is_no_yaml_is_reported_with_its_line(title: str, role: str, tmp_path: Path) -> None:
    content, line, rule = NO_YAML[title]
    space = tmp_path / "whole.yaml"
    space.write_text(WHOLE, encoding="utf-8")
    path = tmp_path / "broken.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    start = time.perf_counter()
    with pytest.raises(SpaceError) as caught:
        if role == "space":
            load(path)
        else:
            load(space, path)
    assert time.perf_counter() - start < 30
    assert caught.value.file == str(path)
    assert "\n" not in str(caught.value)
    # The first unknown key of a sweep is `task`.
    if role == "space" or WHOLE not in str(content):
        assert caught.value.line == line, str(caught.value)
        assert re.search(rule, caught.value.rule), str(caught.value)


def test_the_text_that_the_others_start_with_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    load(path)
    # What Notepad on Windows writes.
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.replace("\n", "\r\n").encode())
    load(path)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nowhere.yaml", "there is no such file"),
        ("no/where.yaml", "there is no such file"),
        ("spcae.yaml", "there is no such file; did you mean 'space.yaml'"),
        ("space.yaml/inside.yaml", "there is no such file"),
        (".", "is a folder"),
        ("..", "is a folder"),
        ("x" * 300 + ".yaml", "can't be read"),
        ("a\0b.yaml", "can't be read"),
    ],
)
@pytest.mark.parametrize("role", ["space", "sweep"])
def test_a_path_that_is_no_file_is_reported(
    name: str, rule: str, role: str, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(WHOLE, encoding="utf-8")
    path = str(tmp_path / name)
    with pytest.raises(SpaceError, match=rule) as caught:
        if role == "space":
            load(path)
        else:
            load(tmp_path / "space.yaml", path)
    assert caught.value.line is None
    assert Path(caught.value.file) == Path(path)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_a_file_without_read_permission_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    path.chmod(0)
    with pytest.raises(SpaceError, match="can't be read: Permission denied"):
        load(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_an_endless_device_is_not_read_to_its_end() -> None:
    with pytest.raises(SpaceError, match="larger than 1 MB"):
        load("/dev/zero")
