"""What a step minimises: terms, and the schedules that weigh them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdsweep.core.device import autocast, to_device
from kdsweep.core.objective.distillation_loss import (
    distillation_loss,
    gradient_share,
    gradient_squares,
)
from kdsweep.core.objective.inner_states import Matching
from kdsweep.core.objective.teacher_mixture import confident_temperature, mixture, teacher_weights
from kdsweep.core.settings import TrialSettings
from kdsweep.errors import TeacherError


@dataclass(frozen=True)
class Moment:
    """What the schedules say at one step. `weights`: of the terms of inner states."""

    alpha: float
    temperature: float
    weights: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        weights = {f"train/{name}_weight": value for name, value in self.weights.items()}
        return {"train/alpha": self.alpha, "train/temperature": self.temperature, **weights}


class Objective:
    """The loss of a trial: `labels` and each teacher's `logits` are those of all rows of train; there are none where no step weighs them.

    What a step measures are means over its rows, an fp32 vector on the device, in the order of `names`; the teacher's share of the
    gradient comes last, with whether it was looked at: looking costs up to 0.15 ms, so only some steps do it.
    """

    def __init__(
        self,
        settings: TrialSettings,
        model: PreTrainedModel,
        labels: np.ndarray,
        logits: Sequence[np.ndarray],
        matching: Matching | None,
        dtype: torch.dtype,
    ) -> None:
        check_same_rows_answered(labels, logits)
        self.settings, self.model, self.labels, self.logits, self.matching, self.dtype = (
            settings,
            model,
            labels,
            logits,
            matching,
            dtype,
        )
        self.weights = np.array([one.weight for one in settings.teachers], dtype=np.float32)
        self.names = (
            "loss",
            "task_loss",
            "distill_loss",
            *(f"{name}_loss" for name in settings.distill.online),
        )

    def at(self, progress: float, epoch: int) -> Moment:
        alpha, temperature = (
            self.settings.alpha.at(progress, epoch),
            self.settings.temperature.at(progress, epoch),
        )
        return Moment(
            alpha,
            temperature,
            {
                name: term.weight.at(progress, epoch)
                for name, term in self.settings.distill.online.items()
            },
        )

    def __call__(
        self, inputs: dict[str, np.ndarray], rows: np.ndarray, now: Moment, *, sampled: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of these rows, its parts by name, and the squared gradients of labels and teacher (0 unless `sampled`)."""
        device, distill = self.model.device, self.settings.distill
        student_logits, inner = self._forward(to_device(inputs, device), rows, now)
        teacher, weights, labels = self._answers(rows, now)
        temperature: float | Tensor = now.temperature
        if distill.temperature_follows == "confidence" and teacher is not None:
            temperature = confident_temperature(
                teacher if weights is None else mixture(teacher, weights), now.temperature
            )
        how: dict[str, Any] = {
            "temperature": temperature,
            "match": distill.logits,
            "label_smoothing": self.settings.training.label_smoothing,
        }
        how["teacher_weights"] = weights
        loss = distillation_loss(student_logits, teacher, labels, alpha=now.alpha, **how)
        total = loss.total + sum(now.weights[name] * term for name, term in inner.items())
        measured = torch.stack(
            [
                part.detach()
                for part in (
                    total,
                    loss.task,
                    loss.distill,
                    *(inner.get(name, loss.task * 0) for name in now.weights),
                )
            ]
        )
        pulls = (
            gradient_squares(student_logits, teacher, labels, alpha=now.alpha, **how)
            if sampled and teacher is not None
            else measured.new_zeros(2)
        )
        return total, measured, pulls

    def _answers(
        self, rows: np.ndarray, now: Moment
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """The teacher's logits [rows, classes], or those of several [rows, teachers, classes] and their weights, and the labels."""
        found = {"labels": self.labels[rows]}
        if self.logits and now.alpha != 1:
            found["teacher"] = (
                self.logits[0][rows]
                if len(self.logits) == 1
                else np.stack([logits[rows] for logits in self.logits], axis=1)
            )
        on_device = to_device(found, self.model.device)
        teacher, labels = on_device.get("teacher"), on_device["labels"]
        if teacher is None or teacher.ndim == 2:
            return teacher, None, labels
        weights = torch.from_numpy(self.weights).to(teacher.device)
        return (
            teacher,
            teacher_weights(teacher, labels, weights, self.settings.distill.combine),
            labels,
        )

    def _forward(
        self, inputs: dict[str, Tensor], rows: np.ndarray, now: Moment
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.matching is not None and any(now.weights.values()):
            return self.matching.losses(inputs, rows, self.dtype)
        with autocast(self.model.device, self.dtype):
            return self.model(**inputs).logits, {}


def check_same_rows_answered(labels: np.ndarray, logits: Sequence[np.ndarray]) -> None:
    """Raise TeacherError unless each teacher has as many rows as there are labels, and all have the same classes."""
    for number, one in enumerate(logits):
        if len(one) != len(labels) or one.shape[1:] != logits[0].shape[1:]:
            raise TeacherError(
                f"teacher {number + 1}: its logits are {one.shape}, but there are {len(labels)} labels and {logits[0].shape[1]} classes: they are of other rows"
            )


def mixed(logits: Sequence[np.ndarray], labels: np.ndarray, settings: TrialSettings) -> np.ndarray:
    """What the teachers say together, [rows, classes], as logits at temperature 1. Never by the labels: it is what students that know none are held to."""
    if len(logits) == 1:
        return logits[0]
    combine = (
        "weights" if settings.distill.combine == "label_confidence" else settings.distill.combine
    )
    stacked, weights = (
        torch.from_numpy(np.stack(logits, axis=1)),
        torch.tensor([one.weight for one in settings.teachers]),
    )
    return mixture(
        stacked, teacher_weights(stacked, torch.from_numpy(np.array(labels)), weights, combine)
    ).numpy()


def share(pulls: Tensor, sampled: bool) -> Tensor:
    """The teacher's share of a step's gradient and 1, or two zeros where it was not looked at; fp32 [2]."""
    return (
        torch.stack([gradient_share(pulls), torch.ones_like(pulls[0])])
        if sampled
        else torch.zeros_like(pulls)
    )
