"""Ends what a process began and could not end itself: started beside Ray, it outlives a `kill -9` of its parent.

Some of Ray's agents go on for a minute after everything else is gone. Every process that belongs to a session carries MARK in
its environment; when the parent's end of the pipe closes, all of those are killed and the session's folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "KDSWEEP_SESSION"
SECONDS_TO_VANISH = 5.0


class Guardian:
    """Watches over `folder`, the session's, from now until `release` or the end of this process."""

    def __init__(self, folder: Path) -> None:
        os.environ[MARK] = str(folder)  # for whatever is started from here on
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        command = [sys.executable, "-S", "-E", __file__, str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )

    def release(self) -> None:
        """End the session now; returns when nothing is left of it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        os.environ.pop(MARK, None)


def members(folder: str) -> list[int]:
    """The processes of a session that are still alive."""
    mark, found, parents = f"{MARK}={folder}".encode(), set(), {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (parent := _parent(process)) is not None:
                parents[int(process.name)] = parent
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.add(int(process.name))
    # Some write their title over their environment; they are children of one that has the mark.
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _parent(process: Path) -> int | None:
    """The parent of the process in this folder of /proc; None where it has ended."""
    state, parent = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    return None if state in "ZX" else int(parent)


def _lives(process: int) -> bool:
    with contextlib.suppress(OSError):
        return _parent(Path(f"/proc/{process}")) is not None
    return False


def main(folder: str) -> None:
    # Ctrl-C and a cluster's signals are for the parent; this one ends when the parent has.
    signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
    )
    while os.read(0, 1):
        pass
    until = time.monotonic() + SECONDS_TO_VANISH
    killed: set[int] = set()
    while ((alive := members(folder)) or any(map(_lives, killed))) and time.monotonic() < until:
        for process in alive:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        killed.update(alive)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
