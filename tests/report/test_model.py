"""The report as JSON: `report.json` keeps its keys, values and order, and an old one can be read.

report_of_0_1_0.json was written by version 0.1.0: a sweep of tiny models with three objectives,
several teachers, seeds of a teacher, and a further test split.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdsweep.report.model import Report
from kdsweep.trial_id import TrialId

OLD = Path(__file__).parent / "report_of_0_1_0.json"


@pytest.fixture
def old() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OLD.read_text(encoding="utf-8"))
    return found


def test_every_key_and_value_of_0_1_0_is_written_as_it_was_read(old: dict[str, Any]) -> None:
    written = json.loads(json.dumps(Report.from_json(old).to_json()))
    assert_within(old, written)


def assert_within(old: object, new: object) -> None:
    """Everything in `old` is in `new`, with the same order of keys."""
    if isinstance(old, dict):
        assert isinstance(new, dict)
        assert [key for key in new if key in old] == list(old)
        for key, value in old.items():
            assert_within(value, new[key])
    elif isinstance(old, list):
        assert isinstance(new, list)
        assert len(new) == len(old)
        for one, other in zip(old, new, strict=True):
            assert_within(one, other)
    else:
        assert new == old


def test_the_parts_of_a_report_have_types(old: dict[str, Any]) -> None:
    report = Report.from_json(old)
    assert report.winner == TrialId(
        old["winner"]["strategy"], old["winner"]["trial"], old["winner"]["seed_index"]
    )
    assert report.pareto is not None
    assert report.pareto[0].costs.keys() == {"size", "latency"}
    best = report.strategies["distill"].best
    assert best is not None
    assert [one.weight for one in best.settings.teachers] == [1.0, 2.0]
    assert report.more_tests["other_kind"].strategies.keys() == report.strategies.keys()


def test_what_a_sweep_does_not_have_is_no_key(old: dict[str, Any]) -> None:
    plain = {key: value for key, value in old.items() if key not in ("pareto", "more_tests")}
    report = Report.from_json(plain)
    assert (report.pareto, report.more_tests) == (None, {})
    assert not {"pareto", "more_tests"} & report.to_json().keys()


def test_a_report_of_another_version_is_read(old: dict[str, Any]) -> None:
    older = {key: value for key, value in old.items() if key not in ("teachers", "slots")}
    assert Report.from_json(older).teachers == ()
    assert Report.from_json(old | {"added_later": 1}) == Report.from_json(old)


def test_a_report_does_not_change(old: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        Report.from_json(old).verdict = "another"  # type: ignore[misc]
