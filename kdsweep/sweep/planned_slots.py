"""Which slots a sweep will have, with how many CPU threads, and why: for `kdsweep plan`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kdsweep.config import Plan
from kdsweep.config.sweep import AutoEngine, InlineEngine, RayEngine
from kdsweep.core.device import gpu_count
from kdsweep.formatting import count
from kdsweep.sweep.engines.slots import settle_engine, slots_here
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.teacher_threads import kept_threads, teacher_threads


@dataclass(frozen=True)
class PlannedSlots:
    """slots: how many trials run at once; None for a cluster. threads: of CPU, of each trial.
    teacher_threads: with which teachers are made; None where those are a slot's own, or there is no
    teacher. words: all of it and why, for people.
    """

    slots: int | None
    threads: int
    teacher_threads: int | None
    words: str


def planned_slots(plan: Plan, folder: SweepFolder) -> PlannedSlots:
    """Those of a sweep on this machine; where it exists, with the threads that it keeps."""
    engine = settle_engine(plan.sweep.engine)
    slots = slots_here(plan.sweep.engine)
    if isinstance(engine, InlineEngine):
        threads = torch.get_num_threads()
        words = f"one, this process, with {count(threads, 'thread')}"
        return PlannedSlots(slots, threads, None, f"{words} ({_why(plan, engine)})")
    threads = engine.cpus_per_trial
    number = "as many as the cluster has room for" if slots is None else str(slots)
    words = f"{number}, with {count(threads, 'thread')} each ({_why(plan, engine)})"
    of_teacher: int | None = None
    if plan.space.needs_teacher:
        exists = folder.exists()
        of_teacher = kept_threads(plan, folder) if exists else teacher_threads(plan)
    if of_teacher is not None:
        words += f"; teachers are made with {count(of_teacher, 'thread')}"
    return PlannedSlots(slots, threads, of_teacher, words)


def _why(plan: Plan, engine: InlineEngine | RayEngine) -> str:
    """Where the number of slots comes from."""
    if not isinstance(plan.sweep.engine, AutoEngine):
        address = "" if isinstance(engine, InlineEngine) else f", address: {engine.address}"
        return f"engine: {{type: {engine.type}{address}}}"
    if isinstance(engine, RayEngine):
        return f"engine: auto, and this machine has {count(gpu_count(), 'GPU')}"
    gpus = "one GPU" if gpu_count() else "no GPU"
    return f"engine: auto, and this machine has {gpus}"
