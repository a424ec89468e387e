"""Sweeps that add seeds until they are certain, drawn from the variance model.

A score is the strategy's true one, plus what the test rows make of the strategy (the same at each
look), plus what each seed adds. `kdsweep.compare.looks` follows them to their end. Two published
procedures follow the same scores. Both see scores only and say nothing about test rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from kdsweep.compare.families import FALSE_CLAIMS
from kdsweep.compare.looks import LookRules, follow
from kdsweep.compare.spread import Spread
from kdsweep.compare.verdicts import Compared

# Enough rows differ that a sign test is never the reason why nothing is shown.
MANY_ROWS_APART = 60
# In the always-valid t: larger is for smaller effects.
MIXTURE = 0.1
PERMUTATIONS = 2000


@dataclass(frozen=True)
class Scores:
    """Strategies with known scores. All values are in the metric's own unit.

    true: by strategy, the first one is the best. of_seeds: standard deviation between seeds, of
    each in turn. of_rows: of what the rows make of one strategy.
    """

    true: tuple[float, ...]
    of_seeds: tuple[float, ...]
    of_rows: float
    rows: int = 2000

    @property
    def names(self) -> list[str]:
        return [f"s{i}" for i in range(len(self.true))]

    def draw(self, generator: np.random.Generator, most: int) -> dict[str, np.ndarray]:
        """The scores of a strategy's seeds [most]."""
        number = len(self.true)
        by_rows = generator.normal(0, self.of_rows, number)
        seeds = generator.normal(0, 1, (number, most))
        spread = [self.of_seeds[i % len(self.of_seeds)] for i in range(number)]
        return {
            name: self.true[i] + by_rows[i] + spread[i] * seeds[i]
            for i, name in enumerate(self.names)
        }


@dataclass(frozen=True)
class End:
    """How a sweep ended. is_false: with a false statement about a pair.

    states: of all pairs. beaten: how many strategies are. covers: all intervals are right.
    """

    trainings: int
    is_false: bool
    states: tuple[str, ...]
    beaten: int
    covers: bool = True


def in_looks(
    world: Scores, scores: Mapping[str, np.ndarray], rules: LookRules, of_rows: float = 1.0
) -> End:
    """By `kdsweep.compare.looks`. of_rows: the rows' estimated variance over the real one."""

    def compared(a: str, b: str, seeds: int) -> Compared:
        differences = scores[a][:seeds] - scores[b][:seeds]
        variance = max(2 * world.of_rows**2 * of_rows, 1 / (world.rows + 1) ** 2)
        spread = Spread(
            float(differences.mean()),
            float(differences.var(ddof=1)),
            variance,
            len(differences),
            world.rows,
            1 / (world.rows + 1),
        )
        return Compared(differences, MANY_ROWS_APART, spread)

    found = follow(dict.fromkeys(scores, rules.most), compared, rules, 1.0)
    true = dict(zip(world.names, world.true, strict=True))
    is_false, covers = False, True
    for pair in found.pairs:
        difference = true[pair.a] - true[pair.b]
        if pair.state == "better":
            is_false |= (pair.difference or 0.0) * difference <= 0
        if pair.state == "equivalent":
            is_false |= abs(difference) >= rules.margin - 1e-9
        assert pair.ci95 is not None
        covers &= pair.ci95[0] <= difference <= pair.ci95[1]
    beaten = {pair.other(pair.better) for pair in found.pairs if pair.better}
    states = tuple(pair.state or "" for pair in found.pairs)
    return End(sum(found.judged.values()), is_false, states, len(beaten), covers)


# --- AdaStop (Mathieu et al. 2023, arXiv 2306.10882) ---------------------------------------------


def by_adastop(
    world: Scores, scores: Mapping[str, np.ndarray], looks: tuple[int, ...], seed: int
) -> End:
    """Permutations of two strategies' seeds within each batch; the largest pair counts.

    After each look, a part 1 / (number of looks) of the 5% may be spent. A strategy in an undecided
    pair gets the next batch; as here, one that is beaten gets none.
    """
    draw = np.random.default_rng(seed)
    left = list(combinations(world.names, 2))
    beaten: set[str] = set()
    shown: list[tuple[str, str]] = []
    judged = dict.fromkeys(world.names, 0)
    sums = {names: np.zeros(PERMUTATIONS + 1) for names in left}
    over = np.zeros(PERMUTATIONS + 1, bool)
    over_at = 0
    for number, (begin, end) in enumerate(zip((0, *looks), looks, strict=False), 1):
        left = [names for names in left if not beaten & set(names)]
        if not left:
            break
        judged |= {name: end for names in left for name in names}
        order = np.argsort(draw.random((PERMUTATIONS, 2 * (end - begin))), axis=1)
        signs = np.where(order < end - begin, 1.0, -1.0)
        # The first one is what was seen.
        signs = np.vstack([np.repeat([1.0, -1.0], end - begin), signs])
        for a, b in left:
            sums[a, b] += signs @ np.concatenate([scores[a][begin:end], scores[b][begin:end]])
        allowed = int(FALSE_CLAIMS * number / len(looks) * (PERMUTATIONS + 1))
        while left:
            largest = np.max([np.abs(sums[names]) for names in left], axis=0)
            bound = _bound(largest[~over], allowed - over_at)
            top = max(left, key=lambda names: abs(sums[names][0]))
            if abs(sums[top][0]) <= bound:
                break
            shown.append(top if sums[top][0] > 0 else top[::-1])
            beaten.add(shown[-1][1])
            left.remove(top)
        if left:
            over |= largest > bound
            over_at = int(over.sum())
    return _end(world, judged, shown, beaten)


def _bound(sizes: np.ndarray, crossings: int) -> float:
    """The smallest value that at most so many of the sizes are above."""
    if crossings <= 0:
        return math.inf
    return float(np.sort(sizes)[::-1][min(crossings, len(sizes) - 1)])


# --- always-valid t (Lindon et al. 2022, arXiv 2210.08589) ---------------------------------------


def by_always_valid_t(
    world: Scores, scores: Mapping[str, np.ndarray], looks: tuple[int, ...]
) -> End:
    """A mixture of t statistics, valid at any time; Bonferroni over pairs."""
    left = list(combinations(world.names, 2))
    level = FALSE_CLAIMS / len(left)
    beaten: set[str] = set()
    shown: list[tuple[str, str]] = []
    judged = dict.fromkeys(world.names, 0)
    for k in looks:
        left = [names for names in left if not beaten & set(names)]
        if not left:
            break
        judged |= {name: k for names in left for name in names}
        for a, b in list(left):
            differences = scores[a][:k] - scores[b][:k]
            if 1 / mixture(differences) < level:
                shown.append((a, b) if differences.mean() > 0 else (b, a))
                beaten.add(shown[-1][1])
                left.remove((a, b))
    return _end(world, judged, shown, beaten)


def mixture(differences: np.ndarray) -> float:
    """The evidence against a mean of 0; above 1 / level in at most `level` of all courses."""
    k = len(differences)
    squared_t = k * differences.mean() ** 2 / differences.var(ddof=1)
    shrunk = MIXTURE / (MIXTURE + k)
    ratio = (1 + squared_t / (k - 1)) / (1 + shrunk * squared_t / (k - 1))
    return float(math.sqrt(shrunk) * ratio ** (k / 2))


def _end(
    world: Scores, judged: Mapping[str, int], shown: list[tuple[str, str]], beaten: set[str]
) -> End:
    true = dict(zip(world.names, world.true, strict=True))
    is_false = any(true[a] <= true[b] for a, b in shown)
    return End(sum(judged.values()), is_false, ("better",) * len(shown), len(beaten))


# --- many sweeps ---------------------------------------------------------------------------------


def ends(world: Scores, rules: LookRules, sweeps: int, seed: int = 0) -> list[End]:
    generator = np.random.default_rng(seed)
    out = []
    for _ in range(sweeps):
        scores = world.draw(generator, rules.most)
        of_rows = generator.chisquare(min(world.rows, 500)) / min(world.rows, 500)
        out.append(in_looks(world, scores, rules, of_rows))
    return out


def false_share(found: list[End]) -> float:
    return float(np.mean([one.is_false for one in found]))


def trainings(found: list[End]) -> np.ndarray:
    return np.array([one.trainings for one in found])
