"""A study's trials as their folders tell them, for a database that lacks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdsweep.config import SearchSpace
from kdsweep.config.sweep import COSTS
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.sweep.drawn_values import Drawn, drawn_for
from kdsweep.sweep.parameter_importance import metric_of
from kdsweep.sweep.progress import OUTSIDE, Progress
from kdsweep.sweep.swept_trial import SweptTrial

STATE = "kdsweep.state"
REASON = "kdsweep.reason"


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended, in Optuna's words. values: of a complete one, for each objective.

    A diverged trial is PRUNED for Optuna, not FAILED: samplers ignore failed trials, and would
    draw the same values again.
    """

    state: TrialState
    values: Sequence[float] | None
    attributes: dict[str, str]

    @classmethod
    def of(
        cls, state: str, value: float | None, reason: str | None, costs: Sequence[float]
    ) -> TrialEnd:
        """state: `complete` with its value, `pruned`, `diverged` or `failed`."""
        optuna_state = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(
            state, TrialState.PRUNED
        )
        values = [value, *costs] if state == "complete" and value is not None else None
        return cls(optuna_state, values, {STATE: state} | ({REASON: reason} if reason else {}))

    @classmethod
    def of_result(cls, result: TrialResult, metric: str, costs: Sequence[str]) -> TrialEnd:
        """costs: the names of the sweep's other objectives."""
        value = None
        measured: list[float] = []
        if result.state == "complete" and result.best:
            value = result.best.metrics[metric]
            measured = [(result.student or {})[COSTS[name]] for name in costs]
        return cls.of(result.state, value, result.reason, measured)


@dataclass(frozen=True)
class RestoredTrial:
    """A trial as its folder tells it. values: the metric's, of each evaluation that counts.

    end: None while it runs.
    """

    drawn: Drawn
    values: Sequence[float]
    end: TrialEnd | None
    started: datetime
    ended: datetime | None

    @classmethod
    def read(
        cls,
        files: SweptTrial,
        space: SearchSpace,
        metric: str,
        costs: Sequence[str],
        *,
        is_redrawn: bool = False,
    ) -> RestoredTrial:
        """Raises DamagedFile where the folder can't tell.

        is_redrawn: whether it was drawn from an earlier space, and is to be as if from this one.
        """
        found = files.read_drawn()
        before = None if found is None else Drawn.from_json(found)
        if before is not None and not is_redrawn:
            drawn = before
        else:
            drawn = drawn_for(space, files.id.strategy, files.read_settings(), before)
        result = files.read_result()
        evaluations = files.read_evaluations()
        if result is not None:
            evaluations = [one for one in evaluations if one.step <= result.steps]
        ended = None
        if result is not None:
            ended = datetime.fromtimestamp(files.result.stat().st_mtime)
        return cls(
            drawn,
            # Optuna keeps no evaluations of a study with several objectives.
            () if costs else tuple(one.metrics[metric] for one in evaluations),
            None if result is None else TrialEnd.of_result(result, metric, costs),
            _started(files, evaluations),
            ended,
        )

    def frozen(self, number: int) -> FrozenTrial:
        """The trial before its first evaluation. Its number and ids are the storage's to give."""
        return FrozenTrial(
            number=number,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=self.started,
            datetime_complete=None,
            params=dict(self.drawn.params),
            distributions=dict(self.drawn.distributions),
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=-1,
        )

    def repeat(
        self, study: optuna.Study, trial: optuna.Trial, is_exact: Callable[[], bool]
    ) -> None:
        """Report what was evaluated, and tell the end. The pruner then notes what it did before.

        is_exact: whether the pruner decides exactly as it did. If it then prunes the trial where
        that didn't end, the driver died before it could end it: so the trial still runs.
        """
        for evaluation, value in enumerate(self.values, start=1):
            trial.report(value, evaluation)
            if trial.should_prune() and not self._ended_after(evaluation) and is_exact():
                return
        if self.end is not None:
            for name, text in self.end.attributes.items():
                trial.set_user_attr(name, text)
            values = None if self.end.values is None else list(self.end.values)
            study.tell(trial, values, self.end.state)

    def _ended_after(self, evaluation: int) -> bool:
        """Whether the trial was pruned or completed with this evaluation."""
        state = None if self.end is None else self.end.attributes[STATE]
        return state in ("complete", "pruned") and evaluation == len(self.values)


def _started(files: SweptTrial, evaluations: Sequence[Evaluation]) -> datetime:
    if evaluations:
        first = evaluations[0]
        return datetime.fromtimestamp(first.timestamp / 1000 - first.seconds)
    return datetime.fromtimestamp(files.settings.stat().st_mtime)


def read_progress(trials: Iterable[FrozenTrial]) -> Progress:
    """What became of the trials of a study."""
    progress = Progress()
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            progress.running.add(trial.number)
        elif trial.state == TrialState.COMPLETE:
            progress.end(trial.number, "complete", metric_of(trial))
        elif trial.state in (TrialState.PRUNED, TrialState.FAIL):
            note = trial.user_attrs.get(STATE)
            pruned = trial.state == TrialState.PRUNED and note != "diverged"
            state = "pruned" if pruned else "failed"
            progress.end(trial.number, OUTSIDE if note == OUTSIDE else state, None)
    return progress
