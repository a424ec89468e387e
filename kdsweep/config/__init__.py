"""YAML files as validated values. No torch, no Optuna."""

from kdsweep.config.plan import Plan, checked_name, load, trials_of
from kdsweep.config.space import SearchSpace
from kdsweep.config.space_loading import load_space
from kdsweep.config.sweep import SweepConfig, load_sweep
from kdsweep.errors import SpaceError

__all__ = [
    "Plan",
    "SearchSpace",
    "SpaceError",
    "SweepConfig",
    "checked_name",
    "load",
    "load_space",
    "load_sweep",
    "trials_of",
]
