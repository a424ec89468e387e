"""What the last bits of a number depend on besides the code."""

from __future__ import annotations

from pathlib import Path


def machine() -> dict[str, str]:
    """The processor and the versions of what computes, by name."""
    import torch
    import transformers

    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(names, "unknown")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"processor": processor} | versions
