"""Which parameters of a search matter by more than noise: a permutation test of each.

Importances are shares of how trials differ, so they add up to 1 where all of it is noise. This says
which parameters have an effect at all. It is about the complete trials: a sampler changes several
parameters together, so the effect of one may show at another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue
from scipy.stats import rankdata

from kdsweep.compare.families import Family

# With fewer trials that have a parameter, hardly any arrangement is rare enough.
ENOUGH = 8
SHUFFLES = 9_999
MOST_SHUFFLES_AT_ONCE = 1_000
# With tens of thousands of trials, fewer shuffles at once: these take 40 MB.
MOST_VALUES_AT_ONCE = 5_000_000
# A sampler tries more where it was lucky, so what looks rare is less so. With TPE on noise, up to
# twice as many p-values are below 1% as should be. So a parameter has a share of its level.
SHARE_OF_LEVEL = 1 / 3
# Fewer different numbers than this are compared as groups, one for each number.
ENOUGH_NUMBERS = 4


@dataclass(frozen=True)
class DrawnTrial:
    """What the sampler drew for a complete trial, and the metric that it reached on validation."""

    params: Mapping[str, JsonValue]
    value: float


def parameters_that_matter(
    searches: Mapping[str, Sequence[DrawnTrial]],
) -> dict[str, dict[str, bool]]:
    """For each strategy, the parameters that enough trials have, and whether their effect is shown.

    Each is tested among the trials that have it. All parameters of all strategies share 5%
    (Bonferroni): if none has an effect, at most 5% of sweeps say that one does.
    """
    tested = {
        (strategy, name): found
        for strategy, trials in searches.items()
        for name in dict.fromkeys(name for one in trials for name in one.params)
        if (found := _tested(name, trials)) is not None
    }
    level = SHARE_OF_LEVEL * Family(len(tested)).level
    shown: dict[str, dict[str, bool]] = {}
    for (strategy, name), (terms, values) in tested.items():
        shown.setdefault(strategy, {})[name] = _is_shown(terms, values, level)
    return shown


def _tested(name: str, trials: Sequence[DrawnTrial]) -> tuple[np.ndarray, np.ndarray] | None:
    """(what the parameter could explain [trials, terms], ranks of the metric [trials], around 0);
    None with too few trials, or if all have the same value."""
    having = [one for one in trials if name in one.params]
    if len(having) < ENOUGH:
        return None
    ranks = rankdata([one.value for one in having])
    terms = _terms([one.params[name] for one in having])
    centered = ranks - ranks.mean()
    return None if terms is None or not centered.any() else (terms, centered)


def _terms(drawn: Sequence[JsonValue]) -> np.ndarray | None:
    """Orthonormal columns around 0: of numbers their ranks, and the squares of these; else a column
    a group."""
    numbers = [one for one in drawn if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(numbers) == len(drawn) and len(set(numbers)) >= ENOUGH_NUMBERS:
        ranks = rankdata(numbers)
        ranks -= ranks.mean()
        columns = np.stack([ranks, ranks**2], axis=1)
    else:
        names = [repr(one) for one in drawn]
        columns = np.stack(
            [np.array([one == name for one in names]) for name in sorted(set(names))], 1
        )
    columns = columns - columns.mean(axis=0)
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    terms: np.ndarray = left[:, sizes > 1e-9 * max(1.0, sizes[0])]
    return terms if 0 < terms.shape[1] < len(drawn) - 1 else None


def _is_shown(terms: np.ndarray, values: np.ndarray, level: float) -> bool:
    """Whether few enough shuffles explain the values as well as they are explained as seen."""
    generator = np.random.default_rng(0)
    seen = float(((values @ terms) ** 2).sum())
    as_well = 0
    at_once = max(1, min(MOST_SHUFFLES_AT_ONCE, MOST_VALUES_AT_ONCE // len(values)))
    for begin in range(0, SHUFFLES, at_once):
        count = min(at_once, SHUFFLES - begin)
        shuffled = generator.permuted(np.repeat(values[None], count, axis=0), axis=1)
        explained = ((shuffled @ terms) ** 2).sum(axis=1)
        # Equal arrangements differ after the 12th digit.
        as_well += int((explained >= seen * (1 - 1e-9)).sum())
        if (1 + as_well) / (1 + SHUFFLES) >= level:
            return False
    return True
