"""What an export wrote and how good it is: the model card and `kdsweep export` show it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kdsweep.config.loading import Plain
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.formatting import count, latencies, megabytes, score, score_range
from kdsweep.report.model import ConfirmResult, ModelCosts
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class FileCosts:
    """An ONNX file on the CPU. size_mb: on disk; latency: of one row of median length, alone."""

    size_mb: float
    latency_ms: float
    latency_p95_ms: float

    def to_json(self) -> dict[str, Plain]:
        return {
            "size_mb": self.size_mb,
            "latency_ms": self.latency_ms,
            "latency_p95_ms": self.latency_p95_ms,
        }

    @property
    def words(self) -> str:
        return f"{megabytes(self.size_mb)}, {latencies(self.latency_ms, self.latency_p95_ms)}"


@dataclass(frozen=True)
class LogitDifference:
    """The largest difference between a logit of torch and of ONNX, over `rows` rows."""

    largest: float
    rows: int


@dataclass(frozen=True)
class OnnxFile:
    """The student as ONNX, compared with torch. file: relative to the export's folder."""

    file: str
    difference: LogitDifference
    costs: FileCosts

    def to_json(self) -> dict[str, Plain]:
        return {
            "file": self.file,
            "difference": self.difference.largest,
            "rows": self.difference.rows,
            **self.costs.to_json(),
        }


@dataclass(frozen=True)
class QuantizedFile:
    """The ONNX file with 8-bit weights.

    before, after: the task's metric on `rows` rows of validation, without and with quantization.
    """

    file: str
    before: float
    after: float
    rows: int
    costs: FileCosts

    def to_json(self) -> dict[str, Plain]:
        return {
            "file": self.file,
            "before": self.before,
            "after": self.after,
            "rows": self.rows,
            **self.costs.to_json(),
        }


@dataclass(frozen=True)
class OnnxFiles:
    """The ONNX files of an export; None for each that wasn't asked for."""

    onnx: OnnxFile | None = None
    int8: QuantizedFile | None = None


@dataclass(frozen=True)
class ExportFacts:
    """What an export wrote.

    validation, test: the task's metric of this student; test is None unless it was judged there.
    confirm: its settings with fresh seeds, if these seeds confirm this trial. costs: of the student
    in torch, measured where it was trained. scale: what the model's outputs are standardized by.
    """

    sweep: str
    trial: TrialId
    folder: Path
    labels: tuple[str, ...]
    metric: str
    validation: float
    test: float | None
    confirm: ConfirmResult | None
    costs: ModelCosts | None
    files: OnnxFiles
    scale: LabelScale = field(default_factory=LabelScale)

    def to_json(self) -> dict[str, Plain]:
        """As `kdsweep export --json` prints it."""
        onnx = self.files.onnx
        int8 = self.files.int8
        return {
            "sweep": self.sweep,
            "trial": self.trial.name,
            "strategy": self.trial.strategy,
            "folder": str(self.folder),
            "labels": list(self.labels),
            "metric": self.metric,
            "validation": self.validation,
            "test": self.test,
            "confirm": None if self.confirm is None else self.confirm.model_dump(mode="json"),
            "student": None if self.costs is None else self.costs.model_dump(mode="json"),
            "onnx": None if onnx is None else onnx.to_json(),
            "int8": None if int8 is None else int8.to_json(),
        }


def as_lines(facts: ExportFacts) -> list[str]:
    """The facts as a person reads them."""
    metric = facts.metric
    lines = []
    confirm = facts.confirm
    if confirm is not None and confirm.mean is not None:
        interval = f" (95%: {score_range(*confirm.ci95)})" if confirm.ci95 else ""
        lines.append(
            f"{facts.trial.strategy}, mean of {count(confirm.seeds, 'seed')}: test {metric} "
            f"{score(confirm.mean)}{interval}"
        )
    test = "" if facts.test is None else f", test {score(facts.test)}"
    lines.append(
        f"{facts.trial.name} of {facts.sweep}: validation {metric} {score(facts.validation)}{test}"
    )
    if onnx := facts.files.onnx:
        lines.append(
            f"onnx: {onnx.file}, {onnx.costs.words} (p50/p95); differs from torch by at most "
            f"{onnx.difference.largest:.1g} in {onnx.difference.rows} rows of validation"
        )
    if int8 := facts.files.int8:
        lines.append(
            f"int8: {int8.file}, {int8.costs.words} (p50/p95); validation {metric} "
            f"{score(int8.before)} before, {score(int8.after)} after ({int8.rows:,} rows)"
        )
    return [*lines, f"written to {facts.folder}"]
