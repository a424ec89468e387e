"""How much space a sweep takes: its folder, and its runs' files in this home. Imports no MLflow."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

from kdsweep.sweep.folders import Home

RUNS_OF_SWEEPS = "SELECT value, run_uuid FROM tags WHERE key = 'kdsweep.sweep'"


def bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files in a folder. What vanishes meanwhile counts nothing."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
    except OSError:
        return 0
    total = 0
    folders = [str(path)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
    return total


def artifacts_of_sweeps(home: Home) -> dict[str, list[Path]]:
    """The folders in this home with files of each sweep's runs, such as students.

    None of a sweep that is tracked on a server. Empty where MLflow's database can't be read now.
    """
    found: dict[str, list[Path]] = defaultdict(list)
    if not home.mlflow_db.exists() or not home.artifacts.is_dir():
        return found
    # On a disk that can only be read, SQLite can't make what a write-ahead log needs.
    for how in ("mode=ro", "mode=ro&immutable=1"):
        try:
            address = f"file:{quote(str(home.mlflow_db))}?{how}"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=1)) as connection:
                rows = connection.execute(RUNS_OF_SWEEPS).fetchall()
        except sqlite3.Error:
            continue
        for sweep, run_id in rows:
            if (folder := home.artifacts / str(run_id)).is_dir():
                found[str(sweep)].append(folder)
        return found
    return found
