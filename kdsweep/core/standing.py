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

from kdsweep.errors import FolderGone


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


_STANDING: dict[Path, _Kept] = {}


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


def check_standing(path: Path) -> None:
    """Raises FolderGone if what must stay for `path` to be written is gone, or another one."""
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
