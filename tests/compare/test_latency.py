"""What is said about latency: with the figures' spread, and never as more than is known."""

from __future__ import annotations

from made_up_sweeps import settings_of

from kdsweep.compare.latency import cost_the_same, latency_in_words
from kdsweep.compare.records import TrialRecord
from kdsweep.core.evaluation.latency_figures import ArchitectureLatency, Device, Latency
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.trial_id import TrialId


def record(number: int, latency: float, size: float = 4.0, *, layers: int = 2) -> TrialRecord:
    best = Evaluation(1, 1.0, {"validation/accuracy": 0.9}, 1.0, 0)
    result = TrialResult("complete", 1, 1.0, best, {"latency_ms": latency, "size_mb": size})
    settings = settings_of()
    student = settings.student.model_copy(update={"layers": layers})
    settings = settings.model_copy(update={"student": student})
    trial_id = TrialId("distill", number)
    return TrialRecord(trial_id, state="complete", settings=settings, result=result)


def figure(low: float, middle: float, high: float) -> Latency:
    return Latency(
        latency_ms=middle, latency_p95_ms=high, low_ms=low, high_ms=high, rounds=9, measured=0
    )


def architecture(layers: int, first: Latency, last: Latency | None = None) -> ArchitectureLatency:
    device = Device(name="a processor", threads=2)
    return ArchitectureLatency(
        model="m",
        layers=layers,
        width=32,
        tokens=9,
        device=device,
        asked=(),
        first=first,
        last=last,
    )


def test_figures_come_with_their_spread_before_the_trials_and_at_the_end() -> None:
    first, last = figure(1.9, 2.0, 2.2), figure(2.0, 2.1, 2.3)
    found = [architecture(2, first, last), architecture(3, figure(2.9, 3.0, 3.1))]
    assert latency_in_words(found, []) == (
        "Each architecture was measured alone on a processor, 2 threads, one row in fp32, with the "
        "spread of 9 rounds: 2 layers x 32 (9 tokens) 2 ms (1.9 to 2.2), at the end 2.1 ms (2 to "
        "2.3); 3 layers x 32 (9 tokens) 3 ms (2.9 to 3.1)"
    )


def test_a_machine_whose_speed_has_changed_is_reported() -> None:
    found = [architecture(2, figure(1.9, 2.0, 2.2), figure(3.0, 3.1, 3.2))]
    words = latency_in_words(found, [])
    assert words is not None
    assert "the first and the last measurement of 2 layers x 32" in words.lower()
    assert "differ by more than their spread" in words


def test_students_of_one_architecture_cost_the_same_whatever_each_trial_measured() -> None:
    noisy = [record(0, 1.1), record(1, 18.0)]
    assert cost_the_same(["latency_ms"], noisy, measured_once=False)
    # With one figure for each architecture a difference is one of the architectures.
    assert not cost_the_same(["latency_ms"], noisy, measured_once=True)
    assert cost_the_same(["latency_ms"], [record(0, 2.0), record(1, 2.0)], measured_once=True)
    other = [*noisy, record(2, 1.5, layers=3)]
    assert not cost_the_same(["latency_ms"], other, measured_once=False)
    assert not cost_the_same(
        ["latency_ms", "size_mb"], [record(0, 2.0), record(1, 2.0, 5.0)], measured_once=True
    )
    assert not cost_the_same(["latency_ms"], noisy[:1], measured_once=False)


def test_an_older_sweeps_own_figures_are_called_what_they_are() -> None:
    words = latency_in_words([], [record(0, 1.1), record(1, 18.0), record(2, 3.0, layers=3)])
    assert words is not None
    assert "one architecture measured 1.1 to 18 ms" in words
    assert latency_in_words([], [record(0, 2.0), record(1, 2.0)]) is None
