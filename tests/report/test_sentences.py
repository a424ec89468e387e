"""The report in sentences."""

from __future__ import annotations

from dataclasses import replace

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


def undecided(a: str, b: str) -> Pair:
    return Pair(
        a, b, 0.01, (-0.02, 0.04), 0.4, 5, 14, "", "undecided", (9, 47), rows=872, rows_apart=40
    )


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
        "a does best on the test split: accuracy 0.9300 (0.9200 to 0.9400). The teacher "
        "reaches 0.9200 (0.9000 to 0.9400). The student is 1.0 points above it (0.2 to 1.8). a "
        "beats b by 2.0 points (1.0 to 3.0)."
    )


def test_a_recommended_strategy_need_not_have_the_highest_mean_on_test() -> None:
    compared = Comparison(
        estimates(a=0.93, b=0.91),
        (undecided("a", "b"),),
        against_teacher={"b": against(-0.01, -0.03, 0.01, "undecided")},
    )
    assert confirmed_verdict("accuracy", compared, chosen("b", "b", "a", "b"), TEACHER, 0.01) == (
        "No strategy is shown to be the best. b is recommended: it has the highest mean on "
        "validation over the confirm seeds, of the strategies that no other one beats on test (a "
        "and b). On the test split it reaches accuracy 0.9100 (0.9000 to 0.9200). The teacher "
        "reaches 0.9200 (0.9000 to 0.9400). No difference between the two is shown: the student is "
        "1.0 points below it (-1.0 to 3.0). The seeds can't separate b from a: no difference is "
        "shown, nor equivalence within 1 point. It would take 9 to 47 seeds to show a difference "
        "of 1 point four times in five."
    )


def test_what_holds_for_all_undecided_pairs_is_said_once() -> None:
    def verdict(*pairs: Pair) -> str:
        compared = Comparison(estimates(a=0.93, b=0.91, c=0.92, d=0.9), pairs)
        said = confirmed_verdict("accuracy", compared, chosen("a", "a", *"abcd"), None, 0.01)
        return said.partition("0.9400). ")[2]

    lead = (
        "The seeds can't separate a from b, c and d: no difference is shown, nor equivalence "
        "within 1 point. "
    )
    goal = "to show a difference of 1 point"
    often = f"{goal} four times in five"
    b, c, d = undecided("a", "b"), undecided("c", "a"), undecided("a", "d")
    wide = replace(c, seeds_needed_range=(4, 800))
    assert verdict(b, wide, d) == f"{lead}It would take 4 to 800 seeds {often}."
    endless = replace(c, seeds_needed_range=(4, None))
    assert verdict(b, endless, d) == f"{lead}It would take 4 or more seeds {often}."
    few_rows = replace(c, seeds_needed=None, rows_needed=3200, seeds_on_them=11)
    fewer = replace(d, seeds_needed=None, rows_needed=9000, seeds_on_them=40)
    assert verdict(b, few_rows, fewer) == (
        f"{lead}For b, it would take 9 to 47 seeds {often}. For c and d, no number of seeds would "
        f"be enough {goal} on 872 test rows. It would take about 3,200 to 9,000 test rows and 11 "
        "to 40 seeds."
    )
    enough = [replace(one, seeds_needed=4) for one in (b, c, d)]
    assert verdict(*enough) == (
        f"{lead}5 seeds would show a difference of 1 point four times in five. Here they didn't."
    )
    same, nearly = replace(b, rows_apart=0), replace(c, rows_apart=4)
    assert verdict(same, nearly, d) == (
        f"{lead}For b, the predictions are the same. For c, the predictions differ on only 4 of "
        f"872 test rows. It would take 9 to 47 seeds {often}."
    )


def test_pairs_of_one_seed_and_of_none_say_what_is_missing() -> None:
    one = Pair("a", "b", 0.01, None, None, 1, None, "one seed can't tell", "undecided")
    none = "a and c have no finished seed in common, so they can't be compared"
    apart = Pair("a", "c", None, None, None, 0, None, none, "undecided")
    compared = Comparison(estimates(a=0.93, b=0.91, c=0.92), (one, apart))
    verdict = confirmed_verdict("accuracy", compared, chosen("a", "a", *"abc"), None, 0.01)
    assert verdict.endswith(
        f" One seed can't separate a from b. Set confirm.seeds to 5 or more. {none}."
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
            "The teacher reaches 0.9200 (0.9000 to 0.9400). The student is 1.0 points below it "
            "(0.1 to 2.0), and keeps 98.9%.",
        ),
        (
            AgainstTeacher(0.01, None, "undecided"),
            "The teacher reaches 0.9200 (0.9000 to 0.9400). One seed can't tell them apart.",
        ),
        (None, "The teacher reaches 0.9200 (0.9000 to 0.9400). Its predictions weren't kept, so"),
    ],
)
def test_the_teacher_is_above_or_below_only_where_that_is_shown(
    found: AgainstTeacher | None, words: str
) -> None:
    compared = Comparison(estimates(a=0.91), (), against_teacher={"a": found} if found else None)
    verdict = confirmed_verdict("accuracy", compared, chosen("a", "a", "a"), TEACHER, 0.01)
    assert words in verdict
    assert verdict.endswith("No other strategy finished, so there is nothing to compare it with.")
