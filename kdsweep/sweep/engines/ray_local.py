"""Ray started by this sweep, and ended with it: on this machine only (`engine.address: local`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.core.device import gpu_count
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.ray_runtime import OBJECT_STORE_BYTES
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.engines.session_folder import ray_folder
from kdsweep.sweep.engines.slots import cpu_count
from kdsweep.sweep.folders import SweepFolder


class StartedRay(RaySession):
    """Ray that only who has the sweep's token may use, and that ends with this process."""

    def __init__(self, folder: SweepFolder, config: RayEngine, session: Path) -> None:
        super().__init__(folder, config)
        self._session = session

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {
            "address": "local",
            "_temp_dir": str(ray_folder(self._session)),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }


class LocalRay(StartedRay):
    """Ray on this machine, with its CPU cores and GPUs."""

    many_machines = False

    def gpus_per_slot(self) -> float:
        there = self.ray.cluster_resources()
        gpus = super().gpus_per_slot()
        if gpus and not there.get("GPU", 0):
            raise KdsweepError(
                f"engine: gpus_per_trial is {gpus:g}, but this machine has no GPU; "
                "set it to 0 to train on CPU cores"
            )
        cpus = self.config.cpus_per_trial
        if there.get("CPU", 0) < cpus:
            raise KdsweepError(
                f"engine: cpus_per_trial is {cpus}, but this machine gives "
                f"{there.get('CPU', 0):g} CPU cores"
            )
        return gpus

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {
            "num_cpus": self.config.cpus or cpu_count(),
            "num_gpus": gpu_count() if self.config.gpus is None else self.config.gpus,
        }
