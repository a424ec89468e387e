"""How many trials run to their end, and how well their metric on the way tells that at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_TRIALS = 5


@dataclass(frozen=True)
class Rung:
    """A share of the training after which trials were evaluated, 0 to 1.

    correlation: Spearman's, of the metric there and at the end, over complete trials; None where
    all have the same metric. trials: how many there are.
    """

    share: float
    correlation: float | None
    trials: int


@dataclass(frozen=True)
class ExpectedComplete:
    """How many of a strategy's trials were expected to run to their end.

    complete: about so many. trials: of so many.
    """

    complete: float
    trials: int


def rungs(curves: Sequence[Sequence[float]]) -> tuple[Rung, ...]:
    """The rungs before the end. curves: the metric at each evaluation, of each complete trial.

    Only trials with the most common number of evaluations are compared; none if they are fewer
    than five. Pruned trials are missing, so where many were pruned, those that are left are more
    alike and the correlation is lower.
    """
    from scipy.stats import spearmanr

    if not curves:
        return ()
    count, trials = Counter(map(len, curves)).most_common(1)[0]
    if trials < FEWEST_TRIALS:
        return ()
    alike = [curve for curve in curves if len(curve) == count]
    last = [curve[-1] for curve in alike]

    def correlation(at: int) -> float | None:
        there = [curve[at] for curve in alike]
        if len(set(there)) < 2 or len(set(last)) < 2:
            return None
        return float(spearmanr(there, last).statistic)

    return tuple(Rung((at + 1) / count, correlation(at), trials) for at in range(count - 1))


def rungs_in_words(found: Sequence[Rung]) -> str:
    """`after 25%: 0.41, after 50%: 0.77`"""
    return ", ".join(
        f"after {one.share:.0%}: {one.correlation:.2f}"
        for one in found
        if one.correlation is not None
    )
