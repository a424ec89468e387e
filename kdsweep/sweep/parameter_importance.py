"""How much each parameter of a study explains of the differences between its trials."""

from __future__ import annotations

import math
import warnings

import optuna
from optuna.trial import FrozenTrial, TrialState

TRIALS_FOR_IMPORTANCE = 5
MOST_TRIALS_FOR_FANOVA = 150


def parameter_importance(study: optuna.Study, *, several: bool) -> dict[str, float] | None:
    """How much each parameter explains of the differences between the study's complete trials:
    shares that add up to 1, the greatest first.

    fANOVA (Hutter et al. 2014, https://proceedings.mlr.press/v32/hutter14.html): how much of
    the metric's variance each parameter explains by itself, in a random forest fitted to the
    trials. It handles only parameters that every trial has. If some trials have others
    (`any_of`), or there are more than 150 trials (fANOVA takes seconds then), conditional
    PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255, and
    https://arxiv.org/abs/2601.20800): how far a parameter's values among the best tenth of the
    trials, at least five, are from those among all trials.

    None with fewer than five complete trials, fewer than two parameters that differ, or equal
    values of the metric. several: whether the study has several objectives; the metric is the
    first.
    """
    # They import scikit-learn, which nobody else needs here.
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in complete if math.isfinite(metric_of(trial))]
    names = {name for trial in trials for name in trial.params}
    differing = []
    for name in sorted(names):
        values = {trial.params[name] for trial in trials if name in trial.params}
        if len(values - {None}) > 1:
            differing.append(name)
    reached = {metric_of(trial) for trial in trials}
    if len(trials) < TRIALS_FOR_IMPORTANCE or len(differing) < 2 or len(reached) < 2:
        return None
    ped_anova = PedAnovaImportanceEvaluator(target_quantile=max(0.1, min(0.5, 5 / len(trials))))
    target = metric_of if several else None
    conditional = any(name not in trial.params for trial in trials for name in differing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            evaluator = (
                ped_anova
                if conditional or len(trials) > MOST_TRIALS_FOR_FANOVA
                else FanovaImportanceEvaluator(seed=0)
            )
            shares = evaluator.evaluate(study, differing, target=target)
        except RuntimeError:  # no tree of the forest found a difference
            shares = ped_anova.evaluate(study, differing, target=target)
    total = sum(shares.values())
    return {name: float(share / total) for name, share in shares.items()} if total > 0 else None


def metric_of(trial: FrozenTrial) -> float:
    """The metric of a complete trial: the first of its values if there are several objectives."""
    assert trial.values is not None
    return float(trial.values[0])
