"""Intervals and verdicts of students whose abilities are known."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Mapping

import numpy as np
import pytest
from simulated_students import Variation, simulate
from verdicts import World

from kdsweep.compare.findings import Pair
from kdsweep.compare.statistics import compare, one_row_changes, resampled_scores
from kdsweep.core.evaluation.metric_table import metric_named, metrics_for
from kdsweep.core.tasks import REGRESSION

Students = dict[str, dict[int, np.ndarray]]
EXAMPLES = Variation(0.0, 1.0, 0.3)


def students(
    draw: np.random.Generator,
    strategies: Mapping[str, float],
    seeds: int,
    rows: int,
    variation: Variation,
) -> tuple[np.ndarray, Students]:
    """Labels, and the predictions of strategies with these abilities."""
    abilities = {name: (ability, variation) for name, ability in strategies.items()}
    return simulate(draw, abilities, seeds, rows)


def pairs_of(
    metric: str,
    labels: np.ndarray,
    predicted: Mapping[str, Mapping[int, np.ndarray]],
    **more: float,
) -> tuple[Pair, ...]:
    return compare(metric, labels, predicted, **more).pairs  # type: ignore[arg-type]


def test_two_strategies_that_hardly_differ_on_many_rows_are_equivalent() -> None:
    world = World((0.9, 0.9), (Variation(0.01, 1.0, 0.05, noise=0.1),), seeds=5, rows=5000)
    found = [comparison.pairs[0] for comparison in world.sweeps(20, seed=3)]
    equivalent = [pair for pair in found if pair.state == "equivalent"]
    assert len(equivalent) >= 18
    assert re.fullmatch(
        r"s0 and s1 are equivalent within 1 point \(difference -?0\.\d to -?0\.\d\)",
        equivalent[0].verdict,
    )


def test_a_difference_that_no_row_shows_can_still_be_as_large_as_the_margin() -> None:
    """On 200 rows, a difference of 1 point is on no row at all in 13% of cases."""
    labels = np.arange(200) % 2
    same = {"a": dict.fromkeys(range(5), labels), "b": dict.fromkeys(range(5), labels)}
    (pair,) = pairs_of("accuracy", labels, same)
    assert pair.state == "out_of_reach"
    (pair,) = pairs_of(
        "accuracy",
        np.tile(labels, 3),
        {
            name: {seed: np.tile(one, 3) for seed, one in by_seed.items()}
            for name, by_seed in same.items()
        },
    )
    assert pair.state == "equivalent"
    # By hand: 0.99^n is 5% at 298 rows.
    assert pair.ci95 is not None
    assert pair.ci95[1] < 0.01


@pytest.mark.slow
def test_a_real_difference_of_3_points_is_found_with_its_size() -> None:
    variation = Variation(0.03, 1.0, 0.1)
    world = World((0.9, 0.93), (variation,), seeds=5, rows=2000)
    found = [comparison.pairs[0] for comparison in world.sweeps(40, seed=3)]
    assert sum(pair.verdict.startswith("s1 beats s0 by ") for pair in found) >= 38
    assert np.mean([pair.difference for pair in found]) == pytest.approx(-0.03, abs=0.003)
    assert found[0].difference is not None
    assert found[0].ci95 is not None
    low, high = found[0].ci95
    interval = f"{-100 * high:.1f} to {-100 * low:.1f}"
    points = f"{-100 * found[0].difference:.1f} points"
    assert found[0].verdict == f"s1 beats s0 by {points} ({interval}), by at least 1 point"


def test_one_more_row_changes_accuracy_by_one_in_n_plus_one() -> None:
    labels = np.arange(50) % 2
    changes = one_row_changes("accuracy", labels, [labels, 1 - labels])
    assert changes == pytest.approx([1 / 51, 1 / 51])


def test_a_constant_prediction_is_not_known_to_a_fiftieth_by_matthews() -> None:
    """One row more that is predicted as the other class changes Matthews' coefficient by 0.1."""
    labels = np.arange(100) % 2
    constant = dict.fromkeys(range(3), np.zeros(100, dtype=int))
    mean = compare("matthews", labels, {"a": constant}).means["a"]
    assert mean.value == 0
    assert mean.low is not None
    assert mean.high is not None
    assert mean.high == pytest.approx(-mean.low)
    # By hand, for a row of class 1 that is right: 1 x 50 / sqrt(1 x 51 x 50 x 100).
    assert 1.5 * 50 / (51 * 50 * 100) ** 0.5 < mean.high < 3 * 50 / (51 * 50 * 100) ** 0.5


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "f1", "f1_macro", "matthews"])
def test_scores_of_resampled_examples_equal_those_of_scikit_learn(metric: str) -> None:
    classes = 2 if metric == "f1" else 4
    draw = np.random.default_rng(4)
    labels = draw.integers(classes, size=30)
    predicted = {
        "a": {
            seed: np.where(draw.random(30) < 0.6, labels, draw.integers(classes, size=30))
            for seed in range(2)
        }
    }
    found = resampled_scores(metric, labels, list(predicted["a"].values()), draws=7, seed=5)
    drawn = np.random.default_rng(5).integers(30, size=(7, 30))
    for student, draw in itertools.product(range(2), range(7)):
        rows = drawn[draw]
        assert found[student, draw] == pytest.approx(
            metric_named(metric).score(labels[rows], predicted["a"][student][rows])
        )


def test_no_difference_says_how_many_seeds_or_rows_it_takes() -> None:
    draw = np.random.default_rng(6)
    labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, 3, 20_000, Variation(0.2, 0.5, 0.0))
    (pair,) = pairs_of("accuracy", labels, predicted, margin=0.03)
    assert pair.seeds_needed is not None
    assert pair.seeds_needed > 3
    assert pair.seeds_needed_range is not None
    low, high = pair.seeds_needed_range
    assert low is not None
    assert high is not None
    assert low < pair.seeds_needed < high
    assert pair.verdict == (
        f"no difference shown, nor equivalence; it would take {low} to {high} seeds"
    )
    labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, 5, 100, Variation(0.0, 1.0, 1.0))
    (pair,) = pairs_of("accuracy", labels, predicted, margin=0.05)
    assert pair.seeds_needed is None
    rows, seeds = pair.rows_needed, pair.seeds_on_them
    assert rows is not None
    assert seeds is not None
    assert pair.verdict == (
        f"no difference shown, nor equivalence; it would take about {rows:,} test rows and "
        f"{seeds:,} seeds"
    )
    labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, seeds, rows, Variation(0.0, 1.0, 1.0))
    needed = pairs_of("accuracy", labels, predicted, margin=0.05)[0].seeds_needed
    assert needed is not None
    assert needed <= 1.5 * seeds


def test_seeds_needed_grow_with_the_number_of_pairs_that_are_judged() -> None:
    draw = np.random.default_rng(6)
    labels, predicted = students(
        draw, dict.fromkeys("abcd", 1.0), 3, 20_000, Variation(0.2, 0.5, 0.0)
    )
    alone = {name: predicted[name] for name in "ab"}
    (pair,) = pairs_of("accuracy", labels, alone, margin=0.03)
    among_six = pairs_of("accuracy", labels, predicted, margin=0.03)[0]
    assert pair.seeds_needed is not None
    assert among_six.seeds_needed is not None
    assert among_six.seeds_needed > 1.3 * pair.seeds_needed


def test_when_it_takes_too_many_seeds_the_examples_are_not_blamed() -> None:
    labels, predicted = students(
        np.random.default_rng(8), {"a": 1.0, "b": 1.0}, 3, 20_000, Variation(1.0, 0.0, 0.0)
    )
    (pair,) = pairs_of("accuracy", labels, predicted, margin=0.003)
    assert pair.verdict == (
        "no difference shown, nor equivalence; it would take more than 10,000 seeds"
    )


def test_a_difference_on_a_handful_of_examples_is_no_difference() -> None:
    labels = np.arange(40) % 2
    better, worse = labels.copy(), labels.copy()
    worse[:4] = 1 - worse[:4]
    (pair,) = pairs_of(
        "accuracy",
        labels,
        {"a": dict.fromkeys(range(3), better), "b": dict.fromkeys(range(3), worse)},
    )
    # By hand: four examples, all the same way, of 2^4 ways; two-sided.
    assert pair.p == pytest.approx(2**-3)
    assert pair.verdict.startswith(
        "no difference shown (the predictions differ on only 4 of 40 test rows), nor equivalence; "
    )


def test_a_pair_is_better_exactly_where_its_interval_leaves_0_out() -> None:
    draw = np.random.default_rng(9)
    for _ in range(100):
        labels, predicted = students(draw, dict.fromkeys("abcd", 1.0), 5, 200, EXAMPLES)
        for pair in pairs_of("accuracy", labels, predicted, draws=100):
            assert pair.ci95 is not None
            assert pair.p is not None
            outside = pair.ci95[0] > 0 or pair.ci95[1] < 0
            assert (pair.state == "better") == (" beats " in pair.verdict) == (pair.p < 0.05)
            assert pair.state != "better" or outside


@pytest.mark.parametrize("metric", ["accuracy", "f1", "f1_macro", "matthews"])
def test_the_better_strategy_comes_first_whichever_is_named_first(metric: str) -> None:
    labels, predicted = students(np.random.default_rng(10), {"a": 2.0, "b": 0.5}, 5, 500, EXAMPLES)
    one = pairs_of(metric, labels, predicted)[0]
    other = pairs_of(metric, labels, {"b": predicted["b"], "a": predicted["a"]})[0]
    assert one.verdict == other.verdict
    assert one.verdict.startswith("a beats b by ")
    assert one.ci95 is not None
    assert other.ci95 is not None
    assert one.difference == -(other.difference or 0.0) > 0
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))


def test_a_seed_that_only_one_of_the_two_finished_is_left_out() -> None:
    labels, predicted = students(
        np.random.default_rng(7), {"a": 1.0, "b": 1.0, "c": 1.0}, 5, 100, Variation(0.1, 1.0, 0.3)
    )
    predicted["b"] = {index: predicted["b"][index] for index in (1, 3, 4)}
    predicted["c"] = {0: predicted["c"][0]}
    ab, ac, bc = pairs_of("accuracy", labels, predicted)
    assert (ab.seeds, ac.seeds, bc.seeds) == (3, 1, 0)
    same = pairs_of(
        "accuracy",
        labels,
        {"a": {index: predicted["a"][index] for index in (1, 3, 4)}, "b": predicted["b"]},
    )[0]
    assert ab.difference == same.difference
    assert (ac.p, ac.ci95) == (None, None)
    assert "one seed can't tell" in ac.verdict
    assert "confirm.seeds" in ac.verdict
    assert "no finished seed in common" in bc.verdict


def test_ties_few_examples_and_perfect_students_give_numbers_and_no_false_claim() -> None:
    labels = np.array([0, 1, 1, 0])
    right = {0: labels, 1: labels, 2: labels}
    wrong = dict.fromkeys(range(3), 1 - labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in ("accuracy", "f1", "f1_macro", "matthews"):
            tie = pairs_of(metric, labels, {"a": right, "b": right})[0]
            assert (tie.difference, tie.p) == (0.0, 1.0)
            assert tie.verdict.startswith(
                "4 test rows can't separate them (the predictions are the same), "
            )
            mean = compare(metric, labels, {"a": right}).means["a"]
            assert mean.low is not None
            assert mean.low < mean.value == 1.0
            extreme = pairs_of(
                metric,
                labels[:1],
                {
                    "a": dict.fromkeys(range(2), labels[:1]),
                    "b": dict.fromkeys(range(2), 1 - labels[:1]),
                },
            )[0]
            assert "beats" not in extreme.verdict
            assert mean.high == 1.0
            assert pairs_of(metric, labels, {}) == ()
            one = {"a": dict.fromkeys(range(2), 0 * labels)}
            one_class = compare(metric, 0 * labels, one).means["a"]
            assert one_class.high is not None
            assert compare(metric, labels, {"a": {0: labels}}).means["a"].low is None
            assert pairs_of(metric, labels, {"a": right}) == ()
            assert pairs_of(metric, labels, {"a": right, "b": {}}) == ()
        assert pairs_of(
            "accuracy",
            np.tile(labels, 100),
            {
                "a": {i: np.tile(right[i], 100) for i in right},
                "b": {i: np.tile(wrong[i], 100) for i in wrong},
            },
        )[0].verdict.startswith("a beats b by 100.0 points")


# --- regressions and several labels --------------------------------------------------------------


@pytest.mark.parametrize(
    "metric",
    [
        "pearson",
        "spearman",
        "pearson_and_spearman",
        "f1_micro",
        "f1_macro",
        "subset_accuracy",
        "accuracy_and_f1",
    ],
)
def test_scores_of_resampled_examples_are_those_of_the_rows_themselves(metric: str) -> None:
    """Against scipy and scikit-learn, with ties."""
    draw, rows, draws = np.random.default_rng(3), 40, 25
    if metric in metrics_for(REGRESSION):
        labels = draw.integers(6, size=rows) / 2
        predicted = [np.round(labels + draw.normal(0, 1, rows), 1) for _ in range(3)]
    elif metric == "accuracy_and_f1":
        labels = draw.integers(2, size=rows)
        predicted = [np.where(draw.random(rows) < 0.8, labels, 1 - labels) for _ in range(3)]
    else:
        labels = (draw.random((rows, 3)) < 0.4).astype(np.float32)
        predicted = [
            np.where(draw.random((rows, 3)) < 0.8, labels, 1 - labels).astype(np.int64)
            for _ in range(3)
        ]
    found = resampled_scores(metric, labels, predicted, draws=draws, seed=5)
    again = np.random.default_rng(5).integers(rows, size=(draws, rows))
    expected = [
        [metric_named(metric).score(labels[chosen], one[chosen]) for chosen in again]
        for one in predicted
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    mean = compare(metric, labels, {"a": dict(enumerate(predicted))}, draws=50).means["a"]
    assert mean.value == pytest.approx(
        np.mean([metric_named(metric).score(labels, one) for one in predicted])
    )


def test_strategies_of_a_regression_and_of_several_labels_are_compared() -> None:
    draw, rows = np.random.default_rng(0), 300
    labels = draw.normal(0, 1, rows)
    numbers = {
        name: {seed: labels + draw.normal(0, noise, rows) for seed in range(3)}
        for name, noise in (("near", 0.3), ("far", 2.0))
    }
    (pair,) = pairs_of("spearman", labels, numbers)
    assert pair.verdict.startswith("near beats far by")
    assert pairs_of("pearson", labels, {"a": numbers["near"], "b": numbers["near"]})[
        0
    ].verdict.startswith("300 test rows can't separate them (the predictions are the same)")
    sets = (draw.random((rows, 4)) < 0.5).astype(np.float32)
    guessed = {
        name: {seed: np.where(draw.random((rows, 4)) < share, sets, 1 - sets) for seed in range(3)}
        for name, share in (("good", 0.95), ("bad", 0.7))
    }
    assert pairs_of("f1_micro", sets, guessed)[0].verdict.startswith("good beats bad by")


def test_a_correlation_with_a_constant_is_0() -> None:
    assert resampled_scores("pearson", np.arange(5.0), [np.ones(5)], draws=4, seed=0).tolist() == [
        [0.0] * 4
    ]


# --- a teacher -----------------------------------------------------------------------------------


def test_a_teacher_that_is_clearly_better_or_worse_is_said_to_be() -> None:
    draw = np.random.default_rng(0)
    abilities = {name: (ability, EXAMPLES) for name, ability in (("a", 1.5), ("b", 0.3))}
    labels, predicted = simulate(draw, abilities | {"teacher": (0.9, EXAMPLES)}, 3, 2000)
    teacher = predicted.pop("teacher")[0]
    found = compare("accuracy", labels, predicted, [teacher])
    assert found.against_teacher is not None
    states = {name: one.state for name, one in found.against_teacher.items()}
    assert states == {"a": "above", "b": "below"}
    (own,) = found.teachers
    assert own is not None
    assert own.low is not None
    assert own.high is not None
    assert own.low < own.value == metric_named("accuracy").score(labels, teacher) < own.high
    # The normal interval of a share, which is close to Wilson's on so many rows.
    half = 1.96 * (own.value * (1 - own.value) / 2000) ** 0.5
    assert own.high - own.low == pytest.approx(2 * half, rel=0.1)


def test_one_seed_or_a_teacher_without_predictions_gives_no_statement() -> None:
    labels, predicted = students(np.random.default_rng(0), {"a": 1.0}, 1, 100, EXAMPLES)
    teacher = 1 - labels
    against = compare("accuracy", labels, predicted, [teacher]).against_teacher
    assert against is not None
    assert (against["a"].state, against["a"].ci95) == ("undecided", None)
    unknown = compare("accuracy", labels, predicted, [None, teacher])
    assert unknown.against_teacher is None
    assert unknown.teachers[0] is None
    assert unknown.teachers[1] is not None
