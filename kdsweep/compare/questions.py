"""The questions that a sweep is run for, answered from the trials of its search: what they show, how sure it is, what is missing.

Trials of a search differ in more than what is asked about, each has one seed, and a sampler goes where it is good: this is evidence of
another kind than `kdsweep.compare.statistics`, and the words say so. Intervals are 95%: Welch's for two groups of trials, Student's for
a fitted curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdsweep.compare.findings import Question
from kdsweep.compare.records import TrialRecord
from kdsweep.core.schedules import PerEpoch, Schedule

LEVEL = 0.95
ENOUGH = 5  # trials of a kind; fewer say nothing
LABELS_ALONE = "labels alone"
ALPHAS = ("rising", "falling", "constant")
CAVEAT = "The trials differ in other settings too (such as {}), each has one seed, and pruned trials are missing."


class _Trial(NamedTuple):
    """What is asked of a complete trial. value: the metric on validation. rate: its greatest learning rate; seconds: what it took."""

    strategy: str
    value: float
    alpha: str
    temperature: str
    rate: float
    seconds: float


class _Difference(NamedTuple):
    """Of two groups' means, with its interval."""

    effect: float
    low: float
    high: float


def answer_questions(
    metric: str, records: Sequence[TrialRecord], slot_hours: Mapping[str, float]
) -> list[Question]:
    """Every question with its answer. slot_hours: what each strategy used in all."""
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


# --- what a trial is an example of -----------------------------------------------------------------------------------


def _read(metric: str, record: TrialRecord) -> _Trial | None:
    """None where the trial belongs to no search, or never finished."""
    value = record.best(metric)
    if (
        record.id.phase != "search"
        or record.state != "complete"
        or value is None
        or not math.isfinite(value)
    ):
        return None
    settings = record.settings
    epochs = settings.training.epochs
    return _Trial(
        record.id.strategy,
        value,
        _alpha_kind(settings.alpha, epochs),
        direction(settings.temperature, epochs),
        max(settings.learning_rate.values_taken()),
        record.result.seconds if record.result else 0.0,
    )


def _alpha_kind(alpha: Schedule, epochs: int) -> str:
    if set(values_in_order(alpha, epochs)) == {1.0}:
        return LABELS_ALONE
    return direction(alpha, epochs)


def values_in_order(schedule: Schedule, epochs: int | None = None) -> tuple[float, ...]:
    """The values that a schedule goes through. Of a list by epoch only what `epochs` epochs reach, where that is given."""
    if isinstance(schedule, PerEpoch) and epochs:
        return tuple(schedule.at(epoch / epochs, epoch) for epoch in range(epochs))
    return schedule.values_taken()


def direction(schedule: Schedule, epochs: int | None = None) -> str:
    """`constant`, `rising`, `falling`, or `up and down`."""
    steps = [later - earlier for earlier, later in pairwise(values_in_order(schedule, epochs))]
    up, down = any(step > 0 for step in steps), any(step < 0 for step in steps)
    if up and down:
        return "up and down"
    return "rising" if up else "falling" if down else "constant"


# --- alpha and temperature -------------------------------------------------------------------------------------------


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
    # The best is compared because it is best: the intervals hold for all pairs together (Bonferroni).
    pairs = len(list(combinations(enough, 2)))
    found = difference(groups[enough[0]], groups[enough[1]], level=1 - (1 - LEVEL) / pairs)
    best, second = enough[:2]
    if found.low > 0:
        answer = f"{best} does best: {_signed(found.effect)} points over {second} {_range(found)}"
    else:
        answer = f"no difference shown: {best} is {_signed(found.effect)} points over {second} {_range(found)}"
    shown = groups | {
        LABELS_ALONE: [trial.value for trial in trials if trial.alpha == LABELS_ALONE]
    }
    means = ", ".join(
        _describe(kind, values) for kind, values in shown.items() if len(values) >= ENOUGH
    )
    few = [kind for kind in ALPHAS if kind not in enough]
    missing = "".join(
        f" Not enough trials with a {kind} alpha (n = {len(groups[kind])})." for kind in few
    )
    return _entry(
        question,
        f"{answer}. Means: {means}.{missing} {CAVEAT.format('the learning rate')}",
        n,
        found,
    )


def _lower_temperature(trials: Sequence[_Trial]) -> Question:
    question = "does lowering the temperature during training help?"
    taught = [trial for trial in trials if trial.alpha != LABELS_ALONE]
    kinds = {
        strategy: {trial.temperature for trial in taught if trial.strategy == strategy}
        for strategy in _strategies(taught)
    }
    within = [strategy for strategy, found in kinds.items() if {"falling", "constant"} <= found]
    groups = _by_temperature([trial for trial in taught if trial.strategy in within])
    where = f" within {' and '.join(within)}"
    if len(within) != 1 or min(map(len, groups.values())) < ENOUGH:
        groups, where = _by_temperature(taught), ""
    n = sum(len(values) for values in groups.values())
    if min(map(len, groups.values())) < ENOUGH:
        return _entry(question, _not_enough(groups), n)
    found = difference(groups["falling"], groups["constant"])
    means = (
        f"Means{where}: {', '.join(_describe(kind, values) for kind, values in groups.items())}."
    )
    if found.low > 0:
        answer = f"yes: {_signed(found.effect)} points over a constant temperature {_range(found)}"
    elif found.high < 0:
        answer = f"no, it costs: {_signed(found.effect)} points against a constant temperature {_range(found)}"
    else:
        answer = f"no difference shown: {_signed(found.effect)} points against a constant temperature {_range(found)}"
    pooled = (
        ""
        if where or len(kinds) < 2
        else f" Trials of {', '.join(kinds)} are taken together, and those differ in their alpha as well."
    )
    return _entry(
        question, f"{answer}. {means}{pooled} {CAVEAT.format('the learning rate')}", n, found
    )


def _by_temperature(trials: Iterable[_Trial]) -> dict[str, list[float]]:
    trials = list(trials)
    return {
        kind: [trial.value for trial in trials if trial.temperature == kind]
        for kind in ("falling", "constant")
    }


def _strategies(trials: Iterable[_Trial]) -> list[str]:
    return list(dict.fromkeys(trial.strategy for trial in trials))


def difference(a: Sequence[float], b: Sequence[float], level: float = LEVEL) -> _Difference:
    """Mean of a minus mean of b with Welch's interval (1947). By hand: scipy's warns about groups whose values are all alike."""
    parts = np.array([np.var(a, ddof=1) / len(a), np.var(b, ddof=1) / len(b)])
    effect, variance = (
        round(float(np.mean(a) - np.mean(b)), 12),
        float(parts.sum()),
    )  # 12 digits: means of equal values differ by less
    if variance < 1e-18:
        return _Difference(effect, effect, effect)
    freedom = variance**2 / float(parts**2 @ np.array([1 / (len(a) - 1), 1 / (len(b) - 1)]))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(variance)
    return _Difference(effect, effect - half, effect + half)


# --- learning rate ---------------------------------------------------------------------------------------------------


def _learning_rate(strategy: str, trials: Sequence[_Trial]) -> Question:
    question = f"how sensitive is {strategy} to its learning rate?"
    seen = [trial for trial in trials if trial.rate > 0]
    if len(seen) < ENOUGH:
        return _entry(question, f"not enough trials (n = {len(seen)})", len(seen))
    octaves = np.log2([trial.rate for trial in seen])
    values = np.array([trial.value for trial in seen])
    if np.ptp(octaves) < 1 or _different(octaves) < 4:
        tried = _rates(octaves)
        return _entry(
            question,
            f"can't be told: {len(seen)} trials, but {tried}; it takes four rates over more than a factor of 2",
            len(seen),
        )
    if np.ptp(values) == 0:
        return _entry(
            question,
            f"no sensitivity shown: all {len(seen)} trials reach {values[0]:.4f}",
            len(seen),
            _Difference(0.0, 0.0, 0.0),
        )
    best, found = cost_of_a_factor_of_2(octaves, values)
    cost = f"a factor of 2 away from {2.0**best:.1e}, the best rate of a fitted curve, costs {_signed(found.effect)} points {_range(found)}"
    answer = cost if found.low > 0 else f"no sensitivity shown: {cost}"
    if best in (octaves.min(), octaves.max()):
        end, beyond = ("highest", "higher") if best == octaves.max() else ("lowest", "lower")
        answer += f". That is the {end} rate that was tried: {beyond} ones may do better"
    return _entry(
        question,
        f"{answer}. {len(seen)} trials, each with one seed, which may differ in other settings too; pruned ones are missing.",
        len(seen),
        found,
    )


def _different(octaves: np.ndarray) -> int:
    """How many rates there are; those within 1% of each other are one."""
    return len(np.unique(octaves.round(2)))


def _rates(octaves: np.ndarray) -> str:
    low, high = 2.0 ** octaves.min(), 2.0 ** octaves.max()
    if _different(octaves) == 1:
        return f"all have the learning rate {low:.1e}"
    return f"their {_different(octaves)} learning rates lie between {low:.1e} and {high:.1e}"


def cost_of_a_factor_of_2(octaves: np.ndarray, values: np.ndarray) -> tuple[float, _Difference]:
    """(the best log2 learning rate, what one octave away from it costs) of a parabola fitted to `values` [trials].

    Where the parabola's top lies among the rates, that cost is its curvature, whatever the top; at an end of the rates it is the
    drop to one octave inside. Both are linear in the coefficients, so least squares give Student's interval.
    """
    center = octaves.mean()
    terms = np.vander(octaves - center, 3)  # columns: square, rate, 1
    # Divided by their lengths: squares of a narrow and of a wide range fit equally well.
    lengths = np.linalg.norm(terms, axis=0)
    orthogonal, upper = np.linalg.qr(terms / lengths)
    scaled = np.linalg.solve(upper, orthogonal.T @ values)
    square, slope, _ = coefficients = scaled / lengths
    ends = octaves.min() - center, octaves.max() - center
    if square < 0 and ends[0] < (top := -slope / (2 * square)) < ends[1]:
        best, asked = float(top + center), np.array([-1.0, 0.0, 0.0])
    else:
        end, inside = max(
            ((ends[0], ends[0] + 1), (ends[1], ends[1] - 1)),
            key=lambda pair: square * pair[0] ** 2 + slope * pair[0],
        )
        best, asked = (
            float(octaves.min() if end == ends[0] else octaves.max()),
            np.array([end**2 - inside**2, end - inside, 0.0]),
        )
    freedom = len(values) - 3
    residual = values - terms @ coefficients
    error = math.sqrt(residual @ residual / freedom) * float(
        np.linalg.norm(np.linalg.solve(upper.T, asked / lengths))
    )
    half, effect = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * error, float(asked @ coefficients)
    return best, _Difference(effect, effect - half, effect + half)


# --- cost ------------------------------------------------------------------------------------------------------------


def _cost(trials: Sequence[_Trial], slot_hours: Mapping[str, float]) -> Question:
    total = sum(slot_hours.values())
    parts = []
    for strategy, hours in slot_hours.items():
        share = f" ({100 * hours / total:.0f}%)" if total > 0 else ""
        took = [trial.seconds for trial in trials if trial.strategy == strategy]
        each = (
            f"{_duration(float(np.mean(took)))} a finished trial (n = {len(took)})"
            if took
            else "no trial finished"
        )
        parts.append(f"{strategy} {_hours(hours)}{share}, {each}")
    return _entry(
        "what did each strategy cost?",
        "; ".join(parts) if parts else "not enough trials (n = 0)",
        len(trials),
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f} slot hours" if hours >= 1 else f"{hours:.2g} slot hours"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.3g} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


# --- in words --------------------------------------------------------------------------------------------------------


def _not_enough(groups: Mapping[str, Sequence[float]]) -> str:
    counts = ", ".join(f"{kind} n = {len(values)}" for kind, values in groups.items())
    return f"not enough trials ({counts}): it takes {ENOUGH} of a kind to compare"


def _describe(kind: str, values: Sequence[float]) -> str:
    return f"{kind} {np.mean(values):.4f} (n = {len(values)}, best {max(values):.4f})"


def _signed(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f}"  # + 0.0: no "-0.0"


def _range(found: _Difference) -> str:
    return f"({_signed(found.low)} to {_signed(found.high)})"
