"""The strategy that a sweep recommends, by one rule for the verdict, the registry and export.

1. Candidates are the strategies that no other one beats on test.
2. The first choice is the candidate with the highest mean on validation over confirm's seeds.
3. Recommended is the cheapest of the first choice and of those candidates whose own pair with it is
   shown on test to be equivalent.

Test data excludes a strategy or shows two to be equivalent. It ranks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdsweep.compare.findings import Pair
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class Running:
    """What a strategy's students cost: their size, then their latency, then their training.

    None where it isn't known.
    """

    size_mb: float | None
    latency_ms: float | None
    seconds: float | None

    @property
    def order(self) -> tuple[float, ...]:
        """Lower is cheaper. Sizes within a thousandth are equal."""
        size = math.inf if self.size_mb is None else float(f"{self.size_mb:.3g}")
        rest = (self.latency_ms, self.seconds)
        return (size, *(math.inf if one is None else one for one in rest))


@dataclass(frozen=True)
class Choice:
    """The recommended strategy, and why.

    equivalent: the candidates that are equivalent to the first choice.
    """

    strategy: str
    first_choice: str
    candidates: tuple[str, ...]
    equivalent: tuple[str, ...]


def best_on_validation(reached: Mapping[TrialId, float]) -> TrialId | None:
    """Whose student is kept: the highest value; of equals, the seed that comes first."""
    return max(reached, key=lambda one: (reached[one], -(one.seed_index or 0)), default=None)


def recommend(
    validation: Mapping[str, float], pairs: Sequence[Pair], costs: Mapping[str, Running]
) -> Choice | None:
    """validation, costs: of each strategy with a student. None if there is none.

    validation: the mean over confirm's seeds; without confirm, of the best trial.
    """
    if not validation:
        return None
    beaten = {
        pair.other(pair.better) for pair in pairs if pair.better and pair.better in validation
    }
    # With seeds missing, pairs may have different seeds in common and beat each other in a circle.
    candidates = [name for name in validation if name not in beaten] or list(validation)
    first = max(candidates, key=lambda name: validation[name])
    equivalent = [
        name
        for name in candidates
        if any(pair.state == "equivalent" and pair.other(first) == name for pair in pairs)
    ]
    cheapest = min([first, *equivalent], key=lambda name: costs[name].order)
    return Choice(cheapest, first, tuple(candidates), tuple(equivalent))
