"""Where a slot is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsweep.core.evaluation.latency_figures import Device
    from kdsweep.core.settings import SettledPrecision


@dataclass(frozen=True)
class Place:
    """A slot's machine, and what its jobs compute on. Slots of one kind share a place.

    best_precision: what `precision: auto` would mean there.
    """

    host: str
    device: Device
    best_precision: SettledPrecision = "fp32"
