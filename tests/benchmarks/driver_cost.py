"""What the driver costs with many slots, and with many trials behind it."""

from __future__ import annotations

import contextlib
import multiprocessing
import statistics
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from filled_sweep import fill
from load import Cost, cost_of_more_trials, idle_rows, on_slots, peak_memory
from measuring import Row, median
from null_core import Swept, make_plan, run_driver
from simulated_slots import Rhythm, SimulatedSlots

from kdsweep.errors import Interrupted
from kdsweep.sweep.folders import Home

# Of the sweeps whose trials are counted.
SEARCH = ("sampler={type: tpe, lag: 128}", "pruner={type: asha}")
MB = "MB"


@dataclass
class Window:
    """What the driver's process spends between two moments of a sweep, and what it gets done.

    after, lasting: seconds from the first turn of the driver's loop.
    """

    after: float
    lasting: float
    swept: Swept
    marks: list[dict[str, float]] = field(default_factory=list)
    first: float = 0.0
    asked: float = 0.0
    stopped: float = 0.0

    def look(self) -> None:
        """Called in each turn of the loop, in the driver's thread."""
        now = time.monotonic()
        self.first = self.first or now
        self.stopped = now
        due = (self.after, self.after + self.lasting)
        if len(self.marks) < 2 and now >= self.first + due[len(self.marks)]:
            self.marks.append(self._mark())
            if len(self.marks) == 2:
                assert self.swept.driver is not None
                self.asked = now
                self.swept.driver.stop.ask("the measurement")

    def _mark(self) -> dict[str, float]:
        tracking, driver = self.swept.tracking, self.swept.driver
        assert tracking is not None and driver is not None
        return {
            "at": time.monotonic(),
            "all": time.process_time(),
            "loop": time.thread_time(),
            "ended": sum(
                len(driver.studies.progress(one).ended) for one in driver.plan.space.strategies
            ),
            "behind": len(tracking._waiting),
            "slots": len(driver.running),
        }

    def share(self, name: str) -> float:
        """Of a core, in percent."""
        before, after = self.marks
        return 100 * (after[name] - before[name]) / (after["at"] - before["at"])


def many_slots(
    folder: Path,
    slots: int,
    *,
    sampler: str = "random",
    pruner: str = "none",
    every: float = 5.0,
    evaluations: int = 6,
    after: float = 45.0,
    lasting: float = 60.0,
) -> Window:
    """Run simulated slots for a while."""
    plan = make_plan(
        folder, "trials=1000000", f"sampler={{type: {sampler}}}", f"pruner={{type: {pruner}}}"
    )
    swept = Swept()
    window = Window(after, lasting, swept)

    def opened(sweep: Any, sweep_folder: Any, on_event: Any, say: Any, **options: Any) -> Any:
        return SimulatedSlots(Rhythm(slots, every, evaluations), on_event, window.look)

    with contextlib.suppress(Interrupted):
        run_driver(plan, Home(folder / "home"), swept, opened)
    return window


def simulated(folder: Path, slots: int, **options: Any) -> list[Row]:
    """The driver alone: what slots do is done by another process."""
    window = many_slots(folder, slots, **options)
    before, after = window.marks
    seconds = after["at"] - before["at"]
    behind = f"{before['behind']:.0f}, {after['behind']:.0f}"
    return [
        Row(
            f"{slots:,} simulated slots: share of a core, all threads",
            window.share("all"),
            "%",
            at_most=100,
        ),
        Row("of it the loop's thread", window.share("loop"), "%"),
        Row("slots that were busy at the end", after["slots"]),
        Row("trials that ended per second", (after["ended"] - before["ended"]) / seconds),
        Row("runs that MLflow was behind with, at the start and the end", behind),
        Row("seconds from a stop to its last saved trial", window.stopped - window.asked, "s"),
        Row("peak memory of the driver", peak_memory(), MB),
    ]


@dataclass(frozen=True)
class Sizes:
    """slots are simulated; ray_slots are processes, which take some 100 MB each."""

    slots: int = 1000
    ray_slots: int = 64
    every: float = 5.0
    evaluations: int = 6
    rounds: int = 2
    after: float = 45.0
    lasting: float = 45.0
    few: int = 100
    many: int = 50_000
    counted: int = 50


def driver(folder: Path, sizes: Sizes = Sizes()) -> list[Row]:
    every, evaluations = sizes.every, sizes.evaluations
    return [
        *on_ray(folder / "ray", sizes.ray_slots, every, evaluations, sizes.rounds),
        *simulated(
            folder / "simulated",
            sizes.slots,
            every=every,
            evaluations=evaluations,
            after=sizes.after,
            lasting=sizes.lasting,
        ),
        *many_trials(folder / "trials", sizes.few, sizes.many, sizes.counted),
    ]


def on_ray(folder: Path, slots: int, every: float, evaluations: int, rounds: int) -> list[Row]:
    """The same trials on real slots, whose driver does Ray's part too."""
    swept, found = on_slots(folder, slots, slots * rounds, every * evaluations, evaluations)
    share = 100 / (swept.ended - swept.warm)
    return [
        Row(f"{slots} slots on Ray are there after", swept.warm - swept.opened, "s"),
        Row("measured for", swept.ended - swept.warm, "s"),
        Row(
            f"{slots} slots on Ray: share of a core, all threads",
            share * (swept.cpu + swept.ray_cpu),
            "%",
            at_most=31,
        ),
        Row("of it the process that connects to Ray", share * swept.ray_cpu, "%"),
        *idle_rows(found),
        Row(swept.busy, ""),
    ]


def many_trials(folder: Path, few: int, many: int, counted: int) -> list[Row]:
    """What a trial costs the driver with `many` ended trials behind it, by what it costs at `few`.

    Both have a folder for each trial, both databases, TPE and asha. Their drivers take turns, one
    trial each, so that a machine that becomes slower slows down both.
    """
    befores = {at: at - counted // 2 for at in (few, many)}
    filling = time.perf_counter()
    for at, before in befores.items():
        there = folder / str(at)
        fill(there, Home(there / "home"), before, "engine={type: inline}", *SEARCH)
    rows = [Row("filling both sweeps", time.perf_counter() - filling, "s")]
    costs = _side_by_side(folder, befores, counted)
    for at, one in costs.items():
        asking = 1000 * statistics.median(one.asking)
        rows += [
            median(f"a trial at {at:,}: CPU of all threads", [1000 * cpu for cpu in one.cpu], "ms"),
            Row(f"a trial at {at:,}: of it the sampler (TPE), median", asking, "ms"),
            Row(f"{at:,} trials: from the start of the driver to its next trial", one.opening, "s"),
            Row(f"{at:,} trials: from the last trial to the report", one.ending, "s"),
            Row(
                f"{at:,} trials: peak memory of the driver until its last trial", one.memory[0], MB
            ),
            Row(f"{at:,} trials: until the report", one.memory[1], MB),
        ]
    growth = statistics.median(costs[many].cpu) / statistics.median(costs[few].cpu)
    return [*rows, Row(f"a trial at {many:,} by one at {few:,}", growth, "x", at_most=1.5)]


def _side_by_side(folder: Path, befores: dict[int, int], counted: int) -> dict[int, Cost]:
    """What trials cost two drivers that take turns, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    turns = dict(zip(befores, context.Pipe(), strict=True))
    results = {at: context.Pipe(duplex=False) for at in befores}
    processes = []
    for first, (at, before) in zip((True, False), befores.items(), strict=True):
        given = (folder / str(at), before, counted, _Turns(turns[at], first), results[at][1])
        processes.append(context.Process(target=_measure, args=given, daemon=True))
        processes[-1].start()
    for mine in (*turns.values(), *(sent for _, sent in results.values())):
        mine.close()
    costs = {at: received.recv() for at, (received, _) in results.items()}
    for process in processes:
        process.join()
    return costs


def _measure(folder: Path, before: int, counted: int, turns: _Turns, results: Connection) -> None:
    cost = cost_of_more_trials(folder, before, counted, *SEARCH, take_turn=turns.take)
    results.send(cost)


@dataclass
class _Turns:
    """Lets one of two processes go on at a time. Where one has ended, the other one goes on."""

    other: Connection
    is_first: bool

    def take(self) -> None:
        """End this process's turn, and wait for its next one."""
        with contextlib.suppress(EOFError, OSError):
            if not self.is_first:
                self.other.send(None)
            self.is_first = False
            self.other.recv()
