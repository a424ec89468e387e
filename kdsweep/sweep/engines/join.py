"""`kdsweep worker`: a machine that joins a sweep's cluster (`engine.address: head`).

It leaves when a scheduler wants it back, its terminal closes or the sweep is over. The machine's
part of Ray runs as `ray start` with SIGTERM, SIGUSR1 and SIGHUP blocked, so that a scheduler that
signals every process of a job ends none of them. The workers wait for these signals themselves
(`Worker`), save, and leave.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from kdsweep.core.device import gpu_count
from kdsweep.core.standing import check_standing, keep_standing
from kdsweep.errors import Interrupted, KdsweepError
from kdsweep.sweep.engines.memory import ray_variables
from kdsweep.sweep.engines.process_reaper import ProcessReaper, session_processes
from kdsweep.sweep.engines.ray_cluster import ClusterFile
from kdsweep.sweep.engines.ray_runtime import (
    MANY_MACHINES,
    OBJECT_STORE_BYTES,
    blocked,
    token_variables,
)
from kdsweep.sweep.engines.session_folder import make_session, ray_folder, session_folder
from kdsweep.sweep.engines.slots import cpu_count
from kdsweep.sweep.engines.worker import LEAVING_FILE
from kdsweep.sweep.engines.worker_check import check_this_machine
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.signals import LEAVE_SIGNALS, handling

# The command `ray`, without taking another address of this machine for 127.0.0.1.
RAY = (
    "from ray._private import services; services.resolve_ip_for_localhost = str; "
    "from ray.scripts.scripts import main; main()"
)
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_ATTEMPTS = 5.0
# A cluster that this machine was part of for so long was no failed attempt.
SECONDS_OF_WORK = 20.0
SECONDS_TO_SAVE = 300.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Resources:
    """What this machine gives to the sweep."""

    gpus: int
    cpus: int


def join(
    folder: SweepFolder, *, gpus: int | None, cpus: int | None, patience_minutes: float, say: Say
) -> None:
    """Work for the sweep until it is over.

    Waits up to `patience_minutes` for a driver, at first and again whenever one is gone.
    gpus, cpus: what this machine gives; None for all that it has, or that Slurm gave.

    Raises Interrupted after a signal (SIGINT or one of LEAVE_SIGNALS), when everything that ran
    here is saved, and KdsweepError when no driver came, or one with other packages than these.
    """
    resources = Resources(
        gpus=_gpus_here() if gpus is None else gpus,
        cpus=_cpus_here() if cpus is None else cpus,
    )
    stop = _LeaveRequest()
    with handling(stop.receive):
        last_seen = time.monotonic()
        said_waiting = False
        while not stop.requested:
            cluster = ClusterFile.read(folder)
            if cluster is not None and cluster.state == "over":
                say(f"{folder.name}: over")
                return
            if cluster is not None and cluster.state == "up":
                check_this_machine(folder)
                started = time.monotonic()
                _work_for(cluster, folder, resources, stop, say)
                said_waiting = False
                if time.monotonic() - started > SECONDS_OF_WORK:
                    last_seen = time.monotonic()
                failed = cluster == ClusterFile.read(folder)
                stop.sleep(SECONDS_BETWEEN_ATTEMPTS if failed else SECONDS_BETWEEN_LOOKS)
            else:
                if not said_waiting:
                    said_waiting = True
                    say(f"{folder.name}: waiting for the driver ({folder.cluster})")
                stop.sleep(SECONDS_BETWEEN_LOOKS)
            if time.monotonic() - last_seen > 60 * patience_minutes:
                raise KdsweepError(
                    f"{folder.name}: no driver within {patience_minutes:g} minutes; start it "
                    "with `kdsweep run` and the arguments of this command"
                )
    raise Interrupted("left the sweep; what ran here is saved and resumes on another machine")


def _work_for(
    cluster: ClusterFile, folder: SweepFolder, resources: Resources, stop: _LeaveRequest, say: Say
) -> None:
    """Be part of this driver's cluster until it ends or this machine must leave."""
    session = make_session(session_folder(folder, str(os.getpid())))
    reaper = ProcessReaper(session)
    try:
        keep_standing(folder.root)
        log = folder.root / "ray" / f"{socket.gethostname()}-{os.getpid()}.log"
        node = _start_ray(cluster, folder, session, resources, log)
        say(f"{folder.name}: joining the cluster of {cluster.host} ({cluster.address})")
        while node.poll() is None and not stop.requested and ClusterFile.read(folder) == cluster:
            stop.sleep(SECONDS_BETWEEN_LOOKS)
        check_standing(folder.root)
        if node.poll() is not None:
            say(f"{folder.name}: the cluster of {cluster.host} doesn't answer; see {log}")
        elif stop.requested:
            _save_workers(session, stop, say)
    finally:
        reaper.release()


def _start_ray(
    cluster: ClusterFile, folder: SweepFolder, session: Path, resources: Resources, log: Path
) -> subprocess.Popen[bytes]:
    variables = token_variables(folder) | {
        MANY_MACHINES: "1",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    }
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as file, blocked(LEAVE_SIGNALS):
        return subprocess.Popen(
            _ray_command(cluster.address, session, resources),
            stdout=file,
            stderr=file,
            env=ray_variables() | os.environ | variables,
            start_new_session=True,
        )


def _ray_command(address: str, session: Path, resources: Resources) -> list[str]:
    options = {
        "--address": address,
        "--num-gpus": resources.gpus,
        "--num-cpus": resources.cpus,
        "--temp-dir": ray_folder(session),
        "--object-store-memory": OBJECT_STORE_BYTES,
        # The system chooses the ports, since several users or sweeps may share a machine.
        "--min-worker-port": 0,
        "--max-worker-port": 0,
        "--dashboard-agent-listen-port": _free_port(),
    }
    host = address.rpartition(":")[0]
    if host == "127.0.0.1":
        options["--node-ip-address"] = host
    command = [sys.executable, "-P", "-c", RAY, "start"]
    for option, value in options.items():
        command += [option, str(value)]
    return [*command, "--block", "--disable-usage-stats"]


def _gpus_here() -> int:
    """This machine's GPUs, or those that Slurm gave.

    A Slurm job without GPUs has neither variable, and may still see GPUs of other jobs.
    """
    if "SLURM_JOB_ID" in os.environ and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return int(os.environ.get("SLURM_GPUS_ON_NODE", 0))
    return int(os.environ.get("SLURM_GPUS_ON_NODE", gpu_count()))


def _cpus_here() -> int:
    return int(os.environ.get("SLURM_CPUS_ON_NODE", cpu_count()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _save_workers(session: Path, stop: _LeaveRequest, say: Say) -> None:
    """Signal the workers here, and wait until the driver has released them."""
    (session / LEAVING_FILE).touch()
    workers = _workers(session)
    if len(workers) == 1:
        say("leaving: the worker here saves its trial at the next step")
    elif workers:
        say(f"leaving: {len(workers)} workers here save their trials at the next step")
    for worker in workers:
        with suppress(OSError):
            os.kill(worker, signal.SIGUSR1)
    until = time.monotonic() + SECONDS_TO_SAVE
    while set(_workers(session)) & set(workers):
        if stop.at_once or time.monotonic() > until:
            return
        time.sleep(0.1)


def _workers(session: Path) -> list[int]:
    """The processes of slots on this machine."""
    found = []
    for process in session_processes(str(session)):
        with suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(process)
    return found


class _LeaveRequest:
    """A signal asks to leave. A second Ctrl-C asks to leave at once."""

    def __init__(self) -> None:
        self.requested = False
        self.at_once = False

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.requested and time.monotonic() < until:
            time.sleep(0.1)

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.at_once |= self.requested and number == signal.SIGINT
        self.requested = True
