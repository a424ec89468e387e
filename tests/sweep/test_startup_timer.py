"""The time until the first step, and what keeps it short."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kdsweep.sweep.startup_timer import (
    StartupTimer,
    process_started,
    without_collecting,
)


def test_the_parts_add_up_to_the_time_until_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([2.0, 2.5, 6.5, 7.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    startup_timer = StartupTimer(started=0.0)
    for part in ("data", "imports", "first trial"):
        startup_timer.enter(part)
    assert (
        startup_timer.first_step()
        == "first step after 7.0 s: imports 6.0 s, data 0.5 s, first trial 0.5 s"
    )


def test_only_the_first_step_gives_a_line() -> None:
    startup_timer = StartupTimer()
    assert startup_timer.first_step() is not None
    startup_timer.enter("another trial")
    assert startup_timer.first_step() is None


def test_a_process_knows_when_it_was_started() -> None:
    before = time.monotonic()
    code = (
        "import time; time.sleep(2); from kdsweep.sweep.startup_timer import process_started; "
        "print(process_started())"
    )
    started = float(
        subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
    )
    assert before - 0.02 <= started < before + 1.9
    assert process_started() < before


def test_garbage_is_collected_again_after_imports_and_not_where_it_was_off() -> None:
    try:
        with without_collecting():
            assert not gc.isenabled()
        assert gc.isenabled()
        gc.disable()
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_a_mistake_in_the_data_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nfine,pos\n", encoding="utf-8")
    (tmp_path / "space.yaml").write_text(
        "name: broken\ntask: {dataset: rows.csv, text: words, label: label}\n"
        "student: {model: none}\n"
        "strategies: {finetune: {alpha: 1.0, learning_rate: 1.0e-4}}\n",
        encoding="utf-8",
    )
    code = (
        "import sys\nfrom kdsweep.errors import DataError\nfrom kdsweep.sweep import run\n"
        "try:\n    run('space.yaml')\nexcept DataError as error:\n"
        "    print(error, 'torch' in sys.modules)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert "no column 'words'" in said
    assert said.rstrip().endswith("False")


@pytest.mark.slow
def test_a_sweep_reports_its_first_step_once(sweep: Any, tmp_path: Path) -> None:
    status, output, errors = sweep(
        tmp_path, "trials=1", "confirm={seeds: 0}", "engine={type: inline}"
    ).end()
    assert status == 0, errors
    told = [line for line in output.splitlines() if line.startswith("first step after")]
    assert len(told) == 1
    assert re.fullmatch(
        r"first step after [\d.]+ s: imports [\d.]+ s(, [a-z ]+ [\d.]+ s)+", told[0]
    )
