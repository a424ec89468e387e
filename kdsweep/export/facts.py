"""What an export wrote and how good it is: the model card and `kdsweep export` show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdsweep.config.loading import Plain
from kdsweep.core.evaluation.file_costs import FileCosts, LogitDifference
from kdsweep.core.tasks.label_scale import LabelScale
from kdsweep.formatting import count, score, score_range
from kdsweep.report.model import ConfirmResult, ModelCosts
from kdsweep.trial_id import TrialId


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

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> OnnxFile:
        difference = LogitDifference(facts["difference"], facts["rows"])
        return cls(facts["file"], difference, FileCosts.from_json(facts))


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

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> QuantizedFile:
        scores = (facts["before"], facts["after"])
        return cls(facts["file"], *scores, facts["rows"], FileCosts.from_json(facts))


@dataclass(frozen=True)
class OnnxFiles:
    """The ONNX files of an export; None for each that wasn't asked for."""

    onnx: OnnxFile | None = None
    int8: QuantizedFile | None = None

    @classmethod
    def from_json(cls, facts: Mapping[str, dict[str, Any] | None]) -> OnnxFiles:
        """Those of `ExportFacts.to_json`. Raises LookupError if something is missing."""
        onnx, int8 = facts["onnx"], facts["int8"]
        return cls(
            None if onnx is None else OnnxFile.from_json(onnx),
            None if int8 is None else QuantizedFile.from_json(int8),
        )


@dataclass(frozen=True)
class Pushed:
    """Where an export is on the Hub. commit: the one that has it all."""

    name: str
    url: str
    commit: str
    is_public: bool

    def to_json(self) -> dict[str, Plain]:
        return {
            "name": self.name,
            "url": self.url,
            "commit": self.commit,
            "private": not self.is_public,
        }


@dataclass(frozen=True)
class ExportFacts:
    """What an export wrote.

    folder: None if it was only pushed to the Hub; pushed: None if it wasn't.
    validation, test: the task's metric of this student; test is None unless it was judged there.
    confirm: its settings with fresh seeds, if these seeds confirm this trial. costs: of the student
    in torch, measured where it was trained. scale: what the model's outputs are standardized by.
    """

    sweep: str
    trial: TrialId
    folder: Path | None
    labels: tuple[str, ...]
    metric: str
    validation: float
    test: float | None
    confirm: ConfirmResult | None
    costs: ModelCosts | None
    files: OnnxFiles
    scale: LabelScale = field(default_factory=LabelScale)
    pushed: Pushed | None = None

    def to_json(self) -> dict[str, Plain]:
        """As `kdsweep export --json` prints it."""
        onnx = self.files.onnx
        int8 = self.files.int8
        return {
            "sweep": self.sweep,
            "trial": self.trial.name,
            "strategy": self.trial.strategy,
            "folder": None if self.folder is None else str(self.folder),
            "labels": list(self.labels),
            "metric": self.metric,
            "validation": self.validation,
            "test": self.test,
            "confirm": None if self.confirm is None else self.confirm.model_dump(mode="json"),
            "student": None if self.costs is None else self.costs.model_dump(mode="json"),
            "onnx": None if onnx is None else onnx.to_json(),
            "int8": None if int8 is None else int8.to_json(),
            "hub": None if self.pushed is None else self.pushed.to_json(),
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
    if facts.folder is not None:
        lines.append(f"written to {facts.folder}")
    if pushed := facts.pushed:
        visibility = "public" if pushed.is_public else "private"
        lines.append(f"pushed to {pushed.url} ({visibility}), commit {pushed.commit[:8]}")
    return lines
