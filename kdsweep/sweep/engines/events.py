"""What a slot reports about its job. `name` is the job's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kdsweep.core.evaluation.latency_figures import MeasuredShapes
    from kdsweep.core.trial_folder import Evaluation

Outcome = Literal["complete", "saved", "dropped", "diverged", "failed", "fatal", "lost"]


@dataclass(frozen=True)
class StepReached:
    """`step` of `total_steps` optimizer steps are done."""

    name: str
    step: int
    total_steps: int


@dataclass(frozen=True)
class Message:
    """A line for the user."""

    name: str
    line: str


@dataclass(frozen=True)
class Evaluated:
    """A trial was evaluated on validation."""

    name: str
    evaluation: Evaluation


@dataclass(frozen=True)
class LatencyMeasured:
    """What a job that measures latency has found."""

    name: str
    measured: MeasuredShapes


@dataclass(frozen=True)
class Ended:
    """The job has ended on this slot.

    outcome:
        complete  done
        saved     stopped with a checkpoint, to resume on another slot or later
        dropped   stopped without one, as requested
        diverged  the loss is not finite; see `reason`
        failed    this job can't be done; see `reason` and the stack trace `trace`
        fatal     `error` would end every other job too
        lost      the engine lost all its slots, through no fault of the job; to resume later
    spent: seconds by purpose (start, labelling, training, evaluating, saving).
    """

    name: str
    outcome: Outcome
    reason: str | None = None
    trace: str | None = None
    error: Exception | None = None
    spent: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerLost:
    """The process that ran the job is gone.

    counts: whether that may be the job's own doing. It isn't where several slots together took more
    memory than there is, and fewer will be used.
    """

    name: str
    reason: str
    counts: bool = True


Event = StepReached | Message | Evaluated | LatencyMeasured | Ended | WorkerLost
OnEvent = Callable[[Event], None]
