"""What each strategy cost, and the teacher that strategies share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdsweep.compare.findings import Question
from kdsweep.compare.records import TrialRecord
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.formatting import duration


@dataclass(frozen=True)
class Costs:
    """slot_hours: what all trials of each strategy used. teachers: empty where none is needed.

    teacher_seconds: slot time of making the teachers and of labelling rows with them; None if an
    earlier version ran the sweep, which didn't record it. A driver that died before a job's end
    never heard what the job took.
    """

    slot_hours: Mapping[str, float]
    teachers: Sequence[TeacherRecord] = ()
    teacher_seconds: float | None = None

    @property
    def seconds_of_teachers(self) -> float:
        """At least what fine-tuning the teachers took that this sweep made."""
        if not self.teachers or self.teacher_seconds is None:
            return 0.0
        made = sum(one.seconds or 0.0 for one in self.teachers if one.from_cache is False)
        return max(self.teacher_seconds, made)


def cost_of_strategies(metric: str, records: Sequence[TrialRecord], costs: Costs) -> Question:
    """The teachers' cost, told once, and each strategy's without it."""
    question = "what did each strategy cost?"
    finished: dict[str, list[float]] = {strategy: [] for strategy in costs.slot_hours}
    for record in records:
        value = record.best(metric)
        if not record.is_complete_search or record.result is None:
            continue
        if value is not None and math.isfinite(value):
            finished.setdefault(record.id.strategy, []).append(record.result.seconds)
    n = sum(map(len, finished.values()))
    if not costs.slot_hours:
        return Question(question, "not enough trials (n = 0)", n)
    of_teachers = costs.seconds_of_teachers / 3600
    total = sum(costs.slot_hours.values()) + of_teachers
    parts = []
    if costs.teachers:
        parts.append(_teachers(costs, of_teachers, total))
    for strategy, hours in costs.slot_hours.items():
        seconds = finished[strategy]
        each = "no trial finished"
        if seconds:
            mean = duration(float(np.mean(seconds)))
            each = f"{mean} for each finished trial (n = {len(seconds)})"
        parts.append(f"{strategy} {_hours(hours)}{_share(hours, total)}, {each}")
    return Question(question, "; ".join(parts), n)


def _teachers(costs: Costs, hours: float, total: float) -> str:
    who = "the teacher" if len(costs.teachers) == 1 else f"the {len(costs.teachers)} teachers"
    origins = [one.origin_in_words for one in costs.teachers]
    if len(origins) > 1:
        pairs = zip(costs.teachers, origins, strict=True)
        origins = [f"{one.name} {words}" for one, words in pairs if words]
    origin = "".join(f", {words}" for words in origins if words)
    if costs.teacher_seconds is None:
        return f"{who} a time that this sweep's version didn't record{origin}"
    return (
        f"{who} {_hours(hours)}{_share(hours, total)} to fine-tune and to label rows, once for all "
        f"strategies{origin}"
    )


def _share(hours: float, total: float) -> str:
    return f" ({100 * hours / total:.0f}%)" if total > 0 else ""


def _hours(hours: float) -> str:
    return f"{hours:.1f} slot hours" if hours >= 1 else f"{hours:.2g} slot hours"
