"""The library that distills and fine-tunes; it knows nothing of Click, Optuna, MLflow or Ray.

Names are imported when they are first used, so that settings can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsweep.core.objective.distillation_loss import DistillationLoss, distillation_loss
    from kdsweep.core.schedules import Schedule, parse_schedule
    from kdsweep.core.settings import TrialSettings
    from kdsweep.core.trial import train
    from kdsweep.core.trial_folder import Evaluation

__all__ = [
    "DistillationLoss",
    "Evaluation",
    "Schedule",
    "TrialSettings",
    "distillation_loss",
    "parse_schedule",
    "train",
]

_HOME_OF = {
    "DistillationLoss": "objective.distillation_loss",
    "distillation_loss": "objective.distillation_loss",
    "Evaluation": "trial_folder",
    "train": "trial",
    "Schedule": "schedules",
    "parse_schedule": "schedules",
    "TrialSettings": "settings",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value
