"""The engine `ray`: each slot is a warm process, a Ray actor, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError, first_line
from kdsweep.sweep.engines import worker_actor
from kdsweep.sweep.engines.events import Ended, Event, OnEvent, WorkerLost
from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.ray_cluster import ClusterHead
from kdsweep.sweep.engines.ray_local import LocalRay
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.engines.slots import slots_in
from kdsweep.sweep.engines.worker import WorkerHost
from kdsweep.sweep.engines.worker_actor import WorkerActor
from kdsweep.sweep.engines.worker_check import WorkerCheck, difference
from kdsweep.sweep.folders import SweepFolder

# Events arrive at once, but a signal is only noticed between two waits.
LONGEST_WAIT_SECONDS = 0.5
# A process that can't be created counts as ten failures, since it fails the same way every time.
# A process that is lost with its machine counts once.
MOST_FAILURES = 30
FAILURES_OF_A_BROKEN_WORKER = 10


def open_session(folder: SweepFolder, config: RayEngine) -> RaySession:
    """The session for `engine.address`: local, head, or a cluster that exists."""
    if config.address == "local":
        return LocalRay(folder, config)
    if config.address == "head":
        return ClusterHead(folder, config)
    return RaySession(folder, config)


@dataclass(eq=False)
class _Slot:
    """An actor that is a slot, or will be once Ray has found room for it.

    reply: Ray's reference to the answer of `hello`, afterwards to that of `events`.
    host: where it runs, once it has said so. job: the name of its job.
    """

    actor: Any
    reply: Any
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
    """The slots of one sweep. Implements `Engine`.

    On a cluster there is always one pending slot more than there is room for. It starts when a
    machine joins: that is how the driver notices.
    """

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
        self._check = check
        self._train = train
        self._session = open_session(folder, config)
        self._slots: list[_Slot] = []
        self._requested = 0
        self._failures = 0
        # Ray's names of machines with other packages than this one.
        self._refused: set[str] = set()
        self._a_process_died = False
        self._said_waiting = False

    @property
    def slots(self) -> int:
        return sum(slot.host is not None for slot in self._slots)

    @property
    def free_places(self) -> tuple[Place, ...]:
        places = [slot.free_place for slot in self._slots]
        return tuple(place for place in places if place is not None)

    def __enter__(self) -> Self:
        # Before machines are told of the cluster: they look at it first.
        self._check.write()
        try:
            self._session.open()
            self._ray = self._session.ray
            self._ray.cloudpickle.register_pickle_by_value(worker_actor)
            try:
                self.gpus_per_slot = self._session.gpus_per_slot()
            except BaseException:
                self._session.close()
                raise
        except BaseException:
            self._check.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for slot in self._slots:
            with contextlib.suppress(Exception):
                self._ray.kill(slot.actor)
        self._slots = []
        if self._a_process_died:
            self._session.keep_logs()
        self._session.close()
        self._check.remove()

    def announce_end(self, *, resuming: bool) -> None:
        self._session.announce_end(resuming=resuming)

    # --- jobs ------------------------------------------------------------------------------------

    def start(self, job: Job, place: Place) -> None:
        slot = next(slot for slot in self._slots if slot.free_place == place)
        slot.job = job.name
        slot.actor.start.remote(job)

    def stop(self, name: str, *, save: bool) -> None:
        for slot in self._slots:
            if slot.job == name:
                slot.actor.stop.remote(name, save)

    def wait(self, timeout: float | None) -> None:
        slots = {slot.reply: slot for slot in self._slots}
        if not slots:
            # The last machine left. `request_slots` requests others.
            time.sleep(LONGEST_WAIT_SECONDS)
            return
        seconds = LONGEST_WAIT_SECONDS if timeout is None else min(timeout, LONGEST_WAIT_SECONDS)
        ready, _ = self._ray.wait(list(slots), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(slots), num_returns=len(slots), timeout=0)
        for reply in ready:
            self._read(slots[reply])

    def _read(self, slot: _Slot) -> None:
        try:
            answer = self._ray.get(slot.reply)
        except self._ray.exceptions.RayError as error:
            self._slots.remove(slot)
            self._a_process_died = True
            if slot.host is None:
                self._count_failed_start(error)
            elif slot.job is not None:
                host = slot.host
                reason = f"the process on {host.host} (process {host.pid}) died"
                self._on_event(WorkerLost(slot.job, reason))
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
            self._on_event(event)
        if slot.leaving and slot.job is None:
            self._say(f"slot on {host.host} (process {host.pid}) leaves")
            self._release(slot)
        else:
            slot.reply = slot.actor.events.remote()

    # --- slots -----------------------------------------------------------------------------------

    def request_slots(self, count: int) -> None:
        most = self._config.slots
        self._requested = count if most is None else min(count, most)
        idle = [slot for slot in self._slots if slot.host is None or slot.free_place is not None]
        for slot in idle[: max(0, len(self._slots) - self._requested)]:
            self._release(slot)
        self._grow()

    def _grow(self) -> None:
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
            self._say(
                "waiting for machines: on each, run `kdsweep worker` with the arguments of this "
                f"command (head: {self._session.address})"
            )

    def _create_slot(self) -> _Slot:
        # Four calls run at once: `events`, which waits, and those that come meanwhile.
        elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"}
        worker = self._ray.remote(WorkerActor).options(
            num_cpus=self._config.cpus_per_trial,
            num_gpus=self.gpus_per_slot,
            max_concurrency=4,
            label_selector=elsewhere if self._refused else {},
        )
        actor = worker.remote(self._config.cpus_per_trial, self._train)
        check = self._check
        reply = actor.introduce.remote(check.file, check.content, check.packages)
        return _Slot(actor, reply)

    def _room(self) -> int:
        """How many slots fit on the machines that are there."""
        return sum(
            slots_in(node["Resources"], self._config.cpus_per_trial, self.gpus_per_slot)
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
            self._say(why)
        self._grow()

    def _add(self, slot: _Slot, host: WorkerHost) -> None:
        """Use the slot. Raises KdsweepError where its machine can't be used."""
        try:
            self._check.check(host)
        except KdsweepError:
            self._release(slot)
            raise
        slot.host = host
        slot.reply = slot.actor.events.remote()
        self._failures = 0
        gpu = f", GPU {host.gpus}" if host.gpus and self.gpus_per_slot else ""
        self._say(f"slot {self.slots}: {host.host}, process {host.pid}{gpu}")
        self._grow()

    def _count_failed_start(self, error: Exception) -> None:
        """Raises KdsweepError after too many workers that could not start."""
        is_broken = "creation task" in str(error) or not isinstance(
            error, self._ray.exceptions.RayActorError
        )
        self._failures += FAILURES_OF_A_BROKEN_WORKER if is_broken else 1
        if self._failures >= MOST_FAILURES:
            reason = (str(error).strip().splitlines() or [first_line(error)])[-1]
            raise KdsweepError(
                f"engine: no worker process can start: {reason}; see {self._folder.root / 'ray'}"
            )

    def _release(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)
