"""How much memory the processes here may use, and how often its limit has ended one.

A container or a Slurm job has a limit of its own (a cgroup's). The kernel holds to it by SIGKILL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path("/")
# How often Ray looks, in milliseconds. 0: never.
RAY_WATCH = "RAY_memory_monitor_refresh_ms"
# What helps a job that takes too much.
REMEDY = "use a smaller model, training.batch_size or max_length"


@dataclass(frozen=True)
class MemoryLimit:
    """The most bytes that all processes here may use together, and what sets that."""

    bytes: int
    of: Literal["this machine", "this container or job"]


def memory_limit(root: Path = ROOT) -> MemoryLimit:
    """The smallest limit of this process's cgroup and those above it, or else all memory.

    root: where `/proc` and `/sys` are.
    """
    total = _numbers(root / "proc" / "meminfo")["MemTotal"] * 1024
    limits = [total]
    for group in _cgroups(root):
        limits += _limits_of(group)
    if min(limits) < total:
        return MemoryLimit(min(limits), "this container or job")
    return MemoryLimit(total, "this machine")


def ray_variables(root: Path = ROOT) -> dict[str, str]:
    """The environment in which Ray keeps to the limit.

    Ray ends a worker before memory runs out, but knows no other limit than that at the top of the
    cgroups, which is a container's. Below a smaller one that watch only does harm: it would count
    what others use on this machine.
    """
    total = _numbers(root / "proc" / "meminfo")["MemTotal"] * 1024
    _, top = _own_cgroup(root)
    if min([total, *_limits_of(top)]) > memory_limit(root).bytes:
        return {RAY_WATCH: "0"}
    return {}


def memory_kills(root: Path = ROOT) -> int:
    """How many processes of this one's cgroup the kernel has killed so far because memory ran out;
    where it doesn't count them, how many on this machine."""
    for group in _cgroups(root):
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, KeyError):
                return _numbers(group / name)["oom_kill"]
    with contextlib.suppress(OSError, KeyError):
        return _numbers(root / "proc" / "vmstat")["oom_kill"]
    return 0


def _limits_of(group: Path) -> list[int]:
    found: list[int] = []
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            # `max` in version 2, a number beyond any memory in version 1: no limit.
            found.append(int((group / name).read_text()))
    return found


def _cgroups(root: Path) -> Iterator[Path]:
    """The folders of this process's cgroup that limits memory and of those above it, which limit it
    too, from the inside out.

    In a container the path can be that of the machine outside, of which only the top exists here.
    """
    path, top = _own_cgroup(root)
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        group = top.joinpath(*parts[:depth])
        if group.is_dir():
            yield group


def _own_cgroup(root: Path) -> tuple[str, Path]:
    """Its path, and the folder that the path starts at. Version 1 has a tree for memory alone."""
    mounted = root / "sys" / "fs" / "cgroup"
    found = ("", mounted)
    with contextlib.suppress(OSError):
        for line in (root / "proc" / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                return path, mounted / "memory"
            if not controllers:
                found = path, mounted
    return found


def _numbers(file: Path) -> dict[str, int]:
    """A file of lines such as `MemTotal:  24 kB` or `oom_kill 3`."""
    lines = (line.replace(":", " ").split() for line in file.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
