"""What a comparison is made from: the trials as recorded, and the logits on the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from pydantic import JsonValue

from kdsweep import metric_names
from kdsweep.core.settings import TrialSettings
from kdsweep.core.tasks.base import TaskKind
from kdsweep.core.trial_folder import Evaluation, Predicted, TrialResult
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class TrialRecord:
    """A trial of the search, or a run of confirm (the same settings with a fresh seed).

    state: complete, pruned, diverged, failed or running. params: what the sampler drew, flat, with
    dots.
    """

    id: TrialId
    state: str
    settings: TrialSettings
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    result: TrialResult | None = None

    @property
    def is_complete_search(self) -> bool:
        """Whether it is a trial of the search that was trained to its end."""
        return self.id.phase == "search" and self.state == "complete"

    def best(self, metric: str) -> float | None:
        """The task's metric on validation, of the best evaluation; None if there is none."""
        values = [one.metrics[metric_names.validation(metric)] for one in self.evaluations]
        return max(values, default=None)


@dataclass(frozen=True)
class TestLogits:
    """What students put out for the rows of the test split.

    kind: of the task. labels: of the rows. students: strategy -> index of the seed -> logits
    [rows, outputs]. teachers: those of each teacher, the one that students are measured by first;
    None where they weren't kept. on_more_tests: what the first teacher predicts on each further
    split, where that was kept.
    """

    __test__ = False  # pytest would collect it

    kind: TaskKind
    labels: np.ndarray
    students: dict[str, dict[int, np.ndarray]]
    teachers: tuple[np.ndarray | None, ...] = ()
    on_more_tests: Mapping[str, Predicted] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SearchPredictions:
    """What the students of a strategy predict for the validation rows.

    complete: how many trials of the search are. labels: of the rows; None if no trial kept its
    predictions. trials: number -> predictions of a complete trial. confirmed: index of the seed ->
    predictions of a run of confirm.
    """

    complete: int
    labels: np.ndarray | None
    trials: dict[int, np.ndarray]
    confirmed: dict[int, np.ndarray]

    @property
    def is_known(self) -> bool:
        """Whether every complete trial kept its predictions."""
        return self.labels is not None and len(self.trials) == self.complete


# Okabe and Ito's palette, which people with any kind of color vision can tell apart. A strategy has
# the same color wherever it is shown.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#F0E442",
    "#000000",
)
