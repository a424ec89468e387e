"""What a user asks of `kdsweep predict`. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdsweep.core.data.sources import COMPRESSED

# What is put into the name of the file, before its endings.
PREDICTED = "predicted"


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    trial, strategy: whose student answers; the sweep's winner without both. text: the columns of
    the file that hold the text, in the task's order; the task's own without. out: beside the file
    without. prefix: what the names of the new columns start with.
    """

    file: Path
    trial: str | None = None
    strategy: str | None = None
    text: Sequence[str] = ()
    out: Path | None = None
    overwrite: bool = False
    prefix: str = ""

    @property
    def target(self) -> Path:
        if self.out is not None:
            return self.out
        name = self.file.name
        end = len(name) - len("".join(endings(self.file)))
        return self.file.with_name(f"{name[:end]}.{PREDICTED}{name[end:]}")


def endings(file: Path) -> list[str]:
    """`.csv` and `.gz` of `rows.2024.CSV.gz`."""
    packed = 2 if file.suffix.lower() in COMPRESSED else 1
    return [ending.lower() for ending in file.suffixes[-packed:]]
