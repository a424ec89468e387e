"""Ray as a sweep uses it: started here and ended here, or a cluster that is there."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.core.device import gpu_count
from kdsweep.core.files import fingerprint, write_json, write_private
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.process_reaper import Guardian, members
from kdsweep.sweep.engines.slots import cpu_count
from kdsweep.sweep.engines.worker import LEAVE_SIGNALS
from kdsweep.sweep.folders import SweepFolder

TRIES_TO_JOIN, SECONDS_BETWEEN_TRIES = 3, 1.0
OBJECT_STORE_BYTES = 80 * 2**20  # settings and evaluations go through it, no data
MANY_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # elsewhere too it says whether Ray listens beyond this machine
RAY_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", MANY_MACHINES)
# A machine that doesn't answer any more is given up after some six seconds; Ray's own settings take half a minute.
NOTICE_A_LOST_NODE = {
    "health_check_initial_delay_ms": 2000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 3,
}


@contextlib.contextmanager
def blocked(numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Block the signals for what is started meanwhile: a mask is inherited."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Session:
    """Ray as this sweep uses it: begun here and ended here, or a cluster that is there."""

    def __init__(self, folder: SweepFolder, config: RayEngine) -> None:
        self.folder, self.config = folder, config
        self.own = config.address in ("local", "head")
        self.temp = session_folder(folder, "head")
        self.address = config.address
        self._guardian: Guardian | None = None
        self._before: dict[str, str | None] = {}

    def open(self) -> None:
        handler = signal.getsignal(signal.SIGTERM)
        self._before = {name: os.environ.get(name) for name in RAY_VARIABLES}
        if self.own:
            remove_session(self.temp)  # of a driver that was killed; the sweep's lock is ours
            self.temp.mkdir(mode=0o700)
            write_private(self.folder.token, secrets.token_hex(32))
            self._guardian = Guardian(self.temp)
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(self.folder.token))
        try:
            self.ray = _import_ray(many_machines=self.config.address != "local")
            _write_log(self.folder.ray_log)
            with blocked(
                LEAVE_SIGNALS
            ):  # for what Ray starts: a scheduler that signals every process ends none, workers save and leave
                self._join()
            _write_log(self.folder.ray_log)  # ray.init sets handlers of its own
            if self.config.address == "head":
                self.address = self.ray.get_runtime_context().gcs_address
                self._publish("up")
        except Exception as error:  # Ray raises whatever its parts raise
            self.close()
            raise KdsweepError(
                f"engine: Ray at {self.config.address} can't be used: {_in_short(error)}"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray sets one of its own

    def _join(self) -> None:
        """Begin Ray, or become one of its users.

        Behind ray:// the cluster begins a process for every user. Now and then it dies at its start (gRPC, in its own threads); the next one lives.
        """
        for tries_left in reversed(range(TRIES_TO_JOIN)):
            try:
                self.ray.init(**self._arguments())
                return
            except ConnectionAbortedError as error:  # what Ray raises for ray:// alone
                if tries_left == 0:
                    raise
                _write_log(self.folder.ray_log)
                logging.getLogger("ray").error(
                    "%s: asked again, since: %s", self.config.address, error
                )
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _arguments(self) -> dict[str, Any]:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if not self.own:
            return quiet | {"address": self.config.address}
        common = quiet | {
            "address": "local",
            "_temp_dir": str(self.temp),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        if self.config.address == "local":
            gpus = gpu_count() if self.config.gpus is None else self.config.gpus
            return common | {"num_cpus": self.config.cpus or cpu_count(), "num_gpus": gpus}
        listen = {} if self.config.listen is None else {"_node_ip_address": self.config.listen}
        return (
            common | listen | {"num_cpus": 0, "num_gpus": 0, "_system_config": NOTICE_A_LOST_NODE}
        )

    def _publish(self, state: str) -> None:
        facts = {
            "state": state,
            "address": self.address,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "session": uuid.uuid4().hex,
        }
        write_json(self.folder.cluster, facts)

    def leave(self, *, coming_back: bool) -> None:
        if self.config.address == "head":
            self._publish("away" if coming_back else "over")

    def keep_logs(self) -> None:
        """What Ray wrote about processes that died, beside the sweep."""
        logs = self.temp / "session_latest" / "logs"
        if self.own and logs.exists():
            with contextlib.suppress(OSError):
                shutil.copytree(logs, self.folder.root / "ray", dirs_exist_ok=True)

    def close(self) -> None:
        # Some write their title over their environment and are known by their parents alone, which end first: look before that.
        begun_here = members(str(self.temp)) if self._guardian is not None else []
        with contextlib.suppress(Exception):
            _kill_at_shutdown()
            self.ray.shutdown()
        for process in begun_here:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if self._guardian is not None:
            self._guardian.release()
            self.folder.token.unlink(missing_ok=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def session_folder(folder: SweepFolder, role: str) -> Path:
    """A folder for Ray's sockets on this machine: this user's and this sweep's, and short, since a socket's path has 107 bytes."""
    return (
        Path("/tmp") / f"kdsweep-{os.getuid()}-{fingerprint(str(folder.root.resolve()), role)[:10]}"
    )


def remove_session(folder: Path) -> None:
    for process in members(str(folder)):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _in_short(error: Exception) -> str:
    """One line of what Ray raised: of a trace that a server sent, what it ends with."""
    words, trace, stack = str(error).partition("Traceback (most recent call last):")
    text = words + stack.strip().rpartition("\n")[2] if trace else words
    return " ".join((text.strip() or type(error).__name__).split())[:300]


def _kill_at_shutdown() -> None:
    """Let `ray.shutdown` not ask first: SIGTERM is blocked for what was begun here, and it would wait a second for each process."""
    from ray._private import worker

    if (node := worker._global_node) is not None:
        node.kill_all_processes = functools.partial(_kill_all_processes, node.kill_all_processes)


def _kill_all_processes(kill: Callable[..., None], **options: Any) -> None:
    kill(**options | {"allow_graceful": False})


def _write_log(log: Path) -> None:
    """Let what Ray says go to a file, not to the user."""
    log.parent.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("ray")
    logger.handlers, logger.propagate = [logging.FileHandler(log, delay=True)], False


def _import_ray(*, many_machines: bool) -> Any:
    """Ray; on one machine everything of it listens on 127.0.0.1."""
    os.environ[MANY_MACHINES] = str(int(many_machines))
    try:
        import ray
        from ray._private import ray_constants, worker
        from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
    except ImportError as error:
        raise KdsweepError("engine: ray isn't installed; pip install ray") from error

    # What Ray read from the environment when it was imported, perhaps for another sweep, is read again.
    ray_constants.ENABLE_RAY_CLUSTER = many_machines
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()

    def note(data: Any, *arguments: Any, **options: Any) -> None:
        logging.getLogger("ray").error("%s", data)

    worker.print_to_stdstream = (
        note  # what Ray says of processes that die: the driver tells it in its own words
    )
    return ray
