"""Files and folders of locks, which nobody can take who may only read what they guard.

Whoever may open a file for reading can take `flock` on it, and so keep its owner from his work.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

from kdsweep.core.standing import make_folder

# Who makes a lock's file lets nobody read it for a moment.
SECONDS_TO_MAKE = 1.0
SECONDS_BETWEEN_TRIES = 0.01
READ = {stat.S_IWUSR: stat.S_IRUSR, stat.S_IWGRP: stat.S_IRGRP, stat.S_IWOTH: stat.S_IROTH}
ENTER = {write: read | (read >> 2) for write, read in READ.items()}


def open_lock(file: Path) -> TextIO:
    """The lock's file, to be read, written and locked. It is made where there is none.

    The umask says who may write it, and only they may read it. One that others may read, as earlier
    versions made it, is mended by its owner.
    """
    until = time.monotonic() + SECONDS_TO_MAKE
    while True:
        try:
            number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o222)
            break
        except PermissionError:
            if time.monotonic() > until or not os.access(file, os.F_OK):
                raise
            # Its maker may have died in that moment.
            with contextlib.suppress(FileNotFoundError):
                _mend(file.stat(), file.chmod)
            time.sleep(SECONDS_BETWEEN_TRIES)
    # By its number: another process may have removed it meanwhile.
    _mend(os.fstat(number), partial(os.fchmod, number))
    return os.fdopen(number, "a+", encoding="utf-8")


def make_lock_folder(folder: Path) -> None:
    """A folder for another library's locks, which only those who may write in it can enter."""
    make_folder(folder)
    found = folder.stat()
    if found.st_uid == os.geteuid():
        kept = stat.S_IMODE(found.st_mode) & (stat.S_ISGID | stat.S_ISVTX)
        folder.chmod(kept | _only_who_writes(found.st_mode, ENTER))


def holders_by_the_kernel(file: Path) -> tuple[int, ...]:
    """The processes of this machine that hold the lock alone. Needs no right to open it."""
    try:
        found = file.stat()
        table = Path("/proc/locks").read_text(encoding="utf-8")
    except OSError:
        return ()
    # `1: FLOCK  ADVISORY  WRITE 123 fe:00:456 0 EOF`. The device of a layered file system is
    # another one there.
    rows = [line.split() for line in table.splitlines()]
    return tuple(
        int(row[4])
        for row in rows
        if len(row) > 5
        and row[1:4:2] == ["FLOCK", "WRITE"]
        and row[5].rsplit(":", 1)[-1] == str(found.st_ino)
    )


def _mend(found: os.stat_result, change: Callable[[int], object]) -> None:
    wanted = _only_who_writes(found.st_mode, READ)
    if found.st_uid == os.geteuid() and wanted != stat.S_IMODE(found.st_mode):
        change(wanted)


def _only_who_writes(mode: int, rights: dict[int, int]) -> int:
    """The permission to write that there is, and these rights for who has it."""
    return sum(write | right for write, right in rights.items() if mode & write)
