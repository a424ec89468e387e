"""What every arm of `training` shares: rows, teacher, the untrained student, and the clock."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_linear_schedule_with_warmup

from kdsweep.core.data.batches import batches
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.rows import TaskData
from kdsweep.core.data.tokenize import TokenizedSplit, tokenize_split
from kdsweep.core.device import pick_device
from kdsweep.core.models.input_format import input_format_of
from kdsweep.core.models.student import load_student
from kdsweep.core.settings import TrialSettings
from kdsweep.core.split_settings import Limit
from kdsweep.core.teachers.artifact import frozen_teacher
from kdsweep.core.teachers.logits import teacher_logits
from kdsweep.core.teachers.selection import prepare_teacher

VALIDATION_ROWS = 256


class StepClock:
    """The seconds of `steps` optimizer steps that come after `warm_up` others."""

    def __init__(self, warm_up: int, steps: int) -> None:
        self.first = warm_up
        self.last = warm_up + steps
        self.steps = 0
        self.marks: list[float] = []

    def step(self) -> None:
        """Called after each optimizer step."""
        self.steps += 1
        if self.steps in (self.first, self.last):
            if torch.cuda.is_available():
                # Only here, because the steps between are queued without waiting for the GPU.
                torch.cuda.synchronize()
            self.marks.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        start, end = self.marks
        return end - start


@dataclass(frozen=True)
class Work:
    """One `distill` trial of one epoch: `warm_up` steps, `steps` timed ones, and one more.

    kdsweep evaluates after its last step, which therefore isn't timed.
    """

    settings: TrialSettings
    warm_up: int
    steps: int
    folder: Path
    data: TaskData
    tokens: TokenizedSplit
    logits: np.ndarray
    tokenizer: PreTrainedTokenizerBase
    teacher: PreTrainedModel
    untrained: PreTrainedModel

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def all_steps(self) -> int:
        return self.warm_up + self.steps + 1

    @property
    def batch_size(self) -> int:
        return self.settings.training.batch_size

    @property
    def max_length(self) -> int:
        return self.settings.training.max_length

    @property
    def alpha(self) -> float:
        return self.settings.alpha.at(0.0, 0)

    @property
    def temperature(self) -> float:
        return self.settings.temperature.at(0.0, 0)

    @property
    def learning_rate(self) -> float:
        return self.settings.learning_rate.at(0.0, 0)

    @property
    def weight_decay(self) -> float:
        return self.settings.training.weight_decay

    @property
    def gradient_clip(self) -> float:
        assert self.settings.training.gradient_clip is not None
        return self.settings.training.gradient_clip

    @property
    def schedule_steps(self) -> dict[str, int]:
        """The arguments of transformers' linear schedule."""
        return {
            "num_warmup_steps": round(self.settings.training.warmup * self.all_steps),
            "num_training_steps": self.all_steps,
        }

    def with_seed(self, seed: int) -> Work:
        """The same work with another order of rows."""
        return replace(self, settings=self.settings.model_copy(update={"seed": seed}))

    def in_bf16(self) -> Work:
        """The same work, its matrix products in bf16."""
        training = self.settings.training.model_copy(update={"precision": "bf16"})
        return replace(self, settings=self.settings.model_copy(update={"training": training}))

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        is_bf16 = self.settings.training.precision == "bf16"
        return torch.bfloat16 if is_bf16 else torch.float32

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))

    def clock(self) -> StepClock:
        return StepClock(self.warm_up, self.steps)

    def batches(self) -> list[np.ndarray]:
        """The row numbers of kdsweep's batches."""
        return batches(self.tokens.lengths, self.batch_size, self.settings.seed, 0)

    def student(self) -> PreTrainedModel:
        """Before its first step, with dropout on."""
        return copy.deepcopy(self.untrained).train()

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return get_linear_schedule_with_warmup(optimizer, **self.schedule_steps)

    def examples(self) -> list[dict[str, Any]]:
        """Tokenized rows as a collator takes them, in random order, not sorted by length.

        They are shuffled here and not by a sampler, so that the timed steps have the same rows as
        kdsweep's timed steps.
        """
        order = self.batches()
        random = np.random.default_rng([self.settings.seed, 1])
        parts = (order[: self.warm_up], order[self.warm_up : -1], order[-1:])
        return [
            self._example(row) for part in parts for row in random.permutation(np.concatenate(part))
        ]

    def _example(self, row: int) -> dict[str, Any]:
        values = {
            name: array[0].tolist() for name, array in self.tokens.batch(np.array([row])).items()
        }
        return values | {"labels": int(self.data.train.labels[row])}


# An arm trains one student as `Work` says, calls `StepClock.step` after each optimizer step, and
# returns the student.
Arm = Callable[[Work, StepClock], PreTrainedModel]


def prepare(folder: Path, settings: TrialSettings, *, warm_up: int, steps: int) -> Work:
    """Take as many rows as the steps need, and prepare teacher, tokens and logits in `folder`."""
    rows = settings.training.batch_size * (warm_up + steps + 1)
    task = settings.task.model_copy(update={"limit": Limit(train=rows, validation=VALIDATION_ROWS)})
    settings = settings.model_copy(update={"task": task})
    cache = folder / "cache"
    data = load_task(task, cache)
    assert len(data.train) == rows, f"{rows} rows are asked for, the dataset has {len(data.train)}"
    assert settings.teacher is not None
    teacher = prepare_teacher(task, settings.teacher, cache)
    logits = teacher_logits(teacher, data, cache=cache)
    teacher_logits(teacher, data, cache=cache, split="validation")
    torch.manual_seed(settings.seed)
    student, tokenizer = load_student(settings.student, data.label_names, None)
    input_format = input_format_of(student, tokenizer, settings.training.max_length)
    tokens = tokenize_split(data.train, tokenizer, input_format, cache=cache)
    student.to(pick_device())
    return Work(
        settings,
        warm_up,
        steps,
        folder,
        data,
        tokens,
        logits,
        tokenizer,
        frozen_teacher(teacher, data.label_names, data.kind),
        student,
    )
