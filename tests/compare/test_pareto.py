"""The Pareto front, worked out by hand."""

from __future__ import annotations

from made_up_sweeps import settings_of

from kdsweep.compare.findings import ParetoEntry
from kdsweep.compare.pareto import pareto
from kdsweep.compare.records import TrialRecord
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.trial_id import TrialId


def record(
    number: int,
    accuracy: float,
    latency: float,
    size: float = 1.0,
    *,
    strategy: str = "distill",
    seed_index: int | None = None,
    state: str = "complete",
) -> TrialRecord:
    best = Evaluation(1, 1.0, {"validation/accuracy": accuracy}, 1.0, 0)
    result = TrialResult(
        "complete", 1, 1.0, best, {"latency_ms": latency, "size_mb": size, "parameters": 10.0}
    )
    trial_id = TrialId(strategy, number, seed_index)
    return TrialRecord(trial_id, state=state, settings=settings_of(), result=result)


def test_a_student_is_there_unless_another_is_nowhere_worse_and_somewhere_better() -> None:
    records = [
        record(0, 0.90, 9.0),
        record(1, 0.90, 8.0),  # beats 0
        record(2, 0.85, 4.0),
        record(3, 0.84, 4.0),  # beaten by 2
        record(4, 0.85, 4.0, strategy="finetune"),  # as 2: both stay
        record(5, 0.50, 1.0),
        record(6, 0.99, 0.5, seed_index=0),
        record(7, 0.99, 0.5, state="pruned"),
    ]
    front = pareto("accuracy", {"latency": "latency_ms"}, records)
    assert [one.id.name for one in front] == [
        "distill-1",
        "distill-2",
        "finetune-4",
        "distill-5",
    ]
    assert front[0] == ParetoEntry(TrialId("distill", 1), 0.90, {"latency": 8.0})


def test_another_cost_can_keep_a_student_on_the_front() -> None:
    records = [record(0, 0.9, 8.0, 5.0), record(1, 0.8, 9.0, 4.0), record(2, 0.7, 9.0, 4.0)]
    latency = {"latency": "latency_ms"}
    both = latency | {"size": "size_mb"}
    assert [one.id.number for one in pareto("accuracy", latency, records)] == [0]
    assert [one.id.number for one in pareto("accuracy", both, records)] == [0, 1]
