"""Whether Slurm has room for the driver's job and a worker's at once, and how much of it to ask."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from slurm_facts import Cluster, Nodes, Partition, Request

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError
from kdsweep.formatting import joined

# In MB; a job with less can't hold its Python packages.
LEAST_MEMORY = 2000
REMEDY = "set SBATCH_DRIVER, SBATCH_WORKER or SBATCH_PARTITION"


@dataclass(frozen=True)
class Offer:
    """What a job may have on one of these nodes, by a partition's limits."""

    nodes: Nodes
    partition: str
    cpus: int
    memory: int
    minutes: float


@dataclass(frozen=True)
class Share:
    """What a job asks for in place of what its script says."""

    cpus: int
    memory: int
    gpus: int
    minutes: float

    def options(self, asked: Request) -> list[str]:
        """For sbatch, where they differ."""
        found = []
        if self.cpus != asked.cpus:
            found.append(f"--cpus-per-task={self.cpus}")
        if self.memory != asked.memory:
            found.append(f"--mem={self.memory}M")
        if self.gpus != asked.gpus:
            found.append(f"--gpus-per-node={self.gpus}")
        if self.minutes != asked.minutes:
            found.append(f"--time={math.floor(self.minutes)}")
        return found


@dataclass(frozen=True)
class Fit:
    driver: Share
    worker: Share

    @property
    def goodness(self) -> tuple[float, ...]:
        """The more a worker has, the more trials it runs."""
        worker, driver = self.worker, self.driver
        minutes = min(worker.minutes, driver.minutes)
        return (worker.gpus, worker.cpus, worker.memory, minutes, driver.cpus, driver.memory)


def best_fit(cluster: Cluster, driver: Request, worker: Request, engine: RayEngine) -> Fit:
    """The most of what both jobs ask for that a driver and one worker can have at once.

    Raises KdsweepError, which says what to change, where they can't have enough for one slot.
    """
    for_driver, for_worker = _offers(cluster, driver), _offers(cluster, worker)
    needed = _gpus_of_a_slot(engine)
    _check_gpus(worker, for_worker, needed)
    fits = [
        fit
        for one in for_driver
        for other in for_worker
        if (fit := _fit(cluster, driver, worker, one, other, needed)) is not None
    ]
    if not fits:
        raise KdsweepError(_no_room(cluster, driver, worker, for_driver, for_worker))
    return max(fits, key=lambda fit: fit.goodness)


def usable_partitions(cluster: Cluster, asked: Request) -> list[Partition]:
    """The partitions of a job that start jobs. Raises KdsweepError where none does."""
    every = cluster.partitions.values()
    names = asked.partitions or tuple(one.name for one in every if one.is_default)
    named = [cluster.partitions[name] for name in names if name in cluster.partitions]
    usable = [one for one in named if one.state == "UP"]
    if named and not usable:
        states = joined([f"{one.name} is {one.state}" for one in named])
        others = [one.name for one in every if one.state == "UP"]
        others_in_words = f" (up: {', '.join(others)})" if others else ""
        raise KdsweepError(
            f"partition {states}, so its jobs don't start; set SBATCH_PARTITION to another one"
            f"{others_in_words}"
        )
    return usable


def _offers(cluster: Cluster, asked: Request) -> list[Offer]:
    return [
        Offer(
            nodes,
            partition.name,
            int(min(nodes.cpus, partition.cpus)),
            int(min(nodes.memory, partition.memory)),
            partition.minutes,
        )
        for partition in usable_partitions(cluster, asked)
        for nodes in cluster.nodes
        if partition.name in nodes.partitions
    ]


def _gpus_of_a_slot(engine: RayEngine) -> int:
    return 1 if engine.gpus_per_trial is None else math.ceil(engine.gpus_per_trial)


def _check_gpus(asked: Request, offers: list[Offer], needed: int) -> None:
    without = (
        "SBATCH_WORKER='--gpus-per-node=0' ARGS='--set engine.gpus_per_trial=0' for trials without"
    )
    if asked.gpus < needed:
        raise KdsweepError(
            f"a worker's job asks for {asked.gpus} GPUs, and a trial needs {needed} "
            f"(engine.gpus_per_trial); set SBATCH_WORKER='--gpus-per-node={needed}', or {without}"
        )
    most = max((offer.nodes.gpus for offer in offers), default=0)
    if offers and most < needed:
        raise KdsweepError(
            f"a trial needs {needed} GPUs (engine.gpus_per_trial), and no node of "
            f"{_names(offers)} has more than {most}; set SBATCH_PARTITION to one with GPUs, or "
            f"{without}"
        )


def _fit(
    cluster: Cluster, driver: Request, worker: Request, one: Offer, other: Offer, needed: int
) -> Fit | None:
    """What both have on these nodes; None where that isn't enough."""
    is_same = one.nodes == other.nodes and cluster.nodes[one.nodes] == 1
    memory_counts = is_same and cluster.memory_is_shared
    cpus = _divided(
        (driver.cpus, worker.cpus),
        (one.cpus, other.cpus),
        one.nodes.cpus if is_same else None,
        one.nodes.threads,
        least=1,
    )
    memory = _divided(
        (driver.memory, worker.memory),
        (one.memory, other.memory),
        one.nodes.memory if memory_counts else None,
        1,
        least=LEAST_MEMORY,
    )
    gpus = min(worker.gpus, other.nodes.gpus)
    if cpus is None or memory is None or gpus < needed:
        return None
    fit = Fit(
        Share(cpus[0], memory[0], driver.gpus, min(driver.minutes, one.minutes)),
        Share(cpus[1], memory[1], gpus, min(worker.minutes, other.minutes)),
    )
    as_chosen = _keeps(driver, fit.driver) and _keeps(worker, fit.worker)
    return fit if as_chosen else None


def _divided(
    asked: tuple[int, int], most: tuple[int, int], total: int | None, unit: int, *, least: int
) -> tuple[int, int] | None:
    """How much the driver and the worker have; None where one has less than `least`.

    asked: 0 where nothing is asked for. most: of each. total: what both take from, in units; None
    where each has a node of its own.
    """
    first, second = (min(wanted, limit) for wanted, limit in zip(asked, most, strict=True))
    if total is not None and _up(first, unit) + _up(second, unit) > total:
        # The driver does little: it may have half, and of cores one.
        first = min(first, 1 if least == 1 else total // 2)
        second = min(second, total - _up(first, unit))
    too_little = any(
        wanted > 0 and had < min(wanted, least)
        for wanted, had in zip(asked, (first, second), strict=True)
    )
    return None if too_little else (first, second)


def _up(count: int, unit: int) -> int:
    return math.ceil(count / unit) * unit


def _keeps(asked: Request, share: Share) -> bool:
    """Whether the job has all that its user chose."""
    names = {"gpus_per_node": {"gpus_per_node", "gpus", "gres"}}
    for option in share.options(asked):
        name = option.partition("=")[0].removeprefix("--").replace("-", "_")
        if names.get(name, {name}) & asked.chosen:
            return False
    return True


def _names(offers: list[Offer]) -> str:
    found = list(dict.fromkeys(offer.partition for offer in offers))
    return f"partition{'s' if len(found) > 1 else ''} {joined(found)}"


def _no_room(
    cluster: Cluster,
    driver: Request,
    worker: Request,
    for_driver: list[Offer],
    for_worker: list[Offer],
) -> str:
    asked = [
        f"{who} asks for {', '.join(_in_words(request))}"
        for who, request in (("the driver's job", driver), ("a worker's", worker))
    ]
    there = " and ".join(dict.fromkeys(_has(cluster, one) for one in (for_driver, for_worker)))
    chosen = ""
    if (driver.chosen | worker.chosen) - {"partition"}:
        chosen = " (what SBATCH_* variables ask for isn't reduced)"
    return (
        f"no room for a driver with one worker: {' and '.join(asked)}, and {there}; {REMEDY}"
        f"{chosen}"
    )


def _has(cluster: Cluster, offers: list[Offer]) -> str:
    if not offers:
        return "its partition has no node"
    count = sum(cluster.nodes[nodes] for nodes in {offer.nodes for offer in offers})
    minutes = max(offer.minutes for offer in offers)
    limit = f" for {minutes:g} minutes" if minutes < math.inf else ""
    return (
        f"{_names(offers)} has {count} node{'s' if count > 1 else ''} of at most "
        f"{max(offer.cpus for offer in offers)} cores, {max(offer.memory for offer in offers)} MB "
        f"and {max(offer.nodes.gpus for offer in offers)} GPUs{limit}"
    )


def _in_words(asked: Request) -> Iterator[str]:
    yield f"{asked.cpus} cores"
    if asked.memory:
        yield f"{asked.memory} MB"
    if asked.gpus:
        yield f"{asked.gpus} GPUs"
    if asked.minutes < math.inf:
        yield f"{asked.minutes:g} minutes"
