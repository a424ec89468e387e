"""Make kdsweep/compare/look_levels.py: at which level each look of `confirm.seeds: auto` is judged.

    python tests/benchmarks/calibrate_looks.py

A pair of equal strategies is followed to 20 seeds, millions of times, by the variance model of
`kdsweep.compare.statistics`: a score's error is the rows', the same at each look, plus the mean of
the seeds'. p at each look is Cochran and Cox's, as in `kdsweep.compare.spread`. After the look at k
of `most` seeds, a pair that may be falsely called better in a share `level` of sweeps may have used
level * (k / most) ** SPENDING of it (Lan and DeMets 1983). The level of a look is the largest one
with which no share of row variance uses more. It is kept as a part of `level`.

The one-sided test of equivalence at the same level is falsely passed less often, because its tail
is wider and looks at wider tails are more alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.special import ndtri, stdtrit

from kdsweep.compare.families import FALSE_CLAIMS
from kdsweep.compare.looks import LOOKS, looks_up_to

SPENDING = 0.2
PATHS = 4_000_000
AT_ONCE = 200_000
# The rows' variance in the variance of one seed.
ROWS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.3, 1.0, np.inf)
# The level is 5% times 2^-i.
HALVINGS = range(9)
SEEDS = range(LOOKS[0], LOOKS[-1] + 1)
LARGEST_P = 0.06
LOG_TAILS = np.linspace(np.log(1e-7), np.log(LARGEST_P / 2), 2000)
TABLE = Path(__file__).parents[2] / "kdsweep" / "compare" / "look_levels.py"


def p_at_each_look(draw: np.random.Generator, paths: int, rows: float) -> np.ndarray:
    """Two-sided p after each number of seeds [SEEDS, paths]; those above LARGEST_P are 1."""
    of_seeds, of_rows = (0.0, 1.0) if np.isinf(rows) else (1.0, np.sqrt(rows))
    by_rows = of_rows * draw.normal(size=paths)
    total, squares = np.zeros(paths), np.zeros(paths)
    found = np.ones((len(SEEDS), paths), np.float32)
    for k in range(1, LOOKS[-1] + 1):
        one = of_seeds * draw.normal(size=paths)
        total += one
        squares += one * one
        if k in SEEDS:
            variance = np.maximum(squares - total**2 / k, 0) / (k - 1) / k
            both = variance + of_rows**2
            size = np.abs(by_rows + total / k) / np.sqrt(both)
            found[k - LOOKS[0]] = _p(size, variance / both, k)
    return found


def _p(size: np.ndarray, share: np.ndarray, seeds: int) -> np.ndarray:
    """Cochran and Cox's p of a difference in standard errors. share: of the seeds' variance."""
    tails = np.exp(LOG_TAILS)
    of_seeds, of_rows = -stdtrit(seeds - 1, tails), -ndtri(tails)
    out = np.ones(len(size), np.float32)
    small = np.flatnonzero(size > share * of_seeds[-1] + (1 - share) * of_rows[-1])
    size, share = size[small], share[small]
    low, high = np.zeros(len(small), int), np.full(len(small), len(tails) - 1)
    while (high - low).max(initial=0) > 1:
        middle = (low + high) // 2
        above = share * of_seeds[middle] + (1 - share) * of_rows[middle] > size
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    out[small] = 2 * tails[high]
    return out


def small_p(draw: np.random.Generator, rows: float, paths: int) -> np.ndarray:
    """p of the paths that have a small one at any look."""
    parts = []
    for _ in range(paths // AT_ONCE):
        found = p_at_each_look(draw, AT_ONCE, rows)
        parts.append(found[:, (found < 1).any(axis=0)])
    return np.concatenate(parts, axis=1)


def levels(
    found: list[np.ndarray], paths: int, level: float, looks: tuple[int, ...]
) -> tuple[list[float], list[float]]:
    """(each look's level as a part of `level`, the part of it that each share of rows uses up)"""
    crossed = [np.zeros(one.shape[1], bool) for one in found]
    parts = []
    for k in looks:
        allowed = level * (k / looks[-1]) ** SPENDING * paths
        at_look = [one[k - LOOKS[0]] for one in found]
        largest = min(
            _largest_level(p[~over], int(allowed) - int(over.sum()))
            for p, over in zip(at_look, crossed, strict=True)
        )
        parts.append(min(largest / level, 1.0))
        for p, over in zip(at_look, crossed, strict=True):
            over |= p < largest
    return parts, [float(over.sum() / (level * paths)) for over in crossed]


def _largest_level(p: np.ndarray, crossings: int) -> float:
    """The largest level with at most so many p below it."""
    if crossings <= 0:
        return 0.0
    return float(np.partition(p, crossings - 1)[crossings - 1])


def table(found: list[np.ndarray], paths: int, say: Callable[[str], None]) -> Iterator[str]:
    """The lines of the file."""
    yield '"""At which level each look of `confirm.seeds: auto` is judged: a table.'
    yield ""
    yield "Made by tests/benchmarks/calibrate_looks.py. docs/statistics.md explains it."
    yield '"""'
    yield ""
    yield "# most -> for a pair's level of 5% * 2^-i, i = 0, 1, ...: the part of it at each look."
    yield "LEVELS: dict[int, tuple[tuple[float, ...], ...]] = {"
    for most in SEEDS:
        looks = looks_up_to(most)
        yield f"    {most}: ("
        for i in HALVINGS:
            parts, used = levels(found, paths, FALSE_CLAIMS / 2**i, looks)
            # Rounded down, so that no more is spent.
            inside = ", ".join(f"{np.floor(1000 * one) / 1000:g}" for one in parts)
            yield f"        ({inside}{',' if len(parts) == 1 else ''}),"
            say(f"most {most}, 5% / {2**i}: {inside}; used {np.round(used, 2)}")
        yield "    ),"
    yield "}"


def main(paths: int = PATHS) -> None:
    draw = np.random.default_rng(0)
    began = time.monotonic()
    found = []
    for rows in ROWS:
        found.append(small_p(draw, rows, paths))
        print(f"rows {rows}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    lines = list(table(found, paths, lambda words: print(words, file=sys.stderr, flush=True)))
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
