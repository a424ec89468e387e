"""The report in sentences."""

from __future__ import annotations

import pytest

from kdsweep.compare.findings import (
    AgainstTeacher,
    Comparison,
    Estimate,
    Pair,
    PairState,
    TeacherState,
)
from kdsweep.report.model import Recommendation, TeacherFacts
from kdsweep.report.sentences import confirmed_verdict, searched_verdict


def test_the_verdict_says_level_where_the_best_are_equal() -> None:
    level = searched_verdict("accuracy", None, {"a": 0.8, "b": 0.8})
    assert level.startswith("a and b are level")
    ahead = searched_verdict("accuracy", None, {"a": 0.8, "b": 0.75})
    assert ahead.startswith("a is ahead on validation: accuracy 0.8000, 5.0 points over b")
    assert searched_verdict("accuracy", None, {}) == "no trial has finished"


# --- the verdict on test -------------------------------------------------------------------------


TEACHER = TeacherFacts(validation=0.93, test=0.92, ci95=(0.90, 0.94))


def estimates(**values: float) -> dict[str, Estimate]:
    return {name: Estimate(value, value - 0.01, value + 0.01) for name, value in values.items()}


def pair(a: str, b: str, state: PairState, verdict: str, difference: float = 0.02) -> Pair:
    return Pair(a, b, difference, (0.0, 0.0), 0.01, 5, None, verdict, state)


def chosen(strategy: str, first: str, *candidates: str, equivalent: str = "") -> Recommendation:
    return Recommendation(
        strategy=strategy,
        trial=3,
        seed_index=1,
        first_choice=first,
        candidates=candidates,
        equivalent=tuple(equivalent.split()),
    )


def against(difference: float, low: float, high: float, state: TeacherState) -> AgainstTeacher:
    return AgainstTeacher(difference, (low, high), state)


def test_a_strategy_that_beats_all_others_does_best_and_its_teacher_is_named() -> None:
    compared = Comparison(
        estimates(a=0.93, b=0.91),
        (pair("a", "b", "better", "a beats b by 2.0 points (1.0 to 3.0)"),),
        against_teacher={"a": against(0.01, 0.002, 0.018, "above")},
    )
    assert confirmed_verdict("accuracy", compared, chosen("a", "a", "a"), TEACHER, 0.01) == (
        "a does best on the test split: accuracy 0.9300 (0.9200 to 0.9400); that is 1.0 points "
        "above the teacher (0.2 to 1.8), which has 0.9200 (0.9000 to 0.9400). a beats b by 2.0 "
        "points (1.0 to 3.0)."
    )


def test_a_recommended_strategy_need_not_have_the_highest_mean_on_test() -> None:
    compared = Comparison(
        estimates(a=0.93, b=0.91),
        (pair("a", "b", "undecided", "no difference shown; about 9 seeds"),),
        against_teacher={"b": against(-0.01, -0.03, 0.01, "undecided")},
    )
    assert confirmed_verdict("accuracy", compared, chosen("b", "b", "a", "b"), TEACHER, 0.01) == (
        "No strategy is shown to be the best. b is recommended: of a and b, which no other "
        "strategy beats on test, it has the highest mean on validation over the confirm seeds. On "
        "the test split it reaches accuracy 0.9100 (0.9000 to 0.9200); no difference from the "
        "teacher is shown: it has 0.9200 (0.9000 to 0.9400), above the mean by 1.0 points (-1.0 to "
        "3.0). Between b and a: no difference shown; about 9 seeds."
    )


@pytest.mark.parametrize(
    ("recommended", "why"),
    [
        (
            chosen("b", "a", "a", "b", equivalent="b"),
            "a has the highest mean on validation, and b is the cheapest of those that are "
            "equivalent to it within 1 point",
        ),
        (
            chosen("a", "a", "a", "b", equivalent="b"),
            "it has the highest mean on validation, and none of those that are equivalent to it "
            "within 1 point is cheaper (b)",
        ),
        (chosen("a", "a", "a"), "it is the only one that no other strategy beats on test"),
    ],
)
def test_the_verdict_says_why_a_strategy_is_recommended(
    recommended: Recommendation, why: str
) -> None:
    compared = Comparison(
        estimates(a=0.93, b=0.91),
        (pair("a", "b", "equivalent", "a and b are equivalent within 1 point"),),
    )
    verdict = confirmed_verdict("accuracy", compared, recommended, None, 0.01)
    assert f" is recommended: {why}. On the test split it reaches accuracy" in verdict
    assert verdict.endswith("a and b are equivalent within 1 point.")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            against(-0.01, -0.02, -0.001, "below"),
            "that is 1.0 points below the teacher (0.1 to 2.0), which has 0.9200 (0.9000 to "
            "0.9400), 98.9% of it",
        ),
        (
            AgainstTeacher(0.01, None, "undecided"),
            "the teacher has 0.9200 (0.9000 to 0.9400), and one seed can't tell them apart",
        ),
        (None, "the teacher has 0.9200 (0.9000 to 0.9400); its predictions weren't kept"),
    ],
)
def test_the_teacher_is_above_or_below_only_where_that_is_shown(
    found: AgainstTeacher | None, words: str
) -> None:
    compared = Comparison(estimates(a=0.91), (), against_teacher={"a": found} if found else None)
    verdict = confirmed_verdict("accuracy", compared, chosen("a", "a", "a"), TEACHER, 0.01)
    assert words in verdict
    assert verdict.endswith("No other strategy finished, so there is nothing to compare it with.")
