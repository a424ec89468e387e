"""What a slot is given to do: train one trial, make the teachers that trials need, or measure.

Jobs travel between processes, so they hold plain values and paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep.core.standing import Fence
from kdsweep.sweep.pins import Pins
from kdsweep.trial_id import TrialId

if TYPE_CHECKING:
    from kdsweep.core.evaluation.latency_figures import ArchitectureLatency, ModelShape
    from kdsweep.core.settings import TaskSettings, TeacherSettings, TrialSettings


@dataclass(frozen=True)
class TrialJob:
    """Train a trial in `folder`. A trial that has a checkpoint there resumes from it.

    latency: of its architecture, as the sweep has measured it; None: the trial measures its own.
    sweep: its name. pins: what the numbers of this sweep rest on. teacher_threads: to make a
    teacher with that isn't in the cache any more; None: those of its slot. fence: keeps an earlier
    start of the trial from writing, on a machine that nobody can reach.
    """

    id: TrialId
    settings: TrialSettings
    folder: Path
    cache: Path
    latency: Mapping[str, float] | None = None
    sweep: str = ""
    pins: Pins = field(default_factory=Pins)
    teacher_threads: int | None = None
    fence: Fence | None = None

    @property
    def name(self) -> str:
        return self.id.name


@dataclass(frozen=True)
class TeacherJob:
    """Fine-tune each teacher and save its logits, for all trials.

    judge_test: save its logits of the test split too. sweep, pins: as of a trial. teacher_threads:
    to compute with; None: those of its slot.
    """

    name: str
    task: TaskSettings
    teachers: tuple[TeacherSettings, ...]
    cache: Path
    judge_test: bool = False
    sweep: str = ""
    pins: Pins = field(default_factory=Pins)
    teacher_threads: int | None = None


@dataclass(frozen=True)
class LatencyJob:
    """Measure how long models of these shapes take for one row, while nothing else runs there.

    known: architectures that aren't measured again. again: whether they are measured for the last
    time, at the end of the sweep.
    """

    name: str
    task: TaskSettings
    shapes: tuple[ModelShape, ...]
    known: tuple[ArchitectureLatency, ...]
    cache: Path
    again: bool = False


Job = TrialJob | TeacherJob | LatencyJob
