"""What a slot's process does with a task's rows before its first step, and its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Literal

from kdsweep.core.data import labels, loading
from kdsweep.core.data.batches import batches
from kdsweep.core.data.encode import InputFormat
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.tokenize import tokenize_split
from kdsweep.core.models.loading import load_tokenizer
from kdsweep.core.settings import TaskSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.teachers.logits import teacher_logits

MAX_LENGTH = 128
INPUT_FORMAT = InputFormat(MAX_LENGTH, token_types=True)
BATCH_SIZE = 32
# The phases of loading that are timed: functions and the modules that hold them.
PHASES = {
    "read_splits": loading,
    "clean_rows": loading,
    "hold_out": loading,
    "number_labels": labels,
    "publish_rows": loading,
}
TEACHER = Teacher("measured", Path(), {}, 0, 0.0, 0.0, MAX_LENGTH, 0.0, None)

BARRIERS: list[Barrier] = []


def meet_at(barrier: Barrier) -> None:
    """Let the slots of this measurement wait for each other at this barrier."""
    BARRIERS.append(barrier)


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    pss: shared pages count in equal parts. private: pages that it alone maps. dirty: private pages
    that are in no file.
    """

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
    """Bytes now, or the most there ever were.

    `getrusage` would not do: its maximum may be that of the process that started this one.
    """
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(which)
    ]
    return 1024.0 * int(line.split()[1])


def prepare(task: TaskSettings, cache: Path, tokenizer_source: str) -> dict[str, float]:
    """What the first process does with the rows: seconds of each phase and bytes resident."""
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*arguments)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

        return measured

    tokenizer = load_tokenizer(tokenizer_source)
    before = resident("VmRSS")
    for name, module in PHASES.items():
        setattr(module, name, timed(name, getattr(module, name)))
    data = timed("load_task", load_task)(task, cache)
    loaded = resident("VmHWM")
    start = time.perf_counter()
    for split in (data.train, data.validation):
        tokenize_split(split, tokenizer, INPUT_FORMAT, cache=cache)
    spent["tokenize"] = time.perf_counter() - start
    return spent | {"before": before, "loaded": loaded, "peak": resident("VmHWM")}


def slot(task: TaskSettings, cache: Path, tokenizer_source: str, seed: int, steps: int) -> Memory:
    """Do what a trial does for some batches. Memory is measured when all slots have done that."""
    data = load_task(task, cache)
    tokenizer = load_tokenizer(tokenizer_source)
    train, validation = (
        tokenize_split(split, tokenizer, INPUT_FORMAT, cache=cache)
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
