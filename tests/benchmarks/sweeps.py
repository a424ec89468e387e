"""Whole sweeps: how soon they start, how long they take, and how many slots suit CPU cores."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch
from measuring import Row, median, ratios, seconds, take_turns
from ruamel.yaml import YAML

from kdsweep.config import Plan, load
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.selection import prepare_teacher
from kdsweep.core.trial import train
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.errors import Interrupted
from kdsweep.sweep import run
from kdsweep.sweep.engines.slots import cpu_count
from kdsweep.sweep.folders import Home, SweepFolder

SPACE = Path(__file__).parents[2] / "search_spaces" / "sst2.yaml"
STRATEGIES = ("finetune", "distill", "combined")


def kdsweep(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from kdsweep.cli import command_line; command_line()",
        *arguments,
    ]


@dataclass(frozen=True)
class Problem:
    """What is swept over, with assignments for the space.

    `plan`, `run` and `command` take more assignments, for the sweep.
    """

    space: Path
    embedded: bool = False
    assignments: tuple[str, ...] = ()

    def plan(self, *more: str) -> Plan:
        return load(
            self.space,
            embedded=self.embedded,
            assignments=(*self.assignments, "confirm={seeds: 0}", *more),
        )

    def run(self, home: Home, name: str, *more: str) -> object:
        return run(
            self.space,
            embedded=self.embedded,
            home=home.root,
            name=name,
            assignments=(*self.assignments, "confirm={seeds: 0}", *more),
        )

    def command(self, home: Home, name: str, *more: str) -> list[str]:
        """`kdsweep run` as a user's shell starts it."""
        sets = [
            word
            for text in (*self.assignments, "confirm={seeds: 0}", *more)
            for word in ("--set", text)
        ]
        return kdsweep(
            "run",
            str(self.space),
            *(["--embedded"] if self.embedded else []),
            "--home",
            str(home.root),
            "--name",
            name,
            *sets,
        )


def reviews(folder: Path, train: int, validation: int) -> Problem:
    """The embedded sst2 space with three of its strategies, fewer rows, and one epoch."""
    document = YAML(typ="safe").load(SPACE)
    document["strategies"] = {name: document["strategies"][name] for name in STRATEGIES}
    document["embedded"] = {
        key: value
        for key, value in document["embedded"].items()
        if not key.startswith("strategies.") or key.split(".")[1] in STRATEGIES
    }
    path = folder / "sst2.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(document, file)
    sizes = f"task.limit={{train: {train}, validation: {validation}, test: {validation}}}"
    teacher = (
        "teacher.training={epochs: 1, batch_size: 16, evaluations_per_epoch: 1, "
        "learning_rate: 1.5e-4, precision: fp32}"
    )
    training = ("training.epochs=1", "training.evaluations_per_epoch=2", "training.precision=fp32")
    return Problem(path, True, (sizes, *training, teacher))


def with_teacher(folder: Path, problem: Problem) -> tuple[Home, Path]:
    """A home that has nothing but its teacher, and the teacher's folder."""
    plan = problem.plan()
    home = Home(folder / "home")
    return home, prepare_teacher(plan.space.task, plan.space.teachers()[0], home.cache).folder


# --- how soon a sweep starts ---


def start(folder: Path, rounds: int = 3, problem: Problem | None = None) -> list[Row]:
    """A second sweep in a home with teacher, tokens and logits: seconds to its first step.

    From the start of the process to the line that reports the first step.
    """
    problem = problem or reviews(folder, 800, 500)
    home = Home(folder / "home")
    one = ("trials=1", "engine={type: inline}")
    first, _ = _until_first_step(problem.command(home, "first", *one), to_the_end=True)
    found = [_until_first_step(problem.command(home, f"again-{i}", *one)) for i in range(rounds)]
    parts = {
        part: [float(dict(_parts(line)).get(part, 0.0)) for _, line in found]
        for part, _ in _parts(found[0][1])
    }
    help_seconds = [
        seconds(lambda: subprocess.run(kdsweep("--help"), check=True, capture_output=True))
        for _ in range(rounds)
    ]
    return [
        median(
            "from the start of a second sweep's process to its first training step",
            [passed for passed, _ in found],
            "s",
            at_most=8.0,
        ),
        *(median(f"of it: {part}", values, "s") for part, values in parts.items()),
        Row("the same for the first sweep of a home, which trains the teacher", first, "s"),
        median("kdsweep --help", help_seconds, "s", at_most=0.5),
    ]


def _until_first_step(command: list[str], *, to_the_end: bool = False) -> tuple[float, str]:
    """Seconds until the command prints `first step after`, and that line.

    Then it is interrupted, unless `to_the_end`.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("first step after"):
                passed = time.perf_counter() - start
                break
        else:
            raise RuntimeError("no first step: " + "".join(lines))
        if not to_the_end:
            process.send_signal(signal.SIGINT)
        process.communicate()
    # A sweep that is short may have ended meanwhile.
    assert process.returncode in ((0,) if to_the_end else (0, 130)), "".join(lines)
    return passed, line


def _parts(line: str) -> list[tuple[str, str]]:
    return re.findall(r"[:,] ([a-z ]+) ([\d.]+) s", line)


# --- a whole sweep and Trainer with Optuna ---


@dataclass
class Beside:
    """Seconds of each round, and what each pair of trials reached on validation, ours first."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    reached: list[tuple[float, float]] = field(default_factory=list)


def sweep(
    folder: Path,
    train: int = 800,
    validation: int = 100,
    trials: int = 4,
    rounds: int = 3,
    problem: Problem | None = None,
) -> list[Row]:
    """kdsweep runs a sweep of 3 strategies, then Trainer the same trials in the same order.

    Each round has another seed. Validation is an eighth of train, as in the whole data.
    """
    problem = problem or reviews(folder, train, validation)
    home, teacher = with_teacher(folder, problem)
    found = Beside()
    for number in range(rounds):
        run_both(folder, problem, home, teacher, trials, number, found)
    return beside_rows(found, trials)


def run_both(
    folder: Path,
    problem: Problem,
    home: Home,
    teacher: Path,
    trials: int,
    number: int,
    found: Beside,
) -> None:
    from sweep_with_trainer import Loop

    name = f"sweep-{number}"
    chosen = (
        f"trials={trials}",
        f"sampler={{type: tpe, seed: {number}}}",
        "pruner={type: none}",
        "engine={type: inline}",
    )
    found.ours.append(seconds(lambda: problem.run(home, name, *chosen)))
    folders = [TrialFolder(home.sweep(name).trials / trial) for trial in in_order(home.sweep(name))]
    settings = [
        TrialSettings.model_validate_json(one.settings.read_text(encoding="utf-8"))
        for one in folders
    ]
    start = time.perf_counter()
    loop = Loop(folder / f"loop-{number}", settings[0], teacher)
    accuracies = [loop.trial(one) for one in settings]
    found.theirs.append(time.perf_counter() - start)
    for one, accuracy in zip(folders, accuracies, strict=True):
        result = one.read_result()
        assert result is not None and result.best is not None
        found.reached.append((result.best.metrics["validation/accuracy"], accuracy))


def beside_rows(found: Beside, trials: int) -> list[Row]:
    differences = [100 * (ours - theirs) for ours, theirs in found.reached]
    mean = statistics.mean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    ours = 100 * statistics.mean(ours for ours, _ in found.reached)
    theirs = 100 * statistics.mean(theirs for _, theirs in found.reached)
    return [
        median(
            f"{len(STRATEGIES) * trials} trials of {len(STRATEGIES)} strategies: "
            "Trainer and Optuna in a loop by kdsweep",
            ratios(found.theirs, found.ours),
            "x",
            at_least=2.0,
        ),
        median("kdsweep: the whole sweep, MLflow and report included", found.ours, "s"),
        median("Trainer and Optuna", found.theirs, "s"),
        Row("kdsweep: mean validation accuracy", ours, "%"),
        Row("Trainer and Optuna: mean validation accuracy", theirs, "%"),
        Row(f"difference, mean over {len(differences)} trials", mean, "points"),
        Row("its standard error", error, "points"),
        Row(
            "the difference, without its sign, by its standard error",
            abs(mean) / error if error else 0.0,
            "",
            at_most=2.0,
        ),
    ]


def in_order(sweep: SweepFolder) -> list[str]:
    """The names of the trials in the order in which they started."""
    return sorted(
        [trial.name for trial in sweep.started_trials()],
        key=lambda name: TrialFolder(sweep.trials / name).settings.stat().st_mtime_ns,
    )


# --- CPU cores as slots ---


@dataclass(frozen=True)
class Slots:
    """Processes that train at the same time, each with this number of threads."""

    processes: int
    threads: int


@dataclass(frozen=True)
class Steps:
    """Optimizer steps before the timed ones, and the timed ones."""

    warm_up: int
    timed: int


def slots_cpu(
    folder: Path,
    rounds: int = 3,
    steps: Steps = Steps(warm_up=4, timed=20),
    cores: int | None = None,
    trials: int = 4,
    problem: Problem | None = None,
) -> list[Row]:
    """One slot of all cores compared to one slot per core: bare training, then whole sweeps.

    With 0 trials, bare training alone.
    """
    cores = cores or cpu_count()
    problem = problem or reviews(folder, 600, 300)
    home, _ = with_teacher(folder, problem)
    settings = problem.plan("training.evaluations_per_epoch=1").space.settle(
        "finetune", lambda parameter: parameter.domain.low, 0
    )
    # The first training makes the tokens.
    timed_training(settings, folder / "first", home.cache, Steps(steps.warm_up, 1), None)
    arms: dict[str, Callable[[], float]] = {
        "one": lambda: rows_a_second(folder, settings, home.cache, Slots(1, cores), steps),
        "many": lambda: rows_a_second(folder, settings, home.cache, Slots(cores, 1), steps),
    }
    found = take_turns(arms, rounds)
    bare = [
        median(f"one slot of {cores} threads: rows a second", found["one"], "rows/s"),
        median(f"{cores} slots of one thread: rows a second in all", found["many"], "rows/s"),
        median("many by one", ratios(found["many"], found["one"]), "x"),
    ]
    return bare + (whole_sweeps(problem, home, cores, trials, rounds) if trials else [])


def whole_sweeps(problem: Problem, home: Home, cores: int, trials: int, rounds: int) -> list[Row]:
    engines = {
        "inline": "engine={type: inline}",
        "ray": f"engine={{type: ray, gpus_per_trial: 0, cpus_per_trial: 1, cpus: {cores}}}",
    }
    arms = {
        name: lambda engine=engine: _whole_sweep(problem, home, engine, trials)
        for name, engine in engines.items()
    }
    found = take_turns(arms, rounds)
    return [
        median(f"a sweep of {3 * trials} trials, inline, by `kdsweep run`", found["inline"], "s"),
        median("the same on Ray, a slot a core", found["ray"], "s"),
        median("inline by Ray", ratios(found["inline"], found["ray"]), "x"),
    ]


def rows_a_second(
    folder: Path, settings: TrialSettings, cache: Path, slots: Slots, steps: Steps
) -> float:
    """Rows per second of all processes together, each training a student of its own."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(slots.processes)
    queue = context.Queue()
    folders = [folder / f"slot-{i}-{time.monotonic_ns()}" for i in range(slots.processes)]
    children = [
        context.Process(
            target=_train_beside, args=(settings, one, cache, slots.threads, steps, barrier, queue)
        )
        for one in folders
    ]
    for child in children:
        child.start()
    spent = [queue.get(timeout=600) for _ in children]
    for child in children:
        child.join()
    return sum(steps.timed * settings.training.batch_size / one for one in spent)


def _train_beside(
    settings: TrialSettings,
    folder: Path,
    cache: Path,
    threads: int,
    steps: Steps,
    barrier: Barrier,
    queue: Queue[float],
) -> None:
    torch.set_num_threads(threads)
    queue.put(timed_training(settings, folder, cache, steps, barrier))


def timed_training(
    settings: TrialSettings, folder: Path, cache: Path, steps: Steps, barrier: Barrier | None
) -> float:
    """The seconds of the timed steps. All processes start them together; then the trial stops."""
    marks: list[float] = []
    last = steps.warm_up + steps.timed

    def on_step(step: int, total_steps: int) -> bool:
        if step == steps.warm_up and barrier is not None:
            barrier.wait()
        if step in (steps.warm_up, last):
            marks.append(time.perf_counter())
        return step == last

    with contextlib.suppress(Interrupted):
        for _ in train(settings, folder, cache=cache, on_step=on_step):
            raise AssertionError("it was evaluated before its steps were done")
    return marks[1] - marks[0]


def _whole_sweep(problem: Problem, home: Home, engine: str, trials: int) -> float:
    command = problem.command(
        home, f"whole-{time.monotonic_ns()}", f"trials={trials}", "pruner={type: none}", engine
    )
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))
