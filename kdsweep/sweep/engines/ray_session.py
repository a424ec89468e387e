"""A connection to Ray for one sweep, from `open` to `close`.

Here for a cluster that exists already. `ray_local` and `ray_cluster` start Ray themselves.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.ray_runtime import (
    RAY_VARIABLES,
    blocked,
    import_ray,
    log_to_file,
    one_line,
    shut_down,
)
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.signals import LEAVE_SIGNALS

CONNECTION_ATTEMPTS = 3
SECONDS_BETWEEN_ATTEMPTS = 1.0


class RaySession:
    """A Ray cluster that was there before the sweep and remains after it.

    many_machines: machines may join while the sweep runs.
    """

    many_machines = True

    def __init__(self, folder: SweepFolder, config: RayEngine) -> None:
        self.folder = folder
        self.config = config
        self.address = config.address
        self._environment: dict[str, str | None] = {}

    def open(self) -> None:
        """Connect. Raises KdsweepError where that fails."""
        self._environment = {name: os.environ.get(name) for name in RAY_VARIABLES}
        self._prepare()
        try:
            self.ray: Any = import_ray(many_machines=self.many_machines)
            log_to_file(self.folder.ray_log)
            # A scheduler may signal every process of a job, and so does a terminal that closes.
            # With the signals blocked none of Ray's processes ends; workers wait for them and save.
            with blocked(LEAVE_SIGNALS):
                self._connect()
            # ray.init has set its own log handlers meanwhile.
            log_to_file(self.folder.ray_log)
            self._opened()
        # Ray raises whatever its parts raise.
        except Exception as error:
            self.close()
            raise KdsweepError(
                f"engine: Ray at {self.config.address} can't be used: {one_line(error)}"
            ) from error

    def close(self) -> None:
        with contextlib.suppress(Exception):
            shut_down(self.ray)
        self._restore_environment()

    def gpus_per_slot(self) -> float:
        """What `gpus_per_trial` means here. Raises KdsweepError where not one slot fits."""
        if self.config.gpus_per_trial is not None:
            return float(self.config.gpus_per_trial)
        return float(self.ray.cluster_resources().get("GPU", 0) > 0)

    def announce_end(self, *, resuming: bool) -> None:
        """Tell machines that joined for this sweep whether it resumes."""

    def keep_logs(self) -> None:
        """Copy Ray's logs of processes that died to the sweep's folder."""

    def _prepare(self) -> None:
        """What must be done before Ray is imported."""

    def _opened(self) -> None:
        """What must be done once Ray is there."""

    def _arguments(self) -> dict[str, Any]:
        """For ray.init."""
        return {
            "address": self.config.address,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
            "configure_logging": False,
        }

    def _connect(self) -> None:
        """Start Ray or connect to it.

        Behind ray:// the cluster starts a process for every user. Sometimes that process dies
        immediately (gRPC, in its own threads), and the next one lives.
        """
        for attempts_left in reversed(range(CONNECTION_ATTEMPTS)):
            try:
                self.ray.init(**self._arguments())
                return
            # Ray raises this one for ray:// only.
            except ConnectionAbortedError as error:
                if attempts_left == 0:
                    raise
                log_to_file(self.folder.ray_log)
                logging.getLogger("ray").error(
                    "%s: trying again after: %s", self.config.address, error
                )
                time.sleep(SECONDS_BETWEEN_ATTEMPTS)

    def _restore_environment(self) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
