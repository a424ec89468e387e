"""What the comparison is made from: trials as they were recorded, and what students answered on the test split."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class TrialRecord:
    """A trial of the search, or a run of confirm (the same settings with a fresh seed).

    state: complete, pruned, diverged, failed or running. params: what the sampler drew, flat, with dots.
    settings: `TrialSettings` as JSON-like values.
    """

    id: TrialId
    state: str
    settings: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = ()
    result: TrialResult | None = None

    def best(self, metric: str) -> float | None:
        """The task's metric on validation, of the best evaluation; None where there is none."""
        values = [one.metrics[f"validation/{metric}"] for one in self.evaluations]
        return max(values, default=None)


@dataclass(frozen=True)
class TestAnswers:
    """What was answered on the test split. `labels`: those of the rows (`kind_of`). `students`: for each strategy, by the index of the
    seed, logits [rows, classes]. `teacher`: its logits [rows, classes], or None."""

    __test__ = False  # no test, whatever pytest thinks

    labels: np.ndarray
    students: dict[str, dict[int, np.ndarray]]
    teacher: np.ndarray | None = None


# Okabe and Ito's palette, which people with any colour vision can tell apart; a strategy has the same colour wherever it is shown.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
