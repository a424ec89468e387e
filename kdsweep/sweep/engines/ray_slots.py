"""The slots of a sweep on Ray: each is a warm process, a Ray actor, here or on a cluster.

Used in the process that is connected to Ray (`ray_process`).
"""

from __future__ import annotations

import contextlib
import functools
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from kdsweep.config.sweep import RayEngine
from kdsweep.errors import KdsweepError, first_line
from kdsweep.formatting import count, file_size
from kdsweep.sweep.engines import worker_actor
from kdsweep.sweep.engines.events import Ended, Event, WorkerLost
from kdsweep.sweep.engines.jobs import Job
from kdsweep.sweep.engines.memory import REMEDY, memory_kills
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.engines.ray_messages import FewerSlots, Line
from kdsweep.sweep.engines.ray_session import RaySession
from kdsweep.sweep.engines.slot_limits import SlotLimits
from kdsweep.sweep.engines.slots import slots_in
from kdsweep.sweep.engines.worker import WorkerHost
from kdsweep.sweep.engines.worker_actor import WorkerActor
from kdsweep.sweep.engines.worker_check import WorkerCheck

# A process that can't be created counts as ten failures, since it fails the same way every time.
# A process that is lost with its machine counts once.
MOST_FAILURES = 30
FAILURES_OF_A_BROKEN_WORKER = 10
# A machine that leaves may not say how many of its processes were killed for lack of memory.
SECONDS_TO_COUNT_KILLS = 15.0
# After the first event, others are waited for so long, for each slot and at most: with hundreds of
# slots, each would be a turn of the driver's loop.
GATHERING_SECONDS = 0.001
LONGEST_GATHERING_SECONDS = 0.1
# All slots together report how many steps are done at most 16 times a second.
SECONDS_BETWEEN_STEPS_OF_ALL = 1 / 16
LONGEST_BETWEEN_STEPS_SECONDS = 10.0


Answer = Future[Any]


@dataclass(eq=False)
class _Slot:
    """An actor that is a slot, or will be once Ray has found room for it.

    host: where it runs, once it has said so; node: Ray's name for that. avoids: the nodes that it
    may not start on. job: the name of its job. shares: whether it had that while other slots were
    on its machine. others: how many those were when it died. unexplained: see `SlotLimits`.
    """

    actor: Any
    host: WorkerHost | None = None
    node: str = ""
    avoids: tuple[str, ...] = ()
    job: str | None = None
    shares: bool = False
    others: int = 0
    unexplained: int = 0
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
        tell: Callable[[Event | Line | FewerSlots], None],
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
        # What to do, now that a reply is there.
        self._ready: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._limits = SlotLimits()
        # Slots that died, as long as it isn't known whether memory ran out.
        self._judged: list[_Slot] = []
        self._requested = 0
        self._failures = 0
        # Ray's names of machines with other packages than this one, or without bf16.
        self._refused: set[str] = set()
        self._said_waiting = False
        # Ray's name for this machine, where it is the only one.
        self._here = ""

    def open(self) -> float:
        """The GPUs of a slot. Raises KdsweepError where not one slot fits."""
        self._ray = self._session.ray
        self._ray.cloudpickle.register_pickle_by_value(worker_actor)
        self._gpus_per_slot = self._session.gpus_per_slot()
        if not self._session.many_machines:
            self._here = self._ray.get_runtime_context().get_node_id()
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
        slot.shares = self._beside(slot) > 0
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
            self._ready.get(timeout=seconds)()
            time.sleep(min(LONGEST_GATHERING_SECONDS, len(self._slots) * GATHERING_SECONDS))
            while True:
                self._ready.get_nowait()()

    def wake(self) -> None:
        """End the wait. Called from any thread."""
        self._ready.put(_nothing)

    def _expect(self, answer: Answer, read: Callable[[Answer], None]) -> None:
        """Read the answer once it is there."""
        answer.add_done_callback(lambda done: self._ready.put(functools.partial(read, done)))

    def _read(self, slot: _Slot, done: Answer) -> None:
        # It may have been released.
        if slot not in self._slots:
            return
        try:
            answer = done.result()
        except self._ray.exceptions.RayError as error:
            self._died(slot, error)
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
            self._hear(slot)
        self._release_excess()

    def _hear(self, slot: _Slot) -> None:
        """Wait for its next events."""
        between_steps = len(self._slots) * SECONDS_BETWEEN_STEPS_OF_ALL
        between_steps = min(LONGEST_BETWEEN_STEPS_SECONDS, between_steps)
        answer = slot.actor.events.remote(between_steps).future()
        self._expect(answer, functools.partial(self._read, slot))

    # --- slots that die --------------------------------------------------------------------------

    def _died(self, slot: _Slot, error: Exception) -> None:
        """The process of a slot is gone. Find out whether memory ran out."""
        self._slots.remove(slot)
        self.a_process_died = True
        if isinstance(error, self._ray.exceptions.OutOfMemoryError):
            # Ray ended it before the kernel did, and says where.
            found = re.search("ID: ([0-9a-f]+)", str(error))
            slot.node = slot.node or (found[1] if found else "")
            slot.others = self._beside(slot)
            self._lost(slot, error, out_of_memory=True)
            return
        slot.others = self._beside(slot)
        self._judged.append(slot)
        if self._here:
            self._judge(slot, error, memory_kills())
        elif slot.host is None:
            self._judge(slot, error, None)
        else:
            self._ask_for_kills(slot, error)

    def _ask_for_kills(self, slot: _Slot, error: Exception) -> None:
        """Judge once a process on that machine has counted the kills there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def read(reply: Answer) -> None:
            kills = None
            with contextlib.suppress(self._ray.exceptions.RayError):
                kills = reply.result()
            self._judge(slot, error, kills)

        there = NodeAffinitySchedulingStrategy(slot.node, soft=False)
        counting = self._ray.remote(memory_kills).options(
            num_cpus=0, max_retries=0, scheduling_strategy=there
        )
        self._expect(counting.remote().future(), read)
        late = functools.partial(self._judge, slot, error, None)
        timer = threading.Timer(SECONDS_TO_COUNT_KILLS, self._ready.put, [late])
        timer.daemon = True
        timer.start()

    def _judge(self, slot: _Slot, error: Exception, kills: int | None) -> None:
        """kills: how many there were on its machine so far; None where that isn't known."""
        if slot not in self._judged:
            return
        self._judged.remove(slot)
        killed = kills is not None and (
            self._limits.unexplained(slot.node, kills) > slot.unexplained
        )
        if killed:
            self._limits.explain(slot.node)
        self._lost(slot, error, out_of_memory=killed)

    def _lost(self, slot: _Slot, error: Exception, *, out_of_memory: bool) -> None:
        if out_of_memory and slot.others and self._limits.lower(slot.node, slot.others):
            self._tell_lowered(slot)
            self._release_excess()
        host = slot.host
        if host is None:
            # Where others run, this one has only come too late.
            if not (out_of_memory and slot.others):
                self._count_failed_start(error, out_of_memory=out_of_memory)
        elif slot.job is not None:
            reason = f"the process on {host.host} (process {host.pid}) died"
            if out_of_memory:
                reason = f"memory ran out on {host.host}, which ended process {host.pid}"
            counts = not (out_of_memory and slot.shares)
            if out_of_memory and counts:
                reason += f" though it had no other slot; {REMEDY}"
            self._tell(WorkerLost(slot.job, reason, counts))

    def _tell_lowered(self, slot: _Slot) -> None:
        hosts = [one.host for one in (slot, *self._slots) if one.node == slot.node]
        host = next(one for one in hosts if one is not None)
        most = max(1, slot.others)
        size = "" if host.memory is None else f" ({file_size(host.memory.bytes)})"
        todo = f"set engine.slots={most}"
        if not self._here:
            todo = "give each slot more of a machine (engine.cpus_per_trial)"
        line = (
            f"{host.host}: memory{size} ran out with {count(slot.others + 1, 'slot')}, so it has "
            f"{most} from now on; {todo}, or {REMEDY}"
        )
        self._tell(FewerSlots(line, most))

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
        if self._judged:
            return
        avoids = tuple(sorted({*self._refused, *self._limits.full(self._by_node())}))
        # They may wait for a place on a machine that is full now, or avoid one that no longer is.
        for slot in [one for one in self._slots if one.host is None and one.avoids != avoids]:
            self._release(slot)
        target = self._requested
        if len(self._slots) < target and (self._config.slots is None or self._here):
            target = min(target, self._room() + self._session.many_machines)
        while len(self._slots) < target:
            self._slots.append(self._create_slot(avoids))
        is_alone = self._config.address == "head" and not self._by_node()
        if self._requested and is_alone and not self._said_waiting and not self._room():
            self._said_waiting = True
            line = (
                "waiting for machines: on each, run `kdsweep worker` with the arguments of this "
                f"command (head: {self._session.address})"
            )
            self._tell(Line(line))

    def _create_slot(self, avoids: tuple[str, ...]) -> _Slot:
        # Four calls run at once: `events`, which waits, and those that come meanwhile.
        elsewhere = {"ray.io/node-id": f"!in({','.join(avoids)})"}
        worker = self._ray.remote(WorkerActor).options(
            num_cpus=self._config.cpus_per_trial,
            num_gpus=self._gpus_per_slot,
            max_concurrency=4,
            label_selector=elsewhere if avoids else {},
        )
        actor = worker.remote(self._config.cpus_per_trial, self._train)
        check = self._check
        slot = _Slot(actor, node=self._here, avoids=avoids)
        if self._here:
            slot.unexplained = self._limits.unexplained(self._here, memory_kills())
        answer = actor.introduce.remote(check.file, check.content, check.packages).future()
        self._expect(answer, functools.partial(self._read, slot))
        return slot

    def _room(self) -> int:
        """How many slots fit on the machines that are there."""
        return sum(
            self._limits.most(
                node["NodeID"],
                slots_in(node["Resources"], self._config.cpus_per_trial, self._gpus_per_slot),
            )
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
        """Use the slot, or no slot of its machine if that has other packages or no bf16.

        Raises KdsweepError where the sweep can't go on without it.
        """
        reason = self._check.why_not(packages, host)
        if host is not None and reason is None:
            self._add(slot, node, host)
            return
        self._release(slot)
        # A slot that was requested before may still come from there.
        if node not in self._refused:
            self._refused.add(node)
            why = f"{machine} can't be used: {reason}"
            if self._config.address != "head" and self._room() == 0:
                raise KdsweepError(f"engine: {why}")
            self._tell(Line(why))

    def _by_node(self) -> Counter[str]:
        """How many slots there are on each machine."""
        return Counter(slot.node for slot in self._slots if slot.host is not None)

    def _beside(self, slot: _Slot) -> int:
        """How many other slots there are on its machine."""
        others = (one for one in self._slots if one is not slot and one.host is not None)
        return sum(one.node == slot.node for one in others)

    def _release_excess(self) -> None:
        """Release slots without a job where memory is for fewer."""
        slots = self._by_node()
        for node in self._limits.full(slots):
            there = [one for one in self._slots if one.node == node and one.free_place is not None]
            for slot in there[: slots[node] - self._limits.most(node, slots[node])]:
                self._release(slot)

    def _add(self, slot: _Slot, node: str, host: WorkerHost) -> None:
        """Use the slot. Raises KdsweepError where its machine can't be used."""
        try:
            self._check.check(host)
        except KdsweepError:
            self._release(slot)
            raise
        slot.node = node
        if node in self._limits.full(self._by_node()):
            self._release(slot)
            return
        slot.host = host
        slot.unexplained = self._limits.unexplained(node, host.memory_kills)
        for one in self._slots:
            one.shares |= one is not slot and one.node == node
        self._hear(slot)
        self._failures = 0
        self._said_waiting = False
        gpu = f", GPU {host.gpus}" if host.gpus and self._gpus_per_slot else ""
        self._tell(Line(f"slot {self.count}: {host.host}, process {host.pid}{gpu}"))

    def _count_failed_start(self, error: Exception, *, out_of_memory: bool) -> None:
        """Raises KdsweepError after too many workers that could not start."""
        is_broken = "creation task" in str(error) or not isinstance(
            error, self._ray.exceptions.RayActorError
        )
        is_broken |= out_of_memory
        self._failures += FAILURES_OF_A_BROKEN_WORKER if is_broken else 1
        if self._failures >= MOST_FAILURES:
            reason = (str(error).strip().splitlines() or [first_line(error)])[-1]
            if out_of_memory:
                reason = "memory ran out"
            logs = self._session.folder.root / "ray"
            raise KdsweepError(f"engine: no worker process can start: {reason}; see {logs}")

    def _release(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)


def _nothing() -> None:
    """Ends the wait."""
