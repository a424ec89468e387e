"""How much each parameter matters, as far as the trials show it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsweep.config import SweepConfig
from kdsweep.config.space_loading import load_space
from kdsweep.sweep.folders import Home
from kdsweep.sweep.studies import SearchTrial, Studies
from kdsweep.sweep.study_storage import StudyStorage

SPACE = """\
name: small
task: {dataset: rows.csv, text: text, label: label}
teacher: {model: teacher}
student: {model: student}
strategies:
  one: {alpha: 1.0, learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}
  two:
    alpha: {low: 0.0, high: 1.0}
    temperature: {low: 1.0, high: 10.0}
    learning_rate: 1.0e-4
  some:
    alpha:
      any_of:
        - {low: 0.0, high: 0.4}
        - {shape: linear, start: {low: 0.0, high: 0.5}, end: {low: 0.5, high: 1.0}}
    learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}
"""


@pytest.fixture
def studies(tmp_path: Path) -> Studies:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    config = SweepConfig.model_validate(
        {"trials": 400, "sampler": {"type": "random"}, "pruner": {"type": "none"}}
    )
    return Studies(
        StudyStorage(f"sqlite:///{tmp_path}/optuna.db"),
        "small",
        load_space(tmp_path / "space.yaml"),
        config,
        Home(tmp_path).sweep("small"),
    )


def told(
    studies: Studies, strategy: str, count: int, value: Callable[[SearchTrial], float]
) -> dict[str, float] | None:
    for _ in range(count):
        trial = studies.ask(strategy)
        studies.tell(trial, "complete", value(trial))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return studies.importance(strategy)


def test_the_parameter_that_decides_has_the_greatest_share(studies: Studies) -> None:
    shares = told(
        studies,
        "two",
        30,
        lambda trial: 0.5 + 0.4 * trial.params["alpha"] + 0.01 * trial.params["temperature"],
    )
    assert shares is not None and list(shares) == ["alpha", "temperature"]
    assert shares["alpha"] > 0.8 and sum(shares.values()) == pytest.approx(1)


def test_parameters_that_only_some_trials_have_count_too(studies: Studies) -> None:
    noise = random.Random(0)
    shares = told(
        studies,
        "some",
        40,
        lambda trial: 0.5 + 0.3 * trial.params.get("alpha", 0.0) + 0.001 * noise.random(),
    )
    assert shares is not None and {"alpha.any_of", "alpha", "alpha.start", "learning_rate"} <= set(
        shares
    )
    assert max(shares, key=lambda name: shares[name]) in ("alpha.any_of", "alpha")
    assert sum(shares.values()) == pytest.approx(1)


def test_the_same_trials_give_the_same_shares(studies: Studies) -> None:
    assert told(studies, "two", 12, lambda trial: trial.params["alpha"] ** 2) == studies.importance(
        "two"
    )


@pytest.mark.parametrize(
    ("strategy", "count", "value"),
    [
        ("two", 0, 0.0),
        ("two", 4, None),  # too few
        ("two", 12, 0.7),  # all alike
        ("one", 12, None),  # one parameter
    ],
)
def test_there_is_no_importance_if_the_trials_do_not_show_it(
    studies: Studies, strategy: str, count: int, value: float | None
) -> None:
    assert (
        told(
            studies,
            strategy,
            count,
            lambda trial: trial.id.number / 100 if value is None else value,
        )
        is None
    )


def test_trials_with_mostly_equal_values_raise_no_error(studies: Studies) -> None:
    draws = iter([0.7] * 11 + [0.6])
    shares = told(studies, "some", 12, lambda trial: next(draws))
    assert shares is None or sum(shares.values()) == pytest.approx(1)


def test_failed_and_pruned_trials_are_left_out(studies: Studies) -> None:
    for state in ("failed", "pruned", "diverged") * 3:
        studies.tell(studies.ask("two"), state)
    assert studies.importance("two") is None
    assert told(studies, "two", 8, lambda trial: trial.params["temperature"]) is not None
