"""A teacher that is fine-tuned once for all tests of a process, and settings for other teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

if TYPE_CHECKING:
    from kdsweep.core.data.rows import TaskData
    from kdsweep.core.settings import TaskSettings, TeacherSettings
    from kdsweep.core.teachers.artifact import Teacher

TRAINING = {
    "epochs": 4,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "max_length": 24,
    "evaluations_per_epoch": 1,
}
# Three epochs that learn the reviews for any seed and for half of the rows.
QUICK_TRAINING = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 4e-3,
    "warmup": 0.0,
    "max_length": 24,
    "evaluations_per_epoch": 1,
}


class FineTuned(NamedTuple):
    teacher: Teacher
    task: TaskSettings
    settings: TeacherSettings
    cache: Path


@pytest.fixture(scope="session")
def review_task(review_csv: Path) -> TaskSettings:
    from kdsweep.core.settings import TaskSettings

    return TaskSettings(dataset=str(review_csv), text="text", label="label", holdout=0.2)


@pytest.fixture(scope="session")
def fine_tuned(
    tiny: Callable[..., str], review_task: TaskSettings, tmp_path_factory: pytest.TempPathFactory
) -> FineTuned:
    """A teacher fine-tuned from a tiny BERT on the reviews, whose labels are neg and pos."""
    from kdsweep.core.settings import TeacherSettings
    from kdsweep.core.teachers.selection import prepare_teacher

    cache = tmp_path_factory.mktemp("cache")
    settings = TeacherSettings(model=tiny("bert"), training=TRAINING)
    return FineTuned(prepare_teacher(review_task, settings, cache), review_task, settings, cache)


@pytest.fixture
def quick_teacher(tiny: Callable[..., str]) -> Callable[..., TeacherSettings]:
    """quick_teacher(training={...}, seeds=..., ...) -> a teacher that learns quickly."""
    from kdsweep.core.settings import TeacherSettings

    def build(*, training: dict[str, Any] | None = None, **keys: Any) -> TeacherSettings:
        return TeacherSettings(
            model=tiny("bert"), training=QUICK_TRAINING | (training or {}), **keys
        )

    return build


def no_step(step: int, total_steps: int) -> bool:
    """As `on_step`: fails the test at the first step that is taken."""
    pytest.fail("a teacher was trained again")


def train_logits(source: Path, data: TaskData) -> np.ndarray:
    """The model's own logits for train, row by row."""
    return logits_of_texts(source, data.train.texts[0])


def logits_of_texts(source: Path, texts: Sequence[str]) -> np.ndarray:
    """The model's own logits for these texts, one by one."""
    import torch

    from kdsweep.core.models.loading import load_classifier, load_tokenizer

    model, tokenizer = load_classifier(str(source), ("a", "b")).eval(), load_tokenizer(str(source))

    def logits(text: str) -> torch.Tensor:
        return model(**tokenizer(text, truncation=True, max_length=24, return_tensors="pt")).logits

    with torch.no_grad():
        return torch.cat([logits(text) for text in texts]).numpy()
