"""The report in sentences."""

from __future__ import annotations

from kdsweep.report.sentences import searched_verdict


def test_the_verdict_says_level_where_the_best_are_equal() -> None:
    level = searched_verdict("accuracy", None, {"a": 0.8, "b": 0.8})
    assert level.startswith("a and b are level")
    ahead = searched_verdict("accuracy", None, {"a": 0.8, "b": 0.75})
    assert ahead.startswith("a is ahead on validation: accuracy 0.8000, 5.0 points over b")
    assert searched_verdict("accuracy", None, {}) == "no trial has finished"
