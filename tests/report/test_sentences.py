"""The report in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdsweep.compare.findings import (
    AgainstTeacher,
    Comparison,
    Estimate,
    Look,
    Pair,
    PairState,
    TeacherState,
)
from kdsweep.report.model import Recommendation, TeacherFacts
from kdsweep.report.verdict import Verdict, confirmed_verdict, searched_verdict


def test_the_verdict_says_level_where_the_best_are_equal() -> None:
    level = searched_verdict("accuracy", None, {"a": 0.8, "b": 0.8})
    assert level.says.startswith("a and b are level")
    ahead = searched_verdict("accuracy", None, {"a": 0.8, "b": 0.75})
    assert ahead.says.startswith("a is ahead on validation: accuracy 0.8000, 5.0 points over b")
    assert searched_verdict("accuracy", None, {}).says == "no trial has finished"


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


def said(
    compared: Comparison, recommended: Recommendation, teacher: TeacherFacts | None = None
) -> Verdict:
    return confirmed_verdict("accuracy", compared, recommended, teacher, 0.01)


def test_a_strategy_that_beats_all_others_is_above_them_and_its_teacher_is_named() -> None:
    compared = Comparison(
        estimates(a=0.93, b=0.91),
        (replace(pair("a", "b", "better", "a beats b"), rows=872),),
        against_teacher={"a": against(0.01, 0.002, 0.018, "above")},
    )
    assert said(compared, chosen("a", "a", "a"), TEACHER) == Verdict(
        "a is 2.0 points above b.",
        "5 seeds of each pair and 872 test rows: a reaches accuracy 0.9300 (0.9200 to 0.9400); the "
        "teacher reaches 0.9200 (0.9000 to 0.9400), and the student is 1.0 points above it (0.2 to "
        "1.8).",
        "Nothing is left to decide: export the student and use it.",
    )


def test_equivalent_strategies_are_named_together_and_the_cheaper_one_is_said() -> None:
    compared = Comparison(
        estimates(distill=0.93, combined=0.93, finetune=0.91),
        (
            pair("distill", "combined", "equivalent", "", 0.001),
            pair("distill", "finetune", "better", "", 0.018),
            pair("combined", "finetune", "better", "", 0.018),
        ),
    )
    recommended = chosen("distill", "combined", "distill", "combined", equivalent="distill")
    assert said(compared, recommended).says == (
        "distill and combined are equivalent within 1 point and both 1.8 points above finetune; "
        "distill is the cheaper one."
    )


def test_what_is_not_shown_is_said_first_and_then_why_one_is_recommended() -> None:
    compared = Comparison(estimates(a=0.93, b=0.91), (undecided("a", "b"),))
    found = said(compared, chosen("b", "b", "a", "b"))
    assert found.says == (
        "No difference is shown between b and a; b is recommended, the highest on validation of "
        "those that none beats."
    )
    assert found.next_step == (
        "It would take 9 to 47 seeds to show a difference of 1 point four times in five."
    )
    apart = replace(undecided("a", "b"), state="out_of_reach")
    compared = replace(compared, pairs=(apart,))
    assert said(compared, chosen("b", "b", "a", "b")).says.startswith(
        "The test rows can't separate b from a; b is recommended"
    )


def test_a_sweep_that_still_wants_seeds_says_which_strategies_get_them() -> None:
    look = Look(3, 0.01, (-0.02, 0.04), 0.4, "undecided")
    compared = Comparison(
        estimates(a=0.93, b=0.91),
        (replace(undecided("a", "b"), seeds=3, looks=(look,)),),
        seeds_wanted={"a": 5, "b": 5},
        seeds_judged={"a": 3, "b": 3},
    )
    found = said(compared, chosen("b", "b", "a", "b"))
    assert found.next_step == "Run the sweep again: a and b get seeds up to the look at 5."
    assert found.rests_on is not None
    assert found.rests_on.startswith("3 seeds of each pair and 872 test rows, after a look at 3 ")


def test_what_holds_for_all_undecided_pairs_is_said_once() -> None:
    def takes(*pairs: Pair) -> str | None:
        compared = Comparison(estimates(a=0.93, b=0.91, c=0.92, d=0.9), pairs)
        return said(compared, chosen("a", "a", *"abcd")).next_step

    goal = "to show a difference of 1 point"
    often = f"{goal} four times in five"
    b, c, d = undecided("a", "b"), undecided("c", "a"), undecided("a", "d")
    wide = replace(c, seeds_needed_range=(4, 800))
    assert takes(b, wide, d) == f"It would take 4 to 800 seeds {often}."
    endless = replace(c, seeds_needed_range=(4, None))
    assert takes(b, endless, d) == f"It would take 4 or more seeds {often}."
    few_rows = replace(c, seeds_needed=None, rows_needed=3200, seeds_on_them=11)
    fewer = replace(d, seeds_needed=None, rows_needed=9000, seeds_on_them=40)
    assert takes(b, few_rows, fewer) == (
        f"For b, it would take 9 to 47 seeds {often}. For c and d, no number of seeds would "
        f"be enough {goal} on 872 test rows. It would take about 3,200 to 9,000 test rows and 11 "
        "to 40 seeds."
    )
    enough = [replace(one, seeds_needed=4) for one in (b, c, d)]
    assert takes(*enough) == (
        "5 seeds would show a difference of 1 point four times in five. Here they didn't."
    )
    same, nearly = replace(b, rows_apart=0), replace(c, rows_apart=4)
    assert takes(same, nearly, d) == (
        "For b, the predictions are the same. For c, the predictions differ on only 4 of 872 test "
        f"rows. It would take 9 to 47 seeds {often}."
    )


def test_pairs_of_one_seed_and_of_none_say_what_is_missing() -> None:
    one = Pair("a", "b", 0.01, None, None, 1, None, "one seed can't tell", "undecided")
    none = "a and c have no finished seed in common, so they can't be compared"
    apart = Pair("a", "c", None, None, None, 0, None, none, "undecided")
    compared = Comparison(estimates(a=0.93, b=0.91, c=0.92), (one, apart))
    assert said(compared, chosen("a", "a", *"abc")).next_step == (
        f"One seed can't separate a from b. Set confirm.seeds to 5 or more. {none}."
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            against(-0.01, -0.02, -0.001, "below"),
            "the teacher reaches 0.9200 (0.9000 to 0.9400), the student is 1.0 points below it "
            "(0.1 to 2.0), and keeps 98.9%.",
        ),
        (
            AgainstTeacher(0.01, None, "undecided"),
            "the teacher reaches 0.9200 (0.9000 to 0.9400), and one seed can't tell them apart.",
        ),
        (None, "the teacher reaches 0.9200 (0.9000 to 0.9400), and its predictions weren't kept"),
    ],
)
def test_the_teacher_is_above_or_below_only_where_that_is_shown(
    found: AgainstTeacher | None, words: str
) -> None:
    compared = Comparison(estimates(a=0.91), (), against_teacher={"a": found} if found else None)
    verdict = said(compared, chosen("a", "a", "a"), TEACHER)
    assert verdict.rests_on is not None
    assert words in verdict.rests_on
    assert verdict.says.endswith("finished, so there is nothing to compare it with.")
