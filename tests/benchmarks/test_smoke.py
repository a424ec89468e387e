"""Each measurement runs, small: what it would say of a real size is for `make bench`."""

from __future__ import annotations

import json
from pathlib import Path

import load
import pytest


def test_trials_on_slots_are_all_run_and_their_gaps_measured(tmp_path: Path) -> None:
    rows = {row.what: row.value for row in load.slots(tmp_path, slots=2, trials=6, seconds=0.2)}
    assert rows["ideal"] == pytest.approx(0.6)
    assert 1 < rows["as a multiple of the ideal"] < 5
    assert 0.2 <= rows["a trial itself, median"] < 0.4
    assert 0 < rows["a slot idle between two trials, median"] < 1000


def test_a_trial_costs_the_driver_something(tmp_path: Path) -> None:
    rows = load.trial(tmp_path, few=10, many=30, counted=10)
    assert len(rows) == 12
    assert all(row.value > 0 for row in rows)


def test_a_measurement_is_printed_and_kept_with_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [load.Row("met", 1.0, "x", 1.05), load.Row("not", 2.0, "x", 1.05), load.Row("said", "slots: 97.9% busy")]
    monkeypatch.setattr(load, "OUT", tmp_path)
    monkeypatch.setattr(load, "MEASUREMENTS", {"small": lambda folder: rows})
    monkeypatch.setattr("sys.argv", ["load.py"])
    load.main()
    assert [row["met"] for row in json.loads((tmp_path / "small.json").read_text())["rows"]] == [True, False, True]
    assert capsys.readouterr().out.count("NOT MET") == 1
