"""Whether a worker can do its part: it has the driver's packages, and shares its home.

To show that it shares home, it reads a file there and writes another one next to it.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from kdsweep.core.files import read_json, write_atomically, write_json
from kdsweep.core.settings import SettledPrecision
from kdsweep.core.versions import PACKAGES
from kdsweep.errors import KdsweepError
from kdsweep.formatting import joined
from kdsweep.sweep.engines.worker import WorkerHost
from kdsweep.sweep.engines.worker_actor import CODE, installed
from kdsweep.sweep.folders import SweepFolder

# A network file system shows a new file to other machines a little later.
SECONDS_FOR_A_SHARED_FILE = 20.0
# Ray itself refuses others of these, with advice for its developers.
OF_RAY = ("python", "ray")
REMEDY = (
    "put home (--home, KDSWEEP_HOME) on a file system that all machines share, under the same path"
)


def deciding_packages(plugins: Iterable[str], *, one_machine: bool) -> dict[str, str | None]:
    """The versions here of all packages that decide a trial's numbers.

    plugins: those that add something to kdsweep that the sweep uses. one_machine: its code may be
    edited while a sweep runs, so that only kdsweep's version counts.
    """
    return installed([*PACKAGES, *plugins, *([] if one_machine else [CODE])])


def check_this_machine(folder: SweepFolder) -> None:
    """Raises KdsweepError where this machine has other packages than the driver of the cluster."""
    if not folder.cluster_packages.exists():
        # The driver is of an earlier version, or ends.
        return
    wanted = read_json(folder.cluster_packages)
    if (why := difference(wanted, installed(wanted))) is not None:
        raise KdsweepError(f"{folder.name}: {socket.gethostname()} can't be used: {why}")


def difference(wanted: Mapping[str, str | None], found: Mapping[str, str | None]) -> str | None:
    """Which packages of a machine are others than the sweep's, and what to do; None if none is."""
    others = [name for name, version in wanted.items() if found.get(name) != version]
    if not others:
        return None
    if others == [CODE]:
        return (
            f"its kdsweep {found['kdsweep']} has other code than the sweep's, which has the same "
            "version; install the same kdsweep there"
        )
    others = [name for name in others if name != CODE]
    there = joined([f"{name} {found.get(name) or 'not at all'}" for name in others])
    here = joined([f"{name} {wanted[name]}" for name in others])
    packages = " ".join(f"{name}=={wanted[name]}" for name in others if name != "python")
    remedy = f"run `pip install {packages}` there" if packages else "use that Python there"
    return f"it has {there}, and the sweep uses {here}; {remedy}"


def refusal(sweep: str, device: str) -> str:
    """What is said where a device has no bf16 and the sweep has settled on that."""
    return (
        f"sweep {sweep!r} computes in bf16 (precision: auto, settled by its first slot), and "
        f"{device} would have to emulate that; use one with AMX-BF16, AVX512-BF16 or a GPU with "
        "bf16, or start a new sweep (--fresh or --name)"
    )


class WorkerCheck:
    """What the driver asks a worker, and whether its answer will do.

    file: in the sweep's folder, with a `content` that nobody can guess. packages: the version of
    each package that a worker must have too. local_tracking: whether runs are tracked in a file of
    the driver's machine. says_auto: whether the sweep uses `precision: auto`.
    """

    def __init__(
        self,
        folder: SweepFolder,
        packages: Mapping[str, str | None],
        *,
        local_tracking: bool,
        says_auto: bool = False,
    ) -> None:
        self.file = folder.root / "probe"
        self.content = uuid.uuid4().hex
        self.packages = packages
        self._for_machines = folder.cluster_packages
        self._home = folder.root.parent.parent
        self._local_tracking = local_tracking
        self._folder = folder
        self._says_auto = says_auto
        self._first: SettledPrecision | None = None

    def write(self) -> None:
        write_atomically(self.file, lambda file: file.write(self.content.encode()))
        write_json(self._for_machines, dict(self.packages) | installed(OF_RAY))

    def remove(self) -> None:
        """With the answers."""
        self._for_machines.unlink(missing_ok=True)
        for file in self.file.parent.glob(f"{self.file.name}*"):
            file.unlink(missing_ok=True)

    def why_not(self, packages: Mapping[str, str | None], worker: WorkerHost | None) -> str | None:
        """Why another machine must take the place of this one; None if it will do.

        worker: None where it has other packages.
        """
        if worker is None:
            return difference(self.packages, packages)
        return self._why_not_as_precise(worker) if self._says_auto else None

    def _why_not_as_precise(self, worker: WorkerHost) -> str | None:
        """The first worker decides what `precision: auto` means, until the driver has stored it."""
        stored = self._folder.read_facts().precision
        if stored is None:
            return None
        self._first = self._first or worker.best_precision
        auto = self._first if stored == "unsettled" else stored
        if auto != "bf16" or worker.best_precision == "bf16":
            return None
        return refusal(self._folder.name, worker.device.name)

    def check(self, worker: WorkerHost) -> None:
        """Raises KdsweepError where a worker there can't do its part."""
        self._check_home(worker)
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

    def _has_arrived(self, answer: Path) -> bool:
        until = time.monotonic() + SECONDS_FOR_A_SHARED_FILE
        while not (answer.exists() and answer.read_text() == self.content):
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True
