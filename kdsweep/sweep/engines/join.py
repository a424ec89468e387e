"""A machine that joins a sweep's cluster (`engine.address: head`) and leaves when it is wanted back or the sweep is over.

The machine's part of Ray runs as `ray start` with SIGTERM and SIGUSR1 blocked, so that a scheduler that signals every process
of a job ends none of them: the workers wait for these signals themselves (`Worker`), save, and leave.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kdsweep.core.device import gpu_count
from kdsweep.core.files import read_json
from kdsweep.errors import Interrupted, KdsweepError
from kdsweep.sweep.engines.process_reaper import Guardian, members
from kdsweep.sweep.engines.ray_session import (
    MANY_MACHINES,
    OBJECT_STORE_BYTES,
    blocked,
    remove_session,
    session_folder,
)
from kdsweep.sweep.engines.slots import cpu_count
from kdsweep.sweep.engines.worker import LEAVE_SIGNALS, LEAVING
from kdsweep.sweep.folders import SweepFolder

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_TO_SAVE = 300.0
SECONDS_BETWEEN_TRIES = 5.0


def join(
    folder: SweepFolder,
    *,
    gpus: int | None,
    cpus: int | None,
    patience_minutes: float,
    say: Callable[[str], None],
) -> None:
    """Work for the sweep until it is over. Waits up to `patience_minutes` for a driver that isn't there (yet, or any more).

    Raises Interrupted after SIGINT, SIGTERM or SIGUSR1, when what ran here is saved, and KdsweepError when no driver came.
    """
    stop = _Stop()
    with stop.listening():
        last_seen = time.monotonic()
        said = False
        while not stop.requested:
            cluster = read_json(folder.cluster) if folder.cluster.exists() else {"state": "none"}
            if cluster["state"] == "over":
                say(f"{folder.name}: over")
                return
            if cluster["state"] == "up":
                began = time.monotonic()
                _work_for(cluster, folder, gpus, cpus, stop, say)
                said = False
                if time.monotonic() - began > 4 * SECONDS_BETWEEN_TRIES:
                    last_seen = time.monotonic()
            elif not said:
                said = True
                say(f"{folder.name}: waiting for the driver ({folder.cluster})")
            if time.monotonic() - last_seen > 60 * patience_minutes:
                raise KdsweepError(
                    f"{folder.name}: no driver within {patience_minutes:g} minutes; start it with `kdsweep run` and this command's arguments"
                )
            stop.sleep(
                SECONDS_BETWEEN_TRIES
                if cluster["state"] == "up" and _is_up(folder, cluster)
                else SECONDS_BETWEEN_LOOKS
            )
    raise Interrupted("left the sweep; what ran here is saved and goes on elsewhere")


def _work_for(
    cluster: dict[str, Any],
    folder: SweepFolder,
    gpus: int | None,
    cpus: int | None,
    stop: _Stop,
    say: Callable[[str], None],
) -> None:
    """Be a part of this driver's cluster until it ends or this machine is wanted back."""
    temp = session_folder(folder, str(os.getpid()))
    remove_session(temp)
    temp.mkdir(mode=0o700)
    guardian = Guardian(temp)
    log = folder.root / "ray" / f"{socket.gethostname()}-{os.getpid()}.log"
    log.parent.mkdir(exist_ok=True)
    try:
        with log.open("ab") as file, blocked(LEAVE_SIGNALS):
            own = {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(folder.token),
                MANY_MACHINES: "1",
                "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
            }
            node = subprocess.Popen(
                _command(cluster["address"], temp, gpus, cpus),
                stdout=file,
                stderr=file,
                env=os.environ | own,
                start_new_session=True,
            )
        say(f"{folder.name}: joining the cluster of {cluster['host']} ({cluster['address']})")
        while node.poll() is None and not stop.requested and _is_up(folder, cluster):
            stop.sleep(SECONDS_BETWEEN_LOOKS)
        if stop.requested and node.poll() is None:
            _let_workers_save(temp, stop, say)
        elif node.poll() is not None:
            say(
                f"{folder.name}: the cluster of {cluster['host']} can't be reached (any more); see {log}"
            )
    finally:
        guardian.release()


def _command(address: str, temp: Path, gpus: int | None, cpus: int | None) -> list[str]:
    gpus = _gpus_here() if gpus is None else gpus
    cpus = int(os.environ.get("SLURM_CPUS_ON_NODE", cpu_count())) if cpus is None else cpus
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--address",
        address,
        "--block",
        "--disable-usage-stats",
    ]
    command += [
        "--num-gpus",
        str(gpus),
        "--num-cpus",
        str(cpus),
        "--temp-dir",
        str(temp),
        "--object-store-memory",
        str(OBJECT_STORE_BYTES),
    ]
    # Ports of the system's choice: several users' or sweeps' machines may be the same one.
    return [
        *command,
        "--min-worker-port",
        "0",
        "--max-worker-port",
        "0",
        "--dashboard-agent-listen-port",
        str(_free_port()),
    ]


def _gpus_here() -> int:
    """Those that Slurm gave. A job that asked for none has neither variable, and may still see GPUs of other jobs."""
    if "SLURM_JOB_ID" in os.environ and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return int(os.environ.get("SLURM_GPUS_ON_NODE", 0))
    return int(os.environ.get("SLURM_GPUS_ON_NODE", gpu_count()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _is_up(folder: SweepFolder, cluster: dict[str, Any]) -> bool:
    return folder.cluster.exists() and read_json(folder.cluster) == cluster


def _let_workers_save(temp: Path, stop: _Stop, say: Callable[[str], None]) -> None:
    """Signal the workers here and wait until the driver has taken them out."""
    (temp / LEAVING).touch()
    workers = _workers(temp)
    if workers:
        say(
            f"leaving: {len(workers)} worker{'s' if len(workers) > 1 else ''} here save{'s' if len(workers) == 1 else ''} at the next step"
        )
    for worker in workers:
        with suppress(OSError):
            os.kill(worker, signal.SIGUSR1)
    until = time.monotonic() + SECONDS_TO_SAVE
    while set(_workers(temp)) & set(workers) and time.monotonic() < until and not stop.at_once:
        time.sleep(0.1)


def _workers(temp: Path) -> list[int]:
    """The processes here that are slots."""
    found = []
    for process in members(str(temp)):
        with suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::Worker"):
                found.append(process)
    return found


class _Stop:
    """SIGINT, SIGTERM or SIGUSR1 asks to leave; Ctrl-C once more, at once."""

    def __init__(self) -> None:
        self.requested = self.at_once = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, *LEAVE_SIGNALS)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.requested and time.monotonic() < until:
            time.sleep(0.1)

    def _receive(self, number: int, frame: Any) -> None:
        self.at_once |= self.requested and number == signal.SIGINT
        self.requested = True
