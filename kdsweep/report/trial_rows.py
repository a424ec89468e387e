"""The table of all trials: what each was trained with and what it reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from kdsweep import formatting, metric_names
from kdsweep.compare.records import TrialRecord
from kdsweep.formatting import MISSING, score
from kdsweep.report.schedules import in_words, peak_rate, weighs_teacher

# Columns show their settled values.
WITH_A_COLUMN = ("alpha", "temperature", "learning_rate")
WORDS = ("State", "Alpha", "Temperature")


@dataclass(frozen=True)
class TrialTable:
    """head: a name and a note below it, which may be empty. rows: as many cells each."""

    head: list[tuple[str, str]]
    rows: list[list[str]]


def trial_table(metric: str, records: Sequence[TrialRecord]) -> TrialTable:
    """Every trial and run of confirm, with the other settings that the search chose."""
    drawn = dict.fromkeys(name for one in records for name in one.params)
    swept = [name for name in drawn if name.split(".")[0] not in WITH_A_COLUMN]
    tested = any(one.result and one.result.test for one in records)
    head = [("Trial", ""), ("State", ""), ("Validation", metric)]
    head += [("Test", metric)] if tested else []
    head += [("Alpha", "1 = labels only"), ("Temperature", ""), ("Learning rate", "")]
    head += [(name, "") for name in swept]
    head += [("Epochs", ""), ("Seconds", ""), ("Latency", "")]
    return TrialTable(head, [_row(metric, one, swept, tested) for one in records])


def _row(metric: str, record: TrialRecord, swept: Sequence[str], tested: bool) -> list[str]:
    settings, result = record.settings, record.result
    latency = result.student.get("latency_ms") if result and result.student else None
    test = result.test.get(metric_names.test(metric)) if result and result.test else None
    return [
        record.id.name,
        record.state,
        score(record.best(metric)),
        *([score(test)] if tested else []),
        in_words(settings.alpha),
        in_words(settings.temperature) if weighs_teacher(settings) else MISSING,
        f"{peak_rate(settings):.2e}",
        *(_words(record.params.get(name)) for name in swept),
        f"{record.evaluations[-1].epoch:.3g}" if record.evaluations else "0",
        f"{result.seconds:,.0f}" if result else MISSING,
        MISSING if latency is None else formatting.milliseconds(latency),
    ]


def _words(value: JsonValue) -> str:
    if value is None:
        return MISSING
    return f"{value:.3g}" if isinstance(value, float) else str(value)
