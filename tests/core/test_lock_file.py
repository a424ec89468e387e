"""Locks can't be taken by who may only read what they guard."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdsweep.core.cache_lock import cache_in_use
from kdsweep.core.files import locked
from kdsweep.core.lock_file import make_lock_folder, open_lock
from kdsweep.errors import SweepLocked
from kdsweep.sweep.folders import Home
from kdsweep.sweep.sweep_lock import holder_of

# Python code as another user of this machine, whose groups the caller may choose.
OTHER = """
import fcntl, os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from kdsweep.sweep.sweep_lock import holder_of
os.setgroups([int(one) for one in sys.argv[3:]]); os.setgid(65534); os.setuid(65534); os.umask(2)
path = sys.argv[2]
{code}
"""
TAKE = """
try:
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("taken")
except OSError as error:
    print(type(error).__name__)
"""
ROOT = str(Path(__file__).parents[2])
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def as_another_user(code: str, path: Path, *groups: int) -> str:
    command = [
        sys.executable,
        "-c",
        OTHER.format(root=ROOT, code=code),
        "",
        str(path),
        *map(str, groups),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def shown() -> Iterator[Path]:
    """A folder that everybody may enter. Those of pytest are closed."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
def test_no_lock_can_be_taken_by_who_may_only_read_home(shown: Path) -> None:
    home = Home(shown)
    with (
        home.sweep("tiny").locked(),
        cache_in_use(home.cache),
        locked(shown / ".optuna.db.lock", lambda: None),
    ):
        pass
    locks = [file for file in shown.rglob("*") if file.is_file()]
    assert len(locks) == 3
    assert {as_another_user(TAKE, file) for file in locks} == {"PermissionError"}
    # The folders are open to that user, the locks are not.
    assert as_another_user("print(os.listdir(path))", home.sweep("tiny").root) == "['lock']"


@as_root
def test_a_lock_of_an_earlier_version_is_mended_by_its_next_run(shown: Path) -> None:
    folder = Home(shown).sweep("tiny")
    folder.root.mkdir(parents=True)
    folder.lock_file.touch()
    folder.lock_file.chmod(0o644)
    assert as_another_user(TAKE, folder.lock_file) == "taken"
    with folder.locked():
        # An earlier version of the same user sees the lock.
        with folder.lock_file.open("a+") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert as_another_user(TAKE, folder.lock_file) == "PermissionError"


@as_root
def test_a_lock_that_can_not_be_made_is_a_lack_of_permission(shown: Path) -> None:
    make = """
from kdsweep.core.lock_file import open_lock
try:
    open_lock(Path(path))
except OSError as error:
    print(type(error).__name__)
"""
    assert as_another_user(make, shown / "lock") == "PermissionError"


def test_a_lock_that_is_removed_while_it_is_opened_is_opened_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def removed(path: Path, *arguments: int) -> int:
        number = opened(path, *arguments)
        path.unlink()
        return number

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", removed)
        handle = open_lock(tmp_path / "lock")
    with handle:
        assert os.fstat(handle.fileno()).st_nlink == 0


@as_root
def test_users_who_share_a_home_keep_each_other_out(shown: Path) -> None:
    os.chown(shown, -1, 12345)
    shown.chmod(0o2770)
    before = os.umask(0o002)
    try:
        folder = Home(shown).sweep("tiny")
        with folder.locked():
            assert as_another_user(TAKE, folder.lock_file, 12345) == "BlockingIOError"
        assert mode(folder.lock_file) == 0o660
        assert as_another_user(TAKE, folder.lock_file, 12345) == "taken"
    finally:
        os.umask(before)


@as_root
def test_who_may_only_read_home_sees_that_a_sweep_runs(shown: Path) -> None:
    folder = Home(shown).sweep("tiny")
    ask = "print(holder_of(Path(path)))"
    with folder.locked():
        found = as_another_user(ask, folder.lock_file)
        assert f"pid={os.getpid()}" in found
    assert as_another_user(ask, folder.lock_file) == "None"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077, 0])
def test_who_may_write_a_lock_may_read_it_and_nobody_else(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        open_lock(tmp_path / "lock").close()
        make_lock_folder(tmp_path / ".locks")
    finally:
        os.umask(before)
    writers = 0o222 & ~umask
    assert mode(tmp_path / "lock") == writers | writers << 1
    assert mode(tmp_path / ".locks") == writers | writers << 1 | writers >> 1


def test_a_lock_whose_maker_died_is_opened_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (tmp_path / "lock").chmod(0o200)
    open_lock(tmp_path / "lock").close()
    assert mode(tmp_path / "lock") == 0o600


def test_a_lock_that_is_held_says_so(tmp_path: Path) -> None:
    folder = Home(tmp_path).sweep("tiny")
    with folder.locked():
        with pytest.raises(SweepLocked, match=str(os.getpid())), folder.locked():
            pass
        assert holder_of(folder.lock_file) is not None
