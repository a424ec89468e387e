"""What `same_numbers` calls a difference, and that its sweeps are ones that kdsweep takes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import same_numbers
from same_numbers import Comparison, compare, named_numbers, read_numbers
from small_sweeps import SWEEPS, write_inputs

from kdsweep.config import load


def test_a_difference_in_the_last_bit_is_found_and_shown_with_all_digits() -> None:
    old = {"result.json": named_numbers({"best": {"loss": 0.1}, "steps": 12})}
    new = {"result.json": named_numbers({"best": {"loss": math.nextafter(0.1, 1)}, "steps": 12})}
    found = compare(old, new)
    assert found.compared == 2
    assert found.differences == ["result.json: best > loss: 0.1 -> 0.10000000000000002"]
    assert not compare(old, old).differences


def test_a_number_that_is_gone_or_a_file_that_is_new_differs_but_a_new_number_does_not() -> None:
    old = {"a": {"loss": "0x1p0"}, "b": {"loss": "0x1p0"}}
    new = {"a": {"loss": "0x1p0", "f1": "0x1p0"}, "c": {"loss": "0x1p0"}}
    assert compare(old, new).differences == [
        "c: only in the new numbers",
        "b: loss: 1.0 -> missing",
    ]


def test_numbers_of_the_clock_are_left_out_and_not_a_number_equals_itself() -> None:
    facts = {"seconds": 1.0, "student": {"latency_ms": 2.0, "size_mb": 3.0}, "loss": float("nan")}
    assert named_numbers(facts) == {"student > size_mb": (3.0).hex(), "loss": "nan"}
    assert not compare({"a": named_numbers(facts)}, {"a": named_numbers(facts)}).differences


def test_every_file_of_a_sweep_is_read(tmp_path: Path) -> None:
    trial = tmp_path / "confirm" / "distill-0-seed-0"
    trial.mkdir(parents=True)
    pair = {"difference": 0.5, "ci95": [0.4, 0.6], "p": 0.01}
    (tmp_path / "report.json").write_text(json.dumps({"pairs": [pair]}))
    (trial / "settings.json").write_text(json.dumps({"seed": 3, "judge_test": True}))
    (trial / "result.json").write_text(json.dumps({"state": "complete", "steps": 2}))
    (trial / "metrics.jsonl").write_text('{"step": 1, "seconds": 1.0}\n{"step": 2}\n')
    np.save(trial / "test_logits.npy", np.array([[0.5, 1.5]], dtype=np.float32))
    name = "confirm/distill-0-seed-0"
    assert read_numbers(tmp_path) == {
        "report.json": {"pairs > 0 > difference": (0.5).hex()},
        f"{name}/settings.json": {"seed": (3.0).hex()},
        f"{name}/result.json": {"steps": (2.0).hex()},
        f"{name}/metrics.jsonl line 1": {"step": (1.0).hex()},
        f"{name}/metrics.jsonl line 2": {"step": (2.0).hex()},
        f"{name}/test_logits.npy": {"[0, 0]": (0.5).hex(), "[0, 1]": (1.5).hex()},
    }


def test_every_small_sweep_has_a_valid_space_and_is_interrupted(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    for sweep in SWEEPS:
        plan = load(tmp_path / f"{sweep.name}.yaml", assignments=sweep.settings)
        assert plan.name == sweep.name
        assert sweep.stops


def test_a_checkout_that_is_a_folder_is_used_where_it_is(tmp_path: Path) -> None:
    with same_numbers.checked_out(str(tmp_path), tmp_path) as checkout:
        assert checkout == tmp_path.resolve()


def test_a_checkout_with_newer_rules_is_given_those_of_the_first_release(tmp_path: Path) -> None:
    assert same_numbers.first_rules(same_numbers.ROOT) == ("task.split_rule=1", "task.label_rule=1")
    (tmp_path / "kdsweep" / "core").mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "core/settings.py"):
        (tmp_path / "kdsweep" / name).touch()
    assert same_numbers.first_rules(tmp_path) == ()


def test_only_differences_of_mended_strategies_are_let_pass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = next(one for one in SWEEPS if one.mended == ("maps",))
    of_maps = "trials/maps-0/result.json: best > loss: 1.0 -> 2.0"
    assert same_numbers.report(sweep, "new", Comparison(9, [of_maps]))
    assert "the same, but for 1 of maps" in capsys.readouterr().out
    assert not same_numbers.report(
        sweep, "new", Comparison(9, [of_maps, "trials/mse-0/result.json"])
    )
    assert "1 differ, first trials/mse-0" in capsys.readouterr().out
