"""`latency.json`: how long each architecture of a sweep takes for one row. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from kdsweep.core.evaluation.latency_figures import ArchitectureLatency, Device, ModelShape
from kdsweep.core.files import read_json, whole, write_json

FORMAT = 1


class LatencyFile:
    """The architectures that were measured, in the order of their first measurement."""

    def __init__(self, file: Path, found: Iterable[ArchitectureLatency] = ()) -> None:
        self._file = file
        self._found = {one.key: one for one in found}

    @classmethod
    def read(cls, file: Path) -> Self:
        """Empty where nothing was measured."""
        if not file.exists():
            return cls(file)
        todo = "delete it: latencies are then measured again where a trial still runs"
        with whole(file, todo):
            found = read_json(file, todo)["architectures"]
            return cls(file, map(ArchitectureLatency.model_validate, found))

    @property
    def architectures(self) -> tuple[ArchitectureLatency, ...]:
        return tuple(self._found.values())

    def on(self, device: Device) -> tuple[ArchitectureLatency, ...]:
        """Those that were measured on this kind of device."""
        return tuple(one for one in self._found.values() if one.device == device)

    def find(self, shape: ModelShape, device: Device | None = None) -> ArchitectureLatency | None:
        """The architecture that the shape means, on this kind of device or on the first one."""
        for one in self._found.values():
            if shape in one.asked and device in (None, one.device):
                return one
        return None

    def add(self, found: Iterable[ArchitectureLatency], *, again: bool) -> None:
        """Write new figures. again: they are the last ones of architectures that are known."""
        for one in found:
            before = self._found.get(one.key)
            if before is None:
                self._found[one.key] = one
            elif again:
                self._found[one.key] = before.model_copy(update={"last": one.first})
            else:
                asked = tuple(dict.fromkeys([*before.asked, *one.asked]))
                self._found[one.key] = before.model_copy(update={"asked": asked})
        dumped = [one.model_dump(mode="json") for one in self._found.values()]
        write_json(self._file, {"format": FORMAT, "architectures": dumped})
