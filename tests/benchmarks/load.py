"""What the driver costs, with a core that only sleeps."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

from measuring import Row
from null_core import NullCore, Swept, make_plan, read_log, sweep

from kdsweep.core.settings import TrialSettings
from kdsweep.sweep.folders import Home
from kdsweep.sweep.results import open_studies
from kdsweep.sweep.studies import Studies

# --- on Ray ---


def on_slots(
    folder: Path, slots: int, trials: int, seconds: float, evaluations: int = 3
) -> tuple[Swept, list[list[tuple[float, float]]]]:
    """Run null trials on slots. Returns what was seen, and when the trials of each slot ran."""
    plan = make_plan(
        folder,
        f"engine={{type: ray, cpus: {slots}, gpus: 0}}",
        f"trials={trials}",
        "sampler={type: random}",
        "pruner={type: none}",
    )
    log = folder / "log"
    swept = Swept()
    log.mkdir()
    sweep(plan, Home(folder / "home"), NullCore(seconds, evaluations, log), swept, slots)
    found = read_log(log)
    assert sum(map(len, found)) == trials
    return swept, found


def idle_between(found: list[list[tuple[float, float]]]) -> list[float]:
    return [1000 * (after[0] - before[1]) for slot in found for before, after in pairwise(slot)]


def idle_rows(found: list[list[tuple[float, float]]]) -> list[Row]:
    idle = idle_between(found)
    return [
        Row("a slot idle between two trials, median", statistics.median(idle), "ms"),
        Row(
            "a slot idle between two trials, 95th percentile",
            statistics.quantiles(idle, n=20)[-1],
            "ms",
        ),
    ]


def slots(folder: Path, slots: int = 16, trials: int = 1000, seconds: float = 1.0) -> list[Row]:
    swept, found = on_slots(folder, slots, trials, seconds)
    started = min(slot[0][0] for slot in found)
    ended = max(slot[-1][1] for slot in found)
    ideal = seconds * trials / slots
    lasted = statistics.median(end - start for slot in found for start, end in slot)
    return [
        Row(f"{slots} slots are there after", swept.warm - swept.opened, "s"),
        Row("ideal", ideal, "s"),
        Row("from the first trial's begin to the last one's end", ended - started, "s"),
        Row("as a multiple of the ideal", (ended - started) / ideal, "x", at_most=1.05),
        Row("a trial itself, median", lasted, "s"),
        *idle_rows(found),
        Row("the driver's share of a core", 100 * swept.cpu / (swept.ended - swept.warm), "%"),
        Row("after the last trial until MLflow has everything", swept.tracked - ended, "s"),
        Row(swept.busy, ""),
    ]


def turnaround(folder: Path, slots: int = 4, trials: int = 120, seconds: float = 1.0) -> list[Row]:
    swept, found = on_slots(folder, slots, trials, seconds)
    return [
        *idle_rows(found),
        Row("the driver's share of a core", 100 * swept.cpu / (swept.ended - swept.warm), "%"),
        Row(swept.busy, ""),
    ]


# --- in one process ---


@dataclass
class Cost:
    """Seconds of the driver's thread and of the process's CPU, outside the core, for each trial.

    asking: CPU seconds of the driver's thread in the sampler, as part of the others. opening:
    seconds from the start of the driver to its first trial. ending: from the last trial to the
    report. memory: the process's peak until the last trial, and until the report, in MB.
    """

    wall: list[float]
    cpu: list[float]
    asking: list[float]
    opening: float
    ending: float
    memory: tuple[float, float]


def cost_of_trials(folder: Path, sampler: str, before: int, trials: int) -> Cost:
    """What each of `trials` trials costs the driver when `before` trials are done."""
    fill_studies(folder, Home(folder / "home"), before)
    keys = (f"sampler={{type: {sampler}}}", "pruner={type: hyperband}")
    return cost_of_more_trials(folder, before, trials, *keys)


def cost_of_more_trials(
    folder: Path,
    before: int,
    trials: int,
    *assignments: str,
    take_turn: Callable[[], None] = lambda: None,
) -> Cost:
    """What each of `trials` more trials costs the driver of the sweep in this folder.

    MLflow has time to follow, as it has in real trials. take_turn: called before each trial.
    """
    swept = Swept()
    core = NullCore(0.0, 3)
    asking: list[float] = []
    ask = Studies.ask

    def timed(studies: Studies, strategy: str) -> Any:
        start = time.thread_time()
        try:
            return ask(studies, strategy)
        finally:
            asking.append(time.thread_time() - start)

    marks: list[tuple[float, float]] = []
    inside = [0.0, 0.0]
    memory = [0.0]

    def measured(settings: TrialSettings, trial_folder: Path, **options: Any) -> Iterator[Any]:
        wall, cpu = time.perf_counter(), time.thread_time()
        marks.append((wall - inside[0], time.process_time() - inside[1]))
        memory[0] = peak_memory()
        take_turn()
        for evaluation in core(settings, trial_folder, **options):
            swept.wait_for_mlflow()
            inside[0] += time.perf_counter() - wall
            inside[1] += time.thread_time() - cpu
            yield evaluation
            wall, cpu = time.perf_counter(), time.thread_time()
        inside[0] += time.perf_counter() - wall
        inside[1] += time.thread_time() - cpu

    plan = make_plan(folder, "engine={type: inline}", f"trials={before + trials}", *assignments)
    started = time.perf_counter()
    with patch.object(Studies, "ask", timed):
        sweep(plan, Home(folder / "home"), measured, swept)
    ended = time.perf_counter()
    assert len(marks) == trials
    pairs = list(pairwise(marks))
    return Cost(
        [after[0] - before[0] for before, after in pairs],
        [after[1] - before[1] for before, after in pairs],
        asking,
        marks[0][0] - started,
        ended - inside[0] - marks[-1][0],
        (memory[0], peak_memory()),
    )


def peak_memory() -> float:
    """Of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fill_studies(folder: Path, home: Home, trials: int) -> None:
    """Give the study trials as a sweep with a random sampler would, but without their folders."""
    plan = make_plan(
        folder, f"trials={trials}", "sampler={type: random}", "pruner={type: hyperband}"
    )
    studies = open_studies(plan, home, runs=True)
    for number in range(trials):
        trial = studies.ask("finetune")
        # Less than null trials reach, because the best trial needs a folder.
        reached = 0.4 + number * 0.618 % 1 / 10
        for evaluation in (1, 2, 3):
            studies.report(trial, evaluation, reached if evaluation == 3 else 0.4)
        studies.tell(trial, "complete", reached)
        studies.write()


def trial(folder: Path, few: int = 100, many: int = 5000, counted: int = 100) -> list[Row]:
    rows = []
    for sampler in ("random", "tpe"):
        found = {
            at: cost_of_trials(folder / f"{sampler}-{at}", sampler, at - counted // 2, counted)
            for at in (few, many)
        }
        for at, cost in found.items():
            rows.append(
                Row(
                    f"{sampler}, a trial at {at:,}: wall of the driver's thread, median",
                    1000 * statistics.median(cost.wall),
                    "ms",
                )
            )
            rows.append(
                Row(
                    f"{sampler}, a trial at {at:,}: CPU of all threads, mean",
                    1000 * statistics.mean(cost.cpu),
                    "ms",
                    at_most=100 if at == few else None,
                )
            )
        for name in ("wall", "cpu"):
            growth = statistics.median(getattr(found[many], name)) / statistics.median(
                getattr(found[few], name)
            )
            rows.append(
                Row(
                    f"{sampler}, {name} at {many:,} by that at {few:,}, medians",
                    growth,
                    "x",
                    at_most=1.5,
                )
            )
    return rows
