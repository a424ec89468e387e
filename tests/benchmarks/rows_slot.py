"""What a slot's process does with a task's rows before its first step, in a process of its own, and the memory that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Literal

from kdsweep.core.data import loading
from kdsweep.core.data.batches import batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.settings import TaskSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.teachers.logits import teacher_logits

MAX_LENGTH = 128
BATCH_SIZE = 32
TEACHER = Teacher("measured", Path(), {}, 0, 0.0, 0.0, MAX_LENGTH, 0.0, None)


BARRIERS: list[Barrier] = []


def meet_at(barrier: Barrier) -> None:
    """Where the slots of this measurement wait for each other."""
    BARRIERS.append(barrier)


@dataclass(frozen=True)
class Memory:
    """Bytes of one process. `pss`: what it shares is counted in equal parts; `private`: what it alone maps, of which `dirty` is in no file."""

    pss: int
    private: int
    dirty: int


def memory_now() -> Memory:
    facts = dict(
        line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    )
    found = {name: 1024 * int(value.split()[0]) for name, value in facts.items()}
    return Memory(
        found["Pss"], found["Private_Clean"] + found["Private_Dirty"], found["Private_Dirty"]
    )


def resident(which: Literal["VmRSS", "VmHWM"]) -> float:
    """Bytes now, or the most there ever were. Not `getrusage`: what that calls the most may be from the process that started this one."""
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(which)
    ]
    return 1024.0 * int(line.split()[1])


def prepare(task: TaskSettings, cache: Path, tokenizer_source: str) -> dict[str, float]:
    """Be the first process that wants these rows: seconds of each phase, and the most bytes that were resident."""
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*arguments)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

        return measured

    tokenizer = load_tokenizer(tokenizer_source)
    before = resident("VmRSS")
    for name in ("read_splits", "clean_rows", "hold_out", "_number_labels", "publish_rows"):
        setattr(loading, name, timed(name, getattr(loading, name)))
    data = timed("load_task", load_task)(task, cache)
    loaded = resident("VmHWM")
    began = time.perf_counter()
    for split in (data.train, data.validation):
        tokenize_split(split, tokenizer, InputFormat(MAX_LENGTH, token_types=True), cache=cache)
    spent["tokenize"] = time.perf_counter() - began
    return spent | {"before": before, "loaded": loaded, "peak": resident("VmHWM")}


def slot(task: TaskSettings, cache: Path, tokenizer_source: str, seed: int, steps: int) -> Memory:
    """Do what a trial does until it has looked at some batches; measure when all slots have come so far."""
    data = load_task(task, cache)
    tokenizer = load_tokenizer(tokenizer_source)
    train, validation = (
        tokenize_split(split, tokenizer, InputFormat(MAX_LENGTH, token_types=True), cache=cache)
        for split in (data.train, data.validation)
    )
    logits, validation_logits = (
        teacher_logits(TEACHER, data, cache=cache, split=split) for split in ("train", "validation")
    )
    epoch = batches(train.lengths, BATCH_SIZE, seed, 0)
    for step in range(min(steps, len(epoch))):
        rows = epoch[step]
        held = train.batch(rows), data.train.labels[rows], logits[rows]
    BARRIERS[-1].wait()
    found = memory_now()
    BARRIERS[-1].wait()
    assert held and len(validation) == len(validation_logits)
    return found
