"""Intervals and verdicts: simulations show what they cover.

Each repetition draws new students and new test examples.
"""

from __future__ import annotations

import itertools
import re
import warnings

import numpy as np
import pytest
from conftest import others_slow
from scipy.stats import norm

from kdsweep.compare.statistics import compare_pairs, holm, mean_score, resampled_scores
from kdsweep.core.evaluation.metric_table import metric_named, metrics_for
from kdsweep.core.tasks import REGRESSION

Students = dict[str, dict[int, np.ndarray]]


def students(
    draw: np.random.Generator,
    strategies: dict[str, float],
    seeds: int,
    rows: int,
    spread: tuple[float, float, float],
    classes: int = 2,
    share: float = 0.5,
) -> tuple[np.ndarray, Students]:
    """Labels, and the predictions of each strategy's students.

    A prediction is right where ability + seed + example + strategy's example + noise > 0.
    spread: standard deviations of seeds, of the examples' difficulty, and of what makes an example
    hard for one strategy. share: of class 1, if there are two classes.
    """
    seed_spread, difficulty_spread, own_spread = spread
    if classes == 2:
        labels = (draw.random(rows) < share).astype(int)
    else:
        labels = draw.integers(classes, size=rows)
    difficulty = draw.normal(0, difficulty_spread, rows)
    predicted: Students = {}
    for strategy, ability in strategies.items():
        latent = (
            ability
            + draw.normal(0, seed_spread, (seeds, 1))
            + difficulty
            + draw.normal(0, own_spread, rows)
            + draw.normal(0, 1, (seeds, rows))
        )
        wrong = 1 - labels
        if classes > 2:
            wrong = (labels + 1 + draw.integers(classes - 1, size=(seeds, rows))) % classes
        predicted[strategy] = dict(enumerate(np.where(latent > 0, labels, wrong)))
    return labels, predicted


def true_mean(
    metric: str, ability: float, spread: tuple[float, float, float], share: float = 0.5
) -> float:
    """The mean over all possible seeds and examples.

    Each seed's share of right predictions is normal in its ability, and gives the metric.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(61)
    right = norm.cdf((ability + spread[0] * points) / np.sqrt(1 + spread[1] ** 2 + spread[2] ** 2))
    f1 = 2 * share * right / (2 * share * right + 1 - right)
    value = right if metric == "accuracy" else f1
    return float(value @ weights / weights.sum())


# What varies: examples, for all students and for one strategy's; seeds; nothing but chance.
EXAMPLES, SEEDS, CHANCE = (0.0, 1.0, 0.3), (0.3, 0.5, 0.0), (0.0, 0.0, 0.0)
REPETITIONS = 1000
COVERED = [
    *itertools.product(["accuracy"], [SEEDS, EXAMPLES], [3, 5, 10]),
    ("accuracy", CHANCE, 5),
    *itertools.product(["f1"], [EXAMPLES], [3, 5, 10]),
    ("f1", SEEDS, 3),
]


@pytest.mark.parametrize(
    ("metric", "spread", "seeds"),
    COVERED[:1] + [pytest.param(*case, marks=pytest.mark.slow) for case in COVERED[1:]],
    ids=lambda value: (
        {EXAMPLES: "examples vary", SEEDS: "seeds vary", CHANCE: "chance"}.get(value)
        if isinstance(value, tuple)
        else str(value)
    ),
)
def test_intervals_cover_the_truth_in_92_to_98_of_100_cases(
    metric: str, spread: tuple[float, float, float], seeds: int
) -> None:
    share, rows = (0.5, 200) if metric == "accuracy" else (0.4, 200)
    draw, truth = np.random.default_rng(seeds), true_mean(metric, 1.0, spread, share)
    covered = np.zeros(2)
    for repetition in range(REPETITIONS):
        labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, seeds, rows, spread, share=share)
        mean = mean_score(metric, labels, predicted["a"], draws=80, seed=repetition)
        pair = compare_pairs(metric, labels, predicted, draws=80, seed=repetition)[0]
        assert mean.low is not None
        assert mean.high is not None
        assert pair.ci95 is not None
        covered += [mean.low <= truth <= mean.high, pair.ci95[0] <= 0 <= pair.ci95[1]]
    assert (covered / REPETITIONS >= 0.92).all(), covered / REPETITIONS
    assert (covered / REPETITIONS <= 0.98).all(), covered / REPETITIONS


@pytest.mark.parametrize("seeds", others_slow([3, 2, 5]))
def test_with_equal_strategies_at_most_6_of_100_sweeps_say_that_one_beats_another(
    seeds: int,
) -> None:
    draw = np.random.default_rng(2)
    claims = 0
    for repetition in range(REPETITIONS):
        spread = [EXAMPLES, SEEDS, CHANCE][repetition % 3]
        labels, predicted = students(draw, dict.fromkeys("abcd", 1.0), seeds, 200, spread)
        claims += any(
            " beats " in pair.verdict
            for pair in compare_pairs("accuracy", labels, predicted, draws=80, seed=repetition)
        )
    assert claims / REPETITIONS <= 0.06


@pytest.mark.slow
def test_a_real_difference_of_3_points_is_found_with_its_size() -> None:
    draw, spread, found = np.random.default_rng(3), (0.03, 1.0, 0.1), []
    abilities = {"worse": 1.8, "better": 2.07}
    truth = true_mean("accuracy", 1.8, spread) - true_mean("accuracy", 2.07, spread)
    assert truth == pytest.approx(-0.03, abs=0.001)
    for repetition in range(40):
        labels, predicted = students(draw, abilities, 5, 2000, spread)
        found.append(compare_pairs("accuracy", labels, predicted, draws=80, seed=repetition)[0])
    assert sum(pair.verdict.startswith("better beats worse by ") for pair in found) >= 38
    assert np.mean([pair.difference for pair in found]) == pytest.approx(truth, abs=0.003)
    assert found[0].difference is not None
    assert found[0].ci95 is not None
    low, high = found[0].ci95
    interval = f"{-100 * high:.1f} to {-100 * low:.1f}"
    points = f"{-100 * found[0].difference:.1f} points"
    assert found[0].verdict == f"better beats worse by {points} ({interval})"


@pytest.mark.parametrize("metric", ["accuracy", "f1", "f1_macro", "matthews"])
def test_scores_of_resampled_examples_equal_those_of_scikit_learn(metric: str) -> None:
    classes = 2 if metric == "f1" else 4
    labels, predicted = students(
        np.random.default_rng(4), {"a": 0.3}, 2, 30, (0.1, 0.5, 0.0), classes
    )
    found = resampled_scores(metric, labels, list(predicted["a"].values()), draws=7, seed=5)
    drawn = np.random.default_rng(5).integers(30, size=(7, 30))
    for student, draw in itertools.product(range(2), range(7)):
        rows = drawn[draw]
        assert found[student, draw] == pytest.approx(
            metric_named(metric).score(labels[rows], predicted["a"][student][rows])
        )


def test_holm_by_hand() -> None:
    # 3 * 0.01; 2 * 0.03; max(0.06, 0.04)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_no_difference_says_how_many_seeds_or_rows_it_takes() -> None:
    draw = np.random.default_rng(6)
    labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, 3, 20_000, (0.2, 0.5, 0.0))
    pair = compare_pairs("accuracy", labels, predicted, difference=0.03)[0]
    assert pair.seeds_needed is not None
    assert pair.seeds_needed > 3
    assert pair.verdict == (
        f"no difference shown; about {pair.seeds_needed} seeds would be needed to show a "
        "difference of 3 points"
    )
    labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, 5, 100, (0.0, 1.0, 1.0))
    pair = compare_pairs("accuracy", labels, predicted, difference=0.05)[0]
    assert pair.seeds_needed is None
    takes = re.search(
        r"no number of seeds would be enough to show a difference of 5 points on 100 test rows: "
        r"it takes about ([\d,]+) rows and ([\d,]+) seeds$",
        pair.verdict,
    )
    assert takes
    rows, seeds = (int(number.replace(",", "")) for number in takes.groups())
    labels, predicted = students(draw, {"a": 1.0, "b": 1.0}, seeds, rows, (0.0, 1.0, 1.0))
    needed = compare_pairs("accuracy", labels, predicted, difference=0.05)[0].seeds_needed
    assert needed is not None
    assert needed <= 1.5 * seeds


def test_when_it_takes_too_many_seeds_the_examples_are_not_blamed() -> None:
    labels, predicted = students(
        np.random.default_rng(8), {"a": 1.0, "b": 1.0}, 3, 20_000, (1.0, 0.0, 0.0)
    )
    pair = compare_pairs("accuracy", labels, predicted, difference=0.003)[0]
    assert pair.verdict == (
        "no difference shown; more than 10,000 seeds would be needed to show a difference of 0.3 "
        "points"
    )


def test_a_difference_on_a_handful_of_examples_is_no_difference() -> None:
    labels = np.arange(40) % 2
    better, worse = labels.copy(), labels.copy()
    worse[:4] = 1 - worse[:4]
    pair = compare_pairs(
        "accuracy",
        labels,
        {"a": dict.fromkeys(range(3), better), "b": dict.fromkeys(range(3), worse)},
    )[0]
    # By hand: four examples, all the same way, of 2^4 ways; two-sided.
    assert pair.p == pytest.approx(2**-3)
    assert pair.verdict.startswith(
        "no difference shown (predictions differ on only 4 of 40 test rows); "
    )


def test_a_pair_that_would_show_a_difference_on_its_own_says_so() -> None:
    draw = np.random.default_rng(9)
    for _ in range(200):
        labels, predicted = students(draw, dict.fromkeys("abcd", 1.0), 5, 200, EXAMPLES)
        for pair in compare_pairs("accuracy", labels, predicted, draws=100):
            assert pair.ci95 is not None
            assert pair.p is not None
            outside = pair.ci95[0] > 0 or pair.ci95[1] < 0
            assert (" beats " in pair.verdict) == (pair.p < 0.05)
            assert ("this pair alone" in pair.verdict) == (outside and pair.p >= 0.05)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "f1_macro", "matthews"])
def test_the_better_strategy_comes_first_whichever_is_named_first(metric: str) -> None:
    labels, predicted = students(np.random.default_rng(10), {"a": 2.0, "b": 0.5}, 5, 500, EXAMPLES)
    one = compare_pairs(metric, labels, predicted)[0]
    other = compare_pairs(metric, labels, {"b": predicted["b"], "a": predicted["a"]})[0]
    assert one.verdict == other.verdict
    assert one.verdict.startswith("a beats b by ")
    assert one.ci95 is not None
    assert other.ci95 is not None
    assert one.difference == -(other.difference or 0.0) > 0
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))


def test_a_seed_that_only_one_of_the_two_finished_is_left_out() -> None:
    labels, predicted = students(
        np.random.default_rng(7), {"a": 1.0, "b": 1.0, "c": 1.0}, 5, 100, (0.1, 1.0, 0.3)
    )
    predicted["b"] = {index: predicted["b"][index] for index in (1, 3, 4)}
    predicted["c"] = {0: predicted["c"][0]}
    ab, ac, bc = compare_pairs("accuracy", labels, predicted)
    assert (ab.seeds, ac.seeds, bc.seeds) == (3, 1, 0)
    same = compare_pairs(
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
            tie = compare_pairs(metric, labels, {"a": right, "b": right})[0]
            assert (tie.difference, tie.p) == (0.0, 1.0)
            assert tie.verdict.startswith("no difference shown (the predictions are the same); ")
            mean = mean_score(metric, labels, right)
            assert mean.low is not None
            assert mean.low < mean.value == 1.0
            extreme = compare_pairs(
                metric,
                labels[:1],
                {
                    "a": dict.fromkeys(range(2), labels[:1]),
                    "b": dict.fromkeys(range(2), 1 - labels[:1]),
                },
            )[0]
            assert "beats" not in extreme.verdict
            assert mean.high == 1.0
            assert compare_pairs(metric, labels, {}) == []
            one_class = mean_score(metric, 0 * labels, {0: 0 * labels, 1: 0 * labels})
            assert one_class.high is not None
            assert mean_score(metric, labels, {0: labels}).low is None
            assert compare_pairs(metric, labels, {"a": right}) == []
            assert compare_pairs(metric, labels, {"a": right, "b": {}}) == []
        assert compare_pairs(
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
    assert mean_score(metric, labels, dict(enumerate(predicted)), draws=50).value == pytest.approx(
        np.mean([metric_named(metric).score(labels, one) for one in predicted])
    )


def test_strategies_of_a_regression_and_of_several_labels_are_compared() -> None:
    draw, rows = np.random.default_rng(0), 300
    labels = draw.normal(0, 1, rows)
    numbers = {
        name: {seed: labels + draw.normal(0, noise, rows) for seed in range(3)}
        for name, noise in (("near", 0.3), ("far", 2.0))
    }
    (pair,) = compare_pairs("spearman", labels, numbers)
    assert pair.verdict.startswith("near beats far by")
    assert compare_pairs("pearson", labels, {"a": numbers["near"], "b": numbers["near"]})[
        0
    ].verdict.startswith("no difference shown (the predictions are the same)")
    sets = (draw.random((rows, 4)) < 0.5).astype(np.float32)
    guessed = {
        name: {seed: np.where(draw.random((rows, 4)) < share, sets, 1 - sets) for seed in range(3)}
        for name, share in (("good", 0.95), ("bad", 0.7))
    }
    assert compare_pairs("f1_micro", sets, guessed)[0].verdict.startswith("good beats bad by")


def test_a_correlation_with_a_constant_is_0() -> None:
    assert resampled_scores("pearson", np.arange(5.0), [np.ones(5)], draws=4, seed=0).tolist() == [
        [0.0] * 4
    ]
