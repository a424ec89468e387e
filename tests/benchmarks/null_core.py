"""A core that only sleeps, the space that it is swept over, and what such a sweep took."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import MagicMock, patch

import ray.cloudpickle

from kdsweep.config import Plan, load
from kdsweep.core.settings import TrialSettings
from kdsweep.core.timing import Stopwatch
from kdsweep.sweep.driver import Driver
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.folders import Home
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.tracking_sync import TrackingSync

# Ray's processes can't import a benchmark.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

SECONDS_BETWEEN_STEPS = 0.25
SPACE = """\
name: "null"
task: {{dataset: "{data}", text: text, label: label, holdout: 0.2}}
student: {{model: "{model}"}}
strategies:
  finetune:
    alpha: 1.0
    learning_rate:
      any_of:
        - {{low: 1.0e-5, high: 1.0e-3, log: true}}
        - {{shape: linear, start: {{low: 1.0e-4, high: 1.0e-3}}, end: 0.0}}
    weight_decay: {{low: 0.0, high: 0.1}}
    warmup: {{low: 0.0, high: 0.5}}
    batch_size: {{choices: [16, 32, 64]}}
"""


def make_plan(folder: Path, *assignments: str) -> Plan:
    folder.mkdir(parents=True, exist_ok=True)
    labels = [("dull", "neg"), ("fine", "pos")]
    rows = [(i, *labels[i % 2]) for i in range(200)]
    lines = [f"the film is {word} {i},{label}\n" for i, word, label in rows]
    (folder / "rows.csv").write_text("text,label\n" + "".join(lines), encoding="utf-8")
    # A sweep keeps what its models are made of; nothing is read from this one.
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}", encoding="utf-8")
    space = SPACE.format(data=folder / "rows.csv", model=folder / "model")
    (folder / "null.yaml").write_text(space, encoding="utf-8")
    return load(folder / "null.yaml", assignments=("confirm={seeds: 0}", *assignments))


# --- the trial ---


@dataclass(frozen=True)
class NullCore:
    """A `Train` whose trial only sleeps for `seconds`, evenly over its evaluations.

    It writes what the real one writes, but no student. If there is a folder `log`, each process
    writes there when its trials ran.
    """

    seconds: float
    evaluations: int
    log: Path | None = None

    def __call__(
        self,
        settings: TrialSettings,
        folder: Path,
        *,
        stopwatch: Stopwatch,
        on_step: Callable[[int, int], bool],
        **options: Any,
    ) -> Iterator[Any]:
        return stopwatch.timing(self._trial(settings, folder, stopwatch, on_step))

    def _trial(
        self,
        settings: TrialSettings,
        folder: Path,
        stopwatch: Stopwatch,
        on_step: Callable[[int, int], bool],
    ) -> Generator[Any, None, None]:
        start = time.monotonic()
        files = trial_files()
        stopwatch.switch("training")
        trial_folder = files.TrialFolder(folder)
        trial_folder.claim(settings)
        found: list[Any] = []
        for i in range(1, self.evaluations + 1):
            while (left := start + self.seconds * i / self.evaluations - time.monotonic()) > 0:
                time.sleep(min(left, SECONDS_BETWEEN_STEPS))
                on_step(i, self.evaluations)
            # All are equal until the last one, so that no trial is pruned before it.
            reached = null_value(settings) if i == self.evaluations else 0.5
            seconds, now = time.monotonic() - start, time.time_ns() // 1_000_000
            epoch = settings.training.epochs * i / self.evaluations
            found.append(files.Evaluation(i, epoch, null_metrics(reached), seconds, now))
            with stopwatch("saving"):
                trial_folder.write_evaluations(found)
            if i < self.evaluations:
                yield found[-1]
        with stopwatch("saving"):
            trial_folder.write_result(null_result(found))
        yield found[-1]
        if self.log is not None:
            with (self.log / str(os.getpid())).open("a") as file:
                file.write(f"{start} {time.monotonic()}\n")


def trial_files() -> Any:
    """`kdsweep.core.trial_folder` without torch, which takes 380 MB and seconds in each process.

    So 64 slots fit on a small machine.
    """
    heavy = ("torch", "transformers", "kdsweep.core.models.loading")
    stubs = {} if "torch" in sys.modules else {name: MagicMock() for name in heavy}
    sys.modules.update(stubs)
    try:
        import kdsweep.core.trial_folder as files
    finally:
        for name in stubs:
            del sys.modules[name]
    return files


def null_value(settings: TrialSettings) -> float:
    """What a trial reaches at last; it depends on what the sampler drew."""
    rate: float = max(settings.learning_rate.values_taken())
    return 0.5 + rate * 1e5 % 1 / 2


def null_result(found: list[Any]) -> Any:
    """The result of a trial with these evaluations."""
    student = {"parameters": 1e6, "size_mb": 4.0, "latency_ms": 1.0}
    last = found[-1]
    return trial_files().TrialResult("complete", last.step, last.seconds, last, student)


def null_metrics(reached: float) -> dict[str, float]:
    """As many metrics as a real evaluation has."""
    losses = ("loss", "task_loss", "distill_loss")
    schedules = ("alpha", "temperature", "learning_rate")
    metrics = {f"train/{name}": 0.5 for name in (*losses, *schedules)}
    names = ("loss", "accuracy", "f1", "f1_macro", "matthews", "recall")
    return metrics | {f"validation/{name}": reached for name in names}


def read_log(log: Path) -> list[list[tuple[float, float]]]:
    """When trials started and ended, a list for each slot."""
    return [
        [(float(line.split()[0]), float(line.split()[1])) for line in file.read_text().splitlines()]
        for file in sorted(log.iterdir())
    ]


# --- a sweep of such trials ---


@dataclass
class Swept(Observer):
    """A sweep's lines, and its times (time.monotonic).

    cpu: the driver's seconds, warm to ended. ray_cpu: those of its process that connects to Ray.
    """

    lines: list[str] = field(default_factory=list)
    opened: float = 0.0
    warm: float = 0.0
    ended: float = 0.0
    tracked: float = 0.0
    cpu: float = 0.0
    ray_cpu: float = 0.0
    tracking: TrackingSync | None = None
    driver: Driver | None = None

    def say(self, line: str) -> None:
        self.lines.append(line)

    @property
    def busy(self) -> str:
        return next((line for line in self.lines if line.startswith("slots:")), "")

    def wait_for_mlflow(self) -> None:
        assert self.tracking is not None
        self.tracking.wait_until_sent()


class _Warm:
    """An engine whose slots all exist before its first job.

    How fast processes start says nothing about the driver.
    """

    def __init__(self, engine: Engine, slots: int, swept: Swept) -> None:
        self._engine = engine
        self._slots = slots
        self._swept = swept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> Self:
        self._swept.opened = time.monotonic()
        self._engine.__enter__()
        while self._engine.slots < self._slots:
            self._engine.request_slots(self._slots)
            self._engine.wait(1.0)
        self._swept.warm = time.monotonic()
        self._swept.cpu = -time.process_time()
        self._swept.ray_cpu = -_cpu_of_children("ray_process")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._swept.ended = time.monotonic()
        self._swept.cpu += time.process_time()
        self._swept.ray_cpu += _cpu_of_children("ray_process")
        self._engine.__exit__(kind, error, trace)


def _cpu_of_children(name: str) -> float:
    """The CPU seconds of this process's children with `name` in their command lines."""
    ticks = 0
    for file in Path("/proc/self/task").glob("*/children"):
        for child in file.read_text().split():
            if name in Path(f"/proc/{child}/cmdline").read_text(errors="replace"):
                fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def sweep(plan: Plan, home: Home, core: Train, swept: Swept, slots: int = 1) -> dict[str, Any]:
    """Run the plan with `core` instead of the real one. Returns the sweep's report."""

    def opened(*arguments: Any, **options: Any) -> Any:
        return _Warm(open_engine(*arguments, train=core, **options), slots, swept)

    return run_driver(plan, home, swept, opened)


def run_driver(plan: Plan, home: Home, swept: Swept, opened: Callable[..., Any]) -> Any:
    """Run the plan on the engine that `opened` returns. Returns the sweep's report."""

    class Watched(TrackingSync):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            swept.tracking = self

        def close(self, patience: float = 20.0) -> int:
            left = super().close(patience)
            swept.tracked = time.monotonic()
            return left

    folder = home.sweep(plan.name)
    with (
        patch("kdsweep.sweep.driver.open_engine", opened),
        patch("kdsweep.sweep.open_sweep.TrackingSync", Watched),
        folder.locked(),
    ):
        swept.driver = Driver(plan, home, swept)
        return swept.driver.run()
