"""Which of a strategy's best trials is the best one, by successive halving over fresh seeds.

The best trial of a search is the luckiest of many: its own seed and the validation rows flattered
it. So the best few are trained again and judged on validation alone. Each gets one seed; the better
half, at least two, gets as many again, until two are left. `docs/statistics.md` shows what that
gains and what it costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Round:
    """How many trials it judges, and how many more seeds each of them gets."""

    trials: int
    seeds: int


def rounds(finalists: int) -> list[Round]:
    """The rounds for so many finalists; none where there is nothing to choose.

    3 finalists: 3 with one seed, then 2 with one more.
    """
    if finalists < 2:
        return []
    found = [Round(finalists, 1)]
    seeds = 1
    while found[-1].trials > 2 or seeds < 2:
        found.append(Round(max(2, math.ceil(found[-1].trials / 2)), seeds))
        seeds *= 2
    return found


def trainings(finalists: int) -> int:
    """How many runs it takes to judge so many finalists."""
    return sum(one.trials * one.seeds for one in rounds(finalists))


@dataclass(frozen=True)
class Judged:
    """How far a strategy's finalists are judged.

    asked: (trial, index of the seed) of every run in the rounds so far, in the order of training.
    order: the finalists, the best one so far first. values: of each, what the runs that have ended
    reached, by seed; None where one failed. chosen: the trial that confirm trains; None until all
    rounds are over, or where no trial is complete.
    """

    asked: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    values: dict[int, tuple[float | None, ...]]
    chosen: int | None


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the runs that didn't fail; None without one."""
    reached = [value for value in values if value is not None]
    return math.fsum(reached) / len(reached) if reached else None


def judge(
    best_first: Sequence[int], finalists: int, ended: Mapping[tuple[int, int], float | None]
) -> Judged:
    """What the runs so far say.

    best_first: the search's complete trials. finalists: how many of them at most. ended: (trial,
    index of the seed) -> what the run reached on validation; None where it failed or diverged.

    A trial with a failed run is worse than all without one. Of equals, the search's order decides.
    """
    order = list(best_first[:finalists])
    place = {trial: i for i, trial in enumerate(order)}
    asked: list[tuple[int, int]] = []
    chosen: int | None = None
    seeds = 0
    for one in rounds(len(order)):
        judged, dropped = order[: one.trials], order[one.trials :]
        more = [(trial, i) for i in range(seeds, seeds + one.seeds) for trial in judged]
        asked += more
        seeds += one.seeds
        if any(run not in ended for run in more):
            break
        values = _values(judged, asked, ended)
        judged.sort(key=lambda trial: (*_rank(values[trial]), -place[trial]), reverse=True)
        order = [*judged, *dropped]
    else:
        chosen = order[0] if order else None
    return Judged(tuple(asked), tuple(order), _values(order, asked, ended), chosen)


def _values(
    trials: Sequence[int],
    asked: Sequence[tuple[int, int]],
    ended: Mapping[tuple[int, int], float | None],
) -> dict[int, tuple[float | None, ...]]:
    """What the runs of each trial that were asked for and have ended reached, by seed."""
    return {
        trial: tuple(ended[run] for run in asked if run[0] == trial and run in ended)
        for trial in trials
    }


def _rank(values: Sequence[float | None]) -> tuple[float, float]:
    """Higher is better: fewer failures first, then the mean of what didn't fail."""
    mean = mean_of(values)
    return -values.count(None), -math.inf if mean is None else mean
