"""A folder with a home in it, packed into a file that can be unpacked anywhere.

Absolute paths stand in settings, databases and artifacts. Packing puts a mark in their place, and
unpacking puts the new folder there. Databases are packed as SQL, because a path in SQL is text.
"""

from __future__ import annotations

import io
import os
import re
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

MARK = b"@FOLDER@"
DATABASES = ("optuna.db", "mlflow.db")
# report.html holds all of plotly and is read by nobody but people; rows of the cache are found by
# the time of the file they were read from, so they are never found again elsewhere.
LEFT_OUT = re.compile(r"(^|/)(report\.html|cache/rows|__pycache__|lock)(/|$)|\.lock$|-(wal|shm)$")


def pack(folder: Path, archive: Path) -> None:
    """Write everything in `folder` to `archive`. Nothing may be running there."""
    folder = folder.resolve()
    path = _plain(folder)
    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        for file in sorted(folder.rglob("*")):
            name = str(file.relative_to(folder))
            if not file.is_file() or LEFT_OUT.search(name):
                continue
            entry = tarfile.TarInfo(name)
            content = file.read_bytes()
            if file.name in DATABASES:
                entry.name += ".sql"
                content = _as_sql(file)
            content = content.replace(path, MARK)
            entry.size = len(content)
            entry.mtime = int(file.stat().st_mtime)
            tar.addfile(entry, io.BytesIO(content))


def unpack(archive: Path, folder: Path) -> Path:
    """Fill `folder`, which must not be there yet, with what was packed; return it."""
    folder = folder.resolve()
    path = _plain(folder)
    folder.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    for file in list(folder.rglob("*")):
        if not file.is_file():
            continue
        content = file.read_bytes()
        if MARK in content:
            stat = file.stat()
            file.write_bytes(content.replace(MARK, path))
            _set_times(file, stat.st_mtime)
        if file.name.removesuffix(".sql") in DATABASES:
            _from_sql(file, file.with_suffix(""))
    return folder


def _plain(folder: Path) -> bytes:
    """The folder's path, which must be the same in JSON, YAML, SQL and an address."""
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", str(folder)):
        raise ValueError(f"{folder}: only letters, digits and _ . / - may stand in this path")
    return str(folder).encode()


def _set_times(file: Path, modified: float) -> None:
    os.utime(file, (modified, modified))


def _as_sql(database: Path) -> bytes:
    with closing(sqlite3.connect(database)) as connection:
        return "\n".join(connection.iterdump()).encode()


def _from_sql(script: Path, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(script.read_text(encoding="utf-8"))
    script.unlink()
