"""Slots on Ray: a warm process each, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdsweep.config.sweep import RayEngine
from kdsweep.core.files import write_atomically
from kdsweep.errors import KdsweepError
from kdsweep.sweep.engines.base import Hear
from kdsweep.sweep.engines.ray_session import Session
from kdsweep.sweep.engines.slots import slots_in
from kdsweep.sweep.engines.worker import Ended, Job, Lost, Place, Train, Worker
from kdsweep.sweep.folders import SweepFolder

SECONDS_BETWEEN_SIGNALS = 0.5  # a signal is looked at this often at least; events come at once
SECONDS_FOR_A_SHARED_FILE = 20.0
MOST_FAILED_STARTS = 30


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
        self,
        config: RayEngine,
        folder: SweepFolder,
        hear: Hear,
        say: Callable[[str], None],
        *,
        local_tracking: bool,
        train: Train | None = None,
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
        seconds = (
            SECONDS_BETWEEN_SIGNALS if timeout is None else min(timeout, SECONDS_BETWEEN_SIGNALS)
        )
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
        for slot in [slot for slot in self._slots if slot.place is None or _is_free(slot)][
            : max(0, len(self._slots) - self._wanted)
        ]:
            self._release(slot)
        self._grow()

    def _grow(self) -> None:
        """Ask for as many slots as are wanted and have room; on a cluster for one more, or for all that `slots` says."""
        target = self._wanted
        if self.config.slots is None and len(self._slots) < target:
            target = min(target, self._room() + (self.config.address != "local"))
        while len(self._slots) < target:
            actor = self._ray.remote(Worker).options(
                num_cpus=self.config.cpus_per_trial, num_gpus=self.gpus_per_slot, max_concurrency=4
            )
            made = actor.remote(self.config.cpus_per_trial, self._train)
            self._slots.append(_Slot(made, made.hello.remote(self._probe, self._content)))
        if self._wanted and not self._said_waiting and self.config.address == "head":
            self._said_waiting = True
            self.say(
                f"waiting for machines: each joins with `kdsweep worker` and this command's own arguments (head: {self.session.address})"
            )

    def _room(self) -> int:
        """How many slots fit on the machines that are there."""
        return sum(
            slots_in(node["Resources"], self.config.cpus_per_trial, self.gpus_per_slot)
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def _arrived(self, slot: _Slot, place: Place) -> None:
        """Take the slot in, unless its machine can't be used. Raises KdsweepError with why."""
        try:
            check_place(place, self._probe, self._content, local_tracking=self.local_tracking)
        except KdsweepError:
            self._release(slot)
            raise
        slot.place, self._failures = place, 0
        slot.answer = slot.actor.events.remote()
        self.say(
            f"slot {self.slots}: {place.host}, process {place.pid}"
            + (f", GPU {place.gpus}" if place.gpus and self.gpus_per_slot else "")
        )
        self._grow()

    def _died(self, slot: _Slot, error: Exception) -> None:
        self._slots.remove(slot)
        self._keep_logs = True
        if slot.place is not None:
            if slot.job is not None:
                self.hear(
                    Lost(
                        slot.job,
                        f"the process on {slot.place.host} (process {slot.place.pid}) died",
                    )
                )
            return
        # A process that can't be made fails alike each time; one whose machine left says nothing about the next.
        self._failures += (
            10
            if "creation task" in str(error)
            or not isinstance(error, self._ray.exceptions.RayActorError)
            else 1
        )
        if self._failures >= MOST_FAILED_STARTS:
            reason = (str(error).strip().splitlines() or [""])[-1]
            raise KdsweepError(
                f"engine: no worker process can start: {reason}; see {self.folder.root / 'ray'}"
            )

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
                raise KdsweepError(
                    f"engine: gpus_per_trial is {wanted:g}, but this machine has no GPU; 0 means CPU threads alone"
                )
            if there.get("CPU", 0) < self.config.cpus_per_trial:
                raise KdsweepError(
                    f"engine: cpus_per_trial is {self.config.cpus_per_trial}, but this machine gives {there.get('CPU', 0):g} CPU cores"
                )
        return float(wanted)


def _is_free(slot: _Slot) -> bool:
    return slot.place is not None and slot.job is None and not slot.leaving


def check_place(place: Place, probe: Path, content: str, *, local_tracking: bool) -> None:
    """Raise KdsweepError where a worker there can't do its part."""
    home = probe.parent.parent.parent
    remedy = "put home (--home, KDSWEEP_HOME) on a file system that all machines share, under the same path"
    if not place.shares_home:
        raise KdsweepError(
            f"home: a worker on {place.host} doesn't see {home} as it is here; {remedy}"
        )
    answer, until = (
        probe.with_name(f"{probe.name}-{place.host}-{place.pid}"),
        time.monotonic() + SECONDS_FOR_A_SHARED_FILE,
    )
    while not (answer.exists() and answer.read_text() == content):
        if time.monotonic() > until:
            raise KdsweepError(
                f"home: what a worker on {place.host} writes into {home} isn't seen here; {remedy}"
            )
        time.sleep(0.1)
    if local_tracking and place.host != socket.gethostname():
        raise KdsweepError(
            f"tracking: sqlite is for one machine, and a worker runs on {place.host}; start `mlflow server --host 0.0.0.0` where all machines "
            "reach it and set tracking: http://HOST:5000 (--set tracking=http://HOST:5000)"
        )
