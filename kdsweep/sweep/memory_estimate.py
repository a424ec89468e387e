"""How much memory the slots of a sweep would take, and whether there is so much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdsweep.config.sweep import InlineEngine
from kdsweep.core.device import pick_device
from kdsweep.core.models.describing import size_mb
from kdsweep.formatting import count, file_size
from kdsweep.sweep.engines.memory import REMEDY, MemoryLimit
from kdsweep.sweep.engines.slots import EngineConfig, settle_engine, slots_here
from kdsweep.sweep.preflight import Checked

# Gradients, the two states of AdamW, and a copy while a checkpoint is saved.
TRAINING_FACTOR = 4
# The driver, and Ray's own processes: measured.
DRIVER_AND_RAY = 1_000_000_000


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, roughly.

    a_slot: of one slot. others: of the driver and Ray, where they are processes of their own.
    slots: how many there would be; None for a cluster. there: what all of them may use. of: what
    sets that, in words.
    """

    a_slot: int
    others: int
    slots: int | None
    there: int
    of: str

    def fit(self, slots: int) -> bool:
        """Whether so many slots fit."""
        return self._in_all(slots) <= self.there

    @property
    def is_too_much(self) -> bool:
        return self.slots is not None and not self.fit(self.slots)

    def _in_all(self, slots: int) -> int:
        others = DRIVER_AND_RAY if slots > 1 else self.others
        return slots * self.a_slot + others

    @property
    def words(self) -> str:
        """One line, with what to do where it is too much."""
        each = f"memory: about {file_size(self.a_slot)} for each slot"
        if self.slots is None:
            return each
        in_all = file_size(self._in_all(self.slots))
        there = f"{self.of} has {file_size(self.there)}"
        if not self.is_too_much:
            return f"{each}, {in_all} in all; {there}"
        most = (self.there - DRIVER_AND_RAY) // self.a_slot
        todo = REMEDY
        if 0 < most < self.slots:
            todo = f"use --set engine.slots={most}, or {REMEDY}"
        return f"{each}, {in_all} for {count(self.slots, 'slot')}, but {there}: {todo}"


def estimate_memory(checked: Checked, engine: EngineConfig, there: MemoryLimit) -> MemoryEstimate:
    """From the most that this process took while it timed each model, and what training adds."""
    a_slot = _peak()
    if pick_device().type == "cpu":
        models = (*checked.students, *checked.teachers)
        a_slot += round(TRAINING_FACTOR * 1e6 * max(size_mb(planned.model) for planned in models))
    is_alone = isinstance(settle_engine(engine), InlineEngine)
    others = 0 if is_alone else DRIVER_AND_RAY
    return MemoryEstimate(a_slot, others, slots_here(engine), there.bytes, there.of)


def _peak() -> int:
    """The most bytes that this process has had so far."""
    # `getrusage` would give the parent's, where that was larger.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
