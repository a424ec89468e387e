"""The limit of memory, and how many died of it: files as the kernel has them, and a real limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cgroups import cgroup

from kdsweep.formatting import file_size
from kdsweep.sweep import run
from kdsweep.sweep.engines.memory import (
    REMEDY,
    MemoryLimit,
    memory_kills,
    memory_limit,
    ray_variables,
)
from kdsweep.sweep.memory_estimate import DRIVER_AND_RAY, MemoryEstimate
from kdsweep.sweep.observer import Observer

GB = 10**9
MACHINE = MemoryLimit(8_000_000 * 1024, "this machine")


def files(root: Path, **contents: str) -> Path:
    """A machine of 8 GB: `/proc` and `/sys`. Two underscores in a name are a slash."""
    contents = {"proc__meminfo": "MemTotal:  8000000 kB\nMemFree:  100 kB\n"} | contents
    for name, text in contents.items():
        file = root.joinpath(*name.split("__"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


V2 = "sys__fs__cgroup__"
V1 = "sys__fs__cgroup__memory__"


def test_without_a_limit_it_is_the_machines_memory_and_its_count_of_kills(tmp_path: Path) -> None:
    root = files(tmp_path, proc__self__cgroup="0::/\n", proc__vmstat="nr_free 1\noom_kill 7\n")
    (tmp_path / "sys" / "fs" / "cgroup").mkdir(parents=True)
    assert (memory_limit(root), memory_kills(root)) == (MACHINE, 7)
    nothing = files(tmp_path / "nothing")
    assert (memory_limit(nothing), memory_kills(nothing)) == (MACHINE, 0)


def test_in_a_container_the_limit_is_at_the_top(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        proc__self__cgroup="0::/\n",
        **{V2 + "memory.max": "3000000000\n", V2 + "memory.events": "low 0\noom 2\noom_kill 1\n"},
    )
    assert memory_limit(root) == MemoryLimit(3 * GB, "this container or job")
    assert memory_kills(root) == 1


def test_the_smallest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        proc__self__cgroup="0::/system.slice/job_1/step_0\n",
        **{
            V2 + "system.slice__memory.max": "max\n",
            V2 + "system.slice__job_1__memory.max": "2000000000\n",
            V2 + "system.slice__job_1__step_0__memory.max": "4000000000\n",
            V2 + "system.slice__job_1__step_0__memory.events": "oom_kill 3\n",
            V2 + "system.slice__job_1__memory.events": "oom_kill 5\n",
        },
    )
    assert memory_limit(root) == MemoryLimit(2 * GB, "this container or job")
    assert memory_kills(root) == 3


def test_version_1_also_where_the_path_is_the_one_outside_of_the_container(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        proc__self__cgroup="5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n",
        **{
            V1 + "memory.limit_in_bytes": "1000000000\n",
            V1 + "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        },
    )
    assert memory_limit(root) == MemoryLimit(GB, "this container or job")
    assert memory_kills(root) == 4
    # What version 1 says where there is no limit.
    files(tmp_path, **{V1 + "memory.limit_in_bytes": "9223372036854771712\n"})
    assert memory_limit(root) == MACHINE


def test_ray_does_not_watch_memory_where_it_does_not_know_the_limit(tmp_path: Path) -> None:
    own = V2 + "job__memory.max"
    unwatched = {"RAY_memory_monitor_refresh_ms": "0"}
    root = files(tmp_path, proc__self__cgroup="0::/job\n", **{own: "3000000000\n"})
    assert ray_variables(root) == unwatched
    files(tmp_path, **{V2 + "memory.max": "4000000000\n"})
    assert ray_variables(root) == unwatched
    # In a container with a limit of its own, and where there is none.
    files(tmp_path, **{V2 + "memory.max": "3000000000\n"})
    assert ray_variables(root) == {}
    assert ray_variables(files(tmp_path / "none", proc__self__cgroup="0::/\n")) == {}


def estimate(slots: int | None, there: int, others: int = DRIVER_AND_RAY) -> MemoryEstimate:
    return MemoryEstimate(2 * GB, others, slots, there, "this container or job")


def test_a_plan_says_what_fits_and_what_to_do_where_it_does_not() -> None:
    assert estimate(3, 8 * GB).words == (
        "memory: about 2 GB for each slot, 7 GB in all; this container or job has 8 GB"
    )
    assert estimate(3, 6 * GB).words == (
        "memory: about 2 GB for each slot, 7 GB for 3 slots, but this container or job has "
        "6 GB: use --set engine.slots=2, or use a smaller model, training.batch_size or "
        "max_length"
    )
    assert estimate(1, GB, others=0).words.endswith(
        "2 GB for 1 slot, but this container or job has 1 GB: use a smaller model, "
        "training.batch_size or max_length"
    )
    assert estimate(None, GB).words == "memory: about 2 GB for each slot"
    # One slot in this process may fit where two slots don't: they need Ray and a driver.
    alone = estimate(1, 4 * GB, others=0)
    assert (alone.fit(1), alone.fit(2)) == (True, False)


def test_a_real_limit_is_found_and_its_kills_are_counted() -> None:
    script = """
import subprocess, sys
from pathlib import Path
from kdsweep.sweep.engines.memory import memory_kills, memory_limit
Path(sys.argv[1], "cgroup.procs").write_text("0")
before = memory_kills()
greedy = subprocess.run([sys.executable, "-c", "x = bytearray(400_000_000)"])
print(memory_limit().bytes, memory_limit().of, greedy.returncode, memory_kills() - before, sep=";")
"""
    with cgroup(200_000_000) as small:
        done = subprocess.run(
            [sys.executable, "-c", script, str(small)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
    size, of, status, kills = done.stdout.strip().split(";")
    assert file_size(int(size)) == "200 MB", done.stderr
    assert (of, status, kills) == ("this container or job", "-9", "1")


class Warned(Exception):
    """What the sweep has said."""


class Impatient(Observer):
    """Ends a sweep that says something of memory."""

    def say(self, line: str) -> None:
        if line.startswith("memory: "):
            raise Warned(line)


def test_a_sweep_says_at_its_start_that_it_takes_more_memory_than_there_is(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = MemoryLimit(100_000_000, "this container or job")
    monkeypatch.setattr("kdsweep.sweep.run_sweep.memory_limit", lambda: small)
    inline = ("engine={type: inline}",)
    with pytest.raises(Warned, match=f"for 1 slot, but this container or job has 100 MB: {REMEDY}"):
        run(space, home=tmp_path, assignments=inline, observer=Impatient())
