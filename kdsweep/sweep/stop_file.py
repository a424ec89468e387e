"""A request to stop a running sweep, as a file in its folder: `kdsweep stop` writes it, the driver
reads it. So it reaches a driver on any machine that shares home, and only who may write there can
ask.

A request names the run that it is for, so that it never stops a later one.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kdsweep.core.files import write_json
from kdsweep.sweep.sweep_lock import Holder, own_hold

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Request:
    """What the file says. run: the one to stop (`Holder.run`). by: who asks, such as `me@gpu1`."""

    run: str = ""
    by: str = ""

    @classmethod
    def read(cls, file: Path) -> Request:
        """An empty one where there is none, or where it can't be read."""
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return cls(str(found["run"]), str(found["by"]))
        except (OSError, ValueError, TypeError, KeyError):
            return cls()


def ask_to_stop(file: Path, holder: Holder) -> None:
    """Ask the driver that holds the sweep's lock to save and stop. Raises OSError."""
    assert holder.run is not None
    write_json(file, asdict(Request(holder.run, f"{_user()}@{socket.gethostname()}")))


def withdraw(file: Path, holder: Holder) -> None:
    """Remove a request to this holder, who has ended."""
    if Request.read(file).run == holder.run:
        with contextlib.suppress(OSError):
            file.unlink()


@contextlib.contextmanager
def listening_for_stop(
    file: Path, lock_file: Path, on_request: Callable[[str], None]
) -> Iterator[None]:
    """In this block, call `on_request` from a thread once somebody asks this process's run to stop.

    Its argument is who asked. Does nothing where this process doesn't hold the lock.
    """
    own = own_hold(lock_file)
    if own is None or own.run is None:
        yield
        return
    if Request.read(file).run != own.run:
        # A file that is there is opened, and so read again, on a network file system too. Whether
        # one is there may be known there for a minute.
        write_json(file, asdict(Request()))
    over = threading.Event()

    def look() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            request = Request.read(file)
            if request.run == own.run:
                on_request(request.by)
                return

    thread = threading.Thread(target=look, name="stop requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):
            file.unlink()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())
