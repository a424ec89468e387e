"""The process of one slot: receives jobs, does them one after another, and reports events.

No Ray here: the engine calls a `Worker`'s methods from outside, each in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdsweep.core.standing import keep_standing
from kdsweep.sweep.engines.events import Ended, Event, Message, StepReached
from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.memory import MemoryLimit, memory_kills, memory_limit
from kdsweep.sweep.engines.perform import Dropped, Train, perform
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.process_reaper import SESSION_VARIABLE
from kdsweep.sweep.signals import LEAVE_SIGNALS, heeded
from kdsweep.sweep.startup_timer import without_collecting

if TYPE_CHECKING:
    from kdsweep.core.evaluation.latency_figures import Device
    from kdsweep.core.settings import SettledPrecision

SHORTEST_BETWEEN_STEPS = 1.0
# A file in a machine's session folder. It says that this machine leaves the sweep, so that no
# worker starts there any more.
LEAVING_FILE = "leaving"


@dataclass(frozen=True)
class WorkerHost:
    """Where a worker runs.

    gpus: CUDA_VISIBLE_DEVICES there. shares_home: whether it can read the driver's home; what it
    writes there must still arrive at the driver. device: what its jobs compute on. memory: what the
    processes there may use together. memory_kills: how many of them were killed so far because that
    ran out. best_precision: as of a place.
    """

    host: str
    pid: int
    gpus: str
    shares_home: bool
    device: Device
    memory: MemoryLimit | None = None
    memory_kills: int = 0
    best_precision: SettledPrecision = "fp32"

    @property
    def place(self) -> Place:
        return Place(self.host, self.device, self.best_precision)


class Worker:
    """One slot's process. `events` waits; the other methods return at once.

    After one of LEAVE_SIGNALS it saves its trial at the next step. Its last event is None: the
    worker wants to leave.
    """

    def __init__(self, threads: int | None = None, train: Train | None = None) -> None:
        self._threads = threads
        self._train = train
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._requested: Literal["save", "drop"] | None = None
        self._current: str | None = None
        self._leaving = False
        self._between_steps = SHORTEST_BETWEEN_STEPS
        self._last_step_event = 0.0
        self._job_received = 0.0
        self._imported = threading.Event()
        threading.Thread(target=self._work, name="jobs", daemon=True).start()
        self._listen()

    def _listen(self) -> None:
        """Wait for the signals if they are blocked in every thread of this process, as `join`
        blocks them. In any other process they keep their meaning."""
        if set(LEAVE_SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            threading.Thread(target=self._wait_for_signal, name="signals", daemon=True).start()

    def hello(self, probe: Path, content: str) -> WorkerHost:
        """Say where this worker runs, after reading `probe` and writing an answer next to it."""
        while _machine_is_leaving():
            time.sleep(0.1)  # until this process ends with its machine
        host = socket.gethostname()
        pid = os.getpid()
        shares_home = False
        with contextlib.suppress(OSError):
            shares_home = probe.read_text() == content
            if shares_home:
                probe.with_name(f"{probe.name}-{host}-{pid}").write_text(content)
                # Home, and the sweep's folder in it.
                keep_standing(probe.parents[2], probe.parent)
        device = self._device()
        return WorkerHost(
            host=host,
            pid=pid,
            gpus=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            shares_home=shares_home,
            device=device,
            memory=memory_limit(),
            memory_kills=memory_kills(),
            best_precision=self._best_precision(),
        )

    def _device(self) -> Device:
        """What jobs compute on; waits until the first one could start."""
        if self._threads is None or self._train is not None:
            from kdsweep.core.evaluation.latency_figures import Device

            return Device(name="not asked for", threads=self._threads or 0)
        self._imported.wait()
        from kdsweep.core.device import this_device

        return this_device(self._threads)

    def _best_precision(self) -> SettledPrecision:
        """Asked once torch is imported."""
        if self._threads is None or self._train is not None:
            # What takes the place of the core multiplies nothing.
            return "bf16"
        from kdsweep.core.device import best_precision, pick_device

        return best_precision(pick_device())

    def start(self, job: Job) -> None:
        self._requested = None
        self._current = job.name
        self._job_received = time.monotonic()
        self._jobs.put(job)

    def stop(self, name: str, save: bool) -> None:
        """Stop job `name` at its next step, with a checkpoint or without. Nothing if it ended."""
        if self._current == name:
            self._requested = "save" if save else "drop"

    def leave(self) -> None:
        """Save the current job, then ask to be released."""
        self._leaving = True
        self._requested = self._requested or "save"
        if self._current is None:
            self._events.put(None)

    def events(self, between_steps: float = SHORTEST_BETWEEN_STEPS) -> list[Event | None]:
        """What happened since the last call; waits until something has.

        between_steps: seconds between two reports of how many steps are done.

        None comes last and says that the worker wants to leave.
        """
        self._between_steps = max(SHORTEST_BETWEEN_STEPS, between_steps)
        found = [self._events.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found

    # All jobs run in one thread, since each new thread would start its own pool of OpenMP threads.

    def _work(self) -> None:
        if self._threads is not None and self._train is None:
            try:
                _import_core(self._threads)
            finally:
                self._imported.set()
        while True:
            self._perform(self._jobs.get())
            if self._leaving:
                self._events.put(None)

    def _perform(self, job: Job) -> None:
        def on_step(step: int, total_steps: int) -> bool:
            return self._on_step(job.name, step, total_steps)

        def say(line: str) -> None:
            self._events.put(Message(job.name, line))

        # The first job waits until everything is imported.
        waited = time.monotonic() - self._job_received
        for event in perform(job, on_step, say, self._train):
            if isinstance(event, Ended):
                self._current = None
                event = replace(event, spent=event.spent | {"start": event.spent["start"] + waited})
            self._events.put(event)

    def _on_step(self, name: str, step: int, total_steps: int) -> bool:
        if self._requested == "drop":
            raise Dropped
        if time.monotonic() - self._last_step_event > self._between_steps:
            self._last_step_event = time.monotonic()
            self._events.put(StepReached(name, step, total_steps))
        return self._requested == "save" or self._leaving

    def _wait_for_signal(self) -> None:
        # One that is ignored would arrive here too, since it is blocked.
        signal.sigwait(heeded(LEAVE_SIGNALS))
        self.leave()


def _import_core(threads: int) -> None:
    """What the first job needs is imported before it arrives."""
    with without_collecting():
        import torch

        import kdsweep.core.trial  # noqa: F401

    torch.set_num_threads(threads)


def _machine_is_leaving() -> bool:
    session = os.environ.get(SESSION_VARIABLE)
    return session is not None and Path(session, LEAVING_FILE).exists()
