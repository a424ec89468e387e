"""Sweeps: studies, the driver that runs their trials, and where everything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsweep.sweep.run_sweep import run

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    # A worker's process imports this package too, and needs neither Optuna nor MLflow. The module
    # is called `run_sweep`, because a module `run` would shadow the function.
    if name == "run":
        from kdsweep.sweep.run_sweep import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
