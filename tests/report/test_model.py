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


def test_a_report_is_written_as_0_1_0_wrote_it_to_the_last_byte(old: dict[str, Any]) -> None:
    written = json.dumps(Report.from_json(old).to_json(), indent=2, ensure_ascii=False) + "\n"
    assert written == OLD.read_text(encoding="utf-8")


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
    assert list(report.to_json()) == list(plain)


def test_a_report_of_another_version_is_read(old: dict[str, Any]) -> None:
    older = {key: value for key, value in old.items() if key not in ("teachers", "slots")}
    assert Report.from_json(older).teachers == ()
    assert Report.from_json(old | {"added_later": 1}) == Report.from_json(old)


def test_a_report_does_not_change(old: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        Report.from_json(old).verdict = "another"  # type: ignore[misc]
