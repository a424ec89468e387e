"""Where a sweep's time goes: wall time, slot time and GPU time, over all its runs.

Budgets of time are checked against it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

from kdsweep.config.sweep import Budget
from kdsweep.core.files import read_json, whole, write_json
from kdsweep.report.model import SlotUse

# What a slot's time goes to. asking: it is free while the driver writes and asks for a trial.
# waiting: it is free and there is no job for it. lost: steps that had to be repeated.
PURPOSES = ("training", "evaluating", "start", "saving", "asking", "waiting", "lost")
SECONDS_BETWEEN_SAVES = 1.0


@dataclass
class TimeSpent:
    """The content of `clock.json`, in seconds.

    seconds: wall time. spent: slot time by purpose. teacher_seconds: slot time of making teachers
    and of labelling rows with them; None in a sweep that an earlier version started.
    """

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    slot_seconds: float = 0.0
    spent: dict[str, float] = field(default_factory=dict)
    teacher_seconds: float | None = 0.0

    @classmethod
    def read(cls, file: Path) -> Self:
        """What a clock saved; nothing was spent if there is no file."""
        if not file.exists():
            return cls()
        todo = "delete it: the time that was spent so far is then not counted"
        with whole(file, todo):
            found = {"teacher_seconds": None} | read_json(file, todo)
            names = [one.name for one in fields(cls)]
            return cls(**{name: found[name] for name in names if name in found})

    def spend(self, purposes: dict[str, float]) -> None:
        """Add the seconds that a slot spent, by purpose."""
        for purpose, seconds in purposes.items():
            self.spent[purpose] = self.spent.get(purpose, 0.0) + seconds

    def spend_on_teachers(self, seconds: float) -> None:
        """Say that so much of the slot time was for teachers."""
        if self.teacher_seconds is not None:
            self.teacher_seconds += seconds


class SweepClock:
    """Adds up time. The driver tells it what the slots do whenever that changes."""

    def __init__(self, file: Path, budget: Budget) -> None:
        self.file = file
        self.budget = budget
        self.total = TimeSpent.read(file)
        self.over = False
        self._slots = 0
        self._running = 0
        self._gpus_per_slot = 0.0
        self._has_work = False
        self._counted_until: float | None = None
        self._saved_at = 0.0

    def start(self) -> None:
        self._counted_until = time.monotonic()

    def update(self, *, slots: int, running: int, has_work: bool, gpus_per_slot: float) -> None:
        """From now on there are `slots` slots, and `running` of them are busy.

        has_work: whether the free ones could have a job.
        """
        self._advance()
        self._slots = slots
        self._running = running
        self._has_work = has_work
        self._gpus_per_slot = gpus_per_slot
        if time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self.save()

    def no_slots(self) -> None:
        """From now on there are no slots."""
        self.update(slots=0, running=0, has_work=False, gpus_per_slot=0)

    def spend(self, purposes: dict[str, float]) -> None:
        """Add the seconds that a slot spent, by purpose."""
        self.total.spend(purposes)

    def spend_on_teachers(self, seconds: float) -> None:
        """Say that so much of the slot time was for teachers."""
        self.total.spend_on_teachers(seconds)

    def _advance(self) -> None:
        if self._counted_until is None:
            return
        now = time.monotonic()
        passed = now - self._counted_until
        self._counted_until = now
        self.total.seconds += passed
        self.total.slot_seconds += passed * self._slots
        self.total.gpu_seconds += passed * self._running * self._gpus_per_slot
        free_for = "asking" if self._has_work else "waiting"
        self.total.spend({free_for: passed * (self._slots - self._running)})

    @property
    def seconds(self) -> float:
        """Wall time of the sweep until now."""
        self._advance()
        return self.total.seconds

    def is_over(self) -> bool:
        """Whether the budget's time is up; once it is, it stays so."""
        self._advance()
        hours = self.budget.hours
        gpu_hours = self.budget.gpu_hours
        self.over |= hours is not None and self.total.seconds >= 3600 * hours
        self.over |= gpu_hours is not None and self.total.gpu_seconds >= 3600 * gpu_hours
        return self.over

    def seconds_left(self) -> float | None:
        """Until the budget may be over, at the present pace; None without a budget of time."""
        self._advance()
        left: list[float] = []
        if self.budget.hours is not None:
            left.append(3600 * self.budget.hours - self.total.seconds)
        if self.budget.gpu_hours is not None:
            pace = max(self._running * self._gpus_per_slot, 1e-9)
            left.append((3600 * self.budget.gpu_hours - self.total.gpu_seconds) / pace)
        return max(0.0, min(left)) if left else None

    def save(self) -> None:
        self._advance()
        self._saved_at = time.monotonic()
        write_json(self.file, asdict(self.total))


def use_of_slots(total: TimeSpent) -> SlotUse | None:
    """The share of slot time by purpose; `busy` is training and evaluating. None before any."""
    if not total.slot_seconds:
        return None
    spent = {purpose: total.spent.get(purpose, 0.0) for purpose in PURPOSES}
    # A teacher that labels a trial's rows is part of how the trial starts.
    spent["start"] += total.spent.get("labelling", 0.0)
    known = sum(seconds for purpose, seconds in spent.items() if purpose != "lost")
    spent["lost"] = max(0.0, total.slot_seconds - known)
    shares = {purpose: seconds / total.slot_seconds for purpose, seconds in spent.items()}
    busy = shares["training"] + shares["evaluating"]
    return SlotUse(busy=busy, slot_seconds=total.slot_seconds, **shares)


def say_use(use: SlotUse) -> str:
    """`slots: 97.9% busy (start 1.2%, saving 0.5%, waiting 0.4%)`."""
    shares = {purpose: getattr(use, purpose) for purpose in PURPOSES[2:]}
    rest = [f"{purpose} {100 * share:.1f}%" for purpose, share in shares.items() if share >= 0.0005]
    return f"slots: {100 * use.busy:.1f}% busy" + (f" ({', '.join(rest)})" if rest else "")
