"""A sweep that asks, reports and tells as a driver does, and trains nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config import Plan
from kdsweep.sweep.folders import Home
from kdsweep.sweep.studies import SearchTrial, Studies
from kdsweep.sweep.study_storage import StudyStorage

EVALUATIONS = 6


@dataclass
class OnSlot:
    """A trial on a simulated slot, and how often it was evaluated."""

    trial: SearchTrial
    evaluations: int = 0


@dataclass
class Simulated:
    """A sweep on slots that are as fast as chance has it. Its driver dies now and then."""

    plan: Plan
    file: Path
    slots: int
    chance: random.Random
    kills: float = 0.0
    most_at_once: int = 0

    def run(self) -> dict[str, list[Any]]:
        while not self._until_killed():
            pass
        studies = self._open()
        return {
            strategy: [
                (one.params, one.state, one.values, one.intermediate_values)
                for one in studies._opened(strategy).study.get_trials()
            ]
            for strategy in self.plan.space.strategies
        }

    def _open(self) -> Studies:
        database = StudyStorage(f"sqlite:///{self.file}")
        folder = Home(self.file.parent).sweep(self.plan.name)
        return Studies(database, self.plan.name, self.plan.space, self.plan.sweep, folder)

    def _until_killed(self) -> bool:
        """Whether the sweep is done."""
        studies = self._open()
        waiting = [
            studies.resume(trial)
            for strategy in self.plan.space.strategies
            for trial in studies.open_trials(strategy)
        ]
        running: list[OnSlot] = []
        while True:
            while len(running) < self.slots and (trial := self._next(studies, waiting)):
                running.append(OnSlot(trial))
            studies.write()
            self.most_at_once = max(self.most_at_once, len(running))
            if not running:
                return True
            if self.chance.random() < self.kills:
                return False
            one = self.chance.choice(running)
            if self.chance.random() < self.kills:
                # Its worker died.
                running.remove(one)
                waiting.append(one.trial)
            elif self._advance(studies, one):
                running.remove(one)
            if self.chance.random() < 0.5:
                studies.write()

    def _next(self, studies: Studies, waiting: list[SearchTrial]) -> SearchTrial | None:
        if waiting:
            return waiting.pop()
        strategies = [
            one
            for one in self.plan.space.strategies
            if studies.trials_left(one) and studies.may_ask(one)
        ]
        return studies.ask(self.chance.choice(strategies)) if strategies else None

    def _advance(self, studies: Studies, one: OnSlot) -> bool:
        """Evaluate the trial once more; whether it has ended."""
        one.evaluations += 1
        draw = random.Random(f"{one.trial.id.name} {sorted(one.trial.params.items())}")
        curve = [round(draw.random(), 2) for _ in range(EVALUATIONS)]
        prune = studies.report(one.trial, one.evaluations, curve[one.evaluations - 1])
        if one.evaluations == EVALUATIONS:
            studies.tell(one.trial, "complete", max(curve))
        elif curve[one.evaluations - 1] < 0.02:
            studies.tell(one.trial, "diverged", reason="too high")
        elif prune:
            studies.tell(one.trial, "pruned")
        else:
            return False
        return True
