"""Writing so that nothing half-written is ever read as whole: write beside, fsync, rename."""

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
from typing import Any, BinaryIO

import numpy as np


def write_atomically(
    path: Path, write: Callable[[BinaryIO], object], mode: int | None = None
) -> None:
    """Fill a file beside `path` by `write`, then let it take its place; with `mode`, or as the umask says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(
            0o666 & ~_umask() if mode is None else mode
        )  # mkstemp makes 0600; home follows the umask
        beside.replace(path)
        _fsync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_array(path: Path, array: np.ndarray) -> None:
    write_atomically(path, lambda file: np.save(file, array))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON. Infinities and NaN are refused: they are no JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_private(path: Path, text: str) -> None:
    """A file that only its owner can read."""
    write_atomically(path, lambda file: file.write(text.encode()), mode=0o600)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder` to fill; let it become `folder` if all goes well, vanish if not.

    Where another process published the same folder meanwhile, that one stays.
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
    """Be the only one who holds this lock, on any machine; it ends with the process, however that ends. Calls `waiting` if another has it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fingerprint(*parts: Any) -> str:
    """A short content hash (16 hexadecimal digits) of JSON-like values, strings and bytes."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = (
            part
            if isinstance(part, bytes)
            else json.dumps(part, sort_keys=True, ensure_ascii=False).encode()
        )
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def file_fingerprint(path: Path) -> str:
    """The content hash of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _umask() -> int:
    # The process's umask can only be read by setting it; on Linux /proc tells without a race between threads.
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


NETWORK = {
    *(
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
    ),
    *("orangefs", "pvfs2", "panfs", "wekafs", "davfs", "ocfs2", "gfs2", "acfs", "coda"),
}
NETWORK_FUSE = {
    *(
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
    ),
    *("curlftpfs", "mountpoint-s3", "blobfuse2"),
}


def on_network_file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether `path` lies on a file system that several machines share, as far as the system's own table tells."""
    try:
        lines = [
            line.split()
            for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        ]
    except OSError:
        return False
    real, kind, depth = os.path.realpath(path), "", -1
    for fields in lines:
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if len(point) >= depth and (real + "/").startswith(
            point.rstrip("/") + "/"
        ):  # not less: a later mount hides an earlier one
            kind, depth = fields[fields.index("-") + 1], len(point)
    base, _, fuse = kind.partition(".")
    return base in NETWORK or (base in ("fuse", "fuseblk") and fuse in NETWORK_FUSE)


def write_ahead(connection: Any, record: Any = None) -> None:
    """Let a SQLite connection write to a log first: half the cost, and a reader never waits.

    A crash of the machine can cost the last writes, never the file. All who read share memory: for one machine's disk alone.
    """
    cursor = connection.cursor()
    with contextlib.suppress(
        sqlite3.OperationalError
    ):  # somebody reads just now: the next connection will
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
