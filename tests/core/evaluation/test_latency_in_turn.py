"""The latency of architectures: measured in turn, each once, whatever settings mean it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kdsweep.core.device import this_device
from kdsweep.core.evaluation import latency as latency_module
from kdsweep.core.evaluation.architectures import measure_shapes
from kdsweep.core.evaluation.latency import ROUNDS, timed_in_turn
from kdsweep.core.evaluation.latency_figures import (
    ArchitectureLatency,
    Device,
    Latency,
    MeasuredShapes,
    ModelShape,
)
from kdsweep.core.settings import TaskSettings
from kdsweep.errors import Interrupted


def never(done: int, of: int) -> bool:
    return False


@pytest.fixture
def measure(tmp_path: Path, review_csv: Path) -> Callable[..., MeasuredShapes]:
    task = TaskSettings(dataset=str(review_csv), text="text", label="label")

    def call(
        *shapes: ModelShape,
        known: tuple[ArchitectureLatency, ...] = (),
        on_round: Callable[[int, int], bool] = never,
    ) -> MeasuredShapes:
        return measure_shapes(task, shapes, known, tmp_path, on_round, lambda line: None)

    return call


def test_architectures_take_turns_so_that_a_slower_machine_slows_down_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(latency_module, "ROUND_SECONDS", 0.0)
    calls: list[str] = []
    rounds: list[int] = []
    found = timed_in_turn([lambda: calls.append("a"), lambda: calls.append("b")], rounds.append)
    turns = [one for i, one in enumerate(calls) if i == 0 or calls[i - 1] != one]
    assert turns == ["a", "b"] * ROUNDS
    assert rounds == list(range(ROUNDS))
    for one in found:
        assert 0 < one.low_ms <= one.latency_ms <= one.high_ms
        assert one.rounds == ROUNDS


def test_settings_that_mean_one_architecture_are_measured_once(
    measure: Callable[..., MeasuredShapes], tiny: Callable[..., str]
) -> None:
    model = tiny("bert", layers=2)
    all_layers = ModelShape(model=model, max_length=24)
    both = ModelShape(model=model, layers=2, max_length=24)
    longer = ModelShape(model=model, layers=2, width=32, max_length=32)
    one = ModelShape(model=model, layers=1, max_length=24)
    found = measure(all_layers, both, longer, one).found
    asked = {(each.layers, each.width): each.asked for each in found}
    assert asked == {(2, 32): (all_layers, both, longer), (1, 32): (one,)}
    assert {each.device for each in found} == {this_device()}
    again = measure(both, known=found).found
    assert [(each.key, each.first) for each in again] == [(found[0].key, found[0].first)]


def test_a_shape_without_a_model_is_reported_with_the_reason(
    measure: Callable[..., MeasuredShapes], tiny: Callable[..., str], tmp_path: Path
) -> None:
    missing = ModelShape(model=str(tmp_path / "nothing"), max_length=24)
    measured = measure(missing, ModelShape(model=tiny("bert", layers=2), max_length=24))
    assert len(measured.found) == 1
    [(shape, reason)] = measured.unmeasured
    assert shape == missing
    assert "nothing" in reason


def test_it_can_be_stopped_and_draws_nothing_that_training_draws_from(
    measure: Callable[..., MeasuredShapes], tiny: Callable[..., str]
) -> None:
    shape = ModelShape(model=tiny("bert", layers=2), max_length=24)
    before = torch.get_rng_state()
    measure(shape)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(Interrupted):
        measure(shape, on_round=lambda done, of: done == 1)


def figures(low: float, middle: float, high: float) -> Latency:
    return Latency(
        latency_ms=middle, latency_p95_ms=high, low_ms=low, high_ms=high, rounds=9, measured=0
    )


@pytest.mark.parametrize(
    ("last", "changed"),
    [
        (None, False),
        (figures(1.9, 2.1, 2.4), False),
        (figures(2.1, 2.2, 2.5), False),
        (figures(2.3, 2.4, 2.5), True),
        (figures(1.0, 1.1, 1.7), True),
    ],
)
def test_two_measurements_differ_where_their_spreads_have_nothing_in_common(
    last: Latency | None, changed: bool
) -> None:
    values: dict[str, Any] = {"model": "m", "layers": 2, "width": 32, "tokens": 9, "asked": ()}
    device = Device(name="a processor", threads=2)
    one = ArchitectureLatency(**values, device=device, first=figures(1.8, 2.0, 2.2), last=last)
    assert one.has_changed is changed
    assert ArchitectureLatency.model_validate_json(one.model_dump_json()) == one
