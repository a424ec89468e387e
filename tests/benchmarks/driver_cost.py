"""What the driver costs with many slots, and with many trials behind it."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filled_sweep import fill
from load import cost_of_trials, idle_rows, on_slots
from measuring import Row
from null_core import Swept, make_plan, run_driver
from simulated_slots import Rhythm, SimulatedSlots

from kdsweep.errors import Interrupted
from kdsweep.sweep.folders import Home


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
        Row("peak memory of the driver", _peak(), "MB"),
    ]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
    return [
        Row(f"{slots} slots on Ray are there after", swept.warm - swept.opened, "s"),
        Row("measured for", swept.ended - swept.warm, "s"),
        Row(
            f"{slots} slots on Ray: share of a core, all threads",
            100 * swept.cpu / (swept.ended - swept.warm),
            "%",
            at_most=31,
        ),
        *idle_rows(found),
        Row(swept.busy, ""),
    ]


def many_trials(folder: Path, few: int, many: int, counted: int) -> list[Row]:
    """What a trial costs the driver with `many` ended trials behind it, by what it costs at `few`.

    Both have a folder for each trial, both databases, TPE and asha.
    """
    cost = {
        at: cost_of_trials(
            folder / str(at), "tpe", at - counted // 2, counted, pruner="asha", fill=fill
        )
        for at in (few, many)
    }
    rows = []
    for at, one in cost.items():
        asking = 1000 * statistics.median(one.asking)
        cpu = 1000 * statistics.median(one.cpu)
        rows += [
            Row(f"a trial at {at:,}: CPU of all threads, median", cpu, "ms"),
            Row(f"a trial at {at:,}: of it the sampler (TPE)", asking, "ms"),
            Row(f"{at:,} trials: from the start of the driver to its next trial", one.opening, "s"),
        ]
    growth = statistics.median(cost[many].cpu) / statistics.median(cost[few].cpu)
    rows.append(Row(f"a trial at {many:,} by one at {few:,}", growth, "x", at_most=1.5))
    return [*rows, Row(f"peak memory of the driver with {many:,} trials", _peak(), "MB")]
