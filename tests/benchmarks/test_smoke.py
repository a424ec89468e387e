"""Each measurement runs with small sizes; `make bench` measures real ones."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import driver_cost
import load
import measuring
import pytest
import run
import simulated_searches
from measuring import Row, ratios, take_turns


def test_all_trials_run_on_the_slots_and_their_gaps_are_measured(tmp_path: Path) -> None:
    rows = {row.what: row.value for row in load.slots(tmp_path, slots=2, trials=6, seconds=0.2)}
    assert rows["ideal"] == pytest.approx(0.6)
    assert rows["as a multiple of the ideal"] > 1
    assert rows["a trial itself, median"] >= 0.2
    assert rows["a slot idle between two trials, median"] > 0


def test_the_time_between_the_trials_of_a_slot_is_its_idle_time() -> None:
    assert load.idle_between([[(0.0, 1.0), (1.25, 2.0), (2.5, 3.0)], [(0.0, 4.0)]]) == [
        250.0,
        500.0,
    ]


def test_false_exclusions_of_settings_have_a_target(tmp_path: Path) -> None:
    rows = simulated_searches.settings(tmp_path, count=4, ties=simulated_searches.TIES[:1])
    assert [bool(row.target) for row in rows] == [True, True, False]


@pytest.mark.slow
def test_a_trial_costs_the_driver_something(tmp_path: Path) -> None:
    rows = load.trial(tmp_path, few=10, many=30, counted=10)
    assert len(rows) == 12
    assert all(row.value > 0 for row in rows)


@pytest.mark.slow
def test_the_drivers_cost_is_measured_with_many_slots_and_with_many_trials(tmp_path: Path) -> None:
    sizes = driver_cost.Sizes(
        slots=20,
        ray_slots=2,
        every=0.3,
        evaluations=2,
        rounds=2,
        after=1.0,
        lasting=2.0,
        few=10,
        many=40,
        counted=4,
    )
    rows = {row.what: row for row in driver_cost.driver(tmp_path, sizes)}
    assert rows["slots that were busy at the end"].value == 20
    assert rows["20 simulated slots: share of a core, all threads"].value > 0
    assert rows["a trial at 40 by one at 10"].value > 0
    assert {row.target for row in rows.values()} >= {"<= 100", "<= 31", "<= 1.5"}


def test_a_measurement_is_printed_and_written_with_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        Row("met", 1.0, "x", at_most=1.05),
        Row("not", 2.0, "x", at_most=1.05),
        Row("nor this", 2.0, "x", at_least=2.2),
        Row("said", "slots: 97.9% busy"),
    ]
    monkeypatch.setattr(measuring, "OUT", tmp_path)
    monkeypatch.setattr(run, "MEASUREMENTS", {"small": run.Measurement("load", "")})
    monkeypatch.setattr(load, "small", lambda folder: rows, raising=False)
    monkeypatch.setattr("sys.argv", ["run.py"])
    run.main()
    found = json.loads((tmp_path / "small.json").read_text())
    assert [row["met"] for row in found["rows"]] == [True, False, False, True]
    assert found["machine"]["cores"] > 0
    assert capsys.readouterr().out.count("NOT MET") == 2


def test_measurements_have_a_process_each_and_a_failing_one_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[list[str]] = []

    def process(command: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(command[2:])
        return subprocess.CompletedProcess(command, int(command[2] == "slots"))

    monkeypatch.setattr(subprocess, "run", process)
    monkeypatch.setattr("sys.argv", ["run.py", "slots", "start", "--profile"])
    with pytest.raises(SystemExit, match="failed: slots"):
        run.main()
    assert started == [["slots", "--profile"], ["start", "--profile"]]


def test_every_listed_measurement_exists() -> None:
    assert all(
        callable(getattr(importlib.import_module(one.module), name))
        for name, one in run.MEASUREMENTS.items()
    )


def test_arms_take_turns_and_are_compared_round_by_round() -> None:
    turns: list[str] = []
    found = take_turns(
        {name: lambda name=name: float(len(turns.append(name) or turns)) for name in "abc"},
        rounds=3,
    )
    assert "".join(turns) == "abccbaabc"
    assert ratios(found["c"], found["a"]) == [3 / 1, 4 / 6, 9 / 7]
