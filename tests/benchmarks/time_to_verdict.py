"""How long it takes until it is known which strategy is best: kdsweep, and Trainer with Optuna.

The rival trains the same trials to their end, then the best of each strategy with five seeds more,
and is judged by the same statistics. Both have the teacher before they begin.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import Row, seconds

from kdsweep.compare.findings import Pair
from kdsweep.compare.statistics import compare
from kdsweep.core.device import best_precision, bf16_instructions, pick_device
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import TrialFolder, TrialResult
from kdsweep.report.model import Report
from kdsweep.sweep.folders import SweepFolder
from kdsweep.trial_id import TrialId
from sweeps import Problem, reviews, with_teacher

SEEDS = 5
TIMES_FASTER = {"fp32": 4.0, "bf16": 6.0}


@dataclass(frozen=True)
class Sizes:
    """held_out: rows of validation, and of test. trials: of each strategy. most: seeds of each."""

    train: int = 600
    held_out: int = 400
    trials: int = 8
    most: int = 8


@dataclass(frozen=True)
class Known:
    """What one of the two knows at the end, after how many seconds.

    a_trial: seconds of a trial that both trained to its end, on average. leaders: the best
    strategy, and those that aren't shown to be worse.
    """

    seconds: float
    a_trial: float
    leaders: str


def verdict(
    folder: Path,
    sizes: Sizes | None = None,
    problem: Problem | None = None,
    precisions: Sequence[str] = (),
) -> list[Row]:
    """precisions: fp32, and bf16 where this machine has instructions for it, unless given."""
    sizes = sizes or Sizes()
    problem = problem or reviews(folder, sizes.train, sizes.held_out)
    rows = [Row("instructions for bf16", bf16_instructions() or "none")]
    for precision in precisions or sorted({"fp32", best_precision(pick_device())}, reverse=True):
        rows += _in(precision, folder, problem, sizes)
    return rows


def _in(precision: str, folder: Path, problem: Problem, sizes: Sizes) -> list[Row]:
    home, teacher = with_teacher(folder, problem)
    name = f"verdict-{precision}"
    chosen = (
        f"training.precision={precision}",
        f"trials={sizes.trials}",
        f"confirm={{seeds: auto, most: {sizes.most}, finalists: 1}}",
        "engine={type: inline}",
    )
    spent = seconds(lambda: problem.run(home, name, *chosen))
    sweep = home.sweep(name)
    report = Report.read(sweep.report)
    settings, results = _searched(sweep)
    complete = [one for one, result in results.items() if result.state == "complete"]
    reached = {name: one.reached or 0.0 for name, one in report.strategies.items()}
    a_trial = statistics.mean(results[one].seconds for one in complete)
    ours = Known(spent, a_trial, _leaders(report.pairs, reached))
    theirs = _rival(folder / f"rival-{precision}", settings, complete, teacher)
    runs = sum(one.confirm.seeds for one in report.strategies.values() if one.confirm)
    trained = sum(result.steps for result in results.values())
    in_full = _steps_in_full(settings, results)
    return [
        Row(
            f"{precision}: Trainer and Optuna's time to the verdict by kdsweep's",
            theirs.seconds / ours.seconds,
            "x",
            at_least=TIMES_FASTER[precision],
        ),
        Row(f"{precision}: kdsweep, MLflow and report included", ours.seconds, "s"),
        Row(f"{precision}: Trainer and Optuna", theirs.seconds, "s"),
        Row(f"{precision}: of it, a trial", theirs.a_trial / ours.a_trial, "x"),
        Row(f"{precision}: of it, the search's steps without pruning", in_full / trained, "x"),
        Row(
            f"{precision}: of it, {SEEDS} seeds for each strategy by {runs} in all",
            SEEDS * len(report.strategies) / max(1, runs),
            "x",
        ),
        Row(f"{precision}: not shown to be worse than the best, kdsweep", ours.leaders),
        Row(f"{precision}: the same, Trainer and Optuna", theirs.leaders),
    ]


def _searched(
    sweep: SweepFolder,
) -> tuple[dict[TrialId, TrialSettings], dict[TrialId, TrialResult]]:
    """The settings and the results of the search's trials."""
    settings, results = {}, {}
    for one in sweep.started_trials():
        files = TrialFolder(sweep.trials / one.name)
        if one.phase == "search" and (result := files.read_result()) is not None:
            settings[one], results[one] = files.read_settings(), result
    return settings, results


def _steps_in_full(
    settings: Mapping[TrialId, TrialSettings], results: Mapping[TrialId, TrialResult]
) -> float:
    """Optimizer steps of all trials, had none been stopped."""
    an_epoch = {
        settings[one].training.batch_size: result.steps / settings[one].training.epochs
        for one, result in results.items()
        if result.state == "complete"
    }
    return sum(an_epoch[one.training.batch_size] * one.training.epochs for one in settings.values())


def _rival(
    folder: Path,
    settings: Mapping[TrialId, TrialSettings],
    timed: Sequence[TrialId],
    teacher: Path,
) -> Known:
    """timed: the trials by which the time of one is compared."""
    from sweep_with_trainer import Loop

    start = time.perf_counter()
    loop = Loop(folder, next(iter(settings.values())), teacher)
    reached, spent = {}, {}
    for one, of_it in settings.items():
        began = time.perf_counter()
        reached[one] = loop.trial(of_it)
        spent[one] = time.perf_counter() - began
    predicted: dict[str, dict[int, np.ndarray]] = {}
    for strategy in dict.fromkeys(one.strategy for one in settings):
        mine = [one for one in settings if one.strategy == strategy]
        best = settings[max(mine, key=lambda one: reached[one])]
        predicted[strategy] = {
            seed: loop.test_predictions(best, strategy, 1000 + seed) for seed in range(SEEDS)
        }
    labels = np.asarray(loop.data.splits["test"].labels)
    found = compare("accuracy", labels, predicted)
    seconds = time.perf_counter() - start
    means = {name: one.value for name, one in found.means.items()}
    a_trial = statistics.mean(spent[one] for one in timed)
    return Known(seconds, a_trial, _leaders(found.pairs, means))


def _leaders(pairs: Sequence[Pair], reached: Mapping[str, float]) -> str:
    best = max(reached, key=lambda name: reached[name])
    worse = {
        name
        for pair in pairs
        if pair.state == "better" and best in (pair.a, pair.b)
        for name in (pair.a, pair.b)
    }
    return ", ".join(sorted({best} | (set(reached) - worse)))
