"""How many trials run at once on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kdsweep.config.sweep import AutoEngine, InlineEngine, RayEngine
from kdsweep.core.device import gpu_count

EngineConfig = AutoEngine | InlineEngine | RayEngine


def settle_engine(config: EngineConfig) -> InlineEngine | RayEngine:
    """What `auto` means on this machine: a slot for each GPU, or `inline` without two GPUs."""
    if not isinstance(config, AutoEngine):
        return config
    gpus = gpu_count()
    if gpus <= 1:
        return InlineEngine(type="inline")
    return RayEngine(type="ray", gpus_per_trial=1, cpus_per_trial=max(1, cpu_count() // gpus))


def slots_here(config: EngineConfig) -> int | None:
    """How many trials would run at once, as far as this machine can tell. None for a cluster."""
    settled = settle_engine(config)
    if isinstance(settled, InlineEngine):
        return 1
    if settled.address != "local":
        return settled.slots
    gpus = gpu_count() if settled.gpus is None else settled.gpus
    share = settled.gpus_per_trial if settled.gpus_per_trial is not None else float(gpus > 0)
    resources = {"CPU": float(settled.cpus or cpu_count()), "GPU": float(gpus)}
    fit = slots_in(resources, settled.cpus_per_trial, share)
    return fit if settled.slots is None else min(fit, settled.slots)


def slots_instead(config: EngineConfig) -> int | None:
    """How many slots of one core this machine could have where `auto` means one slot of all cores.

    None where there is no choice. Such slots train more in total, but then which trial is asked
    for next depends on which one ended first.
    """
    cores = cpu_count()
    return cores if isinstance(config, AutoEngine) and gpu_count() == 0 and cores > 1 else None


def slots_in(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many slots of `cpus` cores and `gpus` GPUs fit. Below 1, `gpus` is a share of one GPU."""
    fit = int(resources.get("CPU", 0) // cpus)
    if not gpus:
        return fit
    # 1 / 0.1 may be slightly below 10.
    per_gpu = int(1 / gpus + 1e-9)
    return min(fit, int(resources.get("GPU", 0)) * per_gpu)


def cpu_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
