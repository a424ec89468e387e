"""Budgets of time, counted over all runs of a sweep, and what slots spend their time on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdsweep.config.sweep import Budget
from kdsweep.core.files import read_json
from kdsweep.sweep import budget as clock_module
from kdsweep.sweep.budget import SweepClock, TimeSpent, say_use, use_of_slots


class Hands:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(clock_module.time, "monotonic", lambda: self.now)

    def move(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


def started(file: Path, **budget: Any) -> SweepClock:
    clock = SweepClock(file, Budget(**budget))
    clock.start()
    return clock


def test_gpu_hours_count_each_busy_slot_s_share_of_a_gpu_and_nothing_while_it_waits(
    tmp_path: Path, hands: Hands
) -> None:
    clock = started(tmp_path / "clock.json", gpu_hours=1.0)
    clock.update(slots=8, running=4, has_work=True, gpus_per_slot=0.25)  # one GPU's worth at work
    hands.move(1800)
    assert not clock.is_over()
    assert clock.seconds_left() == pytest.approx(1800)
    clock.update(slots=8, running=0, has_work=False, gpus_per_slot=0.25)
    hands.move(10_000)
    assert not clock.is_over()
    clock.update(
        slots=8, running=8, has_work=True, gpus_per_slot=0.25
    )  # two GPUs' worth: the rest takes half as long
    assert clock.seconds_left() == pytest.approx(900)
    hands.move(899)
    assert not clock.is_over()
    hands.move(2)
    assert clock.is_over()


@pytest.mark.parametrize(("budget", "gpus"), [({"hours": 1.0}, 0.0), ({"gpu_hours": 1.0}, 1.0)])
def test_what_was_spent_is_kept_over_restarts_and_a_larger_budget_adds_to_it(
    budget: dict[str, float], gpus: float, tmp_path: Path, hands: Hands
) -> None:
    for _ in range(2):
        clock = started(tmp_path / "clock.json", **budget)
        clock.update(slots=1, running=1, has_work=True, gpus_per_slot=gpus)
        hands.move(1500)
        assert not clock.is_over()
        clock.save()
        hands.move(50_000)  # no driver is at work
    clock = started(tmp_path / "clock.json", **budget)
    clock.update(slots=1, running=1, has_work=True, gpus_per_slot=gpus)
    assert clock.seconds_left() == pytest.approx(600)
    hands.move(601)
    assert clock.is_over()
    clock.save()
    more = started(tmp_path / "clock.json", **{name: 2 * hours for name, hours in budget.items()})
    assert not more.is_over()
    assert read_json(tmp_path / "clock.json")["seconds"] == pytest.approx(3601)


def test_a_killed_driver_costs_the_count_at_most_the_last_second(
    tmp_path: Path, hands: Hands
) -> None:
    clock = started(tmp_path / "clock.json", hours=1.0)
    for _ in range(100):
        hands.move(1.5)
        clock.update(slots=1, running=1, has_work=True, gpus_per_slot=0)
    assert read_json(tmp_path / "clock.json")["seconds"] == pytest.approx(150)


def test_every_second_of_every_slot_has_a_purpose(tmp_path: Path, hands: Hands) -> None:
    clock = started(tmp_path / "clock.json")
    clock.update(slots=2, running=2, has_work=True, gpus_per_slot=0)
    hands.move(90)
    clock.spend({"start": 4, "training": 70, "evaluating": 10, "saving": 1})
    clock.spend({"start": 5, "training": 80, "evaluating": 5, "saving": 0})
    clock.update(slots=2, running=1, has_work=True, gpus_per_slot=0)
    hands.move(1)  # one slot asks
    clock.update(slots=2, running=1, has_work=False, gpus_per_slot=0)
    hands.move(
        9
    )  # one has nothing left to do; the other's nine seconds, and the one before, are lost
    clock.save()
    use = use_of_slots(TimeSpent.read(tmp_path / "clock.json"))
    assert use is not None
    assert use.slot_seconds == pytest.approx(200)
    shares = {
        "busy": 165,
        "training": 150,
        "evaluating": 15,
        "start": 9,
        "saving": 1,
        "asking": 1,
        "waiting": 9,
        "lost": 15,
    }
    assert {name: getattr(use, name) for name in shares} == {
        name: pytest.approx(seconds / 200) for name, seconds in shares.items()
    }
    assert (
        say_use(use)
        == "slots: 82.5% busy (start 4.5%, saving 0.5%, asking 0.5%, waiting 4.5%, lost 7.5%)"
    )
    assert use_of_slots(TimeSpent()) is None
