"""What a slot is given to do: train one trial, or make the teachers that trials need.

Jobs travel between processes, so they hold plain values and paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep.trial_id import TrialId

if TYPE_CHECKING:
    from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings


@dataclass(frozen=True)
class TrialJob:
    """Train a trial in `folder`. A trial that has a checkpoint there resumes from it."""

    id: TrialId
    settings: TrialSettings
    folder: Path
    cache: Path

    @property
    def name(self) -> str:
        return self.id.name


@dataclass(frozen=True)
class TeacherJob:
    """Fine-tune each teacher and save its logits, for all trials.

    judge_test: save its logits of the test split too.
    """

    name: str
    task: TaskSettings
    teachers: tuple[TeacherSettings, ...]
    cache: Path
    judge_test: bool = False


Job = TrialJob | TeacherJob
