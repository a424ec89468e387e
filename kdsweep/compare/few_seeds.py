"""How much smaller a level has to be with few seeds, so that statements are false no more often.

Cochran and Cox's quantile (see `kdsweep.compare.spread`) is a little too small where a level is far
below 5% and the rows add about a hundredth of what one seed varies by: at 5% / 6 with three seeds,
a difference is called real in 1.26 times as many cases as it should be, at 5% / 15 in 1.58 times as
many. From six seeds on nothing is lost. How often that is can be integrated: given the variance
that few seeds show, the difference itself is normal.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import chdtri, ndtr

from kdsweep.compare.families import Family
from kdsweep.compare.spread import least_share, quantile

# The rows' variance in that of one seed; the chances of a smaller variance than the seeds show.
ROWS = np.concatenate([[0.0], np.geomspace(1e-5, 30, 60)])
CHANCES = np.concatenate(
    [
        np.geomspace(1e-9, 0.02, 300),
        np.linspace(0.02, 0.98, 300)[1:],
        1 - np.geomspace(0.02, 1e-9, 100)[1:],
    ]
)
MANY_ROWS = 1_000_000
# What isn't worth a correction.
HARDLY_MORE = 1.01
LEAST_SHARE = 1e-3


def family_of(statements: int, seeds: int) -> Family:
    """So many statements, of which this one rests on so many seeds."""
    return Family(statements, share_of_level(seeds, Family(statements).level))


@cache
def share_of_level(seeds: int, level: float) -> float:
    """The largest part of the level at which a difference of 0 is called real in at most `level` of
    all cases, whatever the rows add. 1 where all of it is hardly too much, and with one seed, which
    shows no variance."""
    if seeds < 2 or chance_of_error(seeds, level) <= HARDLY_MORE * level:
        return 1.0
    share = brentq(
        lambda share: chance_of_error(seeds, share * level) - level, LEAST_SHARE, 1.0, xtol=1e-4
    )
    # Rounded down, so that no more is spent.
    return float(np.floor(1000 * share) / 1000)


def chance_of_error(seeds: int, level: float) -> float:
    """In how many cases a difference of 0 is called real at this level; for the worst rows."""
    # Variances of the mean, by the seeds that are seen and by the rows [rows, seen].
    of_seeds = chdtri(seeds - 1, 1 - CHANCES) / (seeds - 1) / seeds
    of_rows = ROWS[:, None]
    error = of_seeds + of_rows
    share = np.maximum(of_seeds / error, least_share(seeds))
    sizes = quantile(share, level / 2, seeds, MANY_ROWS) * np.sqrt(error)
    wrong = 2 * ndtr(-sizes / np.sqrt(1 / seeds + of_rows))
    return float((((wrong[:, 1:] + wrong[:, :-1]) / 2) @ np.diff(CHANCES)).max())
