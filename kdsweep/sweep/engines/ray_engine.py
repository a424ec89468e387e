"""The engine `ray`: slots that are warm processes of Ray, on this machine or on a cluster.

Ray is started, and connected to, by a process of its own (`ray_process`), which may die or hang
when a part of Ray dies. The driver notices that here and goes on: on this machine it starts Ray
again, and elsewhere it ends with a line.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from kdsweep.config.sweep import RayEngine
from kdsweep.core.files import write_private
from kdsweep.core.standing import Fence
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines import ray_cluster
from kdsweep.sweep.engines.events import Ended, Event, OnEvent, WorkerLost
from kdsweep.sweep.engines.jobs import Job, TrialJob
from kdsweep.sweep.engines.memory import ray_variables
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.process_reaper import ProcessReaper, session_processes
from kdsweep.sweep.engines.ray_daemons import Daemons
from kdsweep.sweep.engines.ray_messages import (
    Alive,
    Begin,
    Close,
    Command,
    Failed,
    FewerSlots,
    Gone,
    Line,
    News,
    Opened,
    RequestSlots,
    Start,
    State,
    Stop,
)
from kdsweep.sweep.engines.ray_runtime import blocked, token_variables
from kdsweep.sweep.engines.session_folder import keep_logs, make_session, session_folder
from kdsweep.sweep.engines.worker_check import WorkerCheck
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.signals import LEAVE_SIGNALS
from kdsweep.sweep.slow_steps import StartNotice

# Events arrive at once, but a signal is only noticed between two waits.
LONGEST_WAIT_SECONDS = 0.5
# The process that connects to Ray says every second that it lives, once Ray is there.
SECONDS_OF_SILENCE = 12.0
SECONDS_TO_OPEN = 300.0
# With raylet its workers die, perhaps before it.
SECONDS_UNTIL_A_WORKER_IS_LOST = 1.0
SECONDS_TO_CLOSE = 10.0
MOST_RESTARTS = 2
RESUME = "what was finished is kept: run the same command again to resume"
# The process finds the same modules as this one, then has the connection as its driver.
BOOT = (
    "import sys; from multiprocessing.connection import Connection; "
    "connection = Connection(int(sys.argv[1])); sys.path[:] = connection.recv(); "
    "from kdsweep.sweep.engines.ray_process import main; main(connection)"
)


class _Link:
    """The process that connects to Ray, from its start to its end.

    session: the folder of a Ray that starts here; None for one that exists.
    """

    def __init__(self, begin: Begin) -> None:
        self.session = begin.session
        self._folder = begin.folder
        self._reaper: ProcessReaper | None = None
        self._opened = False
        self._gone: str | None = None
        self._silent = 0.0
        self._looked = time.monotonic()
        environment = dict(os.environ)
        if self.session is not None:
            write_private(self._folder.token, secrets.token_hex(32))
            self._reaper = ProcessReaper(self.session)
            environment = ray_variables() | os.environ | token_variables(self._folder)
        ours, theirs = socket.socketpair()
        # A process that is stopped reads nothing, and must not stop this one.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _seconds(SECONDS_OF_SILENCE))
        self._connection = Connection(ours.detach())
        # A scheduler may signal every process of a job, and so does a terminal that closes. With
        # the signals blocked none of Ray's processes ends; workers wait for them and save.
        with theirs, self._folder.ray_log.open("ab") as log, blocked(LEAVE_SIGNALS):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOT, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=environment,
            )
        # While it connects it may say nothing for long. Its death closes the connection.
        self._daemons = Daemons(self.session, {"connection": self._process.pid})
        self.send(sys.path)
        self.send(begin)

    def send(self, message: Command | Begin | list[str]) -> None:
        try:
            self._connection.send(message)
        except OSError:
            self._gone = self._gone or "the process that is connected to Ray takes no more work"

    def receive(self, seconds: float) -> list[News]:
        """What it has said; waits for that up to some seconds."""
        news: list[News] = []
        try:
            while self._connection.poll(0 if news else seconds):
                news += self._connection.recv()
        except (EOFError, OSError):
            status = self._exit_status()
            self._gone = self._gone or f"the process that is connected to Ray died ({status})"
        self._watch(news)
        return [one for one in news if not isinstance(one, Alive | Gone)]

    def trouble(self, *, look: bool) -> str | None:
        """Why Ray can't be used any more; None if all is well. look: as of `Daemons`."""
        if self._gone is None:
            self._gone = self._daemons.trouble(look=look)
        return self._gone

    def _watch(self, news: list[News]) -> None:
        now = time.monotonic()
        # While this process itself was stopped, the other one may have been, too.
        self._silent += min(now - self._looked, 2 * LONGEST_WAIT_SECONDS)
        self._looked = now
        if news:
            self._silent = 0.0
        for one in news:
            self._opened |= isinstance(one, Opened)
            if isinstance(one, Gone):
                self._gone = self._gone or f"Ray can't be used any more: {one.reason}"
        if self._silent > (SECONDS_OF_SILENCE if self._opened else SECONDS_TO_OPEN):
            self._gone = self._gone or (
                f"the process that is connected to Ray (process {self._process.pid}) doesn't answer"
            )

    def _exit_status(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(1.0)
            return f"signal {-status}" if status < 0 else f"status {status}"
        return "it closed its connection"

    def close(self, *, logs: bool) -> None:
        """End it, and a Ray that started here. Nothing of that is left then, however Ray is."""
        started: list[int] = []
        if self.session is None and self._gone is None:
            self.send(Close())
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SECONDS_TO_CLOSE)
        if self.session is not None:
            # Processes that overwrite their environment are only known by their parents, which end
            # first. So look for them before that.
            started = session_processes(str(self.session))
        self._process.kill()
        self._process.wait()
        self._connection.close()
        for process in started:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        if self.session is not None and self._reaper is not None:
            if logs:
                keep_logs(self.session, self._folder)
            self._reaper.release()
            self._folder.token.unlink(missing_ok=True)


class OnRay:
    """The slots of one sweep. Implements `Engine`."""

    def __init__(
        self,
        config: RayEngine,
        folder: SweepFolder,
        on_event: OnEvent,
        say: Callable[[str], None],
        check: WorkerCheck,
        train: Train | None = None,
    ) -> None:
        self.gpus_per_slot = 0.0
        self._config = config
        self._folder = folder
        self._on_event = on_event
        self._say = say
        self._notice = StartNotice(say)
        self._check = check
        self._train = train
        self._link: _Link | None = None
        self._news: deque[News] = deque()
        # Workers that died, and when that is reported if Ray lives.
        self._lost: deque[tuple[float, WorkerLost]] = deque()
        self._is_open = False
        self._restarts = 0
        self._sent = 0
        self._requested = 0
        self._state = State(0, 0, (), False)
        self._free: list[Place] = []
        self._jobs: dict[str, Fence | None] = {}

    @property
    def slots(self) -> int:
        return self._state.slots

    @property
    def free_places(self) -> tuple[Place, ...]:
        return tuple(self._free)

    def __enter__(self) -> Self:
        try:
            self._check.write()
            self._open()
            while not self._is_open:
                self.wait(None)
        except BaseException:
            self._close(logs=False)
            self._check.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close(logs=self._state.a_process_died)
        self._check.remove()

    def announce_end(self, *, resuming: bool) -> None:
        if self._config.address == "head":
            # After Ray has died the same command resumes.
            ray_cluster.announce_end(self._folder, resuming=resuming or self._link is None)

    # --- jobs ------------------------------------------------------------------------------------

    def start(self, job: Job, place: Place) -> None:
        self._free.remove(place)
        fence: Fence | None = None
        if isinstance(job, TrialJob) and self._config.address != "local":
            fence = Fence(self._folder.attempts / job.name, uuid.uuid4().hex)
            fence.put_up()
            job = replace(job, fence=fence)
        self._jobs[job.name] = fence
        self._command(Start(job, place))

    def stop(self, name: str, *, save: bool) -> None:
        self._command(Stop(name, save))

    def request_slots(self, count: int) -> None:
        if count == self._requested:
            return
        if count < self._requested:
            # Some that are free now are about to be released.
            self._free = []
        self._requested = count
        self._command(RequestSlots(count))

    def wait(self, timeout: float | None) -> None:
        seconds = LONGEST_WAIT_SECONDS if timeout is None else min(timeout, LONGEST_WAIT_SECONDS)
        if self._link is None:
            time.sleep(seconds)
            return
        self._news.extend(self._link.receive(0 if self._news else seconds))
        while self._news:
            self._handle(self._news.popleft())
        self._notice.look(self._starting)
        if (trouble := self._link.trouble(look=bool(self._lost))) is not None:
            self._recover(trouble)
        while self._lost and time.monotonic() > self._lost[0][0]:
            self._report(self._lost.popleft()[1])

    def _command(self, command: Command) -> None:
        if self._link is not None:
            self._sent += 1
            self._link.send(command)

    def _handle(self, news: News) -> None:
        match news:
            case Opened():
                self._is_open = True
                if self._restarts:
                    self._say("Ray runs again; its slots start")
                self.gpus_per_slot = news.gpus_per_slot
            case State():
                self._state = news
                if news.commands == self._sent:
                    self._free = list(news.free)
            case Line():
                self._say(news.text)
            case Failed(starting=True) if self._can_start_again:
                self._recover(str(news.error))
            case FewerSlots():
                self._say(news.line)
                if self._config.address == "local":
                    # Also where Ray starts again.
                    self._config = self._config.model_copy(update={"slots": news.slots})
            case Failed():
                raise news.error
            case Alive() | Gone():
                pass
            case WorkerLost():
                self._lost.append((time.monotonic() + SECONDS_UNTIL_A_WORKER_IS_LOST, news))
            case _:
                self._report(news)

    def _report(self, event: Event) -> None:
        if isinstance(event, Ended | WorkerLost):
            fence = self._jobs.pop(event.name, None)
            if fence is not None and (isinstance(event, WorkerLost) or event.outcome == "lost"):
                # It may still run, where nobody can reach it.
                replace(fence, token="nobody").put_up()
        self._on_event(event)

    # --- Ray's end and a new start ----------------------------------------------------------------

    @property
    def _starting(self) -> str | None:
        """What a user waits for; None if that isn't Ray, or may take hours as on a cluster."""
        if not self._is_open:
            if self._config.address not in ("local", "head"):
                return "connecting to Ray"
            return "starting Ray again" if self._restarts else "starting Ray"
        if self._config.address == "local" and self._requested and not self.slots:
            return "starting slots"
        return None

    @property
    def _can_start_again(self) -> bool:
        return self._config.address == "local" and self._restarts < MOST_RESTARTS

    def _open(self) -> None:
        self._is_open = False
        is_started = self._config.address in ("local", "head")
        session = make_session(session_folder(self._folder, "head")) if is_started else None
        train = None
        if self._train is not None:
            import ray.cloudpickle

            train = ray.cloudpickle.dumps(self._train)
        begin = Begin(self._config, self._folder, session, self._check, train)
        self._state = State(0, 0, (), False)
        self._link = _Link(begin)
        if self._requested:
            self._command(RequestSlots(self._requested))

    def _close(self, *, logs: bool) -> None:
        link, self._link = self._link, None
        self._sent = 0
        self._state = State(0, 0, (), False)
        self._free = []
        self._news.clear()
        self._lost.clear()
        if link is not None:
            link.close(logs=logs)

    def _recover(self, trouble: str) -> None:
        """Start Ray again, or raise KdsweepError. What ran resumes from its last checkpoint."""
        # The first one is to be the first that resumes.
        running = list(reversed(self._jobs))
        self._close(logs=True)
        for name in running:
            self._report(Ended(name, "lost"))
        if not self._can_start_again:
            failed = f"Ray failed {self._restarts + 1} times: " if self._restarts else ""
            raise KdsweepError(f"engine: {failed}{trouble}; {RESUME}")
        self._restarts += 1
        self._say(
            f"{trouble}; starting Ray again ({self._restarts} of {MOST_RESTARTS}): what ran "
            "resumes from its last checkpoint"
        )
        self._open()


def _seconds(seconds: float) -> bytes:
    """A C `struct timeval`."""
    return struct.pack("ll", int(seconds), 0)
