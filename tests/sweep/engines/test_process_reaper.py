"""Nothing that a sweep started outlives it, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from kdsweep.sweep.engines.process_reaper import session_processes

# Starts a child in a separate session, which a signal to the parent's group doesn't reach.
PARENT = """
import subprocess, sys, time
from pathlib import Path
from kdsweep.sweep.engines.process_reaper import ProcessReaper

reaper = ProcessReaper(Path(sys.argv[1]))
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
if sys.argv[2] == "release":
    reaper.release()
print("ready", flush=True)
time.sleep(300)
"""


def start(session: Path, then: str) -> subprocess.Popen[str]:
    session.mkdir()
    command = [sys.executable, "-c", PARENT, str(session), then]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_kill_9_of_the_parent_ends_its_children_and_removes_the_folder(tmp_path: Path) -> None:
    session = tmp_path / "session"
    with start(session, "wait") as parent:
        assert len(session_processes(str(session))) == 1
        parent.kill()
    until = time.monotonic() + 30
    while session.exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not session_processes(str(session))


def test_release_returns_when_nothing_is_left(tmp_path: Path) -> None:
    session = tmp_path / "session"
    with start(session, "release") as parent:
        assert not session_processes(str(session))
        assert not session.exists()
        parent.kill()
