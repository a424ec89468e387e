"""Looks after 3, 5, 8, 12 and 20 seeds: what settles a pair, and which seeds are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from confirm import worlds
from simulated_looks import (
    Scores,
    by_adastop,
    by_always_valid_t,
    ends,
    false_share,
    trainings,
)
from simulated_students import Variation, ability_for, simulate

from kdsweep.compare.findings import Comparison, Pair
from kdsweep.compare.looks import LookRules, compare_in_looks, looks_up_to

VARIATION = Variation(0.02, 1.0, 0.3)
Students = Mapping[str, Mapping[int, np.ndarray]]


@pytest.mark.slow
def test_few_sweeps_make_a_false_statement_over_all_their_looks() -> None:
    for _, world, rules in worlds(quick=True):
        assert false_share(ends(world, rules, 60)) <= 0.05 + 2 * (0.05 * 0.95 / 60) ** 0.5


def test_a_clear_case_takes_a_third_fewer_trainings_than_five_seeds_each() -> None:
    spent = trainings(ends(Scores((0.95, 0.9, 0.85), (0.005,), 0.003), LookRules(), 40))
    assert spent.mean() <= 0.65 * 15


def test_the_published_procedures_that_looks_are_compared_to_find_a_clear_difference() -> None:
    world = Scores((0.95, 0.8), (0.005,), 0.0)
    scores = world.draw(np.random.default_rng(0), 20)
    assert by_adastop(world, scores, LookRules().looks, 0).beaten == 1
    assert by_always_valid_t(world, scores, LookRules().looks).beaten == 1


def sweep(
    scores: Mapping[str, float], rows: int = 2000, seed: int = 0, variation: Variation = VARIATION
) -> tuple[np.ndarray, Students]:
    """Labels, and 20 students of each strategy with these true accuracies."""
    abilities = {
        name: (ability_for("accuracy", score, variation), variation)
        for name, score in scores.items()
    }
    return simulate(np.random.default_rng(seed), abilities, 20, rows)


def looked(
    labels: np.ndarray, students: Students, seeds: int | Mapping[str, int], **rules: object
) -> Comparison:
    """With the first so many seeds of each strategy."""
    number = dict.fromkeys(students, seeds) if isinstance(seeds, int) else seeds
    ended = {name: {i: students[name][i] for i in range(k)} for name, k in number.items()}
    return compare_in_looks(
        "accuracy",
        labels,
        ended,
        rules=LookRules(**rules),  # type: ignore[arg-type]
        draws=200,
    )


def to_the_end(labels: np.ndarray, students: Students, **rules: object) -> Comparison:
    """Trains what is wanted until nothing is."""
    seeds = dict.fromkeys(students, 0)
    while True:
        found = looked(labels, students, seeds, **rules)
        if found.seeds_wanted == seeds:
            return found
        assert all(found.seeds_wanted[name] >= seeds[name] for name in seeds)
        seeds = found.seeds_wanted


def pair_of(found: Comparison, a: str, b: str) -> Pair:
    return next(pair for pair in found.pairs if {pair.a, pair.b} == {a, b})


def test_the_last_look_is_at_the_most_seeds() -> None:
    assert looks_up_to(20) == (3, 5, 8, 12, 20)
    assert looks_up_to(10) == (3, 5, 8, 10)
    assert looks_up_to(12) == (3, 5, 8, 12)
    assert looks_up_to(3) == (3,)


@pytest.mark.parametrize(
    ("first", "looks"), [(3, (3, 5, 8, 12, 20)), (6, (6, 8, 12, 20)), (30, (20,))]
)
def test_seeds_that_were_there_before_are_the_first_look(first: int, looks: tuple[int]) -> None:
    assert LookRules(first=first).looks == looks


def test_all_strategies_want_the_first_look_before_anything_is_known() -> None:
    found = compare_in_looks(
        "accuracy", np.zeros(0, int), {"a": {}, "b": {}}, rules=LookRules(most=8)
    )
    assert found.seeds_wanted == {"a": 3, "b": 3}
    assert [(one.state, one.looks) for one in found.pairs] == [("undecided", ())]
    assert found.pairs[0].verdict == "not judged yet: the first look is at 3 seeds of both"


def test_a_strategy_that_is_beaten_gets_no_more_seeds() -> None:
    labels, students = sweep({"good": 0.9, "alike": 0.9, "bad": 0.75})
    found = looked(labels, students, 3)
    assert pair_of(found, "good", "bad").state == "better"
    assert found.seeds_wanted == {"good": 5, "alike": 5, "bad": 3}
    later = looked(labels, students, {"good": 5, "alike": 5, "bad": 3})
    kept = pair_of(later, "good", "bad")
    assert kept == pair_of(found, "good", "bad")
    assert [look.seeds for look in kept.looks] == [3]
    assert [look.seeds for look in pair_of(later, "good", "alike").looks] == [3, 5]


def test_nothing_is_wanted_once_no_pair_of_unbeaten_strategies_is_undecided() -> None:
    labels, students = sweep({"good": 0.95, "bad": 0.8, "worse": 0.78})
    found = to_the_end(labels, students, favorite="good")
    assert found.seeds_wanted == {"good": 3, "bad": 3, "worse": 3}
    assert pair_of(found, "good", "worse").better == "good"


def test_a_sweep_never_takes_more_seeds_than_the_most() -> None:
    labels, students = sweep({"a": 0.9, "b": 0.895}, variation=Variation(0.15, 0.3, 0.05))
    found = to_the_end(labels, students, most=10, margin=0.001)
    (pair,) = found.pairs
    assert pair.state == "undecided"
    assert [look.seeds for look in pair.looks] == [3, 5, 8, 10]
    assert found.seeds_wanted == {"a": 10, "b": 10}
    assert "it would take" in pair.verdict


def test_spending_stops_where_the_test_rows_cannot_separate_two_strategies() -> None:
    labels, students = sweep({"a": 0.8, "b": 0.8}, rows=200, variation=Variation(0.01, 1.0, 0.8))
    (pair,) = to_the_end(labels, students).pairs
    assert pair.state == "out_of_reach"
    assert pair.looks[-1].seeds < 20
    assert pair.verdict.startswith("200 test rows can't separate them, whatever the seeds")


def test_what_is_said_depends_only_on_the_looks_that_are_complete() -> None:
    labels, students = sweep({"a": 0.9, "b": 0.9, "c": 0.89})
    complete = looked(labels, students, 3)
    for more in ({"a": 4, "b": 5, "c": 5}, {"a": 5, "b": 4, "c": 3}):
        assert looked(labels, students, more) == complete


def test_a_failed_seed_ends_too() -> None:
    labels, students = sweep({"a": 0.95, "b": 0.7})
    ended = {name: {i: students[name][i] for i in range(3)} for name in students}
    with_failure = {**ended, "a": {**ended["a"], 1: None}}
    assert (
        compare_in_looks("accuracy", labels, with_failure, rules=LookRules(), draws=50)
        .pairs[0]
        .seeds
        == 2
    )
    none = {**ended, "a": dict.fromkeys(range(3))}
    found = compare_in_looks("accuracy", labels, none, rules=LookRules(), draws=50)
    assert found.seeds_wanted == {"a": 3, "b": 3}
    assert found.pairs[0].state == "undecided"


def test_a_pair_that_is_better_by_the_margin_passes_its_level_on() -> None:
    labels, students = sweep({"a": 0.9, "b": 0.885, "far": 0.7}, seed=2)
    with_far = pair_of(looked(labels, students, 3), "a", "b")
    alone = pair_of(looked(labels, {name: students[name] for name in "ab"}, 3), "a", "b")
    third = looked(labels, {**students, "far": students["b"]}, 3)
    assert with_far.ci95 is not None
    assert alone.ci95 is not None
    crowded = pair_of(third, "a", "b").ci95
    assert crowded is not None
    # Two pairs with `far` are decided at once: all of the 5% is left for the third one.
    assert with_far.ci95 == pytest.approx(alone.ci95)
    assert crowded[1] - crowded[0] > 1.2 * (alone.ci95[1] - alone.ci95[0])


def test_p_is_below_five_percent_exactly_where_the_interval_excludes_zero() -> None:
    for seed in range(6):
        labels, students = sweep({"a": 0.9, "b": 0.885, "c": 0.87}, seed=seed)
        for pair in to_the_end(labels, students, most=5).pairs:
            for look in pair.looks:
                assert look.ci95 is not None
                assert look.p is not None
                excludes = not look.ci95[0] <= 0 <= look.ci95[1]
                assert (look.p < 0.05) == excludes == (look.state == "better")
            last = pair.looks[-1]
            assert (last.difference, last.ci95, last.p, last.state) == (
                pair.difference,
                pair.ci95,
                pair.p,
                pair.state,
            )


def test_the_favorite_changes_only_how_the_five_percent_are_shared() -> None:
    labels, students = sweep({"a": 0.9, "b": 0.89, "c": 0.88, "d": 0.87})
    plain = looked(labels, students, 3)
    favored = looked(labels, students, 3, favorite="a")
    for one, other in zip(plain.pairs, favored.pairs, strict=True):
        assert one.difference == other.difference
    assert plain == looked(labels, students, 3, favorite="unknown")
    assert replace(favored, seeds_wanted={}, pairs=()) == replace(plain, seeds_wanted={}, pairs=())
