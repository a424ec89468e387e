"""What is known of how long models take for one row. How it is measured is in `latency.py`.

No torch here: jobs and events, which hold these values, travel to processes that may not need it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from kdsweep.core.settings import Quantize, TeacherSettings, TrialSettings
from kdsweep.core.strict_model import added_later


class _Figures(BaseModel):
    """Frozen, JSON both ways. Keys that a newer version wrote are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Device(_Figures):
    """What a model runs on: a GPU or a processor by its name, and how many CPU threads."""

    name: str
    threads: int

    @property
    def words(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.name}, {threads}"


class ModelShape(_Figures):
    """The settings that decide how long a model takes for one row.

    layers, width: None where they are those of `model`. quantize: how it is used.
    max_length: it decides how many tokens the row has.
    """

    model: str
    layers: int | None = None
    width: int | None = None
    quantize: Quantize = added_later("none")
    max_length: int
    trust_remote_code: bool = False

    @classmethod
    def of_student(cls, settings: TrialSettings) -> ModelShape:
        student, teacher = settings.student, settings.teacher
        model, trusted = student.loads_from, student.trust_remote_code
        if model == "teacher" and teacher is not None:
            model, trusted = teacher.loads_from, teacher.trust_remote_code
        layers = student.layers
        return cls(
            model=model,
            layers=len(layers) if isinstance(layers, tuple) else layers,
            width=student.width,
            quantize=student.quantize,
            max_length=settings.training.max_length,
            trust_remote_code=trusted,
        )

    @classmethod
    def of_teacher(cls, teacher: TeacherSettings) -> ModelShape:
        return cls(
            model=teacher.loads_from,
            max_length=teacher.training.max_length,
            trust_remote_code=teacher.trust_remote_code,
        )


class Latency(_Figures):
    """Milliseconds for one row, measured in rounds.

    latency_ms: the median of the rounds' medians. low_ms, high_ms: the least and the greatest of
    these medians, which is the spread. latency_p95_ms: over all runs. measured: when, in
    milliseconds since 1970.
    """

    latency_ms: float
    latency_p95_ms: float
    low_ms: float
    high_ms: float
    rounds: int
    measured: int

    @property
    def costs(self) -> dict[str, float]:
        """As a trial's result keeps it."""
        return {"latency_ms": self.latency_ms, "latency_p95_ms": self.latency_p95_ms}


class ArchitectureLatency(_Figures):
    """An architecture on a kind of device: how long it takes for the typical row.

    layers, width: as the model has them; None where its config doesn't say. precision: `fp32`, or
    `int8` of a model that onnxruntime runs on the processor. tokens: of the row.
    asked: the settings that mean this architecture. first: measured before its first trial. last:
    measured at the end of the sweep; None before that.
    """

    model: str
    layers: int | None
    width: int | None
    precision: str = "fp32"
    tokens: int
    device: Device
    asked: tuple[ModelShape, ...]
    first: Latency
    last: Latency | None = None

    @property
    def key(self) -> tuple[str, int | None, int | None, str, int, Device]:
        """What is the same for two measurements of the same thing."""
        return self.model, self.layers, self.width, self.precision, self.tokens, self.device

    @property
    def has_changed(self) -> bool:
        """Whether the two measurements differ by more than their spread."""
        if self.last is None:
            return False
        return self.last.low_ms > self.first.high_ms or self.last.high_ms < self.first.low_ms


@dataclass(frozen=True)
class MeasuredShapes:
    """What measuring some shapes has found.

    unmeasured: shapes for which there is no model, each with the reason.
    """

    found: tuple[ArchitectureLatency, ...]
    unmeasured: tuple[tuple[ModelShape, str], ...] = ()
