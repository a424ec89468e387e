"""How many steps a trial takes, when it is evaluated, and at which learning rates."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdsweep.core import TrialSettings
from kdsweep.core.settings import TrainingSettings
from kdsweep.core.training.step_plan import StepPlan, evaluation_steps, learning_rates


def make(**changes: Any) -> TrialSettings:
    plain = {"task": {"dataset": "x", "text": "text", "label": "label"}, "student": {"model": "x"}}
    return TrialSettings.model_validate(plain | {"alpha": 1.0} | changes)


def test_a_plan_counts_the_last_batch_of_an_epoch_although_it_is_smaller() -> None:
    training = TrainingSettings(epochs=3, batch_size=16, evaluations_per_epoch=1, frozen_until=0.5)
    plan = StepPlan.of(training, rows=33)
    assert (plan.steps_per_epoch, plan.total_steps) == (3, 9)
    assert plan.evaluate_after == {3, 6, 9}
    assert plan.unfreeze_at == round(4.5)


def rates(settings: TrialSettings, steps_an_epoch: int) -> list[float]:
    """The learning rate of each step, as the loop would take them."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    plan = StepPlan.of(settings.training, steps_an_epoch * settings.training.batch_size)
    scheduler = learning_rates(optimizer, settings, plan)
    found = []
    for _ in range(plan.total_steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_evaluations_are_spread_evenly_and_end_each_epoch() -> None:
    assert evaluation_steps(10, 2, 2) == {5, 10, 15, 20}
    assert evaluation_steps(3, 1, 9) == {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ((10, 1, 1), {10}),
        ((10, 2, 4), {2, 5, 8, 10, 12, 15, 18, 20}),
        ((1, 3, 5), {1, 2, 3}),
        ((7, 1, 2), {4, 7}),
    ],
)
def test_evaluations_come_after_these_steps(
    arguments: tuple[int, int, int], steps: set[int]
) -> None:
    assert evaluation_steps(*arguments) == steps


def test_a_number_warms_up_and_then_falls_in_a_line() -> None:
    found = rates(
        make(learning_rate=1.0, training={"epochs": 2, "warmup": 0.2}), 5
    )  # 10 steps, 2 of them warm-up
    assert found == pytest.approx(
        [0, 1 / 2, 8 / 8, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert rates(
        make(learning_rate=1.0, training={"epochs": 1, "warmup": 0.2, "scheduler": "constant"}), 5
    ) == pytest.approx([0, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("warmup", "factors"), [(0.0, [1, 1, 1, 1, 1, 1]), (0.5, [0, 1 / 3, 2 / 3, 1, 1, 1])]
)
def test_a_schedule_is_followed_after_the_same_warm_up(warmup: float, factors: list[float]) -> None:
    found = rates(
        make(
            learning_rate={"shape": "per_epoch", "values": [0.6, 0.2]},
            training={"epochs": 2, "warmup": warmup},
        ),
        3,
    )
    assert found == pytest.approx(
        [
            factor * value
            for factor, value in zip(factors, [0.6, 0.6, 0.6, 0.2, 0.2, 0.2], strict=True)
        ]
    )
