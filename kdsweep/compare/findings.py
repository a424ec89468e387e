"""What a comparison finds: plain values, with their uncertainty. How they are found is not here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kdsweep.trial_id import TrialId

PairState = Literal["better", "equivalent", "out_of_reach", "undecided"]
TeacherState = Literal["above", "below", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its interval; `low` and `high` are None with a single seed.

    The intervals of all strategies hold together in 95% of sweeps, so that they may be read after
    choosing among them.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class Look:
    """What a pair showed after `seeds` seeds, with `confirm.seeds: auto`.

    ci95, p: at the level of this look, so that p is below 5% where ci95 excludes 0.
    """

    seeds: int
    difference: float | None
    ci95: tuple[float, float] | None
    p: float | None
    state: PairState


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same seeds and examples.

    difference: mean of a minus mean of b, in the metric's own unit. ci95: the intervals of all
    pairs hold together in 95% of sweeps. p: two-sided, corrected for all pairs (Bonferroni).
    seeds: how many both have. seeds_needed: how many would show a difference of the margin with a
    power of 80%; None where no number of them would, on these test examples. seeds_needed_range:
    between which numbers that lies with 80%; None at its upper end where no number would do.
    state: None in a report of version 0.1; out_of_reach: these test rows can't separate the two,
    whatever the number of seeds. looks: with `confirm.seeds: auto`, up to the one that settled the
    pair, whose result this is; ci95 and p are then at the level of that look. rows: of the test
    split; rows_apart: on how many of them the predictions differ with any seed. rows_needed,
    seeds_on_them: how many it would take, where no number of seeds is enough on these rows. All are
    None with fewer than two seeds.
    """

    a: str
    b: str
    difference: float | None
    ci95: tuple[float, float] | None
    p: float | None
    seeds: int
    seeds_needed: int | None
    verdict: str
    state: PairState | None = None
    seeds_needed_range: tuple[int | None, int | None] | None = None
    rows: int | None = None
    rows_apart: int | None = None
    rows_needed: int | None = None
    seeds_on_them: int | None = None
    looks: tuple[Look, ...] = ()

    @property
    def shows_a_difference(self) -> bool:
        if self.state is None:
            return " beats " in self.verdict
        return self.state == "better"

    @property
    def shows_nothing(self) -> bool:
        return self.state in ("undecided", "out_of_reach")

    @property
    def better(self) -> str | None:
        """The strategy that beats the other one."""
        if not self.shows_a_difference or self.difference is None:
            return None
        return self.a if self.difference > 0 else self.b

    def other(self, strategy: str) -> str | None:
        """The other strategy of the pair; None if `strategy` isn't in it."""
        if strategy not in (self.a, self.b):
            return None
        return self.b if self.a == strategy else self.a


@dataclass(frozen=True)
class AgainstTeacher:
    """A strategy's mean over seeds minus its teacher, on the same examples.

    It is about this one teacher, not about fine-tuning it again. ci95: the intervals of all
    strategies hold together in 95% of sweeps; None with one seed.
    """

    difference: float
    ci95: tuple[float, float] | None
    state: TeacherState


@dataclass(frozen=True)
class Comparison:
    """What the test split says. means, against_teacher: by strategy.

    teachers: in the order in which they were given; the first is the one of against_teacher.
    seeds_wanted: with `confirm.seeds: auto`, how many seeds each strategy should have by now; those
    that need no more have as many already. seeds_judged: how many each one was judged on.
    """

    means: dict[str, Estimate]
    pairs: tuple[Pair, ...]
    teachers: tuple[Estimate | None, ...] = ()
    against_teacher: dict[str, AgainstTeacher] | None = None
    seeds_wanted: dict[str, int] = field(default_factory=dict)
    seeds_judged: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question that the trials of the search answer, and how sure the answer is.

    answer: in words; a point is a hundredth of the metric. n: trials. effect, ci95: in the metric's
    own unit; None where the trials can't tell. The intervals of all questions of a sweep hold
    together in 95% of sweeps.
    """

    question: str
    answer: str
    n: int
    effect: float | None = None
    ci95: tuple[float, float] | None = None

    @property
    def has_too_few_trials(self) -> bool:
        return self.answer.startswith("not enough trials")


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
