"""What runs jobs on slots: this process, or Ray. The only file that imports ray.

An engine tells what happens by calling `hear` with events of `worker.py`, from within `wait` (the inline one also from within a
step). A slot that is free after an event can be given its next job at once.
"""

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
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from kdsweep.config.sweep import AutoEngine, InlineEngine, RayEngine, SweepConfig
from kdsweep.core.device import gpu_count, pick_device
from kdsweep.core.files import fingerprint, write_atomically, write_json, write_private
from kdsweep.errors import KdsweepError
from kdsweep.sweep.guardian import Guardian, members
from kdsweep.sweep.home import SweepFolder
from kdsweep.sweep.worker import LEAVE_SIGNALS, Dropped, Ended, Evaluated, Event, Job, Lost, Place, Said, Step, Train, Worker, perform

Hear = Callable[[Event], None]

SECONDS_BETWEEN_SIGNALS = 0.5  # a signal is looked at this often at least; events come at once
SECONDS_FOR_A_SHARED_FILE = 20.0
MOST_FAILED_STARTS = 30
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


class Engine(Protocol):
    """Slots. Used as a context manager: leaving it ends every process that it began, at once."""

    gpus_per_slot: float

    @property
    def slots(self) -> int:
        """How many there are now."""

    @property
    def free(self) -> int:
        """How many slots wait for a job."""

    def begin(self, job: Job) -> None:
        """Give the job to a free slot."""

    def stop(self, name: str, *, save: bool) -> None:
        """Let job `name` end at its next step: saved, to go on later, or dropped. Its `Ended` tells when it has."""

    def wait(self, timeout: float | None) -> None:
        """Until something happens, or `timeout` seconds. Raises KdsweepError for a machine that can't be used; others go on."""

    def want(self, jobs: int) -> None:
        """So many slots are of use from now on."""

    def leave(self, *, coming_back: bool) -> None:
        """The sweep is over, or `coming_back`: machines that joined it should wait."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def open_engine(sweep: SweepConfig, folder: SweepFolder, hear: Hear, say: Callable[[str], None], train: Train | None = None) -> Engine:
    """The engine that the sweep asks for. `train` takes the core's place in measurements."""
    config = settle_engine(sweep.engine)
    if isinstance(config, InlineEngine):
        return Inline(hear, train)
    return RayCluster(config, folder, hear, say, local_tracking=sweep.tracking == "sqlite", train=train)


def settle_engine(config: AutoEngine | InlineEngine | RayEngine) -> InlineEngine | RayEngine:
    """What `auto` means on this machine."""
    if not isinstance(config, AutoEngine):
        return config
    gpus = gpu_count()
    return RayEngine(type="ray", gpus_per_trial=1, cpus_per_trial=max(1, cpu_count() // gpus)) if gpus > 1 else InlineEngine(type="inline")


def slots_here(config: AutoEngine | InlineEngine | RayEngine) -> int | None:
    """How many trials would run at once, as far as this machine alone can tell: None for a cluster."""
    settled = settle_engine(config)
    if isinstance(settled, InlineEngine):
        return 1
    if settled.address != "local":
        return settled.slots
    gpus = gpu_count() if settled.gpus is None else settled.gpus
    share = settled.gpus_per_trial if settled.gpus_per_trial is not None else float(gpus > 0)
    resources = {"CPU": float(settled.cpus or cpu_count()), "GPU": float(gpus)}
    return min(slots_in(resources, settled.cpus_per_trial, share), settled.slots or 2**31)


def slots_instead(config: AutoEngine | InlineEngine | RayEngine) -> int | None:
    """How many slots of a core each this machine has where `auto` means one of all its cores; None where there is nothing to choose.

    They train more in all, but which trial is asked for next then depends on which ended first.
    """
    cores = cpu_count()
    return cores if isinstance(config, AutoEngine) and gpu_count() == 0 and cores > 1 else None


def slots_in(resources: Mapping[str, float], cpus: int, gpus: float) -> int:
    """How many slots of so many CPU cores and (shares of) GPUs fit; a slot's share is of one GPU."""
    fit = int(resources.get("CPU", 0) // cpus)
    return min(fit, int(resources.get("GPU", 0)) * int(1 / gpus + 1e-9)) if gpus else fit


def cpu_count() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


# --- this process ----------------------------------------------------------------------------------------------------


class Inline:
    """One slot: this thread. What happens is told before the next step is taken, so a sweep is the same each time."""

    def __init__(self, hear: Hear, train: Train | None = None) -> None:
        self.hear, self._train = hear, train
        self.gpus_per_slot = 1.0 if pick_device().type == "cuda" else 0.0
        self._asked: Literal["save", "drop"] | None = None
        self._stream: Generator[Evaluated | Ended, None, None] | None = None

    @property
    def slots(self) -> int:
        return 1

    @property
    def free(self) -> int:
        return int(self._stream is None)

    def begin(self, job: Job) -> None:
        def on_step(step: int, total_steps: int) -> bool:
            self.hear(Step(job.name, step, total_steps))
            return self._asked == "save"

        self._asked = None
        self._stream = perform(job, on_step, lambda line: self.hear(Said(job.name, line)), self._train)

    def stop(self, name: str, *, save: bool) -> None:
        self._asked = "save" if save else "drop"

    def wait(self, timeout: float | None) -> None:
        assert self._stream is not None
        event = next(self._stream) if self._asked != "drop" else self._stream.throw(Dropped())
        if isinstance(event, Ended):
            self._stream.close()
            self._stream = None
        self.hear(event)

    def want(self, jobs: int) -> None:
        pass

    def leave(self, *, coming_back: bool) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is not None:
            self._stream.close()


# --- Ray -------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Slot:
    """An actor that is a slot, or will be when Ray finds a place for it. `place`: where it is, once it has said so."""

    actor: Any
    answer: Any  # of `hello`, then of `events`
    place: Place | None = None
    job: str | None = None
    leaving: bool = False


class RayCluster:
    """A warm actor a slot. One more is always asked for than there is room: when a machine joins, it answers, and tells of room."""

    def __init__(
        self, config: RayEngine, folder: SweepFolder, hear: Hear, say: Callable[[str], None], *, local_tracking: bool, train: Train | None = None
    ) -> None:
        self.config, self.folder, self.hear, self.say = config, folder, hear, say
        self.local_tracking, self._train = local_tracking, train
        self.session = Session(folder, config)
        self.gpus_per_slot = 0.0
        self._slots: list[_Slot] = []
        self._wanted = 0
        self._failures = 0
        self._keep_logs = self._said_waiting = False
        self._probe = folder.root / "probe"
        self._content = uuid.uuid4().hex

    @property
    def slots(self) -> int:
        return sum(slot.place is not None for slot in self._slots)

    @property
    def free(self) -> int:
        return sum(_is_free(slot) for slot in self._slots)

    def __enter__(self) -> Self:
        self.session.open()
        self._ray = self.session.ray
        try:
            self.gpus_per_slot = self._settle_gpus()
            write_atomically(self._probe, lambda file: file.write(self._content.encode()))
        except BaseException:
            self.session.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for slot in self._slots:
            with contextlib.suppress(Exception):
                self._ray.kill(slot.actor)
        self._slots = []
        if self._keep_logs:
            self.session.keep_logs()
        self.session.close()
        for file in self.folder.root.glob("probe*"):
            file.unlink(missing_ok=True)

    def leave(self, *, coming_back: bool) -> None:
        self.session.leave(coming_back=coming_back)

    # --- jobs --------------------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        slot = next(slot for slot in self._slots if _is_free(slot))
        slot.job = job.name
        slot.actor.begin.remote(job)

    def stop(self, name: str, *, save: bool) -> None:
        for slot in self._slots:
            if slot.job == name:
                slot.actor.stop.remote(name, save)

    def wait(self, timeout: float | None) -> None:
        answers = {slot.answer: slot for slot in self._slots}
        if not answers:
            time.sleep(SECONDS_BETWEEN_SIGNALS)  # the last machine left; `want` asks for others
            return
        seconds = SECONDS_BETWEEN_SIGNALS if timeout is None else min(timeout, SECONDS_BETWEEN_SIGNALS)
        ready, _ = self._ray.wait(list(answers), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(answers), num_returns=len(answers), timeout=0)
        for answer in ready:
            self._read(answers[answer])

    def _read(self, slot: _Slot) -> None:
        try:
            found = self._ray.get(slot.answer)
        except self._ray.exceptions.RayError as error:
            self._died(slot, error)
            return
        if slot.place is None:
            self._arrived(slot, found)
            return
        for event in found:
            if event is None:
                slot.leaving = True
            elif isinstance(event, Ended):
                slot.job = None
                self.hear(event)
            else:
                self.hear(event)
        if slot.leaving and slot.job is None:
            assert slot.place is not None
            self.say(f"slot on {slot.place.host} (process {slot.place.pid}) leaves")
            self._release(slot)
        else:
            slot.answer = slot.actor.events.remote()

    # --- slots -------------------------------------------------------------------------------------------------------

    def want(self, jobs: int) -> None:
        self._wanted = jobs if self.config.slots is None else min(jobs, self.config.slots)
        for slot in [slot for slot in self._slots if slot.place is None or _is_free(slot)][: max(0, len(self._slots) - self._wanted)]:
            self._release(slot)
        self._grow()

    def _grow(self) -> None:
        """Ask for as many slots as are wanted and have room; on a cluster for one more, or for all that `slots` says."""
        target = self._wanted
        if self.config.slots is None and len(self._slots) < target:
            target = min(target, self._room() + (self.config.address != "local"))
        while len(self._slots) < target:
            actor = self._ray.remote(Worker).options(num_cpus=self.config.cpus_per_trial, num_gpus=self.gpus_per_slot, max_concurrency=4)
            made = actor.remote(self.config.cpus_per_trial, self._train)
            self._slots.append(_Slot(made, made.hello.remote(self._probe, self._content)))
        if self._wanted and not self._said_waiting and self.config.address == "head":
            self._said_waiting = True
            self.say(f"waiting for machines: each joins with `kdsweep worker` and this command's own arguments (head: {self.session.address})")

    def _room(self) -> int:
        """How many slots fit on the machines that are there."""
        return sum(slots_in(node["Resources"], self.config.cpus_per_trial, self.gpus_per_slot) for node in self._ray.nodes() if node["Alive"])

    def _arrived(self, slot: _Slot, place: Place) -> None:
        """Take the slot in, unless its machine can't be used. Raises KdsweepError with why."""
        try:
            check_place(place, self._probe, self._content, local_tracking=self.local_tracking)
        except KdsweepError:
            self._release(slot)
            raise
        slot.place, self._failures = place, 0
        slot.answer = slot.actor.events.remote()
        self.say(f"slot {self.slots}: {place.host}, process {place.pid}" + (f", GPU {place.gpus}" if place.gpus and self.gpus_per_slot else ""))
        self._grow()

    def _died(self, slot: _Slot, error: Exception) -> None:
        self._slots.remove(slot)
        self._keep_logs = True
        if slot.place is not None:
            if slot.job is not None:
                self.hear(Lost(slot.job, f"the process on {slot.place.host} (process {slot.place.pid}) died"))
            return
        # A process that can't be made fails alike each time; one whose machine left says nothing about the next.
        self._failures += 10 if "creation task" in str(error) or not isinstance(error, self._ray.exceptions.RayActorError) else 1
        if self._failures >= MOST_FAILED_STARTS:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise KdsweepError(f"engine: no worker process can start: {reason}; see {self.folder.root / 'ray'}")

    def _release(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    def _settle_gpus(self) -> float:
        """GPUs a slot. Raises KdsweepError where this machine can't hold one slot."""
        wanted, there = self.config.gpus_per_trial, self._ray.cluster_resources()
        if wanted is None:
            wanted = 1.0 if there.get("GPU", 0) or self.config.address == "head" else 0.0
        if self.config.address == "local":
            if wanted and not there.get("GPU", 0):
                raise KdsweepError(f"engine: gpus_per_trial is {wanted:g}, but this machine has no GPU; 0 means CPU threads alone")
            if there.get("CPU", 0) < self.config.cpus_per_trial:
                raise KdsweepError(f"engine: cpus_per_trial is {self.config.cpus_per_trial}, but this machine gives {there.get('CPU', 0):g} CPU cores")
        return float(wanted)


def _is_free(slot: _Slot) -> bool:
    return slot.place is not None and slot.job is None and not slot.leaving


def check_place(place: Place, probe: Path, content: str, *, local_tracking: bool) -> None:
    """Raise KdsweepError where a worker there can't do its part."""
    home = probe.parent.parent.parent
    remedy = "put home (--home, KDSWEEP_HOME) on a file system that all machines share, under the same path"
    if not place.shares_home:
        raise KdsweepError(f"home: a worker on {place.host} doesn't see {home} as it is here; {remedy}")
    answer, until = probe.with_name(f"{probe.name}-{place.host}-{place.pid}"), time.monotonic() + SECONDS_FOR_A_SHARED_FILE
    while not (answer.exists() and answer.read_text() == content):
        if time.monotonic() > until:
            raise KdsweepError(f"home: what a worker on {place.host} writes into {home} isn't seen here; {remedy}")
        time.sleep(0.1)
    if local_tracking and place.host != socket.gethostname():
        raise KdsweepError(
            f"tracking: sqlite is for one machine, and a worker runs on {place.host}; start `mlflow server --host 0.0.0.0` where all machines "
            "reach it and set tracking: http://HOST:5000 (--set tracking=http://HOST:5000)"
        )


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
            with blocked(LEAVE_SIGNALS):  # for what Ray starts: a scheduler that signals every process ends none, workers save and leave
                self._join()
            _write_log(self.folder.ray_log)  # ray.init sets handlers of its own
            if self.config.address == "head":
                self.address = self.ray.get_runtime_context().gcs_address
                self._publish("up")
        except Exception as error:  # Ray raises whatever its parts raise
            self.close()
            raise KdsweepError(f"engine: Ray at {self.config.address} can't be used: {_in_short(error)}") from error
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
                logging.getLogger("ray").error("%s: asked again, since: %s", self.config.address, error)
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _arguments(self) -> dict[str, Any]:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if not self.own:
            return quiet | {"address": self.config.address}
        common = quiet | {"address": "local", "_temp_dir": str(self.temp), "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        if self.config.address == "local":
            gpus = gpu_count() if self.config.gpus is None else self.config.gpus
            return common | {"num_cpus": self.config.cpus or cpu_count(), "num_gpus": gpus}
        listen = {} if self.config.listen is None else {"_node_ip_address": self.config.listen}
        return common | listen | {"num_cpus": 0, "num_gpus": 0, "_system_config": NOTICE_A_LOST_NODE}

    def _publish(self, state: str) -> None:
        facts = {"state": state, "address": self.address, "host": socket.gethostname(), "pid": os.getpid(), "session": uuid.uuid4().hex}
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
    return Path("/tmp") / f"kdsweep-{os.getuid()}-{fingerprint(str(folder.root.resolve()), role)[:10]}"


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

    worker.print_to_stdstream = note  # what Ray says of processes that die: the driver tells it in its own words
    return ray
