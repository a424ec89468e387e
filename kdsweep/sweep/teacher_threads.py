"""With how many CPU threads a sweep's teachers are made, and how many trials run beside that.

Many trials wait for the teacher, so it has more threads than a slot. How many follows from the
sweep and its machine, and not from what runs at that moment or from the number of slots: the same
sweep makes the same teacher, to the last bit.
"""

from __future__ import annotations

import math

import torch

from kdsweep.config import Plan, trials_of
from kdsweep.config.sweep import InlineEngine, RayEngine
from kdsweep.core.device import gpu_count, pick_device
from kdsweep.sweep.engines.slots import cpu_count, settle_engine
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.knowledge import Knowledge


def teacher_threads(plan: Plan) -> int | None:
    """Of a new sweep: half of this machine's threads, and all that no trial can use meanwhile.

    At least those of a slot, which are all of them with `inline`. None on GPUs and on a cluster,
    where it is a slot's own.
    """
    settled = settle_engine(plan.sweep.engine)
    threads = torch.get_num_threads()
    if not _is_on_cpus_here(settled):
        return None
    if isinstance(settled, InlineEngine):
        return threads
    threads = min(threads, settled.cpus or threads)
    used = _trials_meanwhile(plan) * settled.cpus_per_trial
    return max(settled.cpus_per_trial, math.ceil(threads / 2), threads - used)


def kept_threads(plan: Plan, folder: SweepFolder) -> int | None:
    """Those that the sweep was started with. None, a slot's own, also where it runs elsewhere now:
    on GPUs or on a cluster."""
    if not _is_on_cpus_here(settle_engine(plan.sweep.engine)):
        return None
    return folder.read_facts().teacher_threads


def room_beside(plan: Plan, threads: int | None) -> int | None:
    """How many trials have cores beside a job with so many threads; None: nobody counts them,
    because the job takes no more than its slot, or there is only that one."""
    settled = settle_engine(plan.sweep.engine)
    if threads is None or isinstance(settled, InlineEngine):
        return None
    cores = settled.cpus or cpu_count()
    return max(0, cores - threads) // settled.cpus_per_trial


def waits_for_teacher(plan: Plan, strategy: str) -> bool:
    """Whether a trial of the strategy, or what its sampler knows, may need a teacher."""
    rule = plan.sweep.cheapest
    is_measured_by = rule is not None and rule.of == "teacher"
    return is_measured_by or plan.space.may_need_teacher(strategy)


def _trials_meanwhile(plan: Plan) -> int:
    """How many trials at most can run at once before the teachers are there."""
    most = plan.sweep.sampler.lag if Knowledge.of(plan.sweep).waits else plan.sweep.trials
    return sum(
        min(most, trials_of(plan.space, plan.sweep, strategy))
        for strategy in plan.space.strategies
        if not waits_for_teacher(plan, strategy)
    )


def _is_on_cpus_here(settled: InlineEngine | RayEngine) -> bool:
    if isinstance(settled, InlineEngine):
        return pick_device().type == "cpu"
    gpus = gpu_count() if settled.gpus is None else settled.gpus
    share = float(gpus > 0) if settled.gpus_per_trial is None else settled.gpus_per_trial
    return settled.address == "local" and not share
