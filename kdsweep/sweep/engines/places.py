"""Where a slot is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsweep.core.evaluation.latency_figures import Device


@dataclass(frozen=True)
class Place:
    """A slot's machine, and what its jobs compute on. Slots of one kind share a place."""

    host: str
    device: Device
