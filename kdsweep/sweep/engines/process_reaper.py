"""Kills the processes that a sweep started and could not end itself.

It runs next to Ray as a separate process, so it outlives a `kill -9` of its parent. Some of Ray's
agents would otherwise keep running for a minute. Every process of a session has SESSION_VARIABLE in
its environment. When the parent's end of the pipe closes, all of those are killed and the session's
folder is removed.

This file is run as a script that can't import kdsweep.
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

# Holds the session's folder. Set in the environment of everything that the session starts.
SESSION_VARIABLE = "KDSWEEP_SESSION"
SECONDS_TO_VANISH = 5.0


class ProcessReaper:
    """Guards the session in `folder`, from now until `release` or the end of this process."""

    def __init__(self, folder: Path) -> None:
        # The reaper itself isn't part of the session.
        environment = {
            name: value for name, value in os.environ.items() if name != SESSION_VARIABLE
        }
        os.environ[SESSION_VARIABLE] = str(folder)
        command = [sys.executable, "-S", "-E", __file__, str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )

    def release(self) -> None:
        """End the session now. Returns when none of its processes is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        os.environ.pop(SESSION_VARIABLE, None)


def session_processes(folder: str) -> list[int]:
    """The processes of a session that are alive."""
    found: set[int] = set()
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (parent := _parent(process)) is not None:
                parents[int(process.name)] = parent
                if _has_mark(process, folder):
                    found.add(int(process.name))
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _has_mark(process: Path, folder: str) -> bool:
    """Whether it has the session's variable, or writes to one of its logs.

    A process that sets its title overwrites its environment. Where it does both, its parent has
    the variable.
    """
    mark = f"{SESSION_VARIABLE}={folder}".encode()
    if mark in (process / "environ").read_bytes().split(b"\0"):
        return True
    return (process / "fd" / "1").readlink().is_relative_to(folder)


def _parent(process: Path) -> int | None:
    """The parent of the process with this folder in /proc. None if the process has ended."""
    state, parent = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    return None if state in "ZX" else int(parent)


def _is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return _parent(Path(f"/proc/{process}")) is not None
    return False


def main(folder: str) -> None:
    # Ctrl-C and a cluster's signals are meant for the parent. The reaper ends after it.
    signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
    )
    # Returns no bytes once the parent has closed its end or is gone.
    while os.read(0, 1):
        pass
    until = time.monotonic() + SECONDS_TO_VANISH
    killed: set[int] = set()
    while time.monotonic() < until:
        alive = session_processes(folder)
        if not alive and not any(map(_is_alive, killed)):
            break
        for process in alive:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        killed.update(alive)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
