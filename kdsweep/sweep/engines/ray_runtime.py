"""What Ray needs around it: its import, its log, and signals."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdsweep.core.standing import make_folder
from kdsweep.errors import KdsweepError
from kdsweep.sweep.folders import SweepFolder

# Only settings and evaluations go through Ray's object store, no data.
OBJECT_STORE_BYTES = 80 * 2**20
# In spite of its name it also says, on Linux, whether Ray listens beyond this machine.
MANY_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def token_variables(folder: SweepFolder) -> dict[str, str]:
    """The environment with which Ray asks for, and shows, the sweep's token."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder.token)}


def import_ray(*, many_machines: bool) -> Any:
    """The module `ray`. Unless there are many machines, all of Ray listens on 127.0.0.1 only.

    Ray reads its settings from the environment at its first import in a process.
    """
    os.environ[MANY_MACHINES] = str(int(many_machines))
    try:
        import ray
        from ray._private import services, worker
    except ImportError as error:
        raise KdsweepError("engine: ray isn't installed; pip install ray") from error

    def log(data: object, *arguments: object, **options: object) -> None:
        logging.getLogger("ray").error("%s", data)

    # Ray prints what happens to processes that die. The driver reports that in its own words.
    worker.print_to_stdstream = log
    # Ray takes another address of this machine for 127.0.0.1, and then listens on all of them.
    services.resolve_ip_for_localhost = _as_given
    return ray


def _as_given(host: str) -> str:
    return host


class _Log(logging.FileHandler):
    """One that isn't missed where its folder is gone."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)


def log_to_file(log: Path) -> None:
    """Send Ray's messages to a file instead of the terminal."""
    make_folder(log.parent)
    logger = logging.getLogger("ray")
    logger.handlers = [_Log(log, delay=True)]
    logger.propagate = False


def one_line(error: Exception) -> str:
    """Ray's error in one line. Of a stack trace that a server sent, its last line."""
    text, trace, stack = str(error).partition("Traceback (most recent call last):")
    if trace:
        text += stack.strip().rpartition("\n")[2]
    return " ".join((text.strip() or type(error).__name__).split())[:300]


def shut_down(ray: Any) -> None:
    """End Ray's processes without SIGTERM first.

    SIGTERM is blocked in what was started here, and Ray would wait a second for each process.
    """
    from ray._private import worker

    if (node := worker._global_node) is not None:
        node.kill_all_processes = functools.partial(_kill_all, node.kill_all_processes)
    ray.shutdown()


def _kill_all(kill: Callable[..., None], **options: object) -> None:
    kill(**options | {"allow_graceful": False})


@contextlib.contextmanager
def blocked(numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Block the signals in every process that is started inside, since a mask is inherited."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
