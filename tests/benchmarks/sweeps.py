"""Whole sweeps: how soon they begin, how long they take beside Trainer and Optuna in a loop, and how CPU cores are best cut into slots."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """What is swept over. The assignments are those of the space; `plan`, `run` and `command` take more, of the sweep."""

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
        """`kdsweep run` as a user's shell begins it."""
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
    """search_spaces/sst2.yaml with its embedded sections, three of its strategies, so many rows, and one epoch."""
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
    teacher = "teacher.training={epochs: 1, batch_size: 16, evaluations_per_epoch: 1, learning_rate: 1.5e-4}"
    return Problem(
        path, True, (sizes, "training.epochs=1", "training.evaluations_per_epoch=2", teacher)
    )


def with_teacher(folder: Path, problem: Problem) -> tuple[Home, Path]:
    """A home whose teacher is made: nothing else of it is. And the teacher's folder."""
    plan, home = problem.plan(), Home(folder / "home")
    return home, prepare_teacher(plan.space.task, plan.space.teachers()[0], home.cache).folder


# --- how soon a sweep begins -----------------------------------------------------------------------------------------


def start(folder: Path, rounds: int = 3, problem: Problem | None = None) -> list[Row]:
    """A second sweep of a home that has teacher, tokens and logits: from the process's start to the line that tells of its first step."""
    problem, home = problem or reviews(folder, 800, 500), Home(folder / "home")
    one = ("trials=1", "engine={type: inline}")
    first, _ = _until_first_step(problem.command(home, "first", *one), to_the_end=True)
    found = [_until_first_step(problem.command(home, f"again-{i}", *one)) for i in range(rounds)]
    parts = {
        part: [float(dict(_parts(line)).get(part, 0.0)) for _, line in found]
        for part, _ in _parts(found[0][1])
    }
    helped = [
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
        median("kdsweep --help", helped, "s", at_most=0.5),
    ]


def _until_first_step(command: list[str], *, to_the_end: bool = False) -> tuple[float, str]:
    """Seconds until the command says `first step after`, and that line; then it is interrupted, unless it may run to its end."""
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("first step after"):
                passed = time.perf_counter() - began
                break
        else:
            raise RuntimeError("no first step: " + "".join(said))
        if not to_the_end:
            process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == (0 if to_the_end else 130), "".join(said)
    return passed, line


def _parts(line: str) -> list[tuple[str, str]]:
    return re.findall(r"[:,] ([a-z ]+) ([\d.]+) s", line)


# --- a whole sweep beside Trainer and Optuna -------------------------------------------------------------------------


def sweep(
    folder: Path,
    train: int = 800,
    validation: int = 100,
    trials: int = 4,
    rounds: int = 3,
    problem: Problem | None = None,
) -> list[Row]:
    """3 strategies, so many trials each: kdsweep runs the sweep, then Trainer the same trials in the same order; again with other seeds.

    Validation is an eighth of train, as in the whole data.
    """
    from sweep_with_trainer import Loop

    problem = problem or reviews(folder, train, validation)
    home, teacher = with_teacher(folder, problem)
    ours, theirs = [], []
    reached: list[tuple[float, float]] = []
    for number in range(rounds):
        name, chosen = (
            f"sweep-{number}",
            (
                f"trials={trials}",
                f"sampler={{type: tpe, seed: {number}}}",
                "pruner={type: none}",
                "engine={type: inline}",
            ),
        )
        ours.append(seconds(lambda name=name, chosen=chosen: problem.run(home, name, *chosen)))
        swept = [
            TrialFolder(home.sweep(name).trials / trial) for trial in in_order(home.sweep(name))
        ]
        settings = [
            TrialSettings.model_validate_json(place.settings.read_text(encoding="utf-8"))
            for place in swept
        ]
        began = time.perf_counter()
        loop = Loop(folder / f"loop-{number}", settings[0], teacher)
        found = [loop.trial(one) for one in settings]
        theirs.append(time.perf_counter() - began)
        for place, other in zip(swept, found, strict=True):
            result = place.read_result()
            assert result is not None and result.best is not None
            reached.append((result.best.metrics["validation/accuracy"], other))
    differences = [100 * (one - other) for one, other in reached]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return [
        median(
            f"{len(STRATEGIES) * trials} trials of {len(STRATEGIES)} strategies: Trainer and Optuna in a loop by kdsweep",
            ratios(theirs, ours),
            "x",
            at_least=2.0,
        ),
        median("kdsweep: the whole sweep, MLflow and report included", ours, "s"),
        median("Trainer and Optuna", theirs, "s"),
        Row(
            "kdsweep: mean validation accuracy",
            100 * statistics.mean(one for one, _ in reached),
            "%",
        ),
        Row(
            "Trainer and Optuna: mean validation accuracy",
            100 * statistics.mean(other for _, other in reached),
            "%",
        ),
        Row(f"difference, mean over {len(reached)} trials", statistics.mean(differences), "points"),
        Row("its standard error", error, "points"),
        Row(
            "the difference, without its sign, by its standard error",
            abs(statistics.mean(differences)) / error if error else 0.0,
            "",
            at_most=2.0,
        ),
    ]


def in_order(sweep: SweepFolder) -> list[str]:
    """The trials' names as they were begun."""
    return sorted(
        [trial.name for trial in sweep.started_trials()],
        key=lambda name: TrialFolder(sweep.trials / name).settings.stat().st_mtime_ns,
    )


# --- CPU cores as slots ----------------------------------------------------------------------------------------------


def slots_cpu(
    folder: Path,
    rounds: int = 3,
    steps: int = 20,
    warm_up: int = 4,
    cores: int | None = None,
    trials: int = 4,
    problem: Problem | None = None,
) -> list[Row]:
    """One slot of all cores against a slot a core: rows a second of bare training, then whole sweeps where there are trials to run."""
    cores, problem = cores or cpu_count(), problem or reviews(folder, 600, 300)
    home, _ = with_teacher(folder, problem)
    settings = problem.plan("training.evaluations_per_epoch=1").space.settle(
        "finetune", lambda parameter: parameter.domain.low, 0
    )  # type: ignore[union-attr]
    _until(settings, folder / "first", home.cache, None, warm_up, 1)  # makes the tokens
    arms: dict[str, Callable[[], float]] = {
        "one": lambda: rows_a_second(folder, settings, home.cache, 1, cores, warm_up, steps),
        "many": lambda: rows_a_second(folder, settings, home.cache, cores, 1, warm_up, steps),
    }
    found = take_turns(arms, rounds)
    bare = [
        median(f"one slot of {cores} threads: rows a second", found["one"], "rows/s"),
        median(f"{cores} slots of one thread: rows a second in all", found["many"], "rows/s"),
        median("many by one", ratios(found["many"], found["one"]), "x"),
    ]
    if not trials:
        return bare
    engines = {
        "inline": "engine={type: inline}",
        "ray": f"engine={{type: ray, gpus_per_trial: 0, cpus_per_trial: 1, cpus: {cores}}}",
    }
    whole = take_turns(
        {
            name: lambda engine=engine: _whole_sweep(problem, home, engine, trials)
            for name, engine in engines.items()
        },
        rounds,
    )
    return [
        *bare,
        median(f"a sweep of {3 * trials} trials, inline, by `kdsweep run`", whole["inline"], "s"),
        median("the same on Ray, a slot a core", whole["ray"], "s"),
        median("inline by Ray", ratios(whole["inline"], whole["ray"]), "x"),
    ]


def rows_a_second(
    folder: Path,
    settings: TrialSettings,
    cache: Path,
    processes: int,
    threads: int,
    warm_up: int,
    steps: int,
) -> float:
    """Of all processes in all, each training its own student with so many threads, while all of them do."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(processes), context.Queue()
    arguments = [
        (
            settings,
            folder / f"slot-{i}-{time.monotonic_ns()}",
            cache,
            barrier,
            queue,
            threads,
            warm_up,
            steps,
        )
        for i in range(processes)
    ]
    children = [context.Process(target=_train_beside, args=one) for one in arguments]
    for child in children:
        child.start()
    spent = [queue.get(timeout=600) for _ in children]
    for child in children:
        child.join()
    return sum(steps * settings.training.batch_size / one for one in spent)


def _train_beside(
    settings: TrialSettings,
    folder: Path,
    cache: Path,
    barrier: Any,
    queue: Any,
    threads: int,
    warm_up: int,
    steps: int,
) -> None:
    torch.set_num_threads(threads)
    queue.put(_until(settings, folder, cache, barrier, warm_up, steps))


def _until(
    settings: TrialSettings, folder: Path, cache: Path, barrier: Any, warm_up: int, steps: int
) -> float:
    """The seconds of `steps` optimizer steps after `warm_up` others, which all processes end together; the trial goes no further."""
    marks: list[float] = []

    def on_step(step: int, total_steps: int) -> bool:
        if step == warm_up and barrier is not None:
            barrier.wait()
        if step in (warm_up, warm_up + steps):
            marks.append(time.perf_counter())
        return step == warm_up + steps

    with contextlib.suppress(Interrupted):
        for _ in train(settings, folder, cache=cache, on_step=on_step):
            raise AssertionError("it was evaluated before its steps were done")
    return marks[1] - marks[0]


def _whole_sweep(problem: Problem, home: Home, engine: str, trials: int) -> float:
    command = problem.command(
        home, f"whole-{time.monotonic_ns()}", f"trials={trials}", "pruner={type: none}", engine
    )
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))
