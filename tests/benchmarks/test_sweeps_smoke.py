"""Each measurement of whole sweeps runs, small."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import growth
import optuna
import pruning
import pytest
import recorded_curves
import sampler_lag
import time_to_verdict
import transfer
from pruning import Curve

import sweeps
from sweeps import Problem


@pytest.mark.slow
def test_a_second_sweep_says_where_the_time_to_its_first_step_went(
    tmp_path: Path, tiny_space: Path
) -> None:
    rows = {
        row.what: row.value for row in sweeps.start(tmp_path, rounds=1, problem=Problem(tiny_space))
    }
    whole = rows["from the start of a second sweep's process to its first training step"]
    parts = [value for what, value in rows.items() if what.startswith("of it: ")]
    assert len(parts) >= 3
    # A process can't measure its own start, and each part is rounded.
    assert whole / 2 < sum(parts) < whole + 0.5


@pytest.mark.slow
def test_a_sweep_and_a_loop_of_trainer_do_the_same_trials(tmp_path: Path, tiny_space: Path) -> None:
    pytest.importorskip("accelerate", reason="needs accelerate: pip install 'kdsweep[bench]'")
    rows = {
        row.what: row.value
        for row in sweeps.sweep(tmp_path, trials=1, rounds=1, problem=Problem(tiny_space))
    }
    assert rows["3 trials of 3 strategies: Trainer and Optuna in a loop by kdsweep"] > 0
    assert 0 <= rows["Trainer and Optuna: mean validation accuracy"] <= 100


@pytest.mark.slow
def test_slots_of_one_thread_are_compared_with_one_of_all(tmp_path: Path, tiny_space: Path) -> None:
    rows = {
        row.what: row.value
        for row in sweeps.slots_cpu(
            tmp_path,
            rounds=1,
            steps=sweeps.Steps(warm_up=1, timed=2),
            cores=2,
            trials=0,
            problem=Problem(tiny_space),
        )
    }
    assert rows["many by one"] > 0


@pytest.mark.slow
def test_curves_are_recorded_once_and_studies_replayed_on_them(
    tmp_path: Path, tiny_space: Path
) -> None:
    space = tmp_path / "plain.yaml"
    space.write_text(
        re.sub(r"  combined:.*", "", tiny_space.read_text(encoding="utf-8"), flags=re.DOTALL),
        encoding="utf-8",
    )
    rows = pruning.pruning(tmp_path, settings=2, trials=6, seeds=1, spaces=(space,))
    assert rows[0].value >= 1.0
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("plain-*.json")}
    assert len(made) == 4
    pruning.record(tmp_path, space, 2)
    assert {file: file.stat().st_mtime_ns for file in made} == made


@pytest.mark.slow
def test_the_nearest_curve_is_by_the_logarithm_of_the_rate() -> None:
    low = Curve({"learning_rate": 1e-5}, [(1, 0.5)])
    high = Curve({"learning_rate": 1e-3}, [(1, 0.5)])
    assert pruning.nearest([low, high], {"learning_rate": 0.9e-4}) is low
    assert pruning.nearest([low, high], {"learning_rate": 1.1e-4}) is high


@pytest.mark.slow
def test_growth_is_drawn_beside_pure_compute(
    tmp_path: Path, tiny: Callable[..., str], review_csv: Path
) -> None:
    page = tmp_path / "growth.html"
    found = growth.growth(
        tmp_path,
        growth.Sizes(rows=(32, 64), lengths=(8, 12), layers=(1, 2), trials=(10, 20), counted=4),
        rounds=1,
        page=page,
        model=tiny("bert", layers=2),
        data=str(review_csv),
    )
    rows = {row.what: row.value for row in found}
    assert rows["rows 64: a trial by the forward and backward passes of its batches"] > 0
    assert "pure compute" in page.read_text(encoding="utf-8")


def test_the_pruner_is_replayed_on_recorded_trials() -> None:
    rows = {row.what: row.value for row in recorded_curves.paired(Path(), orders=3)}
    assert rows["20 trials, lag 1: steps without pruning by those with"] > 1.3
    assert rows["6 trials, lag 4: steps without pruning by those with"] >= 1


def test_a_search_starts_from_an_earlier_one_on_recorded_surfaces() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    surface = transfer.Surface(transfer.Recorded(transfer.RECORDED / "trec.npz"))
    earlier = transfer.search(surface, 1, transfer.TRIALS)
    best = [earlier.trials[number].params for number in earlier.best(transfer.TRIALS)[:3]]
    found = {same: transfer.search(surface, 0, 5, earlier, same=same) for same in (True, False)}
    assert all([one.params for one in each.trials[:3]] == best for each in found.values())
    # The sampler knows the trials of the same task alone.
    assert found[True].trials[3].params != found[False].trials[3].params


@pytest.mark.slow
def test_slots_wait_and_searches_differ_by_the_lag_on_recorded_surfaces(tmp_path: Path) -> None:
    rows = {row.what: row for row in sampler_lag.lag(tmp_path, 3, 1, ["paired"])}
    ample = rows["2 slots, lag 4 (strategies x lag / slots 8): idle"]
    assert (ample.value, ample.met) == (0, True)
    assert float(rows["4 slots, lag 1 (strategies x lag / slots 1): idle"].value) > 0
    (found,) = [row for what, row in rows.items() if what.startswith("paired, lag 4")]
    assert -20 < float(found.value) < 20


@pytest.mark.slow
def test_the_time_to_a_verdict_is_measured_beside_trainer(tmp_path: Path, tiny_space: Path) -> None:
    pytest.importorskip("accelerate", reason="needs accelerate: pip install 'kdsweep[bench]'")
    sizes = time_to_verdict.Sizes(trials=1, most=3)
    found = time_to_verdict.verdict(tmp_path, sizes, Problem(tiny_space), ("bf16",))
    rows = {row.what: row for row in found}
    faster = rows["bf16: Trainer and Optuna's time to the verdict by kdsweep's"]
    assert float(faster.value) > 0
    assert faster.target == ">= 6"
    best = str(rows["bf16: not shown to be worse than the best, kdsweep"].value)
    assert set(best.split(", ")) <= {"finetune", "distill", "combined"}
