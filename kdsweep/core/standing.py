"""Folders and files that must stay where they are while work goes on in them.

Who writes a file makes its folder if there is none. A home that was removed or renamed would come
back that way, half empty, and work would go on in it for hours.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kdsweep.errors import FolderGone, Superseded


@dataclass(frozen=True)
class _Kept:
    """What tells a folder or file from another one at its place.

    guarded: the folder below which nothing is written without it.
    handle: keeps a removed folder's inode number from being given to the next one. There is none
    for a file, since closing one would end SQLite's locks on that file.
    """

    guarded: Path
    device: int
    inode: int
    handle: int | None


@dataclass(frozen=True)
class Fence:
    """Whose turn it is to write in a folder, of processes on machines that may not reach each
    other: the one whose `token` is in `file`, on the file system that they share."""

    file: Path
    token: str

    def put_up(self) -> None:
        """Keep every earlier one out from now on."""
        make_folder(self.file.parent)
        # In place: a file that is there is opened, and so read again, on a network file system.
        self.file.write_text(self.token, encoding="utf-8")

    def check(self) -> None:
        """Raises Superseded where another one has been put up."""
        if self.file.read_text(encoding="utf-8") != self.token:
            raise Superseded(f"{self.file.name} has been started again elsewhere")


_STANDING: dict[Path, _Kept] = {}
_FENCES: dict[Path, Fence] = {}


@contextlib.contextmanager
def standing(*paths: Path) -> Iterator[None]:
    """Inside, nothing is written below these folders, or beside these files, once one is gone.

    Raises FolderGone where one isn't there.
    """
    own = [path for path in paths if path not in _STANDING]
    try:
        keep_standing(*own)
        yield
    finally:
        for path in own:
            kept = _STANDING.pop(path, None)
            if kept is not None and kept.handle is not None:
                os.close(kept.handle)


def keep_standing(*paths: Path) -> None:
    """The same, until this process ends."""
    for path in paths:
        if path not in _STANDING:
            found = _stat(path)
            # O_PATH: one that nobody may list can be kept too.
            how = getattr(os, "O_PATH", os.O_RDONLY)
            is_folder = stat.S_ISDIR(found.st_mode)
            handle = os.open(path, how) if is_folder else None
            guarded = path if is_folder else path.parent
            _STANDING[path] = _Kept(guarded, found.st_dev, found.st_ino, handle)


def stands_anew(path: Path) -> None:
    """From now on, what is at `path` is what has to stay, if anything had to."""
    if (kept := _STANDING.pop(path, None)) is not None:
        if kept.handle is not None:
            os.close(kept.handle)
        keep_standing(path)


@contextlib.contextmanager
def fenced(folder: Path, fence: Fence | None) -> Iterator[None]:
    """Inside, nothing is written below the folder once a later fence is there."""
    if fence is None:
        yield
        return
    _FENCES[folder] = fence
    try:
        yield
    finally:
        del _FENCES[folder]


def check_standing(path: Path) -> None:
    """Raises FolderGone if what must stay for `path` to be written is gone, or another one, and
    Superseded if it is another process's turn to write it."""
    for folder, fence in list(_FENCES.items()):
        if path.is_relative_to(folder):
            fence.check()
    for there, kept in list(_STANDING.items()):
        if path.is_relative_to(kept.guarded):
            found = _stat(there)
            if (found.st_dev, found.st_ino) != (kept.device, kept.inode):
                raise FolderGone(_gone(there))


def make_folder(folder: Path) -> None:
    """Make the folder, and those above it, unless what must stay for that is gone."""
    check_standing(folder)
    folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing_below(folder: Path) -> Iterator[None]:
    """Make the folder. Raises FolderGone also where it goes while something is written."""
    make_folder(folder)
    try:
        yield
    except FileNotFoundError:
        check_standing(folder)
        raise


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FolderGone(_gone(path)) from error


def _gone(path: Path) -> str:
    return (
        f"{path} was removed or renamed while it was in use; nothing more is written there: put "
        "it back, and run the same command again"
    )
