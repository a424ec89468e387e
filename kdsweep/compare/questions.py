"""The questions that a sweep is run for, answered from the trials of its search.

This is weaker evidence than `kdsweep.compare.statistics`, and the answers say so: trials of a
search differ in more than what is asked, each has one seed, and a sampler tries more where it is
good. Intervals are 95%: Welch's for two groups of trials, Student's for a fitted curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdsweep.compare.findings import Question
from kdsweep.compare.records import TrialRecord
from kdsweep.core.schedules import PerEpoch, Schedule
from kdsweep.formatting import duration

LEVEL = 0.95
ENOUGH = 5  # trials in a group; fewer say nothing
ENOUGH_RATES = 4
LABELS_ALONE = "labels alone"
ALPHAS = ("rising", "falling", "constant")
CAVEAT = (
    "The trials differ in other settings too (such as the learning rate), each has one seed, and "
    "pruned trials are missing."
)


class _Trial(NamedTuple):
    """A complete trial. value: the metric on validation. rate: its highest learning rate."""

    strategy: str
    value: float
    alpha: str
    temperature: str
    rate: float
    seconds: float


class _Difference(NamedTuple):
    """Between the means of two groups, with its interval."""

    effect: float
    low: float
    high: float


def answer_questions(
    metric: str, records: Sequence[TrialRecord], slot_hours: Mapping[str, float]
) -> list[Question]:
    """Every question with its answer. slot_hours: what all trials of a strategy used."""
    trials = [trial for record in records if (trial := _read(metric, record)) is not None]
    strategies = list(dict.fromkeys([*slot_hours, *(record.id.strategy for record in records)]))
    return [
        _which_alpha(trials),
        _lower_temperature(trials),
        *(
            _learning_rate(strategy, [trial for trial in trials if trial.strategy == strategy])
            for strategy in strategies
        ),
        _cost(trials, {strategy: slot_hours.get(strategy, 0.0) for strategy in strategies}),
    ]


def _entry(question: str, answer: str, n: int, found: _Difference | None = None) -> Question:
    if found is None:
        return Question(question, answer, n)
    return Question(question, answer, n, found.effect, (found.low, found.high))


# --- reading a trial -----------------------------------------------------------------------------


def _read(metric: str, record: TrialRecord) -> _Trial | None:
    """None unless the trial belongs to the search and is complete."""
    value = record.best(metric)
    if record.id.phase != "search" or record.state != "complete":
        return None
    if value is None or not math.isfinite(value):
        return None
    settings = record.settings
    epochs = settings.training.epochs
    return _Trial(
        strategy=record.id.strategy,
        value=value,
        alpha=_alpha_kind(settings.alpha, epochs),
        temperature=direction(settings.temperature, epochs),
        rate=max(settings.learning_rate.values_taken()),
        seconds=record.result.seconds if record.result else 0.0,
    )


def _alpha_kind(alpha: Schedule, epochs: int) -> str:
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


def _which_alpha(trials: Sequence[_Trial]) -> Question:
    question = "does a rising, falling or constant alpha do best?"
    groups = {kind: [trial.value for trial in trials if trial.alpha == kind] for kind in ALPHAS}
    enough = sorted(
        (kind for kind in ALPHAS if len(groups[kind]) >= ENOUGH),
        key=lambda kind: -float(np.mean(groups[kind])),
    )
    n = sum(len(values) for values in groups.values())
    if len(enough) < 2:
        return _entry(question, _not_enough(groups), n)
    # The best is compared because it is best, so the intervals hold for all pairs (Bonferroni).
    pairs = math.comb(len(enough), 2)
    best, second = enough[:2]
    found = difference(groups[best], groups[second], level=1 - (1 - LEVEL) / pairs)
    lead = f"{_signed(found.effect)} points over {second} {_range(found)}"
    answer = f"no difference shown: {best} is {lead}"
    if found.low > 0:
        answer = f"{best} does best: {lead}"
    labels_alone = [trial.value for trial in trials if trial.alpha == LABELS_ALONE]
    shown = groups | {LABELS_ALONE: labels_alone}
    means = ", ".join(
        _describe(kind, values) for kind, values in shown.items() if len(values) >= ENOUGH
    )
    missing = "".join(
        f" Not enough trials with a {kind} alpha (n = {len(groups[kind])})."
        for kind in ALPHAS
        if kind not in enough
    )
    return _entry(question, f"{answer}. Means: {means}.{missing} {CAVEAT}", n, found)


def _lower_temperature(trials: Sequence[_Trial]) -> Question:
    question = "does lowering the temperature during training help?"
    taught = [trial for trial in trials if trial.alpha != LABELS_ALONE]
    strategies = _strategies(taught)
    # Best compared within one strategy that tries both; else over all strategies.
    both = [name for name in strategies if _tries_both(taught, name)]
    groups = _by_temperature(trial for trial in taught if trial.strategy in both)
    where = f" within {' and '.join(both)}"
    if len(both) != 1 or min(map(len, groups.values())) < ENOUGH:
        groups, where = _by_temperature(taught), ""
    n = sum(len(values) for values in groups.values())
    if min(map(len, groups.values())) < ENOUGH:
        return _entry(question, _not_enough(groups), n)
    found = difference(groups["falling"], groups["constant"])
    effect = f"{_signed(found.effect)} points"
    if found.low > 0:
        answer = f"yes: {effect} over a constant temperature {_range(found)}"
    elif found.high < 0:
        answer = f"no, it costs: {effect} against a constant temperature {_range(found)}"
    else:
        answer = f"no difference shown: {effect} against a constant temperature {_range(found)}"
    means = ", ".join(_describe(kind, values) for kind, values in groups.items())
    pooled = ""
    if not where and len(strategies) > 1:
        names = ", ".join(strategies)
        pooled = f" Trials of {names} are taken together, and those differ in their alpha as well."
    return _entry(question, f"{answer}. Means{where}: {means}.{pooled} {CAVEAT}", n, found)


def _tries_both(trials: Iterable[_Trial], strategy: str) -> bool:
    found = {trial.temperature for trial in trials if trial.strategy == strategy}
    return {"falling", "constant"} <= found


def _by_temperature(trials: Iterable[_Trial]) -> dict[str, list[float]]:
    trials = list(trials)
    return {
        kind: [trial.value for trial in trials if trial.temperature == kind]
        for kind in ("falling", "constant")
    }


def _strategies(trials: Iterable[_Trial]) -> list[str]:
    return list(dict.fromkeys(trial.strategy for trial in trials))


def difference(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> _Difference:
    """Mean of a minus mean of b, with Welch's interval (1947).

    scipy's function warns about groups whose values are all equal, so this is our own.
    """
    parts = np.array([np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)])
    # Means of equal values differ after the 12th digit.
    effect = round(float(np.mean(a) - np.mean(b)), 12)
    variance = float(parts.sum())
    if variance < 1e-18:
        return _Difference(effect, effect, effect)
    freedom = variance**2 / float(parts**2 @ np.array([1 / (len(a) - 1), 1 / (len(b) - 1)]))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return _Difference(effect, effect - half, effect + half)


# --- learning rate -------------------------------------------------------------------------------


def _learning_rate(strategy: str, trials: Sequence[_Trial]) -> Question:
    question = f"how sensitive is {strategy} to its learning rate?"
    known = [trial for trial in trials if trial.rate > 0]
    n = len(known)
    if n < ENOUGH:
        return _entry(question, f"not enough trials (n = {n})", n)
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
        return _entry(question, answer, n, _Difference(0.0, 0.0, 0.0))
    best, found = cost_of_a_factor_of_2(octaves, values)
    answer = (
        f"a factor of 2 away from {2.0**best:.1e}, the best rate of a fitted curve, costs "
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


def cost_of_a_factor_of_2(octaves: np.ndarray, values: np.ndarray) -> tuple[float, _Difference]:
    """(the best log2 learning rate, the cost of one octave away from it) of a fitted parabola.

    octaves: log2 of the rates [trials]; values: the metric [trials]. If the parabola's top lies
    among the rates, the cost is its curvature, whatever the top; at an end of the rates it is the
    drop to one octave inside. Both are linear in the coefficients, so least squares give Student's
    interval.
    """
    center = octaves.mean()
    terms = np.vander(octaves - center, 3)  # columns: square, rate, 1
    # Divided by their lengths, so that squares of a narrow and of a wide range fit equally well.
    lengths = np.linalg.norm(terms, axis=0)
    orthogonal, upper = np.linalg.qr(terms / lengths)
    coefficients = np.linalg.solve(upper, orthogonal.T @ values) / lengths
    best, asked = _best_and_cost(coefficients, octaves)
    freedom = len(values) - 3
    residual = values - terms @ coefficients
    error = math.sqrt(residual @ residual / freedom) * float(
        np.linalg.norm(np.linalg.solve(upper.T, asked / lengths))
    )
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    effect = float(asked @ coefficients)
    return best, _Difference(effect, effect - half, effect + half)


def _best_and_cost(coefficients: np.ndarray, octaves: np.ndarray) -> tuple[float, np.ndarray]:
    """(the best octave, the cost of one octave away as a linear function of the coefficients)"""
    square, slope, _ = coefficients
    center = octaves.mean()
    lowest, highest = octaves.min() - center, octaves.max() - center
    if square < 0 and lowest < (top := -slope / (2 * square)) < highest:
        return float(top + center), np.array([-1.0, 0.0, 0.0])
    end, inside = max(
        ((lowest, lowest + 1), (highest, highest - 1)),
        key=lambda pair: square * pair[0] ** 2 + slope * pair[0],
    )
    best = float(octaves.min() if end == lowest else octaves.max())
    return best, np.array([end**2 - inside**2, end - inside, 0.0])


# --- cost ----------------------------------------------------------------------------------------


def _cost(trials: Sequence[_Trial], slot_hours: Mapping[str, float]) -> Question:
    question = "what did each strategy cost?"
    if not slot_hours:
        return _entry(question, "not enough trials (n = 0)", len(trials))
    total = sum(slot_hours.values())
    parts = []
    for strategy, hours in slot_hours.items():
        share = f" ({100 * hours / total:.0f}%)" if total > 0 else ""
        seconds = [trial.seconds for trial in trials if trial.strategy == strategy]
        each = "no trial finished"
        if seconds:
            mean = duration(float(np.mean(seconds)))
            each = f"{mean} for each finished trial (n = {len(seconds)})"
        parts.append(f"{strategy} {_hours(hours)}{share}, {each}")
    return _entry(question, "; ".join(parts), len(trials))


def _hours(hours: float) -> str:
    return f"{hours:.1f} slot hours" if hours >= 1 else f"{hours:.2g} slot hours"


# --- words ---------------------------------------------------------------------------------------


def _not_enough(groups: Mapping[str, Sequence[float]]) -> str:
    counts = ", ".join(f"{kind} n = {len(values)}" for kind, values in groups.items())
    return f"not enough trials ({counts}): each needs {ENOUGH} to compare them"


def _describe(kind: str, values: Sequence[float]) -> str:
    return f"{kind} {np.mean(values):.4f} (n = {len(values)}, best {max(values):.4f})"


def _signed(value: float) -> str:
    """Points with one digit; never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def _range(found: _Difference) -> str:
    return f"({_signed(found.low)} to {_signed(found.high)})"
