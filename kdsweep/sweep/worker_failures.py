"""How often a job's workers died without getting further, which decides whether it is given up.

A machine that is taken back again and again costs time. A job that kills its worker at the same
place each time never ends.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

from kdsweep.core.files import read_json, write_json

MOST_WORKER_FAILURES = 3


@dataclass(frozen=True)
class WorkerFailures:
    """How many workers died since the job last saved something new.

    step: of its last checkpoint; 0 without one, None where it has none at all.
    """

    count: int
    step: int | None = None

    @property
    def are_too_many(self) -> bool:
        return self.count >= MOST_WORKER_FAILURES

    def __str__(self) -> str:
        """`worker failure 2 of 3 after step 40`."""
        return f"worker failure {self.count} of {MOST_WORKER_FAILURES}{self._where}"

    @property
    def died(self) -> str:
        """`died 3 times after step 40`."""
        return f"died {self.count} times{self._where}"

    @property
    def _where(self) -> str:
        if self.step is None:
            return ""
        return f" after step {self.step}" if self.step else " before its first checkpoint"


class Death(TypedDict):
    """A worker's. timestamp: milliseconds since 1970. saved: see `note_failure`; version 0.1.0
    didn't note it."""

    timestamp: int
    reason: str
    saved: NotRequired[dict[str, int]]


def read_failures(file: Path) -> list[Death]:
    """What `note_failure` wrote; empty without a file."""
    found: list[Death] = read_json(file) if file.exists() else []
    return found


def note_failure(file: Path, reason: str, saved: Mapping[str, int], step: int) -> WorkerFailures:
    """Note that a worker died. The file outlives the driver.

    saved: what the job has saved so far: a name, and at which step. step: see `WorkerFailures`.
    """
    now = time.time_ns() // 1_000_000
    failures = [*read_failures(file), Death(timestamp=now, reason=reason, saved=dict(saved))]
    write_json(file, failures)
    count, furthest = 0, dict[str, int]()
    for one in failures:
        further = {
            name: at for name, at in one.get("saved", {}).items() if at > furthest.get(name, -1)
        }
        count = 1 if further else count + 1
        furthest |= further
    return WorkerFailures(count, step)
