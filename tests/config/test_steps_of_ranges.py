"""A range with a step ends at its last whole step, everywhere the same number as in Optuna."""

from __future__ import annotations

import warnings
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from kdsweep.config import SweepConfig
from kdsweep.config.extremes import extremes
from kdsweep.config.parameters import Parameter
from kdsweep.config.space_loading import load_space
from kdsweep.config.values import Range
from kdsweep.sweep.folders import Home
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import StudyStorage

LASTS = [
    ((1.0, 10.0, 2.5), 8.5),
    ((1.0, 10.0, 0.5), 10.0),
    ((0.1, 0.3, 0.1), 0.3),
    ((0.0, 1.0, 0.3), 0.9),
    ((0.1, 0.9, 0.3), 0.7),
    ((1e-5, 1e-4, 2e-5), 9e-5),
    ((0.0, 1.0, 1 / 3), 0.9999999999999999),
    ((-1.0, 1.0, 0.7), 0.4),
]
SPACE = """\
name: tiny
task: {dataset: rows.csv, text: text, label: label}
teacher: {model: teacher}
student: {model: student}
strategies:
  finetune:
    alpha: 1.0
    learning_rate: {low: 1.0e-4, high: 1.0e-3, step: 4.0e-4}
    batch_size: {low: 8, high: 20, step: 8}
"""


def optunas(low: float, high: float, step: float) -> FloatDistribution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FloatDistribution(low, high, step=step)


@pytest.mark.parametrize(("written", "last"), LASTS)
def test_the_last_number_is_optunas(written: tuple[float, float, float], last: float) -> None:
    low, high, step = written
    found = Range(low=low, high=high, step=step)
    assert found.last == last
    assert list(extremes(found)) == [low, last]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # What a study that was written before holds, so that it still resumes.
        assert FloatDistribution(low, found.last, step=step) == optunas(low, high, step)
    points = found.points()
    assert points is not None
    assert len(points) == found.count()
    assert points[-1] == pytest.approx(last)


def test_a_range_without_a_step_ends_at_high() -> None:
    assert Range(low=0.1, high=0.77).last == 0.77
    assert Range(low=1e-5, high=1e-4, log=True).last == 1e-4


def test_a_plan_says_which_high_is_never_reached() -> None:
    def words(low: float, high: float, step: float, *, whole: bool = False) -> str:
        return Parameter("x", Range(low=low, high=high, step=step), whole).describe()

    assert words(1, 10, 2.5) == "1 to 8.5, step 2.5 (high is 10, which no step reaches)"
    assert words(1, 10, 4, whole=True) == "1 to 9, step 4 (high is 10, which no step reaches)"
    assert words(0.1, 0.3, 0.1) == "0.1 to 0.3, step 0.1"


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_no_trial_warns_and_a_study_that_was_written_before_goes_on(
    tmp_path: Path, sampler: str
) -> None:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    config = SweepConfig.model_validate({"sampler": {"type": sampler}, "pruner": {"type": "none"}})
    space = load_space(tmp_path / "space.yaml")
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    written: dict[str, BaseDistribution] = {
        "learning_rate": optunas(1e-4, 1e-3, 4e-4),
        "batch_size": IntDistribution(8, 16, step=8),
    }
    kept = optuna.create_study(storage=storage, study_name="tiny/finetune", direction="maximize")
    params = {"learning_rate": 5e-4, "batch_size": 16}
    kept.add_trial(optuna.create_trial(params=params, distributions=written, value=0.5))
    studies = Studies(StudyStorage(storage), "tiny", space, config, Home(tmp_path).sweep("tiny"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            studies.tell(studies.ask("finetune"), "complete", 0.5)
        studies.write()
    trials = optuna.load_study(storage=storage, study_name="tiny/finetune").trials
    assert [trial.distributions for trial in trials] == [written] * 4
    assert {trial.params["learning_rate"] for trial in trials} <= {1e-4, 5e-4, 9e-4}
