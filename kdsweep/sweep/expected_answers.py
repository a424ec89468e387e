"""Which questions a sweep's budget can answer, before it runs.

Questions are answered from complete trials, and a pruner leaves few of them. The sweep's own pruner
runs on made-up trials, which says how many it lets through; then sweeps are
made up, and the questions are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.compare.questions import (
    LOWER_TEMPERATURE,
    WHICH_ALPHA,
    CompleteTrial,
    answerable_questions,
    complete_trial,
    sensitivity_question,
)
from kdsweep.compare.rungs import ExpectedComplete
from kdsweep.config import Plan, trials_of
from kdsweep.formatting import joined
from kdsweep.sweep.random_trials import random_settings
from kdsweep.sweep.samplers_and_pruners import complete_share, most_evaluations

MADE_UP_SWEEPS = 20
SETTINGS_TO_DRAW = 60
# A question can be answered if it is in so many of the made-up sweeps.
LIKELY = 0.8
MANY_TRIALS = 200
TIMES_MORE_TRIALS = (2, 4, 8)


@dataclass(frozen=True)
class ExpectedAnswers:
    """What the complete trials of a sweep will suffice for.

    complete: how many of each strategy's trials are expected to run to their end. questions: each
    question -> the share of made-up sweeps whose trials can answer it. advice: what would answer
    more of them.
    """

    complete: dict[str, float]
    questions: dict[str, float]
    advice: list[str]

    @property
    def likely(self) -> list[str]:
        return [question for question, share in self.questions.items() if share >= LIKELY]

    @property
    def unlikely(self) -> list[str]:
        return [question for question, share in self.questions.items() if share < LIKELY]


def expected_answers(plan: Plan, slots: int | None) -> ExpectedAnswers:
    """slots: how many trials run at once; None if that isn't known."""
    trials = {name: trials_of(plan.space, plan.sweep, name) for name in plan.space.strategies}
    shares = _complete_shares(plan, trials, slots or 1)
    drawn = {
        strategy: [
            complete_trial(strategy, number, 0.0, random_settings(plan, strategy, number))
            for number in range(SETTINGS_TO_DRAW)
        ]
        for strategy in trials
    }
    found = _answered(drawn, trials, shares)
    return ExpectedAnswers(
        complete={name: round(shares[name] * count, 1) for name, count in trials.items()},
        questions=found,
        advice=_advice(plan, drawn, trials, shares, found),
    )


# --- how many trials complete ---


def expected_complete(plan: Plan, slots: int | None) -> dict[str, ExpectedComplete]:
    """By strategy. slots: how many trials run at once; None if that isn't known."""
    trials = {name: trials_of(plan.space, plan.sweep, name) for name in plan.space.strategies}
    shares = _complete_shares(plan, trials, slots or 1)
    return {
        name: ExpectedComplete(round(shares[name] * count, 1), count)
        for name, count in trials.items()
    }


def _complete_shares(plan: Plan, trials: Mapping[str, int], slots: int) -> dict[str, float]:
    if plan.sweep.pruner.type == "none" or plan.sweep.costs:
        return dict.fromkeys(trials, 1.0)
    known: dict[tuple[int, int], float] = {}
    shares = {}
    for strategy, count in trials.items():
        key = (count, most_evaluations(plan.space, strategy))
        if key not in known:
            known[key] = complete_share(plan.sweep, plan.space, strategy, trials=count, slots=slots)
        shares[strategy] = known[key]
    return shares


# --- what they suffice for ---


def _answered(
    drawn: Mapping[str, Sequence[CompleteTrial]],
    trials: Mapping[str, int],
    shares: Mapping[str, float],
) -> dict[str, float]:
    """Each question -> the share of made-up sweeps that can answer it."""
    draw = np.random.default_rng(0)
    counts = dict.fromkeys([WHICH_ALPHA, LOWER_TEMPERATURE, *map(sensitivity_question, trials)], 0)
    for _ in range(MADE_UP_SWEEPS):
        sweep = []
        for strategy, count in trials.items():
            settings = drawn[strategy]
            for number in np.flatnonzero(draw.random(count) < shares[strategy]):
                one = settings[int(draw.integers(len(settings)))]
                sweep.append(one._replace(number=int(number), value=draw.normal()))
        for question in answerable_questions(sweep, list(trials)):
            counts[question] += 1
    return {question: count / MADE_UP_SWEEPS for question, count in counts.items()}


def _advice(
    plan: Plan,
    drawn: Mapping[str, Sequence[CompleteTrial]],
    trials: Mapping[str, int],
    shares: Mapping[str, float],
    found: Mapping[str, float],
) -> list[str]:
    open_questions = {question for question, share in found.items() if share < LIKELY}
    if not open_questions:
        return []
    many = dict.fromkeys(trials, MANY_TRIALS)
    at_most = _answered(drawn, many, dict.fromkeys(trials, 1.0))
    never = [name for name in found if name in open_questions and at_most[name] < LIKELY]
    open_questions -= set(never)
    ways = []
    if plan.sweep.sampler.type != "grid":
        for times in TIMES_MORE_TRIALS if open_questions else ():
            more = {name: times * count for name, count in trials.items()}
            reached = _answered(drawn, more, shares)
            if all(reached[name] >= LIKELY for name in open_questions):
                ways.append(f"--set trials={times * plan.sweep.trials}")
                break
    if open_questions and plan.sweep.pruner.type != "none":
        reached = _answered(drawn, trials, dict.fromkeys(trials, 1.0))
        if all(reached[name] >= LIKELY for name in open_questions):
            ways.append("--set 'pruner={type: none}'")
    advice = [f"enough for all of them: {' or '.join(ways)}"] if ways else []
    return [*advice, *(_why_never(question) for question in never)]


def _why_never(question: str) -> str:
    """What the space lacks."""
    if question == WHICH_ALPHA:
        return "the space has no second direction of alpha to compare (rising, falling or constant)"
    if question == LOWER_TEMPERATURE:
        return "the space has no falling temperature beside a constant one"
    return f"{question} needs four rates over more than a factor of 2"


def in_words(expected: ExpectedAnswers, trials: Mapping[str, int]) -> list[str]:
    """One or two lines."""
    by_count: dict[str, list[str]] = {}
    for strategy, complete in expected.complete.items():
        by_count.setdefault(f"{complete:.0f} of {trials[strategy]}", []).append(strategy)
    counts = "; ".join(
        f"{count}" if len(by_count) == 1 else f"{count} of {joined(names)}"
        for count, names in by_count.items()
    )
    each = " of each strategy" if len(by_count) == 1 else ""
    lines = [f"complete trials expected: {counts}{each}. Enough to answer: {_few(expected.likely)}"]
    if expected.unlikely:
        advice = "".join(f"; {one}" for one in expected.advice)
        lines.append(f"too few to answer: {_few(expected.unlikely)}{advice}")
    return lines


def _few(questions: Sequence[str]) -> str:
    """The questions in a few words."""
    names = {WHICH_ALPHA: "the direction of alpha", LOWER_TEMPERATURE: "a falling temperature"}
    found = [names[one] for one in questions if one in names]
    prefix, suffix = sensitivity_question("\0").split("\0")
    rates = [one.removeprefix(prefix).removesuffix(suffix) for one in questions if one not in names]
    if rates:
        found.append(f"the learning rate of {joined(rates)}")
    return ", ".join(found) or "no question"
