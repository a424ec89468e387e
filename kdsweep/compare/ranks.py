"""What average ranks over several sweeps show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.stats import rankdata

from kdsweep.compare.families import FALSE_CLAIMS
from kdsweep.formatting import count

DRAWS = 20_000


@dataclass(frozen=True)
class Ranks:
    """mean: of each strategy over the sweeps (1 is best; ties share). verdict: in words."""

    mean: dict[str, float]
    verdict: str


def compare_ranks(results: Sequence[Mapping[str, float]]) -> Ranks:
    """results: of each sweep, strategy -> what it reached. Only strategies of all sweeps count.

    All pairs at once, after Nemenyi (1963): if strategies were alike, every order of them would be
    equally likely in each sweep. Orders are drawn here, because the usual table is for many sweeps.
    A difference of mean ranks is shown if 95% of draws have no pair that far apart.
    """
    names = [name for name in results[0] if all(name in one for one in results)] if results else []
    if not names:
        return Ranks({}, "")
    ranks = np.array([rankdata([-one[name] for name in names]) for one in results])
    mean = dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))
    sweeps = count(len(results), "sweep")
    if len(names) < 2:
        return Ranks(mean, "only one strategy finished in every sweep")
    needed = _difference_to_show(len(results), len(names))
    if needed > len(names) - 1:
        return Ranks(mean, f"{sweeps} can't tell the ranks of {len(names)} strategies apart")
    shown = [
        f"{a} ranks above {b} by {mean[b] - mean[a]:.1f}"
        for a in sorted(names, key=lambda name: mean[name])
        for b in sorted(names, key=lambda name: mean[name])
        if mean[b] - mean[a] >= needed - 1e-9
    ]
    found = "; ".join(shown) or "no strategy is shown to rank above another"
    return Ranks(mean, f"{found} (over {sweeps} it takes a difference of {needed:.1f})")


@cache
def _difference_to_show(sweeps: int, strategies: int) -> float:
    """The least difference of two mean ranks that no pair of equals reaches in 95% of draws.

    Above strategies - 1 if no difference can be shown.
    """
    draw = np.random.default_rng(0)
    total = np.zeros((DRAWS, strategies))
    orders = np.tile(np.arange(strategies), (DRAWS, 1))
    for _ in range(sweeps):
        total += draw.permuted(orders, axis=1)
    widest = np.ptp(total, axis=1).round().astype(int)
    reached = np.bincount(widest, minlength=sweeps * (strategies - 1) + 1)[::-1].cumsum()[::-1]
    # Of two strategies over six sweeps, differences are even: 6 is shown, and 5 doesn't occur.
    possible = np.unique(widest)
    rare = possible[reached[possible] <= FALSE_CLAIMS * DRAWS]
    least = rare[0] if len(rare) else sweeps * (strategies - 1) + 1
    return float(least / sweeps)
