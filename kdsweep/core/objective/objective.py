"""What a step minimizes: terms, and the schedules that weigh them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdsweep import metric_names
from kdsweep.core.device import autocast, to_device
from kdsweep.core.objective.distillation_loss import (
    LossSettings,
    gradient_share,
    gradient_squares,
    loss_terms,
)
from kdsweep.core.objective.inner_states import Matching
from kdsweep.core.objective.teacher_mixture import confident_temperature, mixture, teacher_weights
from kdsweep.core.settings import TrialSettings
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.errors import TeacherError


@dataclass(frozen=True)
class Moment:
    """The schedules' values at one step. `weights`: of the terms of inner states, by name."""

    alpha: float
    temperature: float
    weights: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        weights = {
            metric_names.train(f"{name}_weight"): value for name, value in self.weights.items()
        }
        return {
            metric_names.train("alpha"): self.alpha,
            metric_names.train("temperature"): self.temperature,
            **weights,
        }


class Objective:
    """The loss of a trial.

    labels: of all rows of train. logits: each teacher's, for the same rows; empty if no step
    weighs them.

    A step measures means over its rows, an fp32 vector on the device, in the order of `names`.
    The teacher's share of the gradient costs up to 0.15 ms, so only some steps measure it.
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
        check_same_rows(labels, logits)
        self.settings = settings
        self.kind = settings.task.kind
        self.model = model
        self.labels = labels
        self.logits = logits
        self.scale = LabelScale.of_model(model.config)
        self.matching = matching
        self.dtype = dtype
        self.weights = np.array([one.weight for one in settings.teachers], dtype=np.float32)
        inner = [f"{name}_loss" for name in settings.distill.online]
        self.names = ("loss", "task_loss", "distill_loss", *inner)

    def at(self, progress: float, epoch: int) -> Moment:
        terms = self.settings.distill.online
        return Moment(
            self.settings.alpha.at(progress, epoch),
            self.settings.temperature.at(progress, epoch),
            {name: term.weight.at(progress, epoch) for name, term in terms.items()},
        )

    def __call__(
        self,
        inputs: dict[str, np.ndarray],
        rows: np.ndarray,
        batch: np.ndarray,
        now: Moment,
        *,
        sampled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What these rows add to their batch's loss and to its parts by name, and the squared
        gradients of both terms.

        The micro-batches of a batch add up to its means, however it is cut. The gradients are
        `gradient_squares`, or 0 unless `sampled`.
        """
        student_logits, inner = self._forward(to_device(inputs, self.model.device), rows, now)
        teacher, weights, labels = self._targets(rows, now)
        settings = LossSettings(
            alpha=now.alpha,
            temperature=self._temperature(teacher, weights, now.temperature),
            divergence=self.settings.divergence,
            label_smoothing=self.settings.training.label_smoothing,
            teacher_weights=weights,
            # Where it follows the teacher's confidence, it is between 1 and that of the schedule.
            bound=max(1.0, now.temperature),
        )
        loss = loss_terms(student_logits, teacher, labels, settings, self.kind)
        share = len(rows) / len(batch)
        task, distill = loss.task * share, loss.distill * share
        if self.matching is not None and inner:
            shares = self.matching.shares(rows, batch)
            inner = {name: term * shares[name] for name, term in inner.items()}
        total = loss.total * share + sum(now.weights[name] * term for name, term in inner.items())
        parts = [inner.get(name, task * 0) for name in now.weights]
        measured = torch.stack([part.detach() for part in (total, task, distill, *parts)])
        if not self.scale.is_plain:
            # Squared errors are shown in the labels' unit, like those on validation.
            measured[:3] *= self.scale.deviation**2
        if sampled and teacher is not None:
            pulls = gradient_squares(student_logits, teacher, labels, settings, self.kind)
        else:
            pulls = measured.new_zeros(2)
        return total, measured, pulls

    def _temperature(
        self, teacher: Tensor | None, weights: Tensor | None, temperature: float
    ) -> float | Tensor:
        if self.settings.distill.temperature_follows != "confidence" or teacher is None:
            return temperature
        together = teacher if weights is None else mixture(teacher, weights)
        return confident_temperature(together, temperature)

    def _targets(
        self, rows: np.ndarray, now: Moment
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Teacher logits, teacher weights and labels of these rows, on the scale of the outputs.

        The logits of one teacher are [rows, classes], without weights; those of several are
        [rows, teachers, classes].
        """
        found = {"labels": self.scale.standard(self.labels[rows])}
        if self.logits and now.alpha != 1:
            each = [logits[rows] for logits in self.logits]
            together = each[0] if len(each) == 1 else np.stack(each, axis=1)
            found["teacher"] = self.scale.standard(together)
        on_device = to_device(found, self.model.device)
        teacher = on_device.get("teacher")
        labels = on_device["labels"]
        if teacher is None or len(self.logits) == 1:
            return teacher, None, labels
        plain = torch.from_numpy(self.weights).to(teacher.device)
        combine = self.settings.distill.combine
        return teacher, teacher_weights(teacher, labels, plain, combine, self.kind), labels

    def _forward(
        self, inputs: dict[str, Tensor], rows: np.ndarray, now: Moment
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.matching is not None and any(now.weights.values()):
            return self.matching.losses(inputs, rows, self.dtype)
        with autocast(self.model.device, self.dtype):
            return self.model(**inputs).logits, {}


def check_same_rows(labels: np.ndarray, logits: Sequence[np.ndarray]) -> None:
    """Raise TeacherError unless each teacher's logits are for these labels' rows and classes."""
    for number, one in enumerate(logits):
        if len(one) != len(labels) or one.shape[1:] != logits[0].shape[1:]:
            raise TeacherError(
                f"teacher {number + 1}: its logits are {one.shape}, but there are {len(labels)} "
                f"labels and {logits[0].shape[1]} classes: they are of other rows"
            )


def mixed(logits: Sequence[np.ndarray], labels: np.ndarray, settings: TrialSettings) -> np.ndarray:
    """The teachers' mixture as logits at temperature 1, [rows, classes].

    It never depends on the labels: students that don't know them are compared with it.
    """
    if len(logits) == 1:
        return logits[0]
    combine = settings.distill.combine
    if combine == "label_confidence":
        combine = "weights"
    stacked = torch.from_numpy(np.stack(logits, axis=1))
    plain = torch.tensor([one.weight for one in settings.teachers])
    numbers = torch.from_numpy(np.array(labels))
    weights = teacher_weights(stacked, numbers, plain, combine, settings.task.kind)
    return mixture(stacked, weights).numpy()


def share(pulls: Tensor, sampled: bool) -> Tensor:
    """fp32 [2]: the teacher's share of a step's gradient, and 1; or two zeros unless `sampled`."""
    if not sampled:
        return torch.zeros_like(pulls)
    return torch.stack([gradient_share(pulls), torch.ones_like(pulls[0])])
