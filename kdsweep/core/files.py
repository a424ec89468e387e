"""Files that are never read half-written: write beside, fsync, rename. Also locks and hashes.

What is made has the permissions that the umask, or the folder, gives to any new file.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from kdsweep.core.lock_file import open_lock
from kdsweep.core.standing import check_standing, make_folder, writing_below
from kdsweep.errors import DamagedFile, first_line


def write_atomically(path: Path, write: Callable[[BinaryIO], object], mode: int = 0o666) -> None:
    """Write a new file with `write` and rename it to `path`.

    The umask takes permissions away from `mode`. A device or a pipe, such as /dev/null, is
    written to: a rename would put a file in its place, for all of the machine.
    """
    if path.is_char_device() or path.is_fifo():
        with path.open("wb") as stream:
            write(stream)
        return
    beside = name_beside(path)
    try:
        with writing_below(path.parent):
            with open(beside, "xb", opener=functools.partial(os.open, mode=mode)) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            check_standing(path)
            beside.replace(path)
            _fsync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            beside.unlink()


def write_array(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda file: np.save(file, array))


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON. Raises ValueError for infinities and NaN, which JSON doesn't have."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    write_atomically(path, lambda file: file.write(text.encode()), mode=0o600)


# In a folder of the cache the name of which is a hash, one file is of no use alone.
RESTORE = (
    "restore it from a copy (in the cache, delete it with the folder of its key, and it is made "
    "again; a sweep can start over with --fresh)"
)


def read_json(path: Path, todo: str = RESTORE) -> Any:
    """What the file holds. Raises DamagedFile if it is missing or damaged."""
    with whole(path, todo):
        return json.loads(path.read_text(encoding="utf-8"))


def read_array(
    path: Path,
    mmap_mode: Literal["r"] | None = None,
    todo: str = RESTORE,
    *,
    like: np.ndarray | None = None,
) -> np.ndarray:
    """What the file holds. Raises DamagedFile if it is missing or damaged.

    like: an array of the shape that it must have, and of a type that its numbers fit.
    """
    with whole(path, todo):
        found: np.ndarray = np.load(path, mmap_mode=mmap_mode)
        if like is not None and found.shape != like.shape:
            raise ValueError(f"its shape is {found.shape}, not {like.shape}")
        if like is not None and not np.can_cast(found.dtype, like.dtype, "same_kind"):
            raise ValueError(f"it holds {found.dtype}, not {like.dtype}")
        return found


@contextlib.contextmanager
def whole(path: Path, todo: str = RESTORE) -> Iterator[None]:
    """Raises DamagedFile, which names the file, if what reads it inside finds it missing or cut
    short, or holding something else: a copy that ended early, a folder that was removed to make
    room. todo: what a user can do.
    """
    try:
        yield
    except DamagedFile:
        raise
    # A validation error of pydantic is a ValueError.
    except (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError) as error:
        reason = first_line(error)
        if isinstance(error, OSError):
            reason = error.strerror or reason
        if isinstance(error, PermissionError):
            todo = "ask its owner for the right to read it"
        raise DamagedFile(f"{path} can't be read: {reason}", todo) from error


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, renamed to `folder` at the end, or removed after an error.

    If another process published the same folder meanwhile, that one stays.
    """
    beside = name_beside(folder)
    try:
        with writing_below(folder.parent):
            beside.mkdir()
            yield beside
            _finish(beside)
            check_standing(folder)
            try:
                beside.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
            _fsync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_at_once(folder: Path) -> None:
    """Remove a folder that others may be copying: they find all of it, or see that it is gone."""
    beside = name_beside(folder)
    try:
        folder.rename(beside)
    except FileNotFoundError:
        return
    shutil.rmtree(beside, ignore_errors=True)


def _finish(folder: Path) -> None:
    """Let its files be read by who may read the folder, and be safe on the disk."""
    readable = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            # safetensors gives 0600.
            file.chmod(stat.S_IMODE(file.stat().st_mode) | readable)
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


@contextlib.contextmanager
def locked(file: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock `file`, which no two processes on any machine hold at once.

    Calls `waiting` if another process holds it. The lock ends with its process.
    """
    make_folder(file.parent)
    with open_lock(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def only_read(folder: Path) -> bool:
    """Whether nothing can be written to the folder, or to the place where it would be made."""
    return not os.access(nearest_existing(folder), os.W_OK)


def nearest_existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def fingerprint(*parts: object) -> str:
    """A short content hash (16 hexadecimal digits) of JSON-like values, strings and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, bytes):
            data = part
        else:
            data = json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """The content hash of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def name_beside(path: Path) -> Path:
    """A name for what becomes `path`, in the same folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def move_durably(file: Path, target: Path) -> None:
    """Rename a whole file on the same disk. `target` is whole, even after a power failure."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    check_standing(target)
    file.replace(target)
    _fsync_folder(target.parent)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
