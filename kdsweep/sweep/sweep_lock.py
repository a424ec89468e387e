"""A sweep's lock: only one process at a time runs the sweep, or removes it. Imports no torch."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self, TextIO

from kdsweep.core.lock_file import holders_by_the_kernel, open_lock

Doing = Literal["run", "remove"]
# Who asks whether a lock is held holds it for a moment.
SECONDS_TO_ASK = 0.3
SECONDS_BETWEEN_TRIES = 0.02


@dataclass(frozen=True)
class Holder:
    """The process that holds the lock, as the lock's file says.

    run: another one each time that a lock is taken; None for a version before 0.2.0.
    """

    host: str = "?"
    pid: int | None = None
    run: str | None = None
    doing: Doing = "run"

    @property
    def words(self) -> str:
        """`process 123 on gpu1`."""
        return f"process {self.pid or '?'} on {self.host}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """What the lock's file holds; it may be empty, or another version's."""
        try:
            found = json.loads(text)
            return cls(**{name: found[name] for name in cls.__annotations__ if name in found})
        except (ValueError, TypeError):
            return cls()


class Held(Exception):
    """Another process holds the lock."""

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        super().__init__(holder.words)


@contextlib.contextmanager
def hold(file: Path, doing: Doing) -> Iterator[Holder]:
    """Hold the lock. It ends with the process, however that ends. Raises Held."""
    with contextlib.closing(_take(file)) as handle:
        own = Holder(socket.gethostname(), os.getpid(), uuid.uuid4().hex, doing)
        handle.truncate(0)
        handle.write(json.dumps(asdict(own)))
        handle.flush()
        try:
            yield own
        finally:
            # The next holder is never taken for this one.
            with contextlib.suppress(OSError):
                handle.truncate(0)


def _take(file: Path) -> TextIO:
    """The lock's open file."""
    until = time.monotonic() + SECONDS_TO_ASK
    while True:
        handle = open_lock(file)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, file):
                return handle
        except BlockingIOError:
            if time.monotonic() > until:
                raise Held(_read(handle)) from None
            time.sleep(SECONDS_BETWEEN_TRIES)
        except BaseException:
            handle.close()
            raise
        # Held by another process, or removed together with its sweep just before it was locked.
        handle.close()


def _is_at(handle: TextIO, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except FileNotFoundError:
        return False


def holder_of(file: Path) -> Holder | None:
    """Who holds the lock now, as far as this machine can tell. Writes nothing."""
    try:
        with file.open() as handle:
            before = None
            until = time.monotonic() + SECONDS_TO_ASK
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except BlockingIOError:
                    found = _read(handle)
                # Who has just taken the lock hasn't written yet, or replaces what it finds.
                if (found == before and found.pid is not None) or time.monotonic() > until:
                    return found
                before = found
                time.sleep(SECONDS_BETWEEN_TRIES)
    except PermissionError:
        # Who may only read home.
        pids = holders_by_the_kernel(file)
        return Holder(socket.gethostname(), pids[0]) if pids else None
    except OSError:
        return None


def own_hold(file: Path) -> Holder | None:
    """This process's own entry in the lock's file; None if it doesn't hold the lock."""
    try:
        found = Holder.parse(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    is_own = found.pid == os.getpid() and found.host == socket.gethostname()
    return found if is_own else None


def _read(handle: TextIO) -> Holder:
    handle.seek(0)
    return Holder.parse(handle.read())
