"""How often what kdsweep says about the test split is false, by simulation.

Students of known ability are drawn anew, with fresh test rows, for each simulated sweep. A family
of statements may have a false one in at most 5% of sweeps.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from measuring import Row

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated_students import Variation, ability_for, simulate

from kdsweep.compare.findings import Comparison
from kdsweep.compare.statistics import compare

DRAWS = 200
ROWS_MATTER = Variation(0.02, 1.0, 0.4)
SEEDS_MATTER = Variation(0.15, 0.5, 0.1)
BOTH = Variation(0.06, 1.0, 0.3)
ALIKE = Variation(0.01, 1.0, 0.3, noise=0.2)
VARIATIONS = {"rows": ROWS_MATTER, "seeds": SEEDS_MATTER, "both": BOTH, "alike": ALIKE}


@dataclass(frozen=True)
class World:
    """Strategies whose true scores are known. scores: in the metric's own unit."""

    scores: tuple[float, ...]
    variations: tuple[Variation, ...]
    seeds: int
    rows: int
    margin: float = 0.01
    metric: str = "accuracy"
    share: float = 0.5

    @property
    def true(self) -> dict[str, float]:
        return {f"s{number}": score for number, score in enumerate(self.scores)}

    def sweeps(self, number: int, seed: int, teacher: float | None = None) -> Iterator[Comparison]:
        """Simulated sweeps. teacher: its true score, on rows as they are for the students."""
        draw = np.random.default_rng(seed)
        variations = itertools.cycle(self.variations)
        abilities = {
            name: (ability_for(self.metric, score, one, self.share), one)
            for (name, score), one in zip(self.true.items(), variations, strict=False)
        }
        if teacher is not None:
            fixed = Variation(0.0, 1.0, 0.3)
            abilities["teacher"] = (ability_for(self.metric, teacher, fixed, self.share), fixed)
        for sweep in range(number):
            labels, predicted = simulate(
                draw, abilities, self.seeds, self.rows, self.share, self.metric
            )
            of_teacher = predicted.pop("teacher", None)
            yield compare(
                self.metric,
                labels,
                predicted,
                [of_teacher[0]] if of_teacher else [],
                margin=self.margin,
                draws=DRAWS,
                seed=sweep,
            )


@dataclass(frozen=True)
class Pairs:
    """What is said about pairs. false, covered: shares of sweeps.

    false: with a false "better" or "equivalent". covered: all intervals are right. width: the
    median one, in points.
    """

    false: float
    covered: float
    width: float


def pairs_of(world: World, sweeps: int, seed: int = 0) -> Pairs:
    true = world.true
    false, covered, widths = 0, 0, []
    for comparison in world.sweeps(sweeps, seed):
        is_false, covers = False, True
        for pair in comparison.pairs:
            difference = true[pair.a] - true[pair.b]
            if pair.state == "better":
                is_false |= (pair.difference or 0.0) * difference <= 0
            if pair.state == "equivalent":
                is_false |= abs(difference) >= world.margin - 1e-9
            assert pair.ci95 is not None
            low, high = pair.ci95
            covers &= low <= difference <= high
            widths.append(100 * (high - low))
        false += is_false
        covered += covers
    return Pairs(false / sweeps, covered / sweeps, float(np.median(widths)))


def false_pairs(world: World, sweeps: int, seed: int = 0) -> float:
    """The share of sweeps with a false "better" or a false "equivalent"."""
    return pairs_of(world, sweeps, seed).false


def false_about_teacher(world: World, sweeps: int, seed: int = 0) -> tuple[float, float]:
    """The shares of sweeps with a false "above" and with a false "below" the teacher.

    The teacher's true score is the mean of the first strategy.
    """
    teacher = world.scores[0]
    states = [
        {
            one.state
            for name, one in (found.against_teacher or {}).items()
            if abs(world.true[name] - teacher) < 1e-9
        }
        for found in world.sweeps(sweeps, seed, teacher)
    ]
    above, below = (np.mean([side in one for one in states]) for side in ("above", "below"))
    return float(above), float(below)


def covered(world: World, sweeps: int, seed: int = 0) -> float:
    """The share of sweeps in which the interval of the strategy that looks best is right."""

    def covers(comparison: Comparison) -> bool:
        top = max(comparison.means, key=lambda name: comparison.means[name].value)
        found = comparison.means[top]
        assert found.low is not None
        assert found.high is not None
        return found.low <= world.true[top] <= found.high

    return _share(covers, world.sweeps(sweeps, seed))


def _share(holds: Callable[[Comparison], bool], sweeps: Iterator[Comparison]) -> float:
    return float(np.mean([holds(one) for one in sweeps]))


def power_of_needed_seeds(world: World, sweeps: int) -> tuple[int, float]:
    """(the median number of seeds that are said to be needed, how often they show the difference)

    The first strategy is better than each other one by the margin.
    """
    needed = [
        pair.seeds_needed
        for comparison in world.sweeps(sweeps, seed=1)
        for pair in comparison.pairs
        if pair.a == "s0" and pair.seeds_needed
    ]
    seeds = int(np.median(needed))
    shown = [
        pair.state == "better"
        for comparison in replace(world, seeds=seeds).sweeps(sweeps, seed=2)
        for pair in comparison.pairs
        if pair.a == "s0"
    ]
    return seeds, float(np.mean(shown))


# --- the measurement -----------------------------------------------------------------------------


def verdicts(folder: Path, sweeps: int = 1000) -> list[Row]:
    """Every rate, with its target. folder: unused."""
    rows = []
    for what, world in _worlds():
        for name, scores in (
            ("equal", (max(world.scores),) * len(world.scores)),
            ("one margin apart", world.scores),
        ):
            found = pairs_of(replace(world, scores=scores), sweeps)
            about = f"{what}, {name}"
            rows.append(_rate(f"false about pairs: {about}", found.false))
            least = 0.95 - _error(sweeps)
            rows.append(Row(f"intervals of pairs cover: {about}", found.covered, at_least=least))
            rows.append(Row(f"median width of them: {about}", found.width, "points"))
    equal = (0.9,) * 4
    for name, variation in VARIATIONS.items():
        above, below = false_about_teacher(World(equal, (variation,), 5, 872), sweeps)
        rows.append(_rate(f"false 'above the teacher': 4 strategies, {name}", above))
        rows.append(_rate(f"false 'below the teacher': 4 strategies, {name}", below))
    for number, score, test_rows, seeds in itertools.chain(
        itertools.product((1,), (0.9, 0.97, 0.99), (100, 200, 2000), (3, 5)),
        [(4, 0.9, 872, 3), (4, 0.97, 200, 5), (6, 0.9, 872, 5)],
    ):
        share = covered(World((score,) * number, (ALIKE,), seeds, test_rows), sweeps)
        about = f"{number} strategies at {score}, {seeds} seeds, {test_rows} rows"
        least = 0.95 - _error(sweeps)
        rows.append(Row(f"interval of the best covers: {about}", share, at_least=least))
    for number in (2, 4):
        world = World((0.9, *(0.89,) * (number - 1)), (Variation(0.08, 0.8, 0.1),), 5, 5000)
        seeds, share = power_of_needed_seeds(world, max(10, sweeps // 10))
        about = f"{number} strategies, {seeds} seeds said to be needed"
        rows.append(Row(f"a difference of the margin is shown: {about}", share, at_least=0.7))
    return rows


def _worlds() -> Iterator[tuple[str, World]]:
    """Half of the strategies are a margin below the others."""

    def world(
        strategies: int,
        score: float,
        variations: tuple[Variation, ...],
        seeds: int,
        rows: int,
        metric: str = "accuracy",
    ) -> World:
        half = strategies // 2
        scores = (score,) * half + (score - 0.01,) * (strategies - half)
        share = 0.5 if metric == "accuracy" else 0.3
        return World(scores, variations, seeds, rows, metric=metric, share=share)

    for name, variation in VARIATIONS.items():
        yield f"4 strategies, 5 seeds, 872 rows, {name}", world(4, 0.9, (variation,), 5, 872)
    mixed = (SEEDS_MATTER, ROWS_MATTER, ALIKE)
    for number, score, seeds, rows, variations in (
        (2, 0.9, 3, 200, mixed),
        (2, 0.97, 5, 200, mixed),
        (3, 0.99, 3, 872, mixed),
        (3, 0.9, 3, 2000, mixed),
        (4, 0.9, 3, 872, (SEEDS_MATTER,)),
        (4, 0.95, 3, 872, (BOTH,)),
        (6, 0.97, 3, 872, (ALIKE,)),
        (6, 0.9, 5, 872, mixed),
        (2, 0.95, 3, 5000, mixed),
        (2, 0.99, 3, 2000, (ALIKE,)),
        (4, 0.9, 10, 5000, mixed),
        (4, 0.9, 2, 872, mixed),
    ):
        what = f"{number} strategies at {score}, {seeds} seeds, {rows} rows"
        yield what, world(number, score, variations, seeds, rows)
    for metric, score, seeds, rows in (
        ("f1", 0.8, 5, 500),
        ("f1_macro", 0.8, 3, 500),
        ("f1_macro", 0.93, 5, 500),
        ("matthews", 0.8, 3, 500),
        ("pearson", 0.85, 3, 300),
        ("pearson", 0.95, 5, 1500),
    ):
        what = f"4 strategies by {metric} at {score}, {seeds} seeds, {rows} rows"
        yield what, world(4, score, mixed, seeds, rows, metric)


def _rate(what: str, share: float, sweeps: int = 1000) -> Row:
    """At most 5%, and two standard errors of such a share."""
    return Row(what, share, at_most=0.05 + _error(sweeps))


def _error(sweeps: int) -> float:
    return 2 * float(np.sqrt(0.05 * 0.95 / sweeps))
