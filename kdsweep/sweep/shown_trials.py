"""A study in memory that shows sampler and pruner the trials that they may know of."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Container, Iterator, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdsweep.sweep.knowledge import Knowledge
from kdsweep.sweep.progress import Progress

# A sampler learns from the last trials and the best ones before them. TPE's good trials are at most
# 25 (Optuna's default gamma).
TRIALS_TO_LEARN_FROM = 250
BEST_TO_LEARN_FROM = 40
TRIALS_TO_PRUNE_AGAINST = 1000
# asha and hyperband note so how far they let a trial come.
RUNGS = "completed_rung_"

States = Container[TrialState] | None
Show = Callable[[list[FrozenTrial]], list[FrozenTrial]]


class ShownTrials(optuna.storages.InMemoryStorage):
    """A study in memory that can show fewer trials than it has, and less of them.

    A sampler's cost grows with the number of trials that it learns from.

    imported: trials of earlier sweeps. The study doesn't have them; a sampler that learns sees them
    from the start, as the oldest ones.
    """

    imported: Sequence[FrozenTrial] = ()
    reshape: Show | None = None
    _show: Show | None = None

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: States = None
    ) -> list[FrozenTrial]:
        # Optuna asks for trials that wait to find the next one's number.
        if self._show is None or states == (TrialState.WAITING,):
            return super().get_all_trials(study_id, deepcopy, states)
        trials = self._show(super().get_all_trials(study_id, deepcopy=False))
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    @contextlib.contextmanager
    def to_sampler(
        self, knowledge: Knowledge, number: int, progress: Progress, last: int | None
    ) -> Iterator[None]:
        """Show what the sampler may know when it is asked for trial `number`.

        last: only so many trials, and the best ones before them; None: all.
        """

        order = iter(progress.order)
        if knowledge.is_by_order:
            up_to = number - knowledge.lag if knowledge.sampler_learns else -1
            order = (one for one in progress.order if one <= up_to)
        best = sorted(itertools.islice(order, BEST_TO_LEARN_FROM))

        def show(trials: list[FrozenTrial]) -> list[FrozenTrial]:
            if knowledge.is_by_order:
                trials = _known_and_pending(trials[: number + 1], up_to + 1)
            first = 0 if last is None else max(0, len(trials) - last)
            shown = [trials[one] for one in best if one < first] + trials[first:]
            shown = [trial for trial in shown if trial.number not in progress.outside]
            shown = [*self.imported, *shown] if knowledge.sampler_learns else shown
            return shown if self.reshape is None else self.reshape(shown)

        with self._showing(show):
            yield

    @contextlib.contextmanager
    def to_pruner(self, knowledge: Knowledge, number: int) -> Iterator[None]:
        """Show what the pruner may know when it is asked about trial `number`."""

        def show(trials: list[FrozenTrial]) -> list[FrozenTrial]:
            if knowledge.is_by_order:
                known = trials[: max(0, number - knowledge.lag + 1)]
                trials = [*known, trials[number]]
            return trials[-TRIALS_TO_PRUNE_AGAINST:]

        with self._showing(show):
            yield

    @contextlib.contextmanager
    def _showing(self, show: Show) -> Iterator[None]:
        self._show = show
        try:
            yield
        finally:
            self._show = None

    def forget_reports(self, trial_id: int) -> FrozenTrial:
        """Let the trial be as if it had reported nothing; returns it as it was."""
        with self._lock:
            before = copy.deepcopy(self._get_trial(trial_id))
            trial = copy.copy(before)
            trial.intermediate_values = {}
            notes = before.system_attrs.items()
            trial.system_attrs = {key: note for key, note in notes if not key.startswith(RUNGS)}
            self._set_trial(trial_id, trial)
        return before


def _known_and_pending(trials: list[FrozenTrial], known: int) -> list[FrozenTrial]:
    """The first `known` trials as they are, the others as if they ran, but for the last one.

    trials: in the order of their numbers. The last one is being asked for.
    """
    known = max(0, known)
    return [*trials[:known], *map(_pending, trials[known:-1]), *trials[known:][-1:]]


def _pending(trial: FrozenTrial) -> FrozenTrial:
    """The trial as its parameters alone tell it.

    What the sampler noted of it isn't shown: who resumes it may have less of that.
    """
    return FrozenTrial(
        number=trial.number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=trial.datetime_start,
        datetime_complete=None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
        trial_id=trial._trial_id,
    )
