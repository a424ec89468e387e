"""How far a sweep is that never ran."""

from __future__ import annotations

from kdsweep.config.sweep import Budget
from kdsweep.sweep.status import StrategyStatus, SweepStatus

STRATEGY = StrategyStatus(
    complete=2,
    pruned=0,
    failed=0,
    running=0,
    left=0,
    finalists_ended=4,
    finalists_left=0,
    confirmed=2,
    to_confirm=1,
    to_confirm_at_most=6,
    best=None,
)
STATUS = SweepStatus(
    sweep="tiny",
    metric="accuracy",
    state="stopped",
    strategies={"distill": STRATEGY},
    seconds_spent=60.0,
    gpu_hours_spent=0.0,
    seconds_left=10.0,
    seconds_left_at_most=60.0,
    budget=Budget(),
    slots=None,
    precision=None,
    start_from=(),
    earlier_space={},
)
