"""Splits that are judged beside test are told beside the verdict, and have no say in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdsweep.compare.records import TestAnswers, TrialRecord
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.report.build import summarize
from kdsweep.report.sentences import as_markdown, more_tests_in_words
from kdsweep.trial_id import TrialId

ANSWERED = {
    "right": np.array([[0.0, 1], [1, 0], [0, 1], [1, 0]]),
    "wrong": np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]),
}
LABELS = np.array([1, 0, 1, 0])
SETTINGS = {
    "alpha": {"shape": "constant", "value": 1.0},
    "temperature": {"shape": "constant", "value": 1.0},
    "learning_rate": {"shape": "constant", "value": 1e-4},
}


def run(strategy: str, seed: int, accuracy: float, beside: float | None) -> TrialRecord:
    test = {"accuracy": accuracy} | (
        {} if beside is None else {"other_kind/accuracy": beside, "other_kind/loss": 0.5}
    )
    best = Evaluation(1, 1.0, {"validation/accuracy": accuracy}, 1.0, 0)
    result = TrialResult("complete", 1, 1.0, best, {"latency_ms": 1.0}, test=test)
    return TrialRecord(
        TrialId(strategy, 0, seed),
        "complete",
        SETTINGS,
        evaluations=(best,),
        result=result,
    )


def report(*beside: float | None) -> dict[str, Any]:
    strategies = {
        name: {"trials": {"complete": 1}, "best": None, "slot_hours": 0.1, "asked": 2}
        for name in ANSWERED
    }
    records = [
        run("right", 0, 1.0, beside[0]),
        run("right", 1, 1.0, beside[1]),
        run("wrong", 0, 0.0, beside[2]),
        run("wrong", 1, 0.0, beside[3]),
    ]
    teacher = {
        "validation": {"accuracy": 0.9},
        "test": {"accuracy": 0.9, "other_kind/accuracy": 0.7},
    }
    answers = TestAnswers(
        LABELS, {name: {0: logits, 1: logits} for name, logits in ANSWERED.items()}
    )
    return summarize("made-up", "accuracy", teacher, strategies, records, answers)


def test_a_split_beside_test_is_told_by_seed_and_in_words() -> None:
    found = report(0.2, 0.3, 0.8, 0.6)
    assert found["more_tests"] == {
        "other_kind": {"teacher": 0.7, "strategies": {"right": [0.2, 0.3], "wrong": [0.8, 0.6]}}
    }
    words = "accuracy right 0.2500 (2 seeds), wrong 0.7000 (2 seeds), the teacher 0.7000"
    assert more_tests_in_words(found) == {"other_kind": words}
    assert f"On other_kind: {words}." in as_markdown(found)
    assert found["strategies"]["right"]["confirm"]["mean"] == pytest.approx(1.0)


def test_without_one_nothing_is_said_and_the_verdict_is_the_same() -> None:
    plain = report(None, None, None, None)
    assert "more_tests" not in plain
    assert more_tests_in_words(plain) == {}
    assert plain["verdict"] == report(0.2, 0.3, 0.8, 0.6)["verdict"]
