"""Where a pruned trial ends: at the evaluation after which it was pruned.

Its worker may go further before it hears of that, even to the trial's end, and the driver may die.
None of that counts.
"""

from __future__ import annotations

from kdsweep.core.files import remove_at_once
from kdsweep.core.settings import TrialSettings
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.sweep.studies import SearchTrial, Studies
from kdsweep.sweep.swept_trial import SweptTrial


def may_prune(settings: TrialSettings, evaluation: Evaluation) -> bool:
    """Whether the trial has more to do: after its last evaluation it is complete."""
    return evaluation.epoch < settings.training.epochs


def write_pruned(files: SweptTrial, steps: int, seconds: float) -> None:
    """Let the trial end there, as far as it went."""
    remove_at_once(files.student)
    files.write_result(TrialResult("pruned", steps, seconds))


def repeat_reports(studies: Studies, trial: SearchTrial, files: SweptTrial, metric: str) -> None:
    """Report what an ended trial evaluated, of which the study may not know all.

    If a driver died before it decided, the trial may have to be pruned now.
    """
    result = files.read_result()
    assert result is not None
    for number, evaluation in enumerate(files.read_evaluations(), start=1):
        if evaluation.step > result.steps:
            return
        prune = studies.report(trial, number, evaluation.metrics[metric])
        if prune and studies.knowledge.is_by_order and may_prune(trial.settings, evaluation):
            write_pruned(files, evaluation.step, evaluation.seconds)
            return
