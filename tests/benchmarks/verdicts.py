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
            labels, predicted = simulate(draw, abilities, self.seeds, self.rows, self.share)
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


def false_pairs(world: World, sweeps: int, seed: int = 0) -> float:
    """The share of sweeps with a false "better" or a false "equivalent"."""
    true = world.true

    def is_false(comparison: Comparison) -> bool:
        for pair in comparison.pairs:
            difference = true[pair.a] - true[pair.b]
            if pair.state == "better" and (pair.difference or 0.0) * difference <= 0:
                return True
            if pair.state == "equivalent" and abs(difference) >= world.margin - 1e-9:
                return True
        return False

    return _share(is_false, world.sweeps(sweeps, seed))


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
    equal, apart = (0.9,) * 4, (0.9, 0.9, 0.89, 0.89)
    rows = []
    for name, variation in VARIATIONS.items():
        for what, scores in (("equal", equal), ("one margin apart", apart)):
            world = World(scores, (variation,), seeds=5, rows=872)
            rows.append(
                _rate(f"false about pairs: 4 strategies {what}, {name}", false_pairs(world, sweeps))
            )
    mixed = (SEEDS_MATTER, ROWS_MATTER, ALIKE)
    for number, seeds, test_rows in (
        (2, 3, 200),
        (3, 3, 2000),
        (6, 5, 872),
        (4, 10, 5000),
        (4, 2, 872),
    ):
        half = number // 2
        for what, scores in (
            ("equal", (0.9,) * number),
            ("one margin apart", (0.9,) * half + (0.89,) * (number - half)),
        ):
            world = World(scores, mixed, seeds=seeds, rows=test_rows)
            about = (
                f"{number} strategies {what}, unequal variances, {seeds} seeds, {test_rows} rows"
            )
            rows.append(_rate(f"false about pairs: {about}", false_pairs(world, sweeps)))
    for metric in ("f1", "matthews"):
        world = World((0.8,) * 4, (BOTH,), seeds=5, rows=500, metric=metric, share=0.3)
        rows.append(_rate(f"false about pairs: 4 equal by {metric}", false_pairs(world, sweeps)))
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


def _rate(what: str, share: float, sweeps: int = 1000) -> Row:
    """At most 5%, and two standard errors of such a share."""
    return Row(what, share, at_most=0.05 + _error(sweeps))


def _error(sweeps: int) -> float:
    return 2 * float(np.sqrt(0.05 * 0.95 / sweeps))
