"""A teacher's fine-tuning."""

from __future__ import annotations

from kdsweep.core.settings import (
    StudentSettings,
    TaskSettings,
    TeacherSettings,
    TrainingSettings,
    TrialSettings,
)


def fine_tuning(task: TaskSettings, teacher: TeacherSettings) -> TrialSettings:
    """The teacher's fine-tuning as a trial."""
    assert teacher.model is not None
    training = teacher.training.model_dump(exclude={"learning_rate", "seed"})
    return TrialSettings(
        task=task.model_copy(
            update={"unlabelled": None}
        ),  # more text for its students makes no other teacher
        student=StudentSettings(model=teacher.model, trust_remote_code=teacher.trust_remote_code),
        training=TrainingSettings(**training),
        alpha=1.0,
        learning_rate=teacher.training.learning_rate,
        seed=teacher.training.seed,
    )
