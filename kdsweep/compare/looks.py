"""Comparing strategies again and again as seeds come, with `confirm.seeds: auto`.

All strategies that are still in question get the same new seeds, up to the next look. At each look
a pair is judged as in `kdsweep.compare.verdicts`, at a level from `kdsweep.compare.look_levels`. A
pair that is better, equivalent or out of reach is settled and keeps its result. A strategy is in
question while it isn't beaten and its pair with another such strategy is undecided.

The 5% are shared by all pairs before the first look. A pair that is better by at least the margin
passes its share on to the others (Maurer and Bretz 2013; this is Holm's procedure with weights).
A pair that is equivalent doesn't: the two may be equal, and then "better" could have been false.
Whether what is said holds over all looks is shown by `make bench NAMES=confirm`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from kdsweep.compare.families import Family
from kdsweep.compare.findings import Comparison, Look, Pair
from kdsweep.compare.look_levels import LEVELS
from kdsweep.compare.statistics import Judged
from kdsweep.compare.verdicts import Compared, PairRules, at_least, judge_pair, not_yet
from kdsweep.config.sweep import LOOKS, MARGIN

# What the pairs of the favorite have of the 5% before the first look.
OF_FAVORITE = 0.9
# A seed's index -> what its student predicts on test; None for a run that ended without a student.
Ended = Mapping[int, np.ndarray | None]
PairOfNames = tuple[str, str]


@dataclass(frozen=True)
class LookRules:
    """How a sweep looks. All of it is settled before the first fresh seed.

    margin: as in `compare`. most: seeds of a strategy, from the first look's to the last one's of
    LOOKS. first: how many seeds there were before looks began, with an earlier `seeds: N`; such a
    sweep has its first look at them. favorite: the strategy that is ahead on validation, by the
    search and the finalists alone; its pairs have most of the 5%.
    """

    margin: float = MARGIN
    most: int = LOOKS[-1]
    first: int = LOOKS[0]
    favorite: str | None = None

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many seeds."""
        first = min(max(self.first, LOOKS[0]), self.most)
        return (first, *(k for k in looks_up_to(self.most) if k > first))


def looks_up_to(most: int) -> tuple[int, ...]:
    """The looks of a sweep with at most so many seeds a strategy; the last one is at `most`."""
    return (*(k for k in LOOKS if k < most), most)


def compare_in_looks(
    metric: str,
    labels: np.ndarray,
    predicted: Mapping[str, Ended],
    teachers: Sequence[np.ndarray | None] = (),
    *,
    rules: LookRules,
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """As `compare`, with the looks of each pair, and with the seeds that are wanted next.

    predicted: by strategy, of every strategy that is to be confirmed; empty before its first seed.
    The result depends only on the looks that are complete: those up to which all seeds of all
    strategies in question have ended. So it is the same in whatever order seeds end.
    """
    finished = {
        name: {i: found for i, found in ended.items() if found is not None and i < rules.most}
        for name, ended in predicted.items()
    }
    judged = Judged(metric, labels, finished, teachers, draws=draws, seed=seed)
    ended = {name: _without_gap(found) for name, found in predicted.items()}
    found = follow(ended, judged.compared, rules, judged.span)
    families = {
        name: Family(len(ended), _share(found.judged[name], 1 / len(ended), rules))
        for name in judged.strategies
    }
    # Before the first look, the seeds that there are tell at least the means.
    seeds = {name: found.judged[name] or rules.most for name in judged.strategies}
    return Comparison(
        means={name: judged.mean(name, families[name], seeds[name]) for name in judged.strategies},
        pairs=found.pairs,
        teachers=judged.of_teachers(),
        against_teacher=judged.against_teacher(families, seeds),
        seeds_wanted=found.wanted,
        seeds_judged=found.judged,
    )


def _without_gap(ended: Ended) -> int:
    """How many seeds from the first on have ended."""
    return next(index for index in range(len(ended) + 1) if index not in ended)


# --- look after look -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Followed:
    """What the complete looks say.

    judged, wanted: how many seeds each strategy was judged on, and how many it should have by now.
    """

    pairs: tuple[Pair, ...]
    judged: dict[str, int]
    wanted: dict[str, int]


def follow(
    ended: Mapping[str, int],
    compared: Callable[[str, str, int], Compared],
    rules: LookRules,
    span: float,
) -> Followed:
    """Judges every complete look in turn.

    ended: how many seeds from the first on have ended, by strategy. compared: two strategies on
    their first so many seeds. span: of the metric.
    """
    race = _Race(list(ended), rules, span)
    judged = dict.fromkeys(ended, 0)
    in_question = list(ended)
    for seeds in rules.looks:
        if any(ended[name] < seeds for name in in_question):
            break
        race.look(in_question, seeds, compared)
        judged |= dict.fromkeys(in_question, seeds)
        in_question = race.in_question(in_question)
        if not in_question:
            break
    later = [seeds for seeds in rules.looks if seeds > max(judged.values(), default=0)]
    wanted = judged | (dict.fromkeys(in_question, later[0]) if later else {})
    return Followed(race.result(compared), judged, wanted)


class _Race:
    """The pairs, and how much of the 5% each one has."""

    def __init__(self, names: Sequence[str], rules: LookRules, span: float) -> None:
        self.rules = rules
        self.span = span
        self.pairs: dict[PairOfNames, Pair | None] = dict.fromkeys(combinations(names, 2))
        self._weights = _weights(list(self.pairs), rules.favorite)
        self._passed_on: set[PairOfNames] = set()

    def look(
        self,
        in_question: Sequence[str],
        seeds: int,
        compared: Callable[[str, str, int], Compared],
    ) -> None:
        """Judge the pairs of these strategies that aren't settled."""
        left = {
            names: compared(*names, seeds)
            for names, pair in self.pairs.items()
            if set(names) <= set(in_question) and (pair is None or pair.state == "undecided")
        }
        while left:
            found = {names: self._judge(names, one, seeds) for names, one in left.items()}
            passing = [names for names, pair in found.items() if self._passes_on(pair)]
            for names in passing or list(found):
                self._keep(names, found[names], seeds)
                del left[names]
            self._passed_on.update(passing)

    def in_question(self, names: Sequence[str]) -> list[str]:
        """Those of `names` that aren't beaten, and undecided with another such one."""
        known = [pair for pair in self.pairs.values() if pair is not None]
        beaten = {pair.other(pair.better) for pair in known if pair.better}
        open_pairs = [
            pair
            for pair in known
            # Where all seeds failed, more of them would fail too.
            if pair.state == "undecided" and pair.seeds > 0 and not beaten & {pair.a, pair.b}
        ]
        return [name for name in names if any(pair.other(name) for pair in open_pairs)]

    def result(self, compared: Callable[[str, str, int], Compared]) -> tuple[Pair, ...]:
        return tuple(
            not_yet(*names, compared(*names, self.rules.most), self.rules.looks[0])
            if pair is None
            else pair
            for names, pair in self.pairs.items()
        )

    def _judge(self, names: PairOfNames, found: Compared, seeds: int) -> Pair:
        part = self._weights[names] / sum(
            weight for other, weight in self._weights.items() if other not in self._passed_on
        )
        now, later = (
            Family(1, part * _share(look, part, self.rules)) for look in (seeds, self.rules.most)
        )
        return judge_pair(*names, found, PairRules(now, self.rules.margin, self.span, later))

    def _passes_on(self, pair: Pair) -> bool:
        return (
            pair.state == "better"
            and pair.ci95 is not None
            and pair.difference is not None
            and at_least(pair.ci95, pair.difference) >= self.rules.margin
        )

    def _keep(self, names: PairOfNames, pair: Pair, seeds: int) -> None:
        earlier = self.pairs[names]
        assert pair.state is not None
        look = Look(seeds, pair.difference, pair.ci95, pair.p, pair.state)
        self.pairs[names] = replace(pair, looks=(*(earlier.looks if earlier else ()), look))


def _weights(pairs: Sequence[PairOfNames], favorite: str | None) -> dict[PairOfNames, float]:
    """Each pair's part of the 5% before the first look."""
    own = [names for names in pairs if favorite in names]
    others = len(pairs) - len(own)
    if not own or not others:
        return dict.fromkeys(pairs, 1 / max(1, len(pairs)))
    return {
        names: OF_FAVORITE / len(own) if favorite in names else (1 - OF_FAVORITE) / others
        for names in pairs
    }


def _share(seeds: int, part: float, rules: LookRules) -> float:
    """What a statement may use at the look at `seeds` seeds, of its part of the 5%.

    A first look at other numbers than LOOKS has the share of the look before it: that look isn't
    held, so nothing was used for it.
    """
    number = max(0, sum(look <= seeds for look in looks_up_to(rules.most)) - 1)
    by_level = [shares[number] for shares in LEVELS[rules.most]]
    halvings = float(np.clip(-np.log2(part), 0, len(by_level) - 1))
    share = float(np.interp(halvings, range(len(by_level)), by_level))
    # Below the table's smallest level, quantiles of few seeds need even smaller ones.
    return share * min(1.0, part * 2.0 ** (len(by_level) - 1))
