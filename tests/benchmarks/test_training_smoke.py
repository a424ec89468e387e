"""Every arm of `training` trains a small student over the same rows as kdsweep."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import training
from conftest import others_slow
from training_work import Arm, StepClock, Work, prepare
from transformers import BertForSequenceClassification

from kdsweep.core.device import best_precision, pick_device
from kdsweep.core.settings import TrialSettings

WARM_UP, STEPS, BATCH_SIZE = 1, 3, 16
ROWS = BATCH_SIZE * (WARM_UP + STEPS + 1)


@pytest.fixture(scope="module")
def trial(tiny: Callable[..., str], review_csv: Path) -> dict[str, Any]:
    sizes = {"batch_size": BATCH_SIZE, "max_length": 24, "evaluations_per_epoch": 1}
    return training.TRIAL | {
        "task": {"dataset": str(review_csv), "text": ["text"], "label": "label"},
        "teacher": {
            "model": tiny("bert", layers=2),
            "training": sizes | {"epochs": 12, "learning_rate": 3.0e-3},
        },
        "student": {"model": tiny("bert", layers=2), "layers": 1},
        "training": sizes | {"epochs": 1},
    }


@pytest.fixture(scope="module")
def work(trial: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Work:
    return prepare(
        tmp_path_factory.mktemp("training"),
        TrialSettings.model_validate(trial, strict=False),
        warm_up=WARM_UP,
        steps=STEPS,
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, ...]]:
    """The rows (tokens without padding) that a classifier in train mode read: a student's."""
    rows: Counter[tuple[int, ...]] = Counter()
    forward = BertForSequenceClassification.forward

    @functools.wraps(forward)
    def looked_at(self: BertForSequenceClassification, *positional: Any, **named: Any) -> Any:
        if self.training:
            rows.update(
                tuple(ids[mask.bool()].tolist())
                for ids, mask in zip(named["input_ids"], named["attention_mask"], strict=True)
            )
        return forward(self, *positional, **named)

    monkeypatch.setattr(BertForSequenceClassification, "forward", looked_at)
    return rows


def arm_called(name: str) -> Arm:
    arm = training.ARMS.get(name) or training.rival(name)
    if arm is None:
        pytest.skip(f"{training.RIVALS[name][1]} is not installed: {training.INSTALLING}")
    return arm


@pytest.mark.parametrize("name", others_slow([*training.ARMS, *training.RIVALS]))
def test_an_arm_trains_its_student_over_the_rows_of_the_trial(
    name: str, work: Work, seen: Counter[tuple[int, ...]]
) -> None:
    arm, clock, before = arm_called(name), work.clock(), work.untrained.state_dict()
    after = arm(work, clock).state_dict()
    assert clock.steps == WARM_UP + STEPS + 1
    assert clock.seconds > 0
    assert seen.total() == ROWS
    assert seen == Counter(tuple(example["input_ids"]) for example in work.examples())
    matrices = [
        key
        for key, tensor in before.items()
        if tensor.is_floating_point() and tensor.ndim == 2 and "position" not in key
    ]
    assert all(not torch.equal(before[key], after[key]) for key in matrices), (
        "all matrices were trained"
    )
    assert not any(parameter.requires_grad for parameter in work.teacher.parameters())
    assert not work.teacher.training


def test_the_timed_rows_of_shuffled_arms_are_the_same(work: Work) -> None:
    timed = slice(WARM_UP * BATCH_SIZE, (WARM_UP + STEPS) * BATCH_SIZE)
    batches = work.batches()[WARM_UP:-1]
    of_kdsweep = [
        tuple(row[row != work.tokens.padding.token_id])
        for batch in batches
        for row in work.tokens.batch(batch)["input_ids"]
    ]
    of_others = [tuple(example["input_ids"]) for example in work.examples()[timed]]
    assert Counter(of_kdsweep) == Counter(of_others)
    assert of_kdsweep != of_others


def test_the_measurement_compares_kdsweep_with_every_arm(
    trial: dict[str, Any], tmp_path: Path
) -> None:
    rows = training.training(
        tmp_path, trial=trial, warm_up=WARM_UP, steps=STEPS, rounds=2, threads=1
    )
    values = {row.what: row.value for row in rows}
    for name in training.ARMS:
        assert values[training.MEANING[name]] > 0
    for name in ["bare", "padded"]:
        assert values[f"kdsweep by {training.MEANING[name]}"] > 0
    missing = [name for name in training.RIVALS if training.rival(name) is None]
    assert [row.value for row in rows if row.what.endswith("not measured")] == [
        training.INSTALLING
    ] * len(missing)
    targets = {row.target for row in rows if "bare" in row.what}
    if best_precision(pick_device()) == "bf16":
        assert values["kdsweep, bf16 by fp32"] > 0 and values["the teacher labels, bf16"] > 0
        targets.remove(">= 0.869565")
    assert targets == {"", ">= 0.97"}


def test_a_clock_counts_only_the_steps_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 14.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = StepClock(warm_up=2, steps=3)
    for _ in range(6):
        clock.step()
    assert clock.seconds == 4.0
