"""A strategy's study while its sweep is open: in memory, where sampler and pruner work on it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial

from kdsweep.sweep.progress import Progress
from kdsweep.sweep.shown_trials import ShownTrials
from kdsweep.sweep.study_writer import KeptStudy


@dataclass
class OpenStudy:
    """A strategy's study.

    memory, study: the copy in memory, which sampler and pruner work on. repeated: trials that
    report again what they had reported, as they were before.
    """

    memory: ShownTrials
    study: optuna.Study
    kept: KeptStudy
    progress: Progress
    repeated: dict[int, FrozenTrial] = field(default_factory=dict)

    def trial_id(self, number: int) -> int:
        """The id in memory of trial `number`."""
        return self.memory.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def let_repeat(self, trial: optuna.Trial) -> None:
        """Let the trial report all again, so that each time the pruner decides as it did.

        A trial that starts again repeats its evaluations. It may have been pruned at one of them,
        and then its worker or the driver died.
        """
        before = self.memory.forget_reports(trial._trial_id)
        known = self.repeated.get(trial.number, before)
        if len(before.intermediate_values) >= len(known.intermediate_values):
            self.repeated[trial.number] = before
        # Optuna's trial has a copy of its own.
        trial._cached_frozen_trial = copy.deepcopy(self.memory.get_trial(trial._trial_id))
