"""A step that runs out of memory is repeated in smaller parts, with the same results."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kdsweep.core import TrialSettings, train
from kdsweep.core.device import is_out_of_memory, unless_out_of_memory
from kdsweep.core.models.student import load_student
from kdsweep.core.training.micro_batches import MicroBatches
from kdsweep.core.trial_folder import TrialFolder, TrialResult
from kdsweep.errors import Interrupted, OutOfMemory


def run_out_of_memory() -> None:
    # 4 petabytes, so that the allocator raises its own error.
    torch.empty(10**15)


@pytest.fixture(scope="module")
def make(without_dropout: str, review_csv: Path) -> Callable[..., TrialSettings]:
    def build(*, model: str = without_dropout, **training: Any) -> TrialSettings:
        return TrialSettings.model_validate(
            {
                "task": {
                    "dataset": str(review_csv),
                    "text": "text",
                    "label": "label",
                    "holdout": 0.2,
                },
                "student": {"model": model, "layers": 1},
                "training": {
                    "epochs": 1,
                    "batch_size": 16,
                    "max_length": 24,
                    "evaluations_per_epoch": 2,
                }
                | training,
                "alpha": 1.0,
                "learning_rate": 2e-3,
            }
        )

    return build


@dataclass
class Memory:
    """Room for `room` rows in each training call from `since_call` on; a call is one micro-batch.

    `seen` has the rows of each call.
    """

    room: int = 10**9
    since_call: int = 0
    in_backward: bool = False
    seen: list[int] = field(default_factory=list)

    def lacks(self, rows: int) -> bool:
        return rows > self.room and len(self.seen) > self.since_call

    def before_forward(
        self, model: torch.nn.Module, args: Any, inputs: dict[str, torch.Tensor]
    ) -> None:
        if model.training:
            self.seen.append(len(inputs["input_ids"]))
            if not self.in_backward and self.lacks(self.seen[-1]):
                run_out_of_memory()

    def after_forward(self, model: torch.nn.Module, args: Any, output: Any) -> None:
        if model.training and self.in_backward and self.lacks(self.seen[-1]):
            output.logits.register_hook(lambda gradient: run_out_of_memory())


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memory]:
    """The memory of a trial's student.

    The student computes in fp64, because in fp32 Adam turns rounding errors into whole steps.
    """
    found = Memory()

    def load(*arguments: Any) -> Any:
        model, tokenizer = load_student(*arguments)
        model.register_forward_pre_hook(found.before_forward, with_kwargs=True)
        model.register_forward_hook(found.after_forward)
        return model.double(), tokenizer

    monkeypatch.setattr("kdsweep.core.training.prepare.load_student", load)
    return found


def finished(
    settings: TrialSettings, folder: Path, cache: Path, said: list[str] | None = None
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """A trial's metrics and its student's weights."""
    found = [
        evaluation.metrics
        for evaluation in train(
            settings, folder, cache=cache, say=[].append if said is None else said.append
        )
    ]
    return found, load_file(folder / "student" / "model.safetensors")


def result(folder: Path) -> TrialResult:
    found = TrialFolder(folder).read_result()
    assert found is not None
    return found


# Accumulation steps, the first call that lacks memory, and its step. With two accumulation steps,
# call 9 is the second half of its batch: the gradients and losses of the first half must go.
@pytest.mark.parametrize("failure", [(1, 0, 0), (1, 5, 5), (2, 9, 4)])
@pytest.mark.parametrize("in_backward", [False, True])
def test_losses_and_weights_are_those_of_a_trial_with_enough_memory(
    failure: tuple[int, int, int],
    in_backward: bool,
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
    memory: Memory,
) -> None:
    accumulation, call, step = failure
    settings = make(accumulation_steps=accumulation)
    whole, weights = finished(settings, tmp_path / "whole", cache)
    memory.seen.clear()
    memory.room, memory.since_call, memory.in_backward = 4, call, in_backward
    said: list[str] = []
    halved, halved_weights = finished(settings, tmp_path / "halved", cache, said)
    assert len(halved) == len(whole)
    for expected, found in zip(whole, halved, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    assert all(
        torch.allclose(weights[name], halved_weights[name], rtol=0, atol=1e-5) for name in weights
    )
    rows = [8, 4] if accumulation == 1 else [4]
    assert [line for line in said if "memory" in line] == [
        f"out of memory at step {step}: micro-batches of {count} rows from here on, "
        "the batch stays 16"
        for count in rows
    ]
    assert (result(tmp_path / "whole").micro_batch, result(tmp_path / "halved").micro_batch) == (
        None,
        4,
    )


def test_micro_batches_are_halved_three_times_and_then_the_trial_ends(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, memory: Memory
) -> None:
    memory.room, said = 0, []
    with pytest.raises(
        OutOfMemory,
        match="at step 0 with micro-batches of 4 rows, halved 3 times already; set a smaller batch",
    ) as ended:
        list(train(make(batch_size=32), tmp_path, cache=cache, say=said.append))
    assert memory.seen == [32, 16, 8, 4]
    assert len([line for line in said if "memory" in line]) == 3
    assert ended.value.__context__ is None  # nothing that leads to the failed step's tensors
    assert "\n" not in str(ended.value)


def test_a_single_row_cannot_be_halved(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, memory: Memory
) -> None:
    memory.room = 0
    with pytest.raises(
        OutOfMemory, match="at step 0 with a single row in a micro-batch; set a smaller max_length"
    ):
        list(train(make(batch_size=2), tmp_path, cache=cache))
    assert memory.seen == [2, 1]


def test_a_resumed_trial_keeps_the_halving(
    make: Callable[..., TrialSettings], cache: Path, tmp_path: Path, memory: Memory
) -> None:
    memory.room = 4
    whole, weights = finished(make(), tmp_path / "whole", cache)
    with pytest.raises(Interrupted):
        list(train(make(), tmp_path / "parts", cache=cache, on_step=lambda step, total: step == 3))
    memory.seen.clear()
    memory.room, said = 10**9, []
    parts, parts_weights = finished(make(), tmp_path / "parts", cache, said)
    assert max(memory.seen) == 4
    assert not [line for line in said if "memory" in line]
    assert parts == whole
    assert all(torch.equal(weights[name], parts_weights[name]) for name in weights)
    assert result(tmp_path / "parts").micro_batch == 4


def test_a_repeated_step_draws_the_same_random_numbers(
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
    tiny: Callable[..., str],
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states: list[torch.Tensor] = []
    memory.room, memory.since_call, memory.in_backward = 8, 2, True

    def before_forward(model: torch.nn.Module, *arguments: Any) -> None:
        if model.training:
            states.append(torch.get_rng_state())
        Memory.before_forward(memory, model, *arguments)

    monkeypatch.setattr(memory, "before_forward", before_forward)
    list(train(make(model=tiny("bert", layers=2)), tmp_path, cache=cache))
    assert memory.seen[:5] == [16, 16, 16, 8, 8]
    assert torch.equal(states[2], states[3])
    assert not torch.equal(states[1], states[2])  # dropout draws


@pytest.mark.parametrize(
    "error",
    [RuntimeError("the size of tensor a must match"), ValueError("out of memory"), KeyError("x")],
)
def test_other_errors_are_not_retried(
    error: Exception,
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(sys.modules[__name__], "run_out_of_memory", broken)
    memory.room = 4
    with pytest.raises(type(error)) as raised:
        list(train(make(), tmp_path, cache=cache))
    assert raised.value is error
    assert memory.seen == [16]


def test_nothing_holds_the_tensors_of_a_failed_attempt(
    make: Callable[..., TrialSettings],
    cache: Path,
    tmp_path: Path,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    at_retry: list[bool] = []

    def after_forward(model: torch.nn.Module, args: Any, output: Any) -> None:
        if model.training:
            held.append(weakref.ref(output.logits))
        Memory.after_forward(memory, model, args, output)

    monkeypatch.setattr(memory, "after_forward", after_forward)
    # It replaces the garbage collector, which would hide a cycle.
    monkeypatch.setattr(
        "kdsweep.core.training.loop.free_memory",
        lambda device: at_retry.append(held[-1]() is None),
    )
    memory.room, memory.in_backward = 8, True
    list(train(make(), tmp_path, cache=cache))
    assert at_retry == [True]


def test_every_out_of_memory_error_is_recognized() -> None:
    for work in (run_out_of_memory, lambda: np.empty(10**15)):
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            work()
        assert is_out_of_memory(raised.value)
    assert is_out_of_memory(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    )
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    )
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(OSError(28, "No space left on device"))


def test_only_running_out_of_memory_returns_none() -> None:
    def give(value: int, *, error: Exception | None = None) -> int:
        if error is not None:
            raise error
        return value

    assert unless_out_of_memory(give, 3) == 3
    assert unless_out_of_memory(give, 3, error=MemoryError()) is None
    with pytest.raises(RuntimeError, match="boom"):
        unless_out_of_memory(give, 3, error=RuntimeError("boom"))


def test_rows_are_cut_evenly_and_never_finer_than_one() -> None:
    micro_batches, batch = MicroBatches(10, 3), np.arange(10)
    assert (
        [len(part) for part in micro_batches.cut(batch)],
        micro_batches.rows,
        micro_batches.halved_to,
    ) == ([4, 3, 3], 4, None)
    assert (
        micro_batches.halve(7, 10)
        == "out of memory at step 7: micro-batches of 2 rows from here on, the batch stays 10"
    )
    assert ([len(part) for part in micro_batches.cut(batch)], micro_batches.halved_to) == (
        [2, 2, 2, 2, 1, 1],
        2,
    )
    # As in the last batch of an epoch.
    assert [len(part) for part in micro_batches.cut(batch[:4])] == [1] * 4
    with pytest.raises(OutOfMemory, match="single row"):
        micro_batches.halve(8, 4)
    assert "of 1 row from" in micro_batches.halve(8, 10)
    assert np.concatenate(micro_batches.cut(batch)).tolist() == batch.tolist()
