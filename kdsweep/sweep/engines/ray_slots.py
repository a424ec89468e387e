"""The slots of a sweep on Ray: each is a warm process, a Ray actor, here or on a cluster.

Used in the process that is connected to Ray (`ray_process`).
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError, first_line
from kdsweep.sweep.engines import worker_actor
from kdsweep.sweep.engines.events import Ended, Event, WorkerLost
from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.ray_messages import Line
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.engines.slots import slots_in
from kdsweep.sweep.engines.worker import WorkerHost
from kdsweep.sweep.engines.worker_actor import WorkerActor
from kdsweep.sweep.engines.worker_check import WorkerCheck, difference

# A process that can't be created counts as ten failures, since it fails the same way every time.
# A process that is lost with its machine counts once.
MOST_FAILURES = 30
FAILURES_OF_A_BROKEN_WORKER = 10


Answer = Future[Any]


@dataclass(eq=False)
class _Slot:
    """An actor that is a slot, or will be once Ray has found room for it.

    host: where it runs, once it has said so. job: the name of its job.
    """

    actor: Any
    host: WorkerHost | None = None
    job: str | None = None
    leaving: bool = False

    @property
    def free_place(self) -> Place | None:
        """Where it is; None unless it can be given a job."""
        if self.host is None or self.job is not None or self.leaving:
            return None
        return self.host.place


class RaySlots:
    """The slots of one sweep. What happens is given to `tell`.

    On a cluster there is always one pending slot more than there is room for. It starts when a
    machine joins: that is how the driver notices.
    """

    def __init__(
        self,
        config: RayEngine,
        session: RaySession,
        tell: Callable[[Event | Line], None],
        check: WorkerCheck,
        train: Train | None = None,
    ) -> None:
        self.a_process_died = False
        self._config = config
        self._session = session
        self._tell = tell
        self._check = check
        self._train = train
        self._gpus_per_slot = 0.0
        self._slots: list[_Slot] = []
        # Slots whose answer is there. None only ends the wait.
        self._ready: queue.SimpleQueue[tuple[_Slot, Answer] | None] = queue.SimpleQueue()
        self._requested = 0
        self._failures = 0
        # Ray's names of machines with other packages than this one.
        self._refused: set[str] = set()
        self._said_waiting = False

    def open(self) -> float:
        """The GPUs of a slot. Raises KdsweepError where not one slot fits."""
        self._ray = self._session.ray
        self._ray.cloudpickle.register_pickle_by_value(worker_actor)
        self._gpus_per_slot = self._session.gpus_per_slot()
        return self._gpus_per_slot

    def close(self) -> None:
        for slot in self._slots:
            with contextlib.suppress(Exception):
                self._ray.kill(slot.actor)
        self._slots = []

    @property
    def count(self) -> int:
        """How many there are; those that wait for room or start don't count."""
        return sum(slot.host is not None for slot in self._slots)

    @property
    def free_places(self) -> tuple[Place, ...]:
        places = [slot.free_place for slot in self._slots]
        return tuple(place for place in places if place is not None)

    # --- jobs ------------------------------------------------------------------------------------

    def start(self, job: Job, place: Place) -> None:
        """Start the job on a free slot there. If the slot is gone meanwhile, it hasn't started."""
        slot = next((slot for slot in self._slots if slot.free_place == place), None)
        if slot is None:
            self._tell(Ended(job.name, "saved"))
            return
        slot.job = job.name
        slot.actor.start.remote(job)

    def stop(self, name: str, *, save: bool) -> None:
        for slot in self._slots:
            if slot.job == name:
                slot.actor.stop.remote(name, save)

    def wait(self, seconds: float) -> None:
        """Wait until something happens, or for some time.

        Raises KdsweepError for a machine that can't be used; the other slots keep running.
        """
        with contextlib.suppress(queue.Empty):
            self._read(self._ready.get(timeout=seconds))
            while True:
                self._read(self._ready.get_nowait())

    def wake(self) -> None:
        """End the wait. Called from any thread."""
        self._ready.put(None)

    def _expect(self, slot: _Slot, answer: Answer) -> None:
        """Read the answer once it is there."""
        answer.add_done_callback(lambda done: self._ready.put((slot, done)))

    def _read(self, ready: tuple[_Slot, Answer] | None) -> None:
        if ready is None:
            return
        slot, done = ready
        # It may have been released.
        if slot not in self._slots:
            return
        try:
            answer = done.result()
        except self._ray.exceptions.RayError as error:
            self._slots.remove(slot)
            self.a_process_died = True
            if slot.host is None:
                self._count_failed_start(error)
            elif slot.job is not None:
                host = slot.host
                reason = f"the process on {host.host} (process {host.pid}) died"
                self._tell(WorkerLost(slot.job, reason))
            return
        if slot.host is None:
            self._introduce(slot, *answer)
        else:
            self._report(slot, slot.host, answer)

    def _report(self, slot: _Slot, host: WorkerHost, events: list[Event | None]) -> None:
        for event in events:
            if event is None:
                slot.leaving = True
                continue
            if isinstance(event, Ended):
                slot.job = None
            self._tell(event)
        if slot.leaving and slot.job is None:
            self._tell(Line(f"slot on {host.host} (process {host.pid}) leaves"))
            self._release(slot)
        else:
            self._expect(slot, slot.actor.events.remote().future())

    # --- slots -----------------------------------------------------------------------------------

    def request(self, count: int) -> None:
        """Shrink to this many slots; `grow` grows."""
        most = self._config.slots
        self._requested = count if most is None else min(count, most)
        idle = [slot for slot in self._slots if slot.host is None or slot.free_place is not None]
        for slot in idle[: max(0, len(self._slots) - self._requested)]:
            self._release(slot)

    def grow(self) -> None:
        """Request slots: as many as there is room for, plus one on a cluster.

        With `engine.slots` all of those are requested at once.
        """
        target = self._requested
        if self._config.slots is None and len(self._slots) < target:
            target = min(target, self._room() + self._session.many_machines)
        while len(self._slots) < target:
            self._slots.append(self._create_slot())
        if self._requested and not self._said_waiting and self._config.address == "head":
            self._said_waiting = True
            line = (
                "waiting for machines: on each, run `kdsweep worker` with the arguments of this "
                f"command (head: {self._session.address})"
            )
            self._tell(Line(line))

    def _create_slot(self) -> _Slot:
        # Four calls run at once: `events`, which waits, and those that come meanwhile.
        elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"}
        worker = self._ray.remote(WorkerActor).options(
            num_cpus=self._config.cpus_per_trial,
            num_gpus=self._gpus_per_slot,
            max_concurrency=4,
            label_selector=elsewhere if self._refused else {},
        )
        actor = worker.remote(self._config.cpus_per_trial, self._train)
        check = self._check
        slot = _Slot(actor)
        answer = actor.introduce.remote(check.file, check.content, check.packages).future()
        self._expect(slot, answer)
        return slot

    def _room(self) -> int:
        """How many slots fit on the machines that are there."""
        return sum(
            slots_in(node["Resources"], self._config.cpus_per_trial, self._gpus_per_slot)
            for node in self._ray.nodes()
            if node["Alive"] and node["NodeID"] not in self._refused
        )

    def _introduce(
        self,
        slot: _Slot,
        machine: str,
        node: str,
        packages: dict[str, str | None],
        host: WorkerHost | None,
    ) -> None:
        """Use the slot, or no slot of its machine if that has other packages.

        Raises KdsweepError where the sweep can't go on without it.
        """
        if host is not None:
            self._add(slot, host)
            return
        self._release(slot)
        # A slot that was requested before may still come from there.
        if node not in self._refused:
            self._refused.add(node)
            why = f"{machine} can't be used: {difference(self._check.packages, packages)}"
            if self._config.address != "head" and self._room() == 0:
                raise KdsweepError(f"engine: {why}")
            self._tell(Line(why))

    def _add(self, slot: _Slot, host: WorkerHost) -> None:
        """Use the slot. Raises KdsweepError where its machine can't be used."""
        try:
            self._check.check(host)
        except KdsweepError:
            self._release(slot)
            raise
        slot.host = host
        self._expect(slot, slot.actor.events.remote().future())
        self._failures = 0
        gpu = f", GPU {host.gpus}" if host.gpus and self._gpus_per_slot else ""
        self._tell(Line(f"slot {self.count}: {host.host}, process {host.pid}{gpu}"))

    def _count_failed_start(self, error: Exception) -> None:
        """Raises KdsweepError after too many workers that could not start."""
        is_broken = "creation task" in str(error) or not isinstance(
            error, self._ray.exceptions.RayActorError
        )
        self._failures += FAILURES_OF_A_BROKEN_WORKER if is_broken else 1
        if self._failures >= MOST_FAILURES:
            reason = (str(error).strip().splitlines() or [first_line(error)])[-1]
            logs = self._session.folder.root / "ray"
            raise KdsweepError(f"engine: no worker process can start: {reason}; see {logs}")

    def _release(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)
