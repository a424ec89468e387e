"""A file or folder is there as a whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kdsweep.core.files import (
    fingerprint,
    publishing,
    read_array,
    read_json,
    write_array,
    write_atomically,
    write_json,
    write_private,
)
from kdsweep.errors import KdsweepError


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> int:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_old_file_stays_when_the_writer_raises(tmp_path: Path) -> None:
    path = tmp_path / 'a file\'s "näme".json'
    write_atomically(path, lambda file: file.write(b"old") and None)

    def half(file: BinaryIO) -> None:
        file.write(b"ne")
        raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_refuses_nan_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "x.json"
    write_json(path, {"näme": 1})
    with pytest.raises(ValueError):
        write_json(path, {"näme": float("nan")})
    assert read_json(path) == {"näme": 1}


def test_publishing_leaves_nothing_when_it_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), publishing(tmp_path / "out") as beside:
        (beside / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_publishing_shows_the_folder_only_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with publishing(folder) as beside:
        (beside / "inner").mkdir()
        (beside / "inner" / "file").write_text("x")
        assert not folder.exists()
    assert (folder / "inner" / "file").read_text() == "x"
    assert list(folder.parent.iterdir()) == [folder]


def test_the_folder_that_was_published_first_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with publishing(folder) as slow:
        (slow / "file").write_text("slow")
        with publishing(folder) as fast:
            (fast / "file").write_text("fast")
    assert (folder / "file").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [folder]


def test_permissions_follow_the_umask(tmp_path: Path, umask: int) -> None:
    write_json(tmp_path / "x.json", 1)
    with publishing(tmp_path / "out") as beside:
        (beside / "file").write_text("x")
    assert mode(tmp_path / "x.json") == 0o666 & ~umask
    assert mode(tmp_path / "out") == 0o777 & ~umask
    assert mode(tmp_path / "out" / "file") == 0o666 & ~umask


def test_a_group_that_shares_a_folder_shares_what_is_written_there(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        tmp_path.chmod(0o2775)
        with publishing(tmp_path / "model") as beside:
            save_file({"a": torch.zeros(2)}, beside / "model.safetensors")
        write_json(tmp_path / "deep" / "x.json", 1)
        write_private(tmp_path / "secrets.json", "{}")
    finally:
        os.umask(before)
    assert mode(tmp_path / "model") == mode(tmp_path / "deep") == 0o2775
    assert mode(tmp_path / "model" / "model.safetensors") == 0o664
    assert mode(tmp_path / "deep" / "x.json") == 0o664
    assert mode(tmp_path / "secrets.json") == 0o600


def test_fingerprints_depend_on_parts_and_types_but_not_on_the_order_of_keys() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(b"ab") != fingerprint("ab")
    assert len(fingerprint("ä")) == 16


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1, "b', b"\xff\xfe"])
def test_a_file_that_is_missing_or_cut_short_is_named_in_one_line(
    content: bytes | None, tmp_path: Path
) -> None:
    for read, name in ((read_json, "facts.json"), (read_array, "labels.npy")):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(KdsweepError, match=f"{name} can't be read: .*; restore it") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_an_array_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "logits.npy"
    write_array(path, np.arange(40.0))
    path.write_bytes(path.read_bytes()[:200])
    for mode in (None, "r"):
        with pytest.raises(KdsweepError, match="logits.npy can't be read"):
            read_array(path, mode)


def test_a_pipe_or_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Both ends are open, so that neither waits for the other.
    end = os.open(pipe, os.O_RDWR)
    try:
        write_atomically(pipe, lambda file: file.write(b"all of it"))
        assert os.read(end, 99) == b"all of it"
    finally:
        os.close(end)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
