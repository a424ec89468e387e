"""What a comparison finds: plain values, with their uncertainty. How they are found is not here."""

from __future__ import annotations

from dataclasses import dataclass

from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95% interval; `low` and `high` are None with a single seed."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same seeds and examples.

    difference: mean of a minus mean of b, in the metric's own unit. ci95: of this pair alone.
    p: two-sided, corrected for all pairs (Holm 1979). seeds: how many both have. seeds_needed: how
    many would show the difference that was asked for with a power of 80%; None where no number of
    them would, on these test examples.
    """

    a: str
    b: str
    difference: float | None
    ci95: tuple[float, float] | None
    p: float | None
    seeds: int
    seeds_needed: int | None
    verdict: str

    @property
    def shows_a_difference(self) -> bool:
        return " beats " in self.verdict


@dataclass(frozen=True)
class Question:
    """A question that the trials of the search answer, and how sure the answer is.

    answer: in words; a point is a hundredth of the metric. n: trials. effect, ci95: in the metric's
    own unit; None where the trials can't tell.
    """

    question: str
    answer: str
    n: int
    effect: float | None = None
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class SettingsComparison:
    """Which settings of a strategy's search can't be told apart from the best one.

    complete: the search's complete trials. compared: how many of them, those with the highest
    values. alike: the trials that aren't shown to be worse, the best one first; None where trials
    kept no predictions (version 0.1.0). seeds: how many runs of confirm showed the noise between
    seeds; 0 where only the validation rows count.
    """

    complete: int
    compared: int
    alike: tuple[int, ...] | None
    seeds: int

    @property
    def tells_nothing(self) -> bool:
        """Whether no trial is shown to be worse than the best one."""
        return self.alike is not None and len(self.alike) == self.compared


@dataclass(frozen=True)
class ParetoEntry:
    """A student that no other one beats in everything.

    validation: the task's metric. costs: objective (`latency`, `size`, `parameters`) -> its value,
    in the order of the sweep's `objective`.
    """

    id: TrialId
    validation: float
    costs: dict[str, float]

    @property
    def rank(self) -> tuple[float, ...]:
        """Lower is better in each."""
        return (-self.validation, *self.costs.values())
