"""Where a sweep's time goes: by the wall, on its slots and on GPUs, over all its runs. Budgets are held against it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kdsweep.config.sweep import Budget
from kdsweep.core.files import read_json, write_json
from kdsweep.report.model import SlotUse

# What a slot may do with its time. `asking`: it is free while the driver writes and asks; `waiting`: it is free and there is
# nothing to give it; `lost`: steps that had to be done again.
PURPOSES = ("training", "evaluating", "start", "saving", "asking", "waiting", "lost")
SECONDS_BETWEEN_SAVES = 1.0


class SweepClock:
    """Told what the slots do each time that it changes; adds up the time in between."""

    def __init__(self, file: Path, budget: Budget) -> None:
        self.file, self.budget = file, budget
        nothing: dict[str, Any] = {
            "seconds": 0.0,
            "gpu_seconds": 0.0,
            "slot_seconds": 0.0,
            "spent": {},
        }
        self._total = nothing | (read_json(file) if file.exists() else {})
        self._slots = self._running = 0
        self._gpus_per_slot = 0.0
        self._has_work = False
        self._at: float | None = None
        self._saved_at = 0.0
        self.over = False

    def start(self) -> None:
        self._at = time.monotonic()

    def update(self, *, slots: int, running: int, has_work: bool, gpus_per_slot: float) -> None:
        """From now on so many slots are there, so many of them busy; `has_work`: whether the others could have a job."""
        self._advance()
        self._slots, self._running, self._has_work, self._gpus_per_slot = (
            slots,
            running,
            has_work,
            gpus_per_slot,
        )
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self.save()

    def spend(self, purposes: dict[str, float]) -> None:
        """A slot spent seconds on these."""
        spent = self._total["spent"]
        for purpose, seconds in purposes.items():
            spent[purpose] = spent.get(purpose, 0.0) + seconds

    def _advance(self) -> None:
        now = time.monotonic()
        passed = 0.0 if self._at is None else now - self._at
        if self._at is not None:
            self._at = now
        self._total["seconds"] += passed
        self._total["slot_seconds"] += passed * self._slots
        self._total["gpu_seconds"] += passed * self._running * self._gpus_per_slot
        self.spend(
            {"asking" if self._has_work else "waiting": passed * (self._slots - self._running)}
        )

    @property
    def seconds(self) -> float:
        self._advance()
        return float(self._total["seconds"])

    def is_over(self) -> bool:
        """Whether the budget's time is up; stays so."""
        hours, gpu_hours = self.budget.hours, self.budget.gpu_hours
        self.over |= hours is not None and self.seconds >= 3600 * hours
        self.over |= (
            gpu_hours is not None
            and self.seconds >= 0
            and self._total["gpu_seconds"] >= 3600 * gpu_hours
        )
        return self.over

    def seconds_left(self) -> float | None:
        """Until the budget may be over, at the pace of now; None without a budget of time."""
        left = [3600 * self.budget.hours - self.seconds] if self.budget.hours is not None else []
        if self.budget.gpu_hours is not None:
            pace = max(self._running * self._gpus_per_slot, 1e-9)
            left.append((3600 * self.budget.gpu_hours - self._total["gpu_seconds"]) / pace)
        return max(0.0, min(left)) if left else None

    def save(self) -> None:
        self._advance()
        self._saved_at = time.monotonic()
        write_json(self.file, self._total)


def use_of_slots(found: dict[str, Any]) -> SlotUse | None:
    """The share of slot time by purpose, of what a clock saved: `busy` is training and evaluating. None before any."""
    total = found.get("slot_seconds", 0.0)
    if not total:
        return None
    spent = {purpose: found["spent"].get(purpose, 0.0) for purpose in PURPOSES}
    spent["lost"] = max(
        0.0, total - sum(seconds for purpose, seconds in spent.items() if purpose != "lost")
    )
    shares = {purpose: seconds / total for purpose, seconds in spent.items()}
    busy = shares["training"] + shares["evaluating"]
    return SlotUse(busy=busy, slot_seconds=total, **shares)


def say_use(use: SlotUse) -> str:
    """`slots: 97.9% busy (start 1.2%, saving 0.5%, waiting 0.4%)`."""
    shares = {purpose: getattr(use, purpose) for purpose in PURPOSES[2:]}
    rest = [f"{purpose} {100 * share:.1f}%" for purpose, share in shares.items() if share >= 0.0005]
    return f"slots: {100 * use.busy:.1f}% busy" + (f" ({', '.join(rest)})" if rest else "")
