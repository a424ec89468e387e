"""What an ONNX file costs to use, and how far its logits are from torch's. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsweep.formatting import latencies, megabytes

# What an ONNX file is made and run with.
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# A model with 8-bit weights, in the folder of its student or of an export.
INT8_FILE = "onnx/model_int8.onnx"


@dataclass(frozen=True)
class FileCosts:
    """An ONNX file on the CPU. size_mb: on disk; latency: of one row of median length, alone."""

    size_mb: float
    latency_ms: float
    latency_p95_ms: float

    def to_json(self) -> dict[str, float]:
        return {
            "size_mb": self.size_mb,
            "latency_ms": self.latency_ms,
            "latency_p95_ms": self.latency_p95_ms,
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> FileCosts:
        return cls(facts["size_mb"], facts["latency_ms"], facts["latency_p95_ms"])

    @property
    def words(self) -> str:
        return f"{megabytes(self.size_mb)}, {latencies(self.latency_ms, self.latency_p95_ms)}"


@dataclass(frozen=True)
class LogitDifference:
    """The largest difference between a logit of torch and of ONNX, over `rows` rows."""

    largest: float
    rows: int
