"""The processes without which Ray does nothing, and whether they live.

Ray's own ways to notice that one has died take a minute, or end the process that waits for it.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from kdsweep.sweep.engines.process_reaper import session_processes

SECONDS_BETWEEN_LOOKS = 0.5
# A process that was stopped (SIGSTOP) for so long counts as dead.
SECONDS_STOPPED = 8.0
# How one of the first words of each command line ends. The agents replace theirs by a name.
DAEMONS = {
    "gcs_server": (b"/gcs/gcs_server",),
    "raylet": (b"/raylet/raylet",),
    "dashboard agent": (b"ray::DashboardAgent", b"/dashboard/agent.py"),
    "runtime environment agent": (b"ray::RuntimeEnvAgent", b"/runtime_env/agent/main.py"),
}


class Daemons:
    """Those of a session that starts now.

    session: None if Ray isn't started here. known: other processes, of which it is only noticed
    that they are stopped. processes: of each part that was seen alive.
    """

    def __init__(self, session: Path | None, known: dict[str, int] | None = None) -> None:
        self._session = None if session is None else str(session)
        self.processes = dict(known or {})
        self._stopped: dict[str, float] = {}
        self._looked = time.monotonic()

    def trouble(self, *, look: bool = False) -> str | None:
        """Which one is gone or stopped, in words; None if all is well.

        Cheap to call often: it looks twice a second, or now if `look` says so.
        """
        since = time.monotonic() - self._looked
        if since < SECONDS_BETWEEN_LOOKS and not look:
            return None
        self._looked = time.monotonic()
        for name, process in self.processes.items():
            state = _state(process)
            if state is None and name in DAEMONS:
                return f"Ray's {name} (process {process}) died"
            # While this process itself was stopped, others may have been, too.
            so_far = self._stopped.get(name, 0.0) + min(since, 2 * SECONDS_BETWEEN_LOOKS)
            self._stopped[name] = so_far if state == "T" else 0.0
            if self._stopped[name] > SECONDS_STOPPED:
                return f"Ray's {name} (process {process}) is stopped"
        if self._session is None or self.processes.keys() >= DAEMONS.keys():
            return None
        return self._find(self._session)

    def _find(self, session: str) -> str | None:
        """Look for those that weren't seen yet. Returns which one died before that."""
        for process in session_processes(session):
            try:
                for child in _ended_children(process):
                    if child in DAEMONS and child not in self.processes:
                        return f"Ray's {child} died at its start"
                command = Path(f"/proc/{process}/cmdline").read_bytes()
            except OSError:
                continue
            # The command line of raylet has those of the agents in it, further behind.
            first_words = [word.strip() for word in command.split(b"\0")[:3]]
            for name, marks in DAEMONS.items():
                if any(word.endswith(marks) for word in first_words):
                    # A process that raylet starts has raylet's command line for a moment.
                    self.processes.setdefault(name, process)
        return None


def _ended_children(process: int) -> list[str]:
    """The names of its children that have ended and that it hasn't asked for yet."""
    found = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in file.read_text().split():
            if _state(int(child)) is None:
                with contextlib.suppress(OSError):
                    found.append(Path(f"/proc/{child}/comm").read_text().strip())
    return found


def _state(process: int) -> str | None:
    """The letter that Linux has for it; None if it has ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return None
    state = stat.rpartition(")")[2].split()[0]
    return None if state in "ZX" else state
