"""What Slurm has, and what a job asks of it: read from `scontrol`, a script and the environment."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# sbatch's own variables that override the options of a script.
VARIABLES = {
    "SBATCH_PARTITION": "--partition",
    "SBATCH_TIMELIMIT": "--time",
    "SBATCH_MEM_PER_NODE": "--mem",
    "SBATCH_GPUS_PER_NODE": "--gpus-per-node",
    "SBATCH_GPUS": "--gpus",
    "SBATCH_GRES": "--gres",
}
NOT_UP = ("DOWN", "DRAIN", "FAIL", "NOT_RESPONDING", "FUTURE")
MEGABYTES = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class Nodes:
    """Nodes that are alike.

    cpus: as Slurm counts them. threads: how many of these it gives away together. memory: in MB.
    partitions: those that they are in.
    """

    cpus: int
    threads: int
    memory: int
    gpus: int
    partitions: frozenset[str]
    is_up: bool


@dataclass(frozen=True)
class Partition:
    """cpus, memory: the most that a job may have of a node. minutes: its time limit."""

    name: str
    state: str
    is_default: bool
    cpus: float
    memory: float
    minutes: float


@dataclass(frozen=True)
class Cluster:
    """nodes: how many there are of each kind. memory_is_shared: whether a job's memory counts."""

    nodes: Mapping[Nodes, int]
    partitions: Mapping[str, Partition]
    memory_is_shared: bool


@dataclass(frozen=True)
class Request:
    """What a job asks for.

    memory: in MB; 0 where it names none, or all of a node's. partitions: none for the default one.
    chosen: the options that the environment gives: they are asked for as they are.
    """

    cpus: int
    memory: int
    gpus: int
    minutes: float
    partitions: tuple[str, ...]
    chosen: frozenset[str]


def read_cluster() -> Cluster | None:
    """None where Slurm doesn't say."""
    nodes = _facts("node")
    partitions = _facts("partition")
    config = _run("scontrol", "show", "config")
    if not nodes or not partitions:
        return None
    by_cores = re.search(r"SelectTypeParameters\s*=.*CR_CORE", config) is not None
    return Cluster(
        Counter(_nodes(one, by_cores) for one in nodes),
        {one["PartitionName"]: _partition(one) for one in partitions},
        re.search(r"SelectTypeParameters\s*=.*MEMORY", config) is not None,
    )


def _facts(what: str) -> list[dict[str, str]]:
    lines = _run("scontrol", "show", what, "--all", "--oneliner").splitlines()
    found = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]
    return [one for one in found if f"{what.capitalize()}Name" in one]


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _nodes(facts: Mapping[str, str], by_cores: bool) -> Nodes:
    reserved = facts.get("MemSpecLimit", "0")
    return Nodes(
        cpus=int(facts.get("CPUEfctv") or facts["CPUTot"]),
        threads=int(facts.get("ThreadsPerCore", 1)) if by_cores else 1,
        memory=int(facts["RealMemory"]) - (int(reserved) if reserved.isdecimal() else 0),
        gpus=gpus_in(facts.get("Gres", "")),
        partitions=frozenset(filter(None, facts.get("Partitions", "").split(","))),
        is_up=not any(word in facts["State"] for word in NOT_UP),
    )


def _partition(facts: Mapping[str, str]) -> Partition:
    return Partition(
        name=facts["PartitionName"],
        state=facts["State"],
        is_default=facts.get("Default") == "YES",
        cpus=_limit(facts.get("MaxCPUsPerNode")),
        memory=_limit(facts.get("MaxMemPerNode")),
        minutes=minutes_in(facts.get("MaxTime", "UNLIMITED")),
    )


def _limit(text: str | None) -> float:
    return float(text) if text and text.isdecimal() and int(text) > 0 else math.inf


def gpus_in(text: str) -> int:
    """How many GPUs `gpu:2`, `gpu:a100:4(S:0-1),gpu:t4:2`, `a100:2` or `2` are."""
    found = 0
    for part in re.sub(r"\([^)]*\)", "", text).split(","):
        words = part.strip().split(":")
        is_gpus = words[0] in ("gpu", "gres/gpu") or words[-1].isdecimal()
        if words[0] and is_gpus and not (len(words) > 1 and words[0] in ("shard", "mps")):
            found += int(words[-1]) if words[-1].isdecimal() else 1
    return found


def minutes_in(text: str) -> float:
    """Slurm's `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes]`."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return math.inf
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return 1440 * int(days) + 60 * hours + minutes + seconds / 60
    if len(parts) == 3:
        return 60 * parts[0] + parts[1] + parts[2] / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)


def megabytes_in(text: str) -> int:
    """`16G`, `8000M` or `8000`, in MB; 0 for what isn't a size."""
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", text.upper())
    return int(int(found[1]) * MEGABYTES[found[2] or "M"]) if found else 0


def request_of(role: str, script: Path) -> Request:
    """What the job of this role asks for, with all that its script and the environment say."""
    lines = script.read_text(encoding="utf-8").splitlines()
    own = [
        word
        for line in lines
        if line.startswith("#SBATCH ")
        for word in shlex.split(line.removeprefix("#SBATCH "), comments=True)
    ]
    users = [*_variables(), *shlex.split(os.environ.get(f"SBATCH_{role.upper()}", ""))]
    chosen = vars(_parse(users))
    asked = vars(_parse([*own, *users]))
    gpus = [asked[name] for name in ("gpus_per_node", "gpus", "gres") if asked[name] is not None]
    # The last one that the user names counts, also where the script names another.
    gpus = [chosen[name] for name in ("gpus_per_node", "gpus", "gres") if chosen[name]] or gpus
    return Request(
        cpus=int(asked["cpus_per_task"] or 1),
        memory=megabytes_in(asked["mem"] or "") if not chosen["mem_per_cpu"] else 0,
        gpus=gpus_in(gpus[0]) if gpus else 0,
        minutes=minutes_in(asked["time"] or "UNLIMITED"),
        partitions=tuple(filter(None, (asked["partition"] or "").split(","))),
        chosen=frozenset(name for name, value in chosen.items() if value is not None),
    )


def _variables() -> Iterator[str]:
    for variable, option in VARIABLES.items():
        if value := os.environ.get(variable):
            yield f"{option}={value}"


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for names in (
        ("--partition", "-p"),
        ("--cpus-per-task", "-c"),
        ("--mem",),
        ("--mem-per-cpu",),
        ("--gpus-per-node",),
        ("--gpus", "-G"),
        ("--gres",),
        ("--time", "-t"),
    ):
        parser.add_argument(*names)
    return parser.parse_known_args(words)[0]
