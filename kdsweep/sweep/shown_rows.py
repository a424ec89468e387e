"""Where the teacher and the recommended student differ, from the files that a sweep keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdsweep.config import Plan
from kdsweep.core.data.loading import load_task
from kdsweep.core.files import read_array
from kdsweep.errors import KdsweepError
from kdsweep.report.differences import Differences, Judged, differences
from kdsweep.report.model import Report
from kdsweep.sweep.folders import Home

RESTORE = "run the same command again"
NOT_AT_HAND = "The rows aren't at hand, so their texts are missing; row numbers count from 0."
SENT_AWAY = (
    "Texts are left out, because this page is sent to the server of `tracking`; row numbers count "
    "from 0."
)


def find_differences(plan: Plan, home: Home, report: Report) -> Differences | None:
    """None where no student was judged on test, or what was put out for it wasn't kept.

    Texts are only shown where the page stays on this machine.
    """
    winner, folder = report.winner, home.sweep(plan.name)
    pins = folder.read_facts().pins
    if winner is None or winner.seed_index is None or pins.label_names is None:
        return None
    kind = plan.space.task.kind
    try:
        judged = Judged(
            kind,
            pins.label_names,
            read_array(folder.test_labels, todo=RESTORE),
            read_array(folder.teacher_test_logits(0), todo=RESTORE),
            folder.trial(winner).read_test_logits(),
        )
    except (KdsweepError, OSError):
        return None
    if plan.sweep.tracking != "sqlite":
        return differences(winner.name, judged, lambda rows: None, SENT_AWAY)

    def texts(rows: Sequence[int]) -> Mapping[int, str] | None:
        return _texts(plan, home, rows)

    return differences(winner.name, judged, texts, NOT_AT_HAND)


def _texts(plan: Plan, home: Home, rows: Sequence[int]) -> Mapping[int, str] | None:
    """None unless the rows are those that the sweep ran with."""
    pin = home.sweep(plan.name).read_facts().pins.splits.get("test")
    try:
        test = load_task(plan.space.task, home.cache, publish=False).test
    except (KdsweepError, OSError):
        return None
    if pin is None or pin.key != test.key:
        return None
    return {row: " | ".join(column[row] for column in test.texts) for row in rows}
