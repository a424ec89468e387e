"""SQLite files: their URLs, who may write them, and write-ahead logs."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from kdsweep.core.files import locked, only_read
from kdsweep.core.standing import make_folder
from kdsweep.errors import without_password

# With the driver's name in it, MLflow leaves folders alone. It would make the one that it takes the
# URL's path for, such as `a%3Fb` for `a?b`.
DRIVER = "sqlite+pysqlite"


def sqlite_url(file: Path) -> str:
    """The URL of an SQLite file, whatever characters its path has."""
    return URL.create(DRIVER, database=str(file)).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """The file that the URL of a database means; None if it means none, such as a server."""
    if not url.startswith("sqlite"):
        return None
    with contextlib.suppress(ArgumentError):
        parts = make_url(url)
        if parts.database not in (None, "", ":memory:") and "uri" not in parts.query:
            return Path(str(parts.database))
    return None


def shown_database(url: str) -> str:
    """The database for a message: the file, or the URL without its password."""
    file = sqlite_file(url)
    return without_password(url) if file is None else str(file)


def url_to_open(url: str) -> str:
    """The URL with which this database is opened: to read, where nothing else is allowed.

    SQLite then can't make the files of a write-ahead log. Without such a log it needn't look for
    one; with one, both of its files are there.
    """
    file = sqlite_file(url)
    if file is None or not is_only_read(file):
        return url
    log = file.with_name(f"{file.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    query = {"mode": "ro", "uri": "true"} | ({} if has_log else {"immutable": "1"})
    # SQLite reads this as a URL of its own.
    database = f"file:{quote(str(file.absolute()))}"
    return URL.create(DRIVER, database=database, query=query).render_as_string()


@contextlib.contextmanager
def made_alone(url: str) -> Iterator[None]:
    """Inside, no other process makes this database: two that create its tables get in each other's
    way. One that can only be read needs no lock, and a server has its own.
    """
    file = sqlite_file(url)
    if file is None or is_only_read(file):
        yield
        return
    make_folder(file.parent)
    with locked(file.with_name(f".{file.name}.lock"), lambda: None):
        # SQLite itself would give nobody else the right to write, whatever the umask is.
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o666))
        yield


def is_only_read(file: Path) -> bool:
    """Whether this file is there and can't be written, or its folder can't."""
    return file.exists() and (only_read(file.parent) or not os.access(file, os.W_OK))


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


# --- damaged files ---

# What SQLite says of a file that isn't whole, in the lower bits of its error number.
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: BaseException | None) -> bool:
    """Whether this error, or what caused it, says that an SQLite file is damaged."""
    while error is not None:
        number = getattr(getattr(error, "orig", error), "sqlite_errorcode", None)
        if number == sqlite3.SQLITE_IOERR_SHORT_READ:
            # The file ends early.
            return True
        if number is not None and number & 0xFF in DAMAGED:
            return True
        error = error.__cause__ or error.__context__
    return False


def damage_in(file: Path | None, *, read_all: bool = True) -> str | None:
    """What is damaged in the SQLite file, in SQLite's words; None if it is whole.

    read_all: takes a second for each gigabyte. Otherwise only the names of its tables are read.

    A file that isn't there or is empty is whole, and so is one that can't be opened now.
    """
    if file is None or not file.exists() or is_only_read(file):
        return None
    try:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            if not read_all:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return None
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error) if is_damage(error) else None
    return None if found == "ok" else " ".join(found.replace("*", "").split())


def set_aside(file: Path) -> Path | None:
    """Rename a damaged SQLite file to FILE.damaged-N, with its log, and return that name.

    Nothing is deleted: SQLite's own tools may still read it. None if another process has replaced
    the file meanwhile.
    """
    with made_alone(sqlite_url(file)):
        if damage_in(file) is None:
            return None
        number = 1
        while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
            number += 1
        for end in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                file.with_name(file.name + end).rename(aside.with_name(aside.name + end))
        file.rename(aside)
        return aside
