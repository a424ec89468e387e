"""How many trials run at once on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kdsweep.config.sweep import AutoEngine, InlineEngine, RayEngine
from kdsweep.core.device import gpu_count


def settle_engine(config: AutoEngine | InlineEngine | RayEngine) -> InlineEngine | RayEngine:
    """What `auto` means on this machine."""
    if not isinstance(config, AutoEngine):
        return config
    gpus = gpu_count()
    return (
        RayEngine(type="ray", gpus_per_trial=1, cpus_per_trial=max(1, cpu_count() // gpus))
        if gpus > 1
        else InlineEngine(type="inline")
    )


def slots_here(config: AutoEngine | InlineEngine | RayEngine) -> int | None:
    """How many trials would run at once, as far as this machine alone can tell: None for a cluster."""
    settled = settle_engine(config)
    if isinstance(settled, InlineEngine):
        return 1
    if settled.address != "local":
        return settled.slots
    gpus = gpu_count() if settled.gpus is None else settled.gpus
    share = settled.gpus_per_trial if settled.gpus_per_trial is not None else float(gpus > 0)
    resources = {"CPU": float(settled.cpus or cpu_count()), "GPU": float(gpus)}
    return min(slots_in(resources, settled.cpus_per_trial, share), settled.slots or 2**31)


def slots_instead(config: AutoEngine | InlineEngine | RayEngine) -> int | None:
    """How many slots of a core each this machine has where `auto` means one of all its cores; None where there is nothing to choose.

    They train more in all, but which trial is asked for next then depends on which ended first.
    """
    cores = cpu_count()
    return cores if isinstance(config, AutoEngine) and gpu_count() == 0 and cores > 1 else None


def slots_in(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many slots of so many CPU cores and (shares of) GPUs fit; a slot's share is of one GPU."""
    fit = int(resources.get("CPU", 0) // cpus)
    return min(fit, int(resources.get("GPU", 0)) * int(1 / gpus + 1e-9)) if gpus else fit


def cpu_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
