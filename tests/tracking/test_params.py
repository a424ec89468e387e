"""The parameters that a tracker shows of a trial."""

from __future__ import annotations

from kdsweep.core.settings import TrialSettings
from kdsweep.tracking.params import flat, trial_params

TASK = {"dataset": "x.csv", "text": "a", "label": "b"}


def test_nested_values_have_dotted_names_and_none_is_left_out() -> None:
    value = {"model": "m", "layers": None, "training": {"epochs": 2}, "kept": [0, 1]}
    assert flat("student", value) == {
        "student.model": "m",
        "student.training.epochs": 2,
        "student.kept": [0, 1],
    }


def test_a_constant_schedule_is_its_number() -> None:
    assert flat("alpha", {"shape": "constant", "value": 0.5}) == {"alpha": 0.5}
    assert flat("alpha", {"shape": "linear", "start": 0.0, "end": 1.0}) == {
        "alpha.shape": "linear",
        "alpha.start": 0.0,
        "alpha.end": 1.0,
    }


def test_each_teacher_has_names_of_its_own() -> None:
    settings = TrialSettings(
        task=TASK,
        student={"model": "small"},
        teacher={"model": "large"},
        further_teachers=[{"model": "other", "weight": 2.0}],
        alpha=0.5,
        temperature=4.0,
        learning_rate=1e-3,
        seed=7,
    )
    params = trial_params(settings)
    assert params["teacher.model"] == "large + other"
    assert params["teacher.1.weight"] == 2.0
    assert "teacher.1.model" not in params
    assert (params["alpha"], params["temperature"], params["seed"]) == (0.5, 4.0, 7)
    assert params["epochs"] == settings.training.epochs
