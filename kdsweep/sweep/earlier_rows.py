"""Whether a sweep of version 0.1 ran with the same rows all along, as far as that can be known.

That version didn't compare its rows with those of its earlier runs, and kept a hash of the last
ones alone. A confirmed student's logits show whether its own score fits the rows that are there
now. Of the search it kept no predictions.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdsweep.compare.records import TestLogits
from kdsweep.core.evaluation.metric_table import metric_named
from kdsweep.core.trial_folder import TrialResult
from kdsweep.errors import DataError, first_few
from kdsweep.sweep.facts import SweepFacts
from kdsweep.trial_id import TrialId

# Versions may round a metric in another way.
CLOSE = 1e-4


def not_known(facts: SweepFacts) -> str | None:
    """One line about what can't be known of such a sweep; None of another one."""
    if not _is_earlier(facts):
        return None
    return (
        "version 0.1 created it and didn't compare rows between runs, so whether trials of its "
        "search had other rows than the last ones can't be known"
    )


def check_same_test_rows(
    facts: SweepFacts,
    metric: str,
    confirmed: Mapping[str, Mapping[TrialId, TrialResult]],
    test: TestLogits,
) -> None:
    """Raise DataError if students of such a sweep were judged by other rows than these."""
    if not _is_earlier(facts):
        return
    others: list[str] = []
    for strategy, runs in confirmed.items():
        for run, result in runs.items():
            logits = test.students[strategy].get(run.seed_index or 0)
            if logits is None or result.test is None:
                continue
            if len(logits) == len(test.labels):
                score = metric_named(metric).score(test.labels, test.kind.predictions(logits))
                if abs(score - result.test[metric]) <= CLOSE:
                    continue
            others.append(run.name)
    if others:
        raise DataError(
            f"{first_few(others)} had other test rows than the last run of this sweep, which "
            "version 0.1 didn't compare, so its students can't be compared with each other"
        )


def _is_earlier(facts: SweepFacts) -> bool:
    """A sweep of a later version names the faults that its numbers are free of."""
    return not facts.mended and bool(facts.pins.splits)
