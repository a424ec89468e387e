"""Further test splits are reported with the verdict and don't change it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from made_up_sweeps import settings_of

from kdsweep.compare.records import TestLogits, TrialRecord
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.core.tasks import CLASSIFICATION
from kdsweep.core.trial_folder import Evaluation, Predicted, TrialResult
from kdsweep.report.build import ReportFacts, SearchOutcome, summarize
from kdsweep.report.model import MoreTest, Report, TrialCounts
from kdsweep.report.sentences import as_markdown, more_tests_in_words
from kdsweep.trial_id import TrialId

LOGITS = {
    "right": np.array([[0.0, 1], [1, 0], [0, 1], [1, 0]]),
    "wrong": np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]]),
}
LABELS = np.array([1, 0, 1, 0])


def run(strategy: str, seed: int, accuracy: float, beside: float | None) -> TrialRecord:
    test = {"accuracy": accuracy} | (
        {} if beside is None else {"other_kind/accuracy": beside, "other_kind/loss": 0.5}
    )
    best = Evaluation(1, 1.0, {"validation/accuracy": accuracy}, 1.0, 0)
    result = TrialResult("complete", 1, 1.0, best, {"latency_ms": 1.0}, test=test)
    return TrialRecord(
        TrialId(strategy, 0, seed),
        state="complete",
        settings=settings_of(1.0),
        evaluations=(best,),
        result=result,
    )


# What the teacher predicts on the further split: 7 of 10 rows are right.
TEACHER = Predicted(np.arange(10) % 2, np.where(np.arange(10) < 7, 0, 1) ^ (np.arange(10) % 2))


def report(*beside: float | None, kept: bool = False) -> Report:
    """kept: whether the teacher's predictions on the further split are."""
    outcomes = {
        name: SearchOutcome(TrialCounts(complete=1), best=None, slot_hours=0.1, seeds_asked=2)
        for name in LOGITS
    }
    records = [
        run("right", 0, 1.0, beside[0]),
        run("right", 1, 1.0, beside[1]),
        run("wrong", 0, 0.0, beside[2]),
        run("wrong", 1, 0.0, beside[3]),
    ]
    teacher = TeacherRecord(
        validation={"accuracy": 0.9}, test={"accuracy": 0.9, "other_kind/accuracy": 0.7}
    )
    students = {name: {0: logits, 1: logits} for name, logits in LOGITS.items()}
    on_more_tests = {"other_kind": TEACHER} if kept else {}
    test = TestLogits(CLASSIFICATION, LABELS, students, on_more_tests=on_more_tests)
    return summarize("made-up", "accuracy", [teacher], outcomes, records, test, ReportFacts())


def test_a_further_split_is_reported_by_seed_and_in_words() -> None:
    found = report(0.2, 0.3, 0.8, 0.6)
    assert found.more_tests == {
        "other_kind": MoreTest(teacher=0.7, strategies={"right": (0.2, 0.3), "wrong": (0.8, 0.6)})
    }
    words = "accuracy right 0.2500 (2 seeds), wrong 0.7000 (2 seeds), the teacher 0.7000"
    assert more_tests_in_words(found) == {"other_kind": words}
    assert f"On other_kind: {words}." in as_markdown(found)
    confirm = found.strategies["right"].confirm
    assert confirm is not None and confirm.mean == pytest.approx(1.0)


def test_the_teachers_score_on_a_further_split_has_its_interval() -> None:
    found = report(0.2, 0.3, 0.8, 0.6, kept=True)
    interval = found.more_tests["other_kind"].teacher_ci95
    assert interval is not None
    low, high = interval
    # Wilson's interval of 7 of 10 rows, by hand; Student's quantile with 9 degrees of freedom.
    assert (low, high) == pytest.approx((0.357, 0.907), abs=0.02)
    words = more_tests_in_words(found)["other_kind"]
    assert words.endswith(f"the teacher 0.7000 ({low:.4f} to {high:.4f})")
    assert words in as_markdown(found)
    on_split = json.loads(json.dumps(found.to_json()))["more_tests"]["other_kind"]
    assert on_split["teacher_ci95"] == [low, high]
    assert found.verdict == report(0.2, 0.3, 0.8, 0.6).verdict


def test_without_a_further_split_the_verdict_is_the_same() -> None:
    plain = report(None, None, None, None)
    assert "more_tests" not in plain.to_json()
    assert more_tests_in_words(plain) == {}
    assert plain.verdict == report(0.2, 0.3, 0.8, 0.6).verdict
