"""Whether a worker can do its part: it shares the driver's home, and has the same packages.

To show that it shares home, it reads a file there and writes another one next to it.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from kdsweep.core.files import write_atomically
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.worker import WorkerHost
from kdsweep.sweep.folders import SweepFolder

# A network file system shows a new file to other machines a little later.
SECONDS_FOR_A_SHARED_FILE = 20.0
REMEDY = (
    "put home (--home, KDSWEEP_HOME) on a file system that all machines share, under the same path"
)


class WorkerCheck:
    """What the driver asks a worker, and whether its answer will do.

    file: in the sweep's folder, with a `content` that nobody can guess. packages: the version of
    each package that the driver has and that a worker needs, such as those that add a metric.
    local_tracking: whether runs are tracked in a file of the driver's machine.
    """

    def __init__(
        self, folder: SweepFolder, packages: Mapping[str, str], *, local_tracking: bool
    ) -> None:
        self.file = folder.root / "probe"
        self.content = uuid.uuid4().hex
        self.packages = packages
        self._home = folder.root.parent.parent
        self._local_tracking = local_tracking

    def write(self) -> None:
        write_atomically(self.file, lambda file: file.write(self.content.encode()))

    def remove(self) -> None:
        """With the answers."""
        for file in self.file.parent.glob(f"{self.file.name}*"):
            file.unlink(missing_ok=True)

    def check(self, worker: WorkerHost) -> None:
        """Raises KdsweepError where a worker there can't do its part."""
        self._check_home(worker)
        self._check_packages(worker)
        if self._local_tracking and worker.host != socket.gethostname():
            raise KdsweepError(
                "tracking: sqlite works on one machine only, and a worker runs on "
                f"{worker.host}; start `mlflow server --host 0.0.0.0` where all machines reach "
                "it and set tracking: http://HOST:5000 (--set tracking=http://HOST:5000)"
            )

    def _check_home(self, worker: WorkerHost) -> None:
        if not worker.shares_home:
            raise KdsweepError(
                f"home: a worker on {worker.host} can't read the home folder {self._home}; {REMEDY}"
            )
        answer = self.file.with_name(f"{self.file.name}-{worker.host}-{worker.pid}")
        if not self._has_arrived(answer):
            raise KdsweepError(
                f"home: what a worker on {worker.host} writes to {self._home} doesn't arrive "
                f"here; {REMEDY}"
            )

    def _check_packages(self, worker: WorkerHost) -> None:
        for package, wanted in self.packages.items():
            there = worker.packages.get(package)
            if there != wanted:
                found = "isn't installed" if there is None else f"has version {there}"
                raise KdsweepError(
                    f"packages: {package} {found} on {worker.host}, and the sweep uses {wanted}; "
                    f"run `pip install {package}=={wanted}` there"
                )

    def _has_arrived(self, answer: Path) -> bool:
        until = time.monotonic() + SECONDS_FOR_A_SHARED_FILE
        while not (answer.exists() and answer.read_text() == self.content):
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True
