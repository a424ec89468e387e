"""How many settings of a search can't be told apart from the best one.

The best of many trials is partly lucky: in the validation rows, and in its seed. A setting counts
as worse than the best one only where the difference of the two is larger than noise alone makes the
largest difference between any two of them. That follows Tukey's range test, so that the chance of
any false exclusion is at most 5% in a whole sweep, however many trials there are: each strategy is
judged at 5% divided by the number of strategies. Excluded settings leave the range, step by step
(Romano and Wolf 2005, https://doi.org/10.1198/016214504000000539).

The noise has two parts, as in `kdsweep.compare.statistics`:

- The rows: scores on resampled rows, the same for all trials, so what is hard for all cancels out.
- The seeds: a trial has one seed, so its own trials can't show this part. The runs of confirm
  repeat the best settings with other seeds. From few of them the variance is known roughly; the
  range is simulated with variances that fit what they show (s^2 (k - 1) / chi^2).

docs/statistics.md has the figures of `make bench NAMES=settings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.compare.families import Family
from kdsweep.compare.findings import SettingsComparison
from kdsweep.compare.records import SearchPredictions
from kdsweep.compare.statistics import resampled_scores, scores

SIMULATIONS = 4000
# With more trials, the range of those with the highest values is simulated, at a stricter level.
MOST_COMPARED = 200
# Of students at a time: their confusion matrices on all draws would fill the memory.
STUDENTS_AT_ONCE = 16
# Of the usual variance between two trials. Two that predict the same differ by nothing, and a
# difference is divided by its error.
LEAST_SHARE = 0.05


@dataclass(frozen=True, eq=False)
class _Noise:
    """What moves the scores of trials that are equal in truth.

    of_rows: the covariance of the scores over resampled rows [trials, trials]. of_seeds: variances
    between seeds, without what belongs to one seed on one row, that fit the runs of confirm
    [simulations]; 0 where these don't tell.
    """

    of_rows: np.ndarray
    of_seeds: np.ndarray

    def errors(self) -> np.ndarray:
        """The standard error of each difference [trials, trials]."""
        own = np.diagonal(self.of_rows)
        of_rows = np.maximum(own[:, None] + own - 2 * self.of_rows, 0.0)
        apart = of_rows[~np.eye(len(own), dtype=bool)]
        of_rows = np.maximum(of_rows, LEAST_SHARE * float(np.median(apart)))
        errors: np.ndarray = np.sqrt(of_rows + 2 * float(np.median(self.of_seeds)))
        return errors

    def simulated(self, draw: np.random.Generator) -> np.ndarray:
        """Scores of trials that are equal in truth, around 0 [trials, simulations]."""
        size = len(self.of_rows), len(self.of_seeds)
        variances, directions = np.linalg.eigh(self.of_rows)
        root = directions * np.sqrt(np.maximum(variances, 0.0))
        found: np.ndarray = root @ draw.normal(size=size)
        if self.of_seeds.any():
            found += draw.normal(size=size) * np.sqrt(self.of_seeds)
        return found


def compare_settings(
    metric: str,
    searches: Mapping[str, SearchPredictions],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, SettingsComparison]:
    """For each strategy with at least two complete trials, those that may be the best."""
    compared = {name: one for name, one in searches.items() if one.complete > 1}
    known = [name for name, one in compared.items() if one.is_known]
    level = Family(len(known)).level
    return {
        name: _compare(metric, one, level, draws, seed)
        if one.is_known
        else SettingsComparison(one.complete, 0, None, 0)
        for name, one in compared.items()
    }


def _compare(
    metric: str, search: SearchPredictions, level: float, draws: int, seed: int
) -> SettingsComparison:
    assert search.labels is not None
    labels, draw = search.labels, np.random.default_rng(seed)
    reached = scores_of(metric, labels, list(search.trials.values()))
    numbers = np.array(list(search.trials))
    # The best first; of equals, the one with the lower number.
    order = np.lexsort((numbers, -reached))[:MOST_COMPARED]
    values = reached[order]
    students = [search.trials[number] for number in numbers[order].tolist()]
    runs = list(search.confirmed.values())
    drawn = _centered(metric, labels, [*students, *runs], draws, seed)
    seeds = len(runs) if len(runs) > 1 else 0
    of_seeds = np.zeros(SIMULATIONS)
    if seeds:
        of_seeds = _between_seeds(scores(metric, labels, runs), drawn[len(students) :], draw)
    of_trials = drawn[: len(students)]
    noise = _Noise(of_trials @ of_trials.T / draws, of_seeds)
    trials = search.complete
    if trials > len(order):
        level *= len(order) * (len(order) - 1) / (trials * (trials - 1))
    alike = _alike(values, noise, len(labels), level, draw)
    return SettingsComparison(
        complete=trials,
        compared=len(order),
        alike=tuple(numbers[order][alike].tolist()),
        seeds=seeds,
    )


def _alike(
    values: np.ndarray, noise: _Noise, rows: int, level: float, draw: np.random.Generator
) -> np.ndarray:
    """Which trials aren't shown to be worse than the first, the best one [trials]."""
    errors = noise.errors()
    # Trials that all predict the same have no error, and lead by nothing.
    weights = np.divide(1.0, errors, out=np.zeros_like(errors), where=errors > 0)
    lead = (values[0] - values) * weights[0]
    # The rows that make a difference large by chance make its error small. This is the error of a
    # difference of 0, as in McNemar's test.
    lead /= np.sqrt(1 + lead**2 / rows)
    # By how many errors another trial leads each one by chance, at most [trials, simulations].
    made_up = noise.simulated(draw).astype(np.float32)
    by_chance = np.stack([_greatest_lead(made_up, i, own) for i, own in enumerate(weights)])
    alike = np.ones(len(values), dtype=bool)
    while True:
        allowed = np.quantile(by_chance[alike].max(axis=0), 1 - level, method="higher")
        worse = alike & (lead > allowed)
        if not worse.any():
            return alike
        alike &= ~worse


def _greatest_lead(made_up: np.ndarray, i: int, weights: np.ndarray) -> np.ndarray:
    """Over trial i, of any trial [simulations]."""
    leads = made_up - made_up[i]
    leads *= weights[:, None].astype(np.float32)
    greatest: np.ndarray = leads.max(axis=0)
    return greatest


def _between_seeds(reached: np.ndarray, drawn: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Variances between seeds that fit the scores [seeds] of the runs of confirm [simulations].

    Less what belongs to one seed on one row: resampled rows show that, and it counts there.
    """
    freedom = len(reached) - 1
    on_rows = float(drawn.var(axis=0, ddof=1).mean())
    # The variance of scores has that part too. If it is smaller, the seeds agree by chance.
    seen = max(float(reached.var(ddof=1)), on_rows)
    variances: np.ndarray = seen * freedom / draw.chisquare(freedom, SIMULATIONS) - on_rows
    return np.maximum(variances, 0.0)


def scores_of(metric: str, labels: np.ndarray, students: Sequence[np.ndarray]) -> np.ndarray:
    """The metric of each student [students]."""
    parts = [scores(metric, labels, part) for part in _parts(students)]
    return np.concatenate(parts)


def _centered(
    metric: str, labels: np.ndarray, students: Sequence[np.ndarray], draws: int, seed: int
) -> np.ndarray:
    """Scores on resampled rows, less each student's mean [students, draws].

    The same seed draws the same rows for every part.
    """
    parts = [
        resampled_scores(metric, labels, part, draws=draws, seed=seed) for part in _parts(students)
    ]
    drawn = np.concatenate(parts)
    centered: np.ndarray = drawn - drawn.mean(axis=1, keepdims=True)
    return centered


def _parts(students: Sequence[np.ndarray]) -> list[Sequence[np.ndarray]]:
    starts = range(0, len(students), STUDENTS_AT_ONCE)
    return [students[start : start + STUDENTS_AT_ONCE] for start in starts]
