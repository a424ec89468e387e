"""How many optimizer steps a trial takes, when it is evaluated, and its learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import get_scheduler

from kdsweep.core.schedules import Constant
from kdsweep.core.settings import TrainingSettings, TrialSettings


@dataclass(frozen=True)
class StepPlan:
    """`evaluate_after`: the numbers of steps done after which the student is evaluated.

    `unfreeze_at`: the first step, from 0, that trains all weights; earlier ones train the head.
    """

    steps_per_epoch: int
    epochs: int
    evaluate_after: frozenset[int]
    unfreeze_at: int

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @staticmethod
    def of(training: TrainingSettings, rows: int) -> StepPlan:
        """The plan for training on this many rows."""
        steps_per_epoch = math.ceil(rows / training.batch_size)
        return StepPlan(
            steps_per_epoch,
            training.epochs,
            evaluation_steps(steps_per_epoch, training.epochs, training.evaluations_per_epoch),
            round(training.frozen_until * steps_per_epoch * training.epochs),
        )


def evaluation_steps(
    steps_per_epoch: int, epochs: int, evaluations_per_epoch: int
) -> frozenset[int]:
    """After how many steps to evaluate: spread evenly over each epoch, always at its end."""
    count = min(evaluations_per_epoch, steps_per_epoch)
    return frozenset(
        epoch * steps_per_epoch + round(part * steps_per_epoch / count)
        for epoch in range(epochs)
        for part in range(1, count + 1)
    )


def learning_rates(optimizer: Optimizer, settings: TrialSettings, plan: StepPlan) -> LRScheduler:
    """A constant warms up and decays as `training.scheduler` says.

    A schedule warms up in the same way and is then followed as it is. Each layer keeps its own
    factor (`training.layer_decay`).
    """
    training, schedule = settings.training, settings.learning_rate
    warmup = round(training.warmup * plan.total_steps)
    if isinstance(schedule, Constant):
        for group in optimizer.param_groups:
            group["lr"] *= schedule.value
        name = "constant_with_warmup" if training.scheduler == "constant" else training.scheduler
        return get_scheduler(
            name, optimizer, num_warmup_steps=warmup, num_training_steps=plan.total_steps
        )

    def rate_at(step: int) -> float:
        warmed_up = step / warmup if step < warmup else 1.0
        return warmed_up * schedule.at(step / plan.total_steps, step // plan.steps_per_epoch)

    return LambdaLR(optimizer, rate_at)
