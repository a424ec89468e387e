"""A teacher that can't be trusted is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fine_tuned_teacher import TRAINING, FineTuned

from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.settings import TaskSettings, TeacherSettings
from kdsweep.core.tasks import CLASSIFICATION, DEFAULT_KIND
from kdsweep.core.tasks.floor import ValidationLogits
from kdsweep.core.teachers.artifact import find_teacher, frozen_teacher
from kdsweep.core.teachers.checks import check_frozen
from kdsweep.core.teachers.selection import cached_teacher, prepare_teacher
from kdsweep.errors import TeacherError


def test_a_teacher_that_learned_nothing_is_refused_with_its_accuracy(
    fine_tuned: FineTuned, tiny: Callable[..., str], tmp_path: Path
) -> None:
    settings = TeacherSettings(
        model=tiny("bert"), training=TRAINING | {"epochs": 1, "learning_rate": 1e-9}
    )
    match = r"accuracy 0\.\d{3} on validation .* majority class \(0\.\d{3}; at least 0\.\d{3}"
    with pytest.raises(TeacherError, match=match):
        prepare_teacher(fine_tuned.task, settings, tmp_path)
    assert cached_teacher(fine_tuned.task, settings, tmp_path) is None


@pytest.mark.parametrize(("right", "trusted"), [(70, False), (79, False), (81, True), (95, True)])
def test_the_floor_is_two_standard_errors_above_the_majority(right: int, trusted: bool) -> None:
    """100 rows, 70 of the majority: sqrt(0.7 * 0.3 / 100) = 0.0458, so the floor is 0.7917."""
    labels = np.array([0] * 70 + [1] * 30)
    predicted = np.zeros(100, dtype=int)
    if right > 70:
        predicted = np.where(np.arange(100) < right, labels, 1 - labels)
    logits = np.eye(2)[predicted]
    validation = ValidationLogits(logits, labels, labels, ("neg", "pos"), metric_named("accuracy"))
    if trusted:
        CLASSIFICATION.check_floor(validation)
    else:
        with pytest.raises(
            TeacherError, match=f"accuracy 0.{right}0 .*majority class \\(0.700; at least 0.792"
        ):
            CLASSIFICATION.check_floor(validation)


def test_a_teacher_in_training_mode_or_with_gradients_is_refused(
    review_task: TaskSettings, quick_teacher: Callable[..., TeacherSettings], tmp_path: Path
) -> None:
    made = prepare_teacher(review_task, quick_teacher(), tmp_path)
    model = frozen_teacher(made, ("neg", "pos"), DEFAULT_KIND)
    check_frozen(model)
    model.bert.encoder.layer[1].train()
    with pytest.raises(TeacherError, match=r"bert\.encoder\.layer\.1 is in training mode"):
        check_frozen(model)
    model.train()
    with pytest.raises(TeacherError, match="the model is in training mode"):
        check_frozen(model)
    model.eval()
    model.classifier.bias.requires_grad_(True)
    with pytest.raises(TeacherError, match=r"classifier\.bias takes gradients"):
        check_frozen(model)
    assert find_teacher(made.folder) == made
