"""What a trial receives: rows that are read and teachers that are ready."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdsweep.core.data.rows import Split, TaskData
from kdsweep.core.teachers.artifact import Teacher


@dataclass(frozen=True, eq=False)
class TrialInputs:
    """unlabelled: text that only the teachers label; None if the trial uses none.

    best_by_loss: the best evaluation is the one with the lowest loss on validation instead of the
    highest metric.
    """

    data: TaskData
    teachers: tuple[Teacher, ...] = ()
    unlabelled: Split | None = None
    best_by_loss: bool = False

    @property
    def teacher_folder(self) -> Path | None:
        """The teacher that gives its layers if the student's model is `teacher`."""
        return self.teachers[0].folder if self.teachers else None
