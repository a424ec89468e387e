"""The engine that a sweep asks for."""

from __future__ import annotations

from collections.abc import Callable

from kdsweep.config.sweep import InlineEngine, SweepConfig
from kdsweep.sweep.engines.base import Engine, Hear
from kdsweep.sweep.engines.inline import Inline
from kdsweep.sweep.engines.ray_cluster import RayCluster
from kdsweep.sweep.engines.slots import settle_engine
from kdsweep.sweep.engines.worker import Train
from kdsweep.sweep.folders import SweepFolder


def open_engine(
    sweep: SweepConfig,
    folder: SweepFolder,
    hear: Hear,
    say: Callable[[str], None],
    train: Train | None = None,
) -> Engine:
    """The engine that the sweep asks for. `train` takes the core's place in measurements."""
    config = settle_engine(sweep.engine)
    if isinstance(config, InlineEngine):
        return Inline(hear, train)
    return RayCluster(
        config, folder, hear, say, local_tracking=sweep.tracking == "sqlite", train=train
    )
