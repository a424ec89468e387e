"""What the last bits of a number depend on in addition to the code."""

from __future__ import annotations

from pathlib import Path


def machine() -> dict[str, str]:
    """The processor and the versions of what computes, by name."""
    import torch
    import transformers

    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    # Which instructions torch itself takes; its libraries go by the processor's own numbers.
    found["instructions"] = torch.backends.cpu.get_cpu_capability()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "cpu family", "model"):
            found.setdefault(name.strip(), value.strip())
    return found
