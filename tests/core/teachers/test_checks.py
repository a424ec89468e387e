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


def many_classes(
    predicted: np.ndarray, labels: np.ndarray, *, is_checkpoint: bool
) -> ValidationLogits:
    classes = int(labels.max()) + 1
    names = tuple(f"intent number {i}" for i in range(classes))
    metric = metric_named("f1_macro")
    logits = np.eye(classes)[predicted]
    return ValidationLogits(logits, labels, labels, names, metric, is_checkpoint=is_checkpoint)


@pytest.mark.parametrize("classes", [77, 150])
@pytest.mark.parametrize("is_checkpoint", [False, True])
@pytest.mark.parametrize("signal", [0.0, 0.15])
def test_a_weak_teacher_of_many_classes_is_told_to_train_for_longer(
    classes: int, is_checkpoint: bool, signal: float
) -> None:
    """The best of all orders is better than the given one by chance, and is no reason to doubt it.

    With a signal, some rows are recognized but called something else.
    """
    draw = np.random.default_rng(0)
    labels = np.arange(8 * classes) % classes
    predicted = draw.integers(classes, size=len(labels))
    predicted = np.where(draw.random(len(labels)) < signal, (labels + 1) % classes, predicted)
    with pytest.raises(TeacherError, match="nothing to teach; train it for longer") as refused:
        CLASSIFICATION.check_floor(many_classes(predicted, labels, is_checkpoint=is_checkpoint))
    assert "intent number" not in str(refused.value)


@pytest.mark.parametrize("is_checkpoint", [False, True])
def test_another_order_of_labels_is_said_of_checkpoints_alone_and_in_few_names(
    is_checkpoint: bool,
) -> None:
    labels = np.arange(600) % 150
    with pytest.raises(TeacherError) as refused:
        CLASSIFICATION.check_floor(
            many_classes((labels + 1) % 150, labels, is_checkpoint=is_checkpoint)
        )
    assert ("another order" in str(refused.value)) == is_checkpoint
    assert ("train it for longer" in str(refused.value)) != is_checkpoint
    assert str(refused.value).count("intent number") == 8 * is_checkpoint
    if is_checkpoint:
        assert "intent number 6 and 142 more] accuracy would be 1.000" in str(refused.value)


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
