"""Which settings can't be told apart from the best one: simulations show how often that holds."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import others_slow
from simulated_searches import Kind, search, sweeps

from kdsweep.compare.findings import SettingsComparison
from kdsweep.compare.records import SearchPredictions
from kdsweep.compare.settings_comparison import MOST_COMPARED, compare_settings

TIES = (
    Kind(rows=200, settings=0.3),
    Kind(rows=500, seeds=0.2, runs=5),
    Kind("f1_macro", rows=300, settings=0.3),
    Kind("matthews", rows=300, seeds=0.1, runs=3),
    Kind("pearson", rows=300, settings=0.3),
    Kind("f1_micro", rows=300),
)


def compared(metric: str, one: SearchPredictions, strategies: int = 1) -> SettingsComparison:
    found = compare_settings(metric, dict.fromkeys(map(str, range(strategies)), one), draws=200)
    return found["0"]


@pytest.mark.parametrize("kind", others_slow(list(TIES)), ids=str)
def test_with_equal_settings_at_most_5_of_100_sweeps_exclude_one(kind: Kind) -> None:
    found = sweeps(kind, [1.0] * 6, strategies=2, count=100)
    # 5%, and two standard errors of 100 sweeps.
    assert found.excluded_falsely <= 0.09, found


@pytest.mark.parametrize("runs", [0, 5])
def test_settings_that_are_much_worse_are_excluded_and_the_best_ones_stay(runs: int) -> None:
    kind = Kind(rows=1000, seeds=0.02, runs=runs)
    found = sweeps(kind, [1.0] * 4 + [-0.5] * 4, strategies=2, count=5)
    assert found.best_kept == 1 and found.alike == pytest.approx(0.5, abs=0.03), found


def test_noise_between_seeds_keeps_settings_that_the_rows_alone_would_exclude() -> None:
    draw = np.random.default_rng(0)
    one = search(draw, Kind(rows=2000, seeds=0.4, runs=5), [1.0] * 10)
    alone = SearchPredictions(one.complete, one.labels, one.trials, {})
    by_rows, by_both = compared("accuracy", alone), compared("accuracy", one)
    assert by_rows.seeds == 0 and by_both.seeds == 5
    assert by_rows.alike is not None and by_both.alike is not None
    assert len(by_rows.alike) < 5 and by_both.tells_nothing


def test_one_run_of_confirm_says_nothing_about_seeds() -> None:
    draw = np.random.default_rng(0)
    assert compared("accuracy", search(draw, Kind(runs=1), [1.0] * 3)).seeds == 0


def test_the_best_trial_comes_first_and_of_equals_the_earlier_one() -> None:
    labels = np.zeros(100, dtype=np.int64)
    wrong_rows = {7: 40, 4: 2, 5: 2, 9: 90}
    trials = {
        number: np.where(np.arange(100) < wrong, 1, 0) for number, wrong in wrong_rows.items()
    }
    found = compared("accuracy", SearchPredictions(4, labels, trials, {}))
    assert found == SettingsComparison(complete=4, compared=4, alike=(4, 5), seeds=0)


def test_trials_that_all_predict_the_same_are_alike() -> None:
    labels = np.arange(50) % 2
    trials = {number: np.zeros(50, dtype=np.int64) for number in range(3)}
    found = compared("matthews", SearchPredictions(3, labels, trials, {0: trials[0], 1: trials[1]}))
    assert found.alike == (0, 1, 2) and found.tells_nothing


def test_nothing_is_known_where_a_complete_trial_kept_no_predictions() -> None:
    draw = np.random.default_rng(0)
    one = search(draw, Kind(), [1.0] * 3)
    older = SearchPredictions(4, one.labels, one.trials, {})
    assert compared("accuracy", older) == SettingsComparison(4, 0, None, 0)
    none = SearchPredictions(2, None, {}, {})
    assert compared("accuracy", none) == SettingsComparison(2, 0, None, 0)


def test_one_complete_trial_has_nothing_to_be_compared_with() -> None:
    one = search(np.random.default_rng(0), Kind(), [1.0])
    assert compare_settings("accuracy", {"a": one}) == {}


def test_of_very_many_trials_the_highest_are_compared() -> None:
    labels = np.zeros(60, dtype=np.int64)
    trials = {
        number: np.where(np.arange(60) < number % 50, 1, 0) for number in range(MOST_COMPARED + 50)
    }
    found = compared("accuracy", SearchPredictions(len(trials), labels, trials, {}))
    assert (found.complete, found.compared) == (MOST_COMPARED + 50, MOST_COMPARED)
    assert found.alike is not None and found.alike[0] == 0
    assert len(found.alike) < MOST_COMPARED


def test_more_strategies_are_judged_more_strictly() -> None:
    one = search(np.random.default_rng(1), Kind(rows=400), np.linspace(0.3, 1.2, 12).tolist())
    alone, among_ten = compared("accuracy", one), compared("accuracy", one, strategies=10)
    assert alone.alike is not None and among_ten.alike is not None
    assert set(alone.alike) < set(among_ten.alike)
