"""Ray started by this sweep, and ended with it: on this machine only (`engine.address: local`)."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.core.device import gpu_count
from kdsweep.core.files import write_private
from kdsweep.core.standing import check_standing
from kdsweep.errors import FolderGone, KdsweepError
from kdsweep.sweep.engines.memory import ray_variables
from kdsweep.sweep.engines.process_reaper import ProcessReaper, session_processes
from kdsweep.sweep.engines.ray_runtime import (
    OBJECT_STORE_BYTES,
    remove_session,
    session_folder,
    token_variables,
)
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.engines.slots import cpu_count
from kdsweep.sweep.folders import SweepFolder


class StartedRay(RaySession):
    """Ray that only who has the sweep's token may use, and that ends with this process."""

    def __init__(self, folder: SweepFolder, config: RayEngine) -> None:
        super().__init__(folder, config)
        self.temp = session_folder(folder, "head")
        self._reaper: ProcessReaper | None = None

    def close(self) -> None:
        # Processes that overwrite their environment are only known by their parents, which end
        # first. So look for them before that.
        started = session_processes(str(self.temp)) if self._reaper is not None else []
        super().close()
        for process in started:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if self._reaper is not None:
            self._reaper.release()
            self.folder.token.unlink(missing_ok=True)

    def keep_logs(self) -> None:
        logs = self.temp / "session_latest" / "logs"
        if logs.exists():
            with contextlib.suppress(OSError, FolderGone):
                check_standing(self.folder.root)
                shutil.copytree(logs, self.folder.root / "ray", dirs_exist_ok=True)

    def _prepare(self) -> None:
        # A driver that was killed may have left one. We hold the sweep's lock, so nobody uses it.
        remove_session(self.temp)
        self.temp.mkdir(mode=0o700)
        write_private(self.folder.token, secrets.token_hex(32))
        self._reaper = ProcessReaper(self.temp)
        os.environ.update(ray_variables() | os.environ | token_variables(self.folder))

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {
            "address": "local",
            "_temp_dir": str(self.temp),
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
