"""What Ray runs as a slot: it says which packages its machine has, and becomes a `Worker` if they
are the driver's.

Ray gets the content of this module, not its name, so it runs beside another kdsweep or none. Only
the standard library is imported at its top.
"""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsweep.sweep.engines.events import Event
    from kdsweep.sweep.engines.jobs import Job
    from kdsweep.sweep.engines.perform import Train
    from kdsweep.sweep.engines.worker import Worker, WorkerHost

# Two commits of kdsweep may have the same version.
CODE = "kdsweep's code"


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """The version here of each package, None where it isn't installed.

    Without the part after "+", which says what a build is for. numpy's random numbers and sums may
    change with a feature release and not with a bug fix, so of numpy its feature release.
    """
    return {name: _installed(name) for name in names}


def _installed(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        if name in ("kdsweep", CODE):
            import kdsweep

            folder = Path(str(kdsweep.__file__)).parent
            return kdsweep.__version__ if name == "kdsweep" else _hash_of_code(folder)
        found = version(name).partition("+")[0]
    except (PackageNotFoundError, ImportError):
        return None
    return ".".join(found.split(".")[:2]) if name == "numpy" else found


def _hash_of_code(folder: Path) -> str:
    code = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        code.update(file.relative_to(folder).as_posix().encode())
        code.update(file.read_bytes())
    return code.hexdigest()[:8]


class WorkerActor:
    """A `Worker`, once `introduce` has found the wanted packages."""

    _worker: Worker

    def __init__(self, threads: int, train: Train | None) -> None:
        self._threads = threads
        self._train = train

    def introduce(
        self, probe: Path, content: str, wanted: Mapping[str, str | None]
    ) -> tuple[str, str, dict[str, str | None], WorkerHost | None]:
        """This machine's name, Ray's name for it, its versions of the wanted packages, and what the
        worker says of itself. There is no worker if a version is another one.
        """
        import ray

        found = installed(wanted)
        host = None
        if found == dict(wanted):
            from kdsweep.sweep.engines.worker import Worker

            self._worker = Worker(self._threads, self._train)
            host = self._worker.hello(probe, content)
        return socket.gethostname(), ray.get_runtime_context().get_node_id(), found, host

    def start(self, job: Job) -> None:
        self._worker.start(job)

    def stop(self, name: str, save: bool) -> None:
        self._worker.stop(name, save)

    def events(self, between_steps: float) -> list[Event | None]:
        return self._worker.events(between_steps)
