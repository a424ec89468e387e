"""What the driver costs with many slots, and with many trials behind it."""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    def look(self) -> None:
        """Called in each turn of the loop, in the driver's thread."""
        now = time.monotonic()
        self.first = self.first or now
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


def driver(folder: Path, slots: int = 1000, **options: Any) -> list[Row]:
    window = many_slots(folder / "slots", slots, **options)
    before, after = window.marks
    seconds = after["at"] - before["at"]
    return [
        Row(
            f"{slots:,} slots: the driver's share of a core, all its threads",
            window.share("all"),
            "%",
            at_most=100,
        ),
        Row("of it the loop", window.share("loop"), "%"),
        Row("busy slots at the end", after["slots"]),
        Row("trials per second", (after["ended"] - before["ended"]) / seconds),
        Row(
            "what MLflow was behind with, at the start and at the end",
            f"{before['behind']:.0f}, {after['behind']:.0f}",
        ),
        Row(
            "peak memory of the driver",
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "MB",
        ),
    ]
