"""The questions that a sweep is run for, answered from the trials of its search.

This is weaker evidence than `kdsweep.compare.statistics`, and the answers say so: trials of a
search differ in more than what is asked, each has one seed, and a sampler tries more where it is
good. The answers of a sweep are one family: each has 5% divided by the number of questions that the
trials can answer, so at most 5% of sweeps contain a false claim (Bonferroni).
`kdsweep.compare.contrasts` has the intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import numpy as np

from kdsweep.compare.contrasts import Interval, cost_of_a_factor_of_2, difference
from kdsweep.compare.families import Family
from kdsweep.compare.findings import Question
from kdsweep.compare.records import TrialRecord
from kdsweep.compare.strategy_costs import Costs, cost_of_strategies
from kdsweep.core.schedules import PerEpoch, Schedule
from kdsweep.core.settings import TrialSettings
from kdsweep.formatting import joined

# The answer of trials that suffice, at a level: how often it may be wrong.
Answer = Callable[[float], Question]
# Trials in a group, and for a curve with three coefficients; fewer say nothing.
ENOUGH = 5
ENOUGH_FOR_A_CURVE = 8
ENOUGH_RATES = 4
LABELS_ALONE = "labels alone"
ALPHAS = ("rising", "falling", "constant")
WHICH_ALPHA = "does a rising, falling or constant alpha do best?"
LOWER_TEMPERATURE = "does lowering the temperature during training help?"
CAVEAT = (
    "This is about the complete trials on these validation rows. They differ in other settings too "
    "(such as the learning rate), each has one seed, and pruned trials are missing."
)


def sensitivity_question(strategy: str) -> str:
    return f"how sensitive is {strategy} to its learning rate?"


class CompleteTrial(NamedTuple):
    """A complete trial. value: the metric on validation. rate: its highest learning rate.

    Trials of one number have the same seed, whatever their strategy.
    """

    strategy: str
    number: int
    value: float
    alpha: str
    temperature: str
    rate: float


def answer_questions(metric: str, records: Sequence[TrialRecord], costs: Costs) -> list[Question]:
    """Every question with its answer."""
    trials = [trial for record in records if (trial := _read(metric, record)) is not None]
    strategies = list(dict.fromkeys([*costs.slot_hours, *(one.id.strategy for one in records)]))
    return [*answer_from_trials(trials, strategies), cost_of_strategies(metric, records, costs)]


def answer_from_trials(
    trials: Sequence[CompleteTrial], strategies: Sequence[str]
) -> list[Question]:
    """The questions about alpha, temperature and learning rates, at a level that they share."""
    asked = _asked(trials, strategies).values()
    family = sum(not isinstance(one, Question) for one in asked)
    together = ""
    if family > 1:
        together = (
            f" The interval is widened: those of all {family} questions that this sweep answers "
            "hold together in 95% of sweeps."
        )
    answers = []
    for one in asked:
        if not isinstance(one, Question):
            found = one(Family(family).level)
            one = replace(found, answer=found.answer + together)
        answers.append(one)
    return answers


def answerable_questions(trials: Sequence[CompleteTrial], strategies: Sequence[str]) -> list[str]:
    """The questions for which the trials suffice."""
    asked = _asked(trials, strategies)
    return [question for question, one in asked.items() if not isinstance(one, Question)]


def _asked(
    trials: Sequence[CompleteTrial], strategies: Sequence[str]
) -> dict[str, Question | Answer]:
    """Each question with its answer, or with why there is none."""
    return {
        WHICH_ALPHA: _which_alpha(trials),
        LOWER_TEMPERATURE: _lower_temperature(trials),
        **{
            sensitivity_question(strategy): _learning_rate(
                strategy, [one for one in trials if one.strategy == strategy]
            )
            for strategy in strategies
        },
    }


def _entry(question: str, answer: str, n: int, found: Interval | None = None) -> Question:
    if found is None:
        return Question(question, answer, n)
    return Question(question, answer, n, found.effect, (found.low, found.high))


# --- reading a trial -----------------------------------------------------------------------------


def _read(metric: str, record: TrialRecord) -> CompleteTrial | None:
    """None unless the trial belongs to the search and is complete."""
    value = record.best(metric)
    if not record.is_complete_search:
        return None
    if value is None or not math.isfinite(value):
        return None
    return complete_trial(record.id.strategy, record.id.number, value, record.settings)


def complete_trial(
    strategy: str, number: int, value: float, settings: TrialSettings
) -> CompleteTrial:
    """What the questions need to know of a trial with these settings."""
    epochs = settings.training.epochs
    return CompleteTrial(
        strategy=strategy,
        number=number,
        value=value,
        alpha=alpha_kind(settings.alpha, epochs),
        temperature=direction(settings.temperature, epochs),
        rate=max(settings.learning_rate.values_taken()),
    )


def alpha_kind(alpha: Schedule, epochs: int) -> str:
    """One of `ALPHAS`, `labels alone` or `up and down`."""
    if set(values_in_order(alpha, epochs)) == {1.0}:
        return LABELS_ALONE
    return direction(alpha, epochs)


def values_in_order(schedule: Schedule, epochs: int | None = None) -> tuple[float, ...]:
    """The values that a schedule takes.

    epochs: of a list by epoch, only the values that so many epochs reach.
    """
    if isinstance(schedule, PerEpoch) and epochs:
        return tuple(schedule.at(epoch / epochs, epoch) for epoch in range(epochs))
    return schedule.values_taken()


def direction(schedule: Schedule, epochs: int | None = None) -> str:
    """`constant`, `rising`, `falling`, or `up and down`."""
    steps = [later - earlier for earlier, later in pairwise(values_in_order(schedule, epochs))]
    rises, falls = any(step > 0 for step in steps), any(step < 0 for step in steps)
    if rises and falls:
        return "up and down"
    if rises:
        return "rising"
    return "falling" if falls else "constant"


# --- alpha and temperature -----------------------------------------------------------------------


def _which_alpha(trials: Sequence[CompleteTrial]) -> Question | Answer:
    groups = {kind: [trial for trial in trials if trial.alpha == kind] for kind in ALPHAS}
    values = {kind: _by_number(group) for kind, group in groups.items()}
    enough = sorted(
        (kind for kind in ALPHAS if len(values[kind]) >= ENOUGH),
        key=lambda kind: -fmean(values[kind]),
    )
    n = sum(len(group) for group in groups.values())
    if len(enough) < 2:
        return _entry(WHICH_ALPHA, _not_enough(values), n)
    labels_alone = _by_number([trial for trial in trials if trial.alpha == LABELS_ALONE])
    return partial(_best_alpha, groups, values | {LABELS_ALONE: labels_alone}, enough)


def _best_alpha(
    groups: Mapping[str, Sequence[CompleteTrial]],
    values: Mapping[str, Sequence[float]],
    enough: Sequence[str],
    level: float,
) -> Question:
    """enough: the kinds that are compared, the best first."""
    # The best is compared with the one that it is least clearly above. Nothing is corrected for
    # having chosen them: a kind that isn't the best is named only if it seems to beat the one that
    # is, which is an error on one side for each of the two others.
    best, others = enough[0], enough[1:]
    found, rival = min(
        ((difference(values[best], values[other], level), other) for other in others),
        key=lambda pair: pair[0].low,
    )
    lead = f"{_signed(found.effect)} points over {rival} {_range(found)}"
    answer = f"no difference shown: {best} is {lead}"
    if found.low > 0:
        answer = f"{best} does best: {lead}"
        if len(others) == 1:
            answer = f"{best} does better than {rival}: {lead}"
    means = ", ".join(_describe(kind, of) for kind, of in values.items() if len(of) >= ENOUGH)
    missing = "".join(
        f" Not enough trials with a {kind} alpha (n = {len(values[kind])})."
        for kind in ALPHAS
        if kind not in enough
    )
    mixed = _other_strategies(best, groups[best], rival, groups[rival])
    n = sum(map(len, groups.values()))
    return _entry(WHICH_ALPHA, f"{answer}. Means: {means}.{missing}{mixed} {CAVEAT}", n, found)


def _other_strategies(
    a: str, of_a: Sequence[CompleteTrial], b: str, of_b: Sequence[CompleteTrial]
) -> str:
    """A warning where two groups are of different strategies."""
    names_of_a, names_of_b = _strategies(of_a), _strategies(of_b)
    if set(names_of_a) == set(names_of_b):
        return ""
    return (
        f" The trials with a {a} alpha are of {joined(names_of_a)}, those with a {b} one of "
        f"{joined(names_of_b)}; what else these strategies do counts too."
    )


def _lower_temperature(trials: Sequence[CompleteTrial]) -> Question | Answer:
    taught = [trial for trial in trials if trial.alpha != LABELS_ALONE]
    strategies = _strategies(taught)
    # Best compared within one strategy that tries both; else over all strategies.
    both = [name for name in strategies if _tries_both(taught, name)]
    groups = _by_temperature(trial for trial in taught if trial.strategy in both)
    where = f" within {' and '.join(both)}"
    if len(both) != 1 or min(len(_by_number(group)) for group in groups.values()) < ENOUGH:
        groups, where = _by_temperature(taught), ""
    values = {kind: _by_number(group) for kind, group in groups.items()}
    n = sum(len(group) for group in groups.values())
    if min(map(len, values.values())) < ENOUGH:
        return _entry(LOWER_TEMPERATURE, _not_enough(values), n)
    pooled = ""
    if not where and len(strategies) > 1:
        names = ", ".join(strategies)
        pooled = f" Trials of {names} are taken together, and those differ in their alpha as well."
    return partial(_falling_or_constant, values, n, where, pooled)


def _falling_or_constant(
    values: Mapping[str, Sequence[float]], n: int, where: str, pooled: str, level: float
) -> Question:
    """where, pooled: in words, which trials are compared."""
    found = difference(values["falling"], values["constant"], level)
    effect = f"{_signed(found.effect)} points"
    if found.low > 0:
        answer = f"yes: {effect} over a constant temperature {_range(found)}"
    elif found.high < 0:
        answer = f"no, it costs: {effect} against a constant temperature {_range(found)}"
    else:
        answer = f"no difference shown: {effect} against a constant temperature {_range(found)}"
    means = ", ".join(_describe(kind, of) for kind, of in values.items())
    words = f"{answer}. Means{where}: {means}.{pooled} {CAVEAT}"
    return _entry(LOWER_TEMPERATURE, words, n, found)


def _tries_both(trials: Iterable[CompleteTrial], strategy: str) -> bool:
    found = {trial.temperature for trial in trials if trial.strategy == strategy}
    return {"falling", "constant"} <= found


def _by_temperature(trials: Iterable[CompleteTrial]) -> dict[str, list[CompleteTrial]]:
    trials = list(trials)
    return {
        kind: [trial for trial in trials if trial.temperature == kind]
        for kind in ("falling", "constant")
    }


def _by_number(trials: Iterable[CompleteTrial]) -> list[float]:
    """The mean value of each trial number.

    Trials of one number share a seed, so they count as one, however many strategies there are.
    """
    values: dict[int, list[float]] = {}
    for trial in trials:
        values.setdefault(trial.number, []).append(trial.value)
    return [fmean(of) for of in values.values()]


def _strategies(trials: Iterable[CompleteTrial]) -> list[str]:
    return list(dict.fromkeys(trial.strategy for trial in trials))


# --- learning rate -------------------------------------------------------------------------------


def _learning_rate(strategy: str, trials: Sequence[CompleteTrial]) -> Question | Answer:
    question = sensitivity_question(strategy)
    known = [trial for trial in trials if trial.rate > 0]
    n = len(known)
    if n < ENOUGH_FOR_A_CURVE:
        answer = f"not enough trials (n = {n}): a curve needs {ENOUGH_FOR_A_CURVE}"
        return _entry(question, answer, n)
    octaves = np.log2([trial.rate for trial in known])
    values = np.array([trial.value for trial in known])
    if np.ptp(octaves) < 1 or _different(octaves) < ENOUGH_RATES:
        answer = (
            f"unknown: {n} trials, but {_rates(octaves)}; it takes four rates over more than a "
            "factor of 2"
        )
        return _entry(question, answer, n)
    if np.ptp(values) == 0:
        answer = f"no sensitivity shown: all {n} trials reach {values[0]:.4f}"
        return _entry(question, answer, n)
    return partial(_cost_of_a_rate, question, octaves, values)


def _cost_of_a_rate(
    question: str, octaves: np.ndarray, values: np.ndarray, level: float
) -> Question:
    best, found = cost_of_a_factor_of_2(octaves, values, level)
    n = len(values)
    answer = (
        f"a factor of 2 away from {2.0**best:.1e}, where a fitted curve is highest, costs "
        f"{_signed(found.effect)} points {_range(found)}"
    )
    if found.low <= 0:
        answer = f"no sensitivity shown: {answer}"
    if best == octaves.max():
        answer += ". That is the highest rate that was tried: higher ones may do better"
    elif best == octaves.min():
        answer += ". That is the lowest rate that was tried: lower ones may do better"
    answer += (
        f". {n} trials, each with one seed, which may differ in other settings too; pruned ones "
        "are missing."
    )
    return _entry(question, answer, n, found)


def _different(octaves: np.ndarray) -> int:
    """How many rates there are; those within 1% of each other count once."""
    return len(np.unique(octaves.round(2)))


def _rates(octaves: np.ndarray) -> str:
    low, high = 2.0 ** octaves.min(), 2.0 ** octaves.max()
    if _different(octaves) == 1:
        return f"all have the learning rate {low:.1e}"
    return f"their {_different(octaves)} learning rates lie between {low:.1e} and {high:.1e}"


# --- words ---------------------------------------------------------------------------------------


def _not_enough(groups: Mapping[str, Sequence[float]]) -> str:
    counts = ", ".join(f"{kind} n = {len(values)}" for kind, values in groups.items())
    return f"not enough trials ({counts}): each needs {ENOUGH} to compare them"


def _describe(kind: str, values: Sequence[float]) -> str:
    return f"{kind} {fmean(values):.4f} (n = {len(values)}, best {max(values):.4f})"


def _signed(value: float) -> str:
    """Points with one digit; never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def _range(found: Interval) -> str:
    return f"({_signed(found.low)} to {_signed(found.high)})"
