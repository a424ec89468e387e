"""What the driver and the process that connects to Ray say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.events import Event
from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.worker_check import WorkerCheck
from kdsweep.sweep.folders import SweepFolder

# --- from the driver ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Begin:
    """The first message. session: the folder of a Ray that starts here; None for one that exists.

    train: replaces `kdsweep.core.train`, as cloudpickle writes it.
    """

    config: RayEngine
    folder: SweepFolder
    session: Path | None
    check: WorkerCheck
    train: bytes | None


@dataclass(frozen=True)
class Start:
    """Start a job on a free slot there."""

    job: Job
    place: Place


@dataclass(frozen=True)
class Stop:
    """Stop a job."""

    name: str
    save: bool


@dataclass(frozen=True)
class RequestSlots:
    """Have this many slots, as far as there is room."""

    count: int


@dataclass(frozen=True)
class Close:
    """Release all slots, and end."""


Command = Start | Stop | RequestSlots | Close

# --- to the driver ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """Ray is there."""

    gpus_per_slot: float


@dataclass(frozen=True)
class State:
    """The slots, after `commands` commands. free: the place of each one without a job.

    a_process_died: whether Ray's logs are worth keeping.
    """

    commands: int
    slots: int
    free: tuple[Place, ...]
    a_process_died: bool


@dataclass(frozen=True)
class Line:
    """A line for the user."""

    text: str


@dataclass(frozen=True)
class FewerSlots:
    """A machine has too little memory for its slots, and has at most so many from now on."""

    line: str
    slots: int


@dataclass(frozen=True)
class Failed:
    """A machine that can't be used, or a mistake; Ray itself is well.

    starting: Ray itself didn't start, which may go well the next time.
    """

    error: KdsweepError
    starting: bool = False


@dataclass(frozen=True)
class Gone:
    """Ray can't be used any more."""

    reason: str


@dataclass(frozen=True)
class Alive:
    """Nothing else to say."""


News = Event | Opened | State | Line | FewerSlots | Failed | Gone | Alive
