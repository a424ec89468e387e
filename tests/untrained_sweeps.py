"""Sweeps with folders, studies and hashes, whose trials reached made-up values without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kdsweep.config import Plan
from kdsweep.core.data.loading import load_task
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home
from kdsweep.sweep.input_check import complete_pins
from kdsweep.sweep.pins import Pins
from kdsweep.sweep.results import open_studies
from kdsweep.sweep.studies import Studies

Values = Mapping[str, Sequence[float | None]]


def searched(home: Home, plan: Plan, values: Values) -> Plan:
    """A sweep whose trials reached these values; None: one that was pruned."""
    folder = home.sweep(plan.name)
    folder.root.mkdir(parents=True)
    data = load_task(plan.space.task, home.cache)
    pins = complete_pins(Pins(), plan.space, data, data.splits.values())
    shown = plan.sweep.model_dump(mode="json")
    folder.write_facts(SweepFacts("0.2.0", plan.identity, "e", shown, pins=pins))
    folder.space.write_text("broken", encoding="utf-8")
    studies = open_studies(plan, home, runs=True)
    for strategy, of in values.items():
        for value in of:
            end(home, plan, studies, strategy, value)
    return plan


def end(home: Home, plan: Plan, studies: Studies, strategy: str, value: float | None) -> None:
    """What a driver and a worker do for one trial, without training."""
    trial = studies.ask(strategy)
    files = home.sweep(plan.name).trial(trial.id)
    files.write_drawn(trial.drawn.to_json())
    files.claim(trial.settings)
    metrics = {"validation/accuracy": 0.4 if value is None else value}
    one = Evaluation(10, 0.5, metrics, 1.5, 1_700_000_000_000)
    files.write_evaluations([one])
    studies.report(trial, 1, metrics["validation/accuracy"])
    state = "pruned" if value is None else "complete"
    files.write_result(TrialResult(state, 10, 1.5, best=None if value is None else one))
    # The later, the cheaper.
    costs = [100.0 - trial.id.number] * len(plan.sweep.costs) if value is not None else []
    studies.tell(trial, state, value, costs=costs)
    studies.write()


def die_while_opening(studies: Studies, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the strategy's study, and die before its third trial is in the database."""
    storage: Any = studies.storage
    create, times = storage.create_new_trial, iter([1, 1, 0])

    def die(*arguments: Any, **named: Any) -> int:
        if not next(times):
            raise KeyboardInterrupt
        made: int = create(*arguments, **named)
        return made

    monkeypatch.setattr(storage, "create_new_trial", die)
    with pytest.raises(KeyboardInterrupt):
        studies.progress(strategy)
