"""A trial's folder as a sweep keeps it: the core's files, and what befell the trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kdsweep.core.files import read_json, write_atomically, write_json
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.trial_id import TrialId

NOTHING_TRACKED: dict[str, Any] = {"run_id": None, "evaluations": 0, "state": None, "student": None}


class SweptTrial(TrialFolder):
    """tracked.json   what MLflow has of the trial
    lost.json      when and how processes died that ran it
    error.txt      the stack trace of what made it fail
    """

    def __init__(self, root: Path, id: TrialId) -> None:
        super().__init__(root)
        self.id = id
        self.tracked = root / "tracked.json"
        self.lost = root / "lost.json"
        self.error = root / "error.txt"

    def read_tracked(self) -> dict[str, Any]:
        return NOTHING_TRACKED | (read_json(self.tracked) if self.tracked.exists() else {})

    def read_lost(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = read_json(self.lost) if self.lost.exists() else []
        return found

    def write_lost(self, reason: str) -> int:
        """Note that a process died with this trial; how often that happened so far."""
        lost = [*self.read_lost(), {"timestamp": time.time_ns() // 1_000_000, "reason": reason}]
        write_json(self.lost, lost)
        return len(lost)

    def write_error(self, trace: str) -> None:
        write_atomically(self.error, lambda file: file.write(trace.encode()))
