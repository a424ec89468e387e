"""A connection to Ray for one sweep, from `open` to `close`, in a process of its own.

Here for a cluster that exists already. `ray_local` and `ray_cluster` start Ray themselves.
"""

from __future__ import annotations

import contextlib
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.ray_runtime import import_ray, log_to_file, one_line, shut_down
from kdsweep.sweep.folders import SweepFolder

CONNECTION_ATTEMPTS = 3
SECONDS_BETWEEN_ATTEMPTS = 1.0
SECONDS_TO_ANSWER = 4.0


class RaySession:
    """A Ray cluster that was there before the sweep and remains after it.

    many_machines: machines may join while the sweep runs.
    """

    many_machines = True

    def __init__(self, folder: SweepFolder, config: RayEngine) -> None:
        self.folder = folder
        self.config = config
        self.address = config.address
        self._asking = ThreadPoolExecutor(1)
        self._question: Future[object] | None = None

    def open(self) -> None:
        """Connect. Raises KdsweepError where that fails."""
        try:
            self.ray: Any = import_ray(many_machines=self.many_machines)
            log_to_file(self.folder.ray_log)
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

    def gpus_per_slot(self) -> float:
        """What `gpus_per_trial` means here. Raises KdsweepError where not one slot fits."""
        if self.config.gpus_per_trial is not None:
            return float(self.config.gpus_per_trial)
        return float(self.ray.cluster_resources().get("GPU", 0) > 0)

    def trouble(self) -> str | None:
        """Why Ray can't be used any more, after asking it; None if all is well.

        Takes at most about SECONDS_TO_ANSWER.
        """
        if self.ray.util.client.ray.is_connected():
            return self._trouble_behind_client()
        from ray._private import worker

        try:
            node = self.ray.NodeID.from_hex(self.ray.get_runtime_context().get_node_id())
            client = worker.global_worker.gcs_client  # type: ignore[attr-defined]
            alive = client.check_alive([node], timeout=SECONDS_TO_ANSWER)
        # Ray raises whatever its parts raise.
        except Exception as error:
            why = one_line(error).rstrip(".")
            return f"its gcs_server at {self.address} doesn't answer: {why}"
        return None if alive == [True] else "its raylet on this machine doesn't answer"

    def _trouble_behind_client(self) -> str | None:
        """The same behind ray://, where no question has a limit in time: one waits in a thread."""
        if self._question is None or self._question.done():
            self._question = self._asking.submit(self.ray.nodes)
        try:
            self._question.result(SECONDS_TO_ANSWER)
        except TimeoutError:
            return f"the cluster behind {self.address} doesn't answer"
        # Ray raises whatever its parts raise.
        except Exception as error:
            return one_line(error).rstrip(".")
        return None

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
