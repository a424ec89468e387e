"""A complete trial keeps what its best student predicts for validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsweep.core import TrialSettings, train
from kdsweep.core.data.loading import load_task
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.training import state
from kdsweep.core.trial_folder import Predicted, TrialFolder, TrialResult
from kdsweep.errors import Interrupted

TRAINING = {"epochs": 4, "batch_size": 16, "max_length": 24}
# A learning rate that jumps up late spoils the student after its best evaluation.
SPOILED = {"shape": "step", "values": [2e-3, 1.0], "at": 0.7}


@pytest.fixture
def settings(plain_trial: dict[str, Any]) -> TrialSettings:
    changes = {"alpha": 1.0, "learning_rate": SPOILED, "training": TRAINING}
    return TrialSettings.model_validate(plain_trial | changes)


def result(folder: TrialFolder) -> TrialResult:
    found = folder.read_result()
    assert found is not None
    return found


def predicted(folder: TrialFolder) -> Predicted:
    found = folder.read_validation_predictions()
    assert found is not None
    return found


def score(settings: TrialSettings, found: Predicted) -> float:
    return metric_named(settings.task.metric).score(found.labels, found.predictions)


def assert_equal(one: Predicted, other: Predicted) -> None:
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.predictions, other.predictions)


def interrupt(settings: TrialSettings, folder: Path, cache: Path, at: int) -> None:
    with pytest.raises(Interrupted):
        list(train(settings, folder, cache=cache, on_step=lambda step, total: step == at))


def test_they_are_those_of_the_best_evaluation_and_give_its_metric(
    settings: TrialSettings, tmp_path: Path
) -> None:
    folder = TrialFolder(tmp_path / "trial")
    evaluations = list(train(settings, folder.root, cache=tmp_path / "cache"))
    best = result(folder).best
    assert best is not None and best.step < evaluations[-1].step
    found = predicted(folder)
    np.testing.assert_array_equal(found.labels, load_task(settings.task).validation.labels)
    assert score(settings, found) == best.metrics[f"validation/{settings.task.metric}"]
    # Class numbers take a byte.
    assert np.load(folder.validation_predictions).dtype == np.uint8


def test_a_trial_that_resumes_after_its_best_evaluation_keeps_the_same(
    settings: TrialSettings, tmp_path: Path
) -> None:
    whole, parts = TrialFolder(tmp_path / "whole"), TrialFolder(tmp_path / "parts")
    steps = [one.step for one in train(settings, whole.root, cache=tmp_path / "cache")]
    best = result(whole).best
    assert best is not None
    interrupt(settings, parts.root, tmp_path / "cache", at=steps[-2] + 1)
    list(train(settings, parts.root, cache=tmp_path / "cache"))
    assert_equal(predicted(parts), predicted(whole))


def test_a_checkpoint_of_an_earlier_version_has_none_so_the_best_student_predicts_again(
    settings: TrialSettings, tmp_path: Path
) -> None:
    whole, parts = TrialFolder(tmp_path / "whole"), TrialFolder(tmp_path / "parts")
    steps = [one.step for one in train(settings, whole.root, cache=tmp_path / "cache")]
    interrupt(settings, parts.root, tmp_path / "cache", at=steps[-2] + 1)
    state = torch.load(parts.state, weights_only=True)
    del state["best_predictions"]
    torch.save(state, parts.state)
    list(train(settings, parts.root, cache=tmp_path / "cache"))
    assert_equal(predicted(parts), predicted(whole))


def test_a_trial_with_a_result_has_them(
    settings: TrialSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TrialFolder(tmp_path / "trial")

    def die(self: TrialFolder, found: TrialResult) -> None:
        assert self.validation_predictions.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrialFolder, "write_result", die)
        list(train(settings, folder.root, cache=tmp_path / "cache"))
    before = predicted(folder)
    list(train(settings, folder.root, cache=tmp_path / "cache"))
    assert_equal(predicted(folder), before)


@pytest.mark.parametrize(
    ("labels", "predictions", "stored"),
    [
        (np.array([0, 1, 76]), np.array([3, 1, 76]), np.uint8),
        (np.array([0, 300]), np.array([-1, 2]), np.int32),
        (np.array([[0.0, 1.0]], np.float32), np.array([[1, 1]]), np.uint8),
        (np.array([0.5, 2.0], np.float32), np.array([0.25, np.inf], np.float32), np.float32),
        (np.array([1.0, 2.0], np.float32), np.array([3.0, 3e30], np.float32), np.float32),
    ],
    ids=["classes", "below 0", "several labels", "regression", "large numbers"],
)
def test_the_file_is_small_and_nothing_is_lost(
    labels: np.ndarray, predictions: np.ndarray, stored: type, tmp_path: Path
) -> None:
    folder = TrialFolder(tmp_path)
    folder.write_validation_predictions(Predicted(labels, predictions))
    assert np.load(folder.validation_predictions).dtype == stored
    assert_equal(predicted(folder), Predicted(labels, predictions))


def test_an_earlier_version_wrote_none(tmp_path: Path) -> None:
    assert TrialFolder(tmp_path).read_validation_predictions() is None


def evaluated(folder: TrialFolder) -> np.ndarray:
    found = folder.read_evaluation_predictions()
    assert found is not None
    return np.stack([found[0], *found[1]])


@pytest.mark.parametrize("stops", [(3, 9), (8, 13)])
def test_every_evaluations_predictions_are_kept_also_of_a_trial_that_resumes(
    settings: TrialSettings, tmp_path: Path, stops: tuple[int, int]
) -> None:
    cache = tmp_path / "cache"
    whole, parts = TrialFolder(tmp_path / "whole"), TrialFolder(tmp_path / "parts")
    evaluations = list(train(settings, whole.root, cache=cache))
    labels, *predictions = evaluated(whole)
    metric = metric_named(settings.task.metric)
    assert [metric.score(labels, one) for one in predictions] == [
        one.metrics[f"validation/{settings.task.metric}"] for one in evaluations
    ]
    assert np.load(whole.evaluation_predictions).dtype == np.uint8
    for stop in stops:
        interrupt(settings, parts.root, cache, at=stop)
    list(train(settings, parts.root, cache=cache))
    np.testing.assert_array_equal(evaluated(parts), evaluated(whole))


def test_a_trial_whose_first_predictions_were_not_kept_keeps_none(
    settings: TrialSettings, tmp_path: Path
) -> None:
    folder = TrialFolder(tmp_path / "trial")
    interrupt(settings, folder.root, tmp_path / "cache", at=9)
    folder.evaluation_predictions.unlink()
    list(train(settings, folder.root, cache=tmp_path / "cache"))
    assert folder.read_evaluation_predictions() is None and result(folder).state == "complete"


def test_of_many_validation_labels_every_nth_rows_predictions_are_kept(
    settings: TrialSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MOST_KEPT_PREDICTIONS", 10)
    folder = TrialFolder(tmp_path / "trial")
    list(train(settings, folder.root, cache=tmp_path / "cache"))
    rows = load_task(settings.task).validation.labels
    np.testing.assert_array_equal(evaluated(folder)[0], rows[:: -(-len(rows) // 10)])
