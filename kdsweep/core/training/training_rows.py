"""The rows that a trial trains on: those of train, text without labels, and views of train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kdsweep.core.augmentation.views import cached_view, mask_token
from kdsweep.core.data.mapped_arrays import joined_arrays
from kdsweep.core.data.rows import Say, Split
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.models.student import student_source
from kdsweep.core.settings import TrialSettings
from kdsweep.core.teachers.artifact import tokenizer_of
from kdsweep.core.training.trial_inputs import TrialInputs


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The splits that a trial trains on, train first, as the student and each teacher read them.

    Row i of a split is the same row for all of them. Only the mask token in a view may differ,
    because each model has its own. `labels` are the student's.
    """

    student: tuple[Split, ...]
    teachers: tuple[tuple[Split, ...], ...]

    @property
    def labels(self) -> np.ndarray:
        """[rows] or [rows, classes], of all splits in their order."""
        return joined_arrays([split.labels for split in self.student])

    @property
    def keys(self) -> dict[str, str]:
        """The content hash of each split, by its name."""
        return {split.name: split.key for split in self.student}


def training_rows(
    settings: TrialSettings, inputs: TrialInputs, cache: Path, say: Say
) -> TrainingRows:
    """All rows that the trial trains on; a trial without a teacher skips rows without labels."""
    data = inputs.data
    student = [data.train]
    by_teacher = [[data.train] for _ in inputs.teachers]
    if inputs.unlabelled is not None and settings.is_taught:
        for splits in (student, *by_teacher):
            splits.append(inputs.unlabelled)
    augment = settings.augment
    if augment is not None and (settings.is_taught or augment.in_finetuning):
        own_mask, teacher_masks = _mask_tokens(settings, inputs)
        for number in range(augment.views):
            views = {
                mask: cached_view(data.train, augment, number, mask, cache, say)
                for mask in dict.fromkeys([own_mask, *teacher_masks])
            }
            if settings.is_taught:
                # The teacher labels them: the words that gave the label away may be gone.
                empty = data.empty_labels(len(data.train))
                views = {mask: replace(view, labels=empty) for mask, view in views.items()}
            student.append(views[own_mask])
            for splits, mask in zip(by_teacher, teacher_masks, strict=True):
                splits.append(views[mask])
    return TrainingRows(tuple(student), tuple(map(tuple, by_teacher)))


def _mask_tokens(settings: TrialSettings, inputs: TrialInputs) -> tuple[str, list[str]]:
    """The mask token of the student's tokenizer and of each teacher's, "" if nothing is masked."""
    if settings.augment is None or settings.augment.mask == 0:
        return "", [""] * len(inputs.teachers)
    source = student_source(settings.student, inputs.teacher_folder)
    tokenizer = load_tokenizer(source, trust_remote_code=settings.student.trust_remote_code)
    of_student = mask_token(tokenizer, source)
    return of_student, [
        mask_token(tokenizer_of(teacher), "the teacher") for teacher in inputs.teachers
    ]
