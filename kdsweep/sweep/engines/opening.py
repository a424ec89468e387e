"""The engine that a sweep file names."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kdsweep.config.sweep import InlineEngine, SweepConfig
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.events import OnEvent
from kdsweep.sweep.engines.inline import Inline
from kdsweep.sweep.engines.perform import Train
from kdsweep.sweep.engines.ray_engine import OnRay
from kdsweep.sweep.engines.slots import settle_engine
from kdsweep.sweep.engines.worker_check import WorkerCheck, deciding_packages
from kdsweep.sweep.folders import SweepFolder


def open_engine(
    sweep: SweepConfig,
    folder: SweepFolder,
    on_event: OnEvent,
    say: Callable[[str], None],
    train: Train | None = None,
    plugins: Collection[str] = (),
    says_auto: bool = False,
) -> Engine:
    """The sweep's engine. Its slots start when it is entered.

    train: replaces `kdsweep.core.train` in tests and measurements. plugins: the
    packages that add something to kdsweep that this sweep uses; every worker must have them.
    says_auto: whether `precision: auto` is used, which must mean the same for every worker.
    """
    config = settle_engine(sweep.engine)
    if isinstance(config, InlineEngine):
        return Inline(on_event, train)
    wanted = deciding_packages(plugins, one_machine=config.address == "local")
    check = WorkerCheck(
        folder, wanted, local_tracking=sweep.tracking == "sqlite", says_auto=says_auto
    )
    return OnRay(config, folder, on_event, say, check, train)
