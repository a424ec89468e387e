"""What `make sweep` asks of Slurm where the nodes have less than the scripts say."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError

FOLDER = Path(__file__).parents[1] / "sweeps" / "slurm"
sys.path.insert(0, str(FOLDER))

from slurm_facts import (
    Cluster,
    Nodes,
    Partition,
    gpus_in,
    megabytes_in,
    minutes_in,
    request_of,
)
from slurm_fit import best_fit

DRIVER, WORKER = FOLDER / "driver.sbatch", FOLDER / "worker.sbatch"


@pytest.fixture(autouse=True)
def _no_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("SBATCH", "SLURM")):
            monkeypatch.delenv(name)


def cluster(
    cores: int = 2,
    memory: int = 64_000,
    gpus: int = 1,
    *,
    count: int = 1,
    threads: int = 1,
    memory_is_shared: bool = False,
    **limits: float | str,
) -> Cluster:
    """A partition `main` of `count` such nodes, and one that is down."""
    nodes = Nodes(cores, threads, memory, gpus, frozenset({"main", "closed"}), True)
    of_main: dict[str, float | str] = {
        "state": "UP",
        "cpus": math.inf,
        "memory": math.inf,
        "minutes": math.inf,
    }
    main = Partition(name="main", is_default=True, **(of_main | limits))  # type: ignore[arg-type]
    closed = Partition("closed", "DOWN", False, math.inf, math.inf, math.inf)
    return Cluster({nodes: count}, {"main": main, "closed": closed}, memory_is_shared)


def options(there: Cluster, **engine: object) -> tuple[list[str], list[str]]:
    """What the driver's job and a worker's ask for in place of what the shipped scripts say."""
    config = RayEngine.model_validate(
        {"type": "ray", "address": "head", "gpus_per_trial": 1, "cpus_per_trial": 4} | engine
    )
    driver, worker = request_of("driver", DRIVER), request_of("worker", WORKER)
    fit = best_fit(there, driver, worker, config)
    return fit.driver.options(driver), fit.worker.options(worker)


def test_nothing_changes_where_the_nodes_have_enough() -> None:
    for there in (cluster(6), cluster(4, count=2), cluster(64, memory_is_shared=True)):
        assert options(there) == ([], [])


@pytest.mark.parametrize(
    ("there", "driver", "worker"),
    [
        # One core for the driver and one for a worker.
        (cluster(2), ["--cpus-per-task=1"], ["--cpus-per-task=1"]),
        (cluster(3), ["--cpus-per-task=1"], ["--cpus-per-task=2"]),
        (cluster(2, count=2), [], ["--cpus-per-task=2"]),
        (cluster(1, count=2), ["--cpus-per-task=1"], ["--cpus-per-task=1"]),
        # Slurm gives both threads of a core to one job.
        (cluster(4, threads=2), ["--cpus-per-task=1"], ["--cpus-per-task=2"]),
        # Memory counts where Slurm divides it.
        (cluster(8, 20_000), [], []),
        (cluster(8, 20_000, memory_is_shared=True), [], ["--mem=11808M"]),
        (cluster(8, 6_000, memory_is_shared=True), ["--mem=3000M"], ["--mem=3000M"]),
        (cluster(8, minutes=30.0), ["--time=30"], ["--time=30"]),
        (cluster(8, cpus=2.0), [], ["--cpus-per-task=2"]),
    ],
)
def test_the_jobs_ask_for_what_the_nodes_have(
    there: Cluster, driver: list[str], worker: list[str]
) -> None:
    assert options(there) == (driver, worker)


def test_gpus_that_no_trial_needs_are_not_asked_for_where_there_are_none() -> None:
    assert options(cluster(8, gpus=0), gpus_per_trial=0) == ([], ["--gpus-per-node=0"])


@pytest.mark.parametrize(
    ("there", "variables", "words"),
    [
        (cluster(1), {}, "partition main has 1 node of at most 1 cores"),
        (
            cluster(8, gpus=0),
            {},
            r"main has more than 0; set SBATCH_PARTITION",
        ),
        (cluster(8, 1_000), {}, "of at most 8 cores, 1000 MB"),
        (cluster(8), {"SBATCH_PARTITION": "closed"}, r"closed is DOWN.*\(up: main\)"),
        (cluster(8), {"SBATCH_WORKER": "-c 16"}, "16 cores.*isn't reduced"),
        (cluster(8), {"SBATCH_WORKER": "--gres=gpu:4"}, "4 GPUs.*isn't reduced"),
        (
            cluster(8),
            {"SBATCH_WORKER": "--gpus-per-node=0"},
            "0 GPUs, and a trial needs 1",
        ),
        (
            cluster(8, minutes=30.0),
            {"SBATCH_TIMELIMIT": "2:00:00"},
            "for 30 minutes.*reduced",
        ),
    ],
)
def test_what_can_never_start_is_refused_with_what_to_change(
    there: Cluster, variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KdsweepError, match=words) as raised:
        options(there)
    assert "SBATCH_" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_slurms_ways_to_write_sizes_times_and_gpus_are_read() -> None:
    assert [gpus_in(text) for text in ("gpu:2", "gpu:a100:4(S:0-1),gpu:t4:1", "2", "a100:3")] == [
        2,
        5,
        2,
        3,
    ]
    assert [gpus_in(text) for text in ("(null)", "", "shard:8", "gpu")] == [0, 0, 0, 1]
    assert [megabytes_in(text) for text in ("16G", "8000M", "8000", "0", "?")] == [
        16384,
        8000,
        8000,
        0,
        0,
    ]
    times = ("90", "30:00", "1:30:00", "1-0", "2-12:30", "UNLIMITED")
    assert [minutes_in(text) for text in times] == [90, 30, 90, 1440, 3630, math.inf]


def test_the_users_options_replace_those_of_the_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (script := tmp_path / "job").write_text(
        "#!/bin/bash\n##SBATCH --partition=no\n#SBATCH --cpus-per-task=4  # cores\n"
        "#SBATCH --gpus-per-node=1\n#SBATCH --nodes=1 --mem=16G\n"
    )
    before = request_of("worker", script)
    assert (before.cpus, before.gpus, before.memory, before.partitions) == (4, 1, 16384, ())
    monkeypatch.setenv("SBATCH_PARTITION", "a,b")
    monkeypatch.setenv("SBATCH_WORKER", "-c2 --gres=gpu:2 --mem 8G --nice")
    after = request_of("worker", script)
    assert (after.cpus, after.gpus, after.memory) == (2, 2, 8192)
    assert after.partitions == ("a", "b")
    assert after.chosen == {"partition", "cpus_per_task", "gres", "mem"}
