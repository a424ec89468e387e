"""Real limits of memory, as containers and Slurm jobs have them. They need root."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

MOUNTED = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def cgroup(limit: int) -> Iterator[Path]:
    """The folder of a cgroup whose processes may use so many bytes; skips where none can be made.

    A process enters it by writing 0 to `cgroup.procs`.
    """
    name = f"kdsweep-test-{uuid.uuid4().hex[:8]}"
    for top, file in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = MOUNTED / top / name
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / file).exists():
            (group / file).write_text(str(limit))
            yield group
            group.rmdir()
            return
        group.rmdir()
    pytest.skip("needs root on a machine whose cgroups limit memory")


@contextlib.contextmanager
def being_in(group: Path) -> Iterator[None]:
    """This process, and what it starts, is in the cgroup."""
    version_1 = group.parent.name == "memory"
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == ("memory" if version_1 else ""):
            before = group.parent.joinpath(path.lstrip("/"))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
