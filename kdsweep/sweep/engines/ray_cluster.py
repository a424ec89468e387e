"""The head of a Ray cluster that starts here and that machines join (`engine.address: head`).

How they join is in `join.py`. They find the head by the file `cluster.json` in the sweep's folder.
"""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from kdsweep.core.files import read_json, write_json
from kdsweep.sweep.engines.ray_local import StartedRay
from kdsweep.sweep.folders import SweepFolder

# A machine that doesn't answer is given up after about six seconds. By default Ray takes thirty.
NOTICE_A_LOST_MACHINE = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}


@dataclass(frozen=True)
class ClusterFile:
    """What `cluster.json` says.

    state: `up`; `away`, the driver stopped and the sweep will be resumed; `over`.
    address: where to join. host, pid: the driver's. session: another one for each start.
    """

    state: Literal["up", "away", "over"]
    address: str
    host: str
    pid: int
    session: str

    @classmethod
    def read(cls, folder: SweepFolder) -> ClusterFile | None:
        """None where no driver has been there yet."""
        return cls(**read_json(folder.cluster)) if folder.cluster.exists() else None

    def write(self, folder: SweepFolder) -> None:
        write_json(folder.cluster, asdict(self))


def announce_end(folder: SweepFolder, *, resuming: bool) -> None:
    """Tell machines that joined whether to wait for this sweep (`resuming`) or to leave."""
    if (cluster := ClusterFile.read(folder)) is not None:
        state: Literal["away", "over"] = "away" if resuming else "over"
        replace(cluster, state=state, session=uuid.uuid4().hex).write(folder)


class ClusterHead(StartedRay):
    """The head, without slots."""

    def gpus_per_slot(self) -> float:
        """One GPU unless the sweep says otherwise: no machine has joined yet."""
        gpus = self.config.gpus_per_trial
        return 1.0 if gpus is None else float(gpus)

    def _opened(self) -> None:
        self.address = self.ray.get_runtime_context().gcs_address
        # The driver is the parent of the process that connects to Ray.
        cluster = ClusterFile(
            "up", self.address, socket.gethostname(), os.getppid(), uuid.uuid4().hex
        )
        cluster.write(self.folder)

    def _arguments(self) -> dict[str, Any]:
        arguments = super()._arguments() | {
            "num_cpus": 0,
            "num_gpus": 0,
            "_system_config": NOTICE_A_LOST_MACHINE,
        }
        if self.config.listen is not None:
            arguments["_node_ip_address"] = self.config.listen
        return arguments
