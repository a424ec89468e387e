"""All that is different on a GPU: where to compute, in which precision, and how not to wait."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import platform
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from kdsweep.core.evaluation.latency_figures import Device
from kdsweep.core.settings import Precision, SettledPrecision
from kdsweep.errors import ModelError, TrialDiverged

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# What multiplies bf16 numbers on an x86 processor: the flag that the kernel shows, the fastest
# first, and its name.
BF16_FLAGS = {"amx_bf16": "AMX-BF16", "avx512_bf16": "AVX512-BF16"}
# oneDNN, which multiplies matrices for torch, uses none of them where a user limits it below.
BF16_LIMITS = ("DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10_1_512")

# torch has an error class only for GPU memory that its own allocator couldn't get. All other errors
# say it in words.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def pick_device() -> torch.device:
    """The GPU that this process may see, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def this_device(threads: int | None = None) -> Device:
    """The GPU or the processor that this process computes on.

    threads: of torch; None where torch can be asked.
    """
    threads = torch.get_num_threads() if threads is None else threads
    if pick_device().type == "cuda":
        return Device(name=torch.cuda.get_device_name(), threads=threads)
    return Device(name=_processor(), threads=threads)


def _processor() -> str:
    """The name of this machine's processor, or of its kind where the system doesn't tell."""
    return _of_processor("model name") or platform.processor() or platform.machine()


def _of_processor(wanted: str) -> str | None:
    """What the system says of its first core; None where it doesn't."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == wanted:
                return value.strip()
    return None


def bf16_instructions() -> str | None:
    """The instructions of this processor that multiply bf16 numbers; None where it has none, or
    where the user (`ONEDNN_MAX_CPU_ISA`) forbids them."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "DEFAULT"))
    if not limit.upper().startswith(BF16_LIMITS):
        return None
    flags = (_of_processor("flags") or "").split()
    return next((name for flag, name in BF16_FLAGS.items() if flag in flags), None)


def best_precision(device: torch.device) -> SettledPrecision:
    """What `auto` means in a new sweep whose first slot computes on this device: bf16 where it has
    instructions for that, else fp32."""
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = bf16_instructions() is not None
    return "bf16" if has_bf16 else "fp32"


@contextlib.contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Let torch compute with so many CPU threads meanwhile; None: with those that it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gpu_count() -> int:
    """How many GPUs this process may see."""
    return torch.cuda.device_count()


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of matrix products. A sweep has settled what `auto` is; where nothing has, it is
    bf16 if the GPU supports it, else fp32.

    Raises ModelError if the device doesn't support the precision.
    """
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else torch.float32
    if precision == "fp16" and device.type != "cuda":
        raise ModelError("training.precision: fp16 needs a GPU; use auto, fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ModelError("training.precision: this GPU has no bf16; use auto, fp32 or fp16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    return (
        torch.autocast(device.type, dtype=dtype)
        if dtype != torch.float32
        else contextlib.nullcontext()
    )


def to_device(arrays: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Copy a batch to the device; to a GPU from pinned memory, without waiting."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if device.type != "cuda":
        return tensors
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in tensors.items()
    }


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def unless_out_of_memory(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | None:
    """What `work` returns, or None if memory ran out; then nothing that it made is alive."""
    try:
        return work(*args, **kwargs)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Here the error is gone, and so is its traceback, whose frames hold tensors.
    return None


def free_memory(device: torch.device) -> None:
    """Release unused memory, so that the next allocation finds it in one piece."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class FiniteWatch:
    """Raises TrialDiverged with the first step whose loss is not finite.

    On a CPU it raises at once. On a GPU nothing waits: the losses come back through pinned memory
    while the next steps run. The error still names the first such step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._on_their_way: deque[tuple[int, Tensor, torch.cuda.Event]] = deque()

    def see(self, step: int, loss: Tensor) -> None:
        if self.device.type != "cuda":
            if not math.isfinite(loss.item()):
                raise TrialDiverged(step)
            return
        here = torch.empty((), dtype=loss.dtype, pin_memory=True)
        here.copy_(loss.detach(), non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._on_their_way.append((step, here, arrived))
        while self._on_their_way and self._on_their_way[0][2].query():
            self._judge()

    def drain(self) -> None:
        """Check every loss so far; waits for the GPU."""
        while self._on_their_way:
            self._on_their_way[0][2].synchronize()
            self._judge()

    def _judge(self) -> None:
        step, loss, _ = self._on_their_way.popleft()
        if not math.isfinite(loss.item()):
            raise TrialDiverged(step)
