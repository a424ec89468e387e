"""Files that are never read half-written: write beside, fsync, rename. Also locks and hashes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal
from urllib.parse import quote

import numpy as np

from kdsweep.errors import KdsweepError, first_line


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], mode: int | None = None
) -> None:
    """Write a new file with `write` and rename it to `path`.

    Its permissions are `mode`, or what the umask allows. A device or a pipe, such as /dev/null, is
    written to: a rename would put a file in its place, for all of the machine.
    """
    if path.is_char_device() or path.is_fifo():
        with path.open("wb") as stream:
            write(stream)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp gives 0600.
        beside.chmod(0o666 & ~_umask() if mode is None else mode)
        beside.replace(path)
        _fsync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda file: np.save(file, array))


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON. Raises ValueError for infinities and NaN, which JSON doesn't have."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    write_atomically(path, lambda file: file.write(text.encode()), mode=0o600)


def read_json(path: Path) -> Any:
    """What the file holds. Raises KdsweepError if it is missing or damaged."""
    with whole(path):
        return json.loads(path.read_text(encoding="utf-8"))


def read_array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """What the file holds. Raises KdsweepError if it is missing or damaged."""
    with whole(path):
        found: np.ndarray = np.load(path, mmap_mode=mmap_mode)
        return found


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """Raises KdsweepError, which names the file, if what reads it inside finds it missing or cut
    short: a copy that ended early, a folder that was removed to make room.
    """
    try:
        yield
    # A validation error of pydantic is a ValueError.
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        reason = first_line(error)
        if isinstance(error, OSError):
            reason = error.strerror or reason
        raise KdsweepError(
            f"{path} can't be read: {reason}; restore it (in the cache, delete it; a sweep can "
            "start over with --fresh)"
        ) from error


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """A new folder to fill, renamed to `folder` at the end, or removed after an error.

    If another process published the same folder meanwhile, that one stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield beside
        beside.chmod(0o777 & ~_umask())
        for file in beside.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        try:
            beside.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        _fsync_folder(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def locked(file: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock `file`, which no two processes on any machine hold at once.

    Calls `waiting` if another process holds it. The lock ends with its process.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def only_read(folder: Path) -> bool:
    """Whether nothing can be written to the folder, or to the place where it would be made."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return not os.access(there, os.W_OK)


def sqlite_address(database: Path) -> str:
    """The SQLite file for SQLAlchemy. On a disk that can only be read, it is opened to read.

    SQLite then can't make the files of a write-ahead log. Without such a log it needn't look for
    one; with one, both of its files are there.
    """
    if not database.exists() or not only_read(database.parent):
        return f"sqlite:///{database}"
    log = database.with_name(f"{database.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    as_it_is = "" if has_log else "&immutable=1"
    return f"sqlite:///file:{quote(str(database))}?mode=ro{as_it_is}&uri=true"


@contextlib.contextmanager
def made_alone(database: Path) -> Iterator[None]:
    """Inside, no other process makes this SQLite file: two that create its tables get in each
    other's way. A folder that can only be read needs no lock.
    """
    if only_read(database.parent):
        yield
        return
    with locked(database.with_name(f".{database.name}.lock"), lambda: None):
        yield


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


def _umask() -> int:
    # A process can only read its umask by setting it, which is a race between threads. Linux also
    # shows it in /proc.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# File systems that several machines share, by the kernel's names.
NETWORK = {
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "9p",
    "afs",
    "orangefs",
    "pvfs2",
    "panfs",
    "wekafs",
    "davfs",
    "ocfs2",
    "gfs2",
    "acfs",
    "coda",
}
NETWORK_FUSE = {
    "sshfs",
    "glusterfs",
    "ceph",
    "ceph-fuse",
    "s3fs",
    "rclone",
    "gcsfuse",
    "juicefs",
    "davfs2",
    "beegfs",
    "mfs",
    "curlftpfs",
    "mountpoint-s3",
    "blobfuse2",
}


def may_write_ahead(folder: Path) -> bool:
    """Whether SQLite files there can have a write-ahead log: it needs files of its own, and a
    memory map that other machines don't see."""
    return not only_read(folder) and not on_network_file_system(folder)


def on_network_file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether `path` is on a file system that several machines share, by the kernel's own table.

    False if there is no such table.
    """
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    real = os.path.realpath(path)
    kind = ""
    depth = -1
    for line in table.splitlines():
        fields = line.split()
        # The table writes white space in a path as octal numbers.
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = (real + "/").startswith(point.rstrip("/") + "/")
        # Of two mounts at one point, the later one hides the earlier one.
        if inside and len(point) >= depth:
            kind = fields[fields.index("-") + 1]
            depth = len(point)
    base, _, fuse = kind.partition(".")
    return base in NETWORK or (base in ("fuse", "fuseblk") and fuse in NETWORK_FUSE)


def write_ahead(connection: sqlite3.Connection, record: object = None) -> None:
    """Turn on SQLite's write-ahead log: writing costs half as much, and readers never wait.

    If the machine crashes, the last writes may be lost, but the file stays whole. All readers share
    memory, so it is only for a disk of one machine. `record` is what SQLAlchemy's event passes too.
    """
    cursor = connection.cursor()
    # While another process reads, the mode can't change; the next connection will change it.
    with contextlib.suppress(sqlite3.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
