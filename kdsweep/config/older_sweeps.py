"""What a sweep that exists keeps of the defaults that it was started with."""

from __future__ import annotations

from typing import cast

from kdsweep.config.loading import Plain
from kdsweep.config.sweep import WHATEVER_HAS_ENDED, SweepConfig

# Keys of a sweep whose default has changed. A sweep keeps the value that it was started with, as
# its identity has it, unless its file names another one.
CHANGED_DEFAULTS = ("pruner",)


def with_stored_defaults(sweep: SweepConfig, identity: dict[str, Plain]) -> SweepConfig:
    """The sweep with the stored values of what it leaves to defaults. identity: of the sweep."""
    kept = [
        key for key in CHANGED_DEFAULTS if key not in sweep.model_fields_set and key in identity
    ]
    stored = SweepConfig.model_validate({key: cast(object, identity[key]) for key in kept})
    sweep = sweep.model_copy(update={key: getattr(stored, key) for key in kept})
    if "lag" in sweep.sampler.model_fields_set:
        return sweep
    return sweep.with_lag(stored_lag(identity))


def stored_lag(stored: dict[str, Plain]) -> int:
    """The sampler's lag in a sweep's identity, or in its sweep file as last run."""
    sampler = stored.get("sampler")
    lag = sampler.get("lag") if isinstance(sampler, dict) else None
    return lag if isinstance(lag, int) else WHATEVER_HAS_ENDED
