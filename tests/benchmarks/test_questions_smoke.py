"""Answers to questions claim nothing false in more than 5% of sweeps; `make bench` has more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import questions

from kdsweep.compare.questions import answer_from_trials


@pytest.mark.parametrize("noise", questions.NOISES)
def test_at_most_5_of_100_sweeps_without_effects_contain_a_false_claim(noise: str) -> None:
    draw, counted = np.random.default_rng(0), questions.Counted()
    for _ in range(200):
        sweep = questions.random_sweep(
            draw, questions.STRATEGIES[:4], 20, questions.NOISES[noise], shared=True
        )
        counted.add(answer_from_trials(sweep, questions.STRATEGIES[:4]))
    assert counted.stated > 5.9 * counted.of
    assert counted.share <= 5


def test_clear_effects_are_found() -> None:
    draw, found = np.random.default_rng(0), 0
    for _ in range(50):
        sweep = [
            one._replace(value=one.value + 0.03 * (one.alpha == "rising"))
            for one in questions.random_sweep(
                draw, ("combined", "mine"), 20, questions.normal, shared=False
            )
        ]
        found += "rising does best" in answer_from_trials(sweep, ())[0].answer
    assert found >= 45


def test_a_search_by_tpe_with_asha_is_counted() -> None:
    counted = questions.false_claims_of_a_search(strategies=2, trials=12, pruned=True, sweeps=2)
    assert counted.of == 2
    assert counted.stated < 8


def test_all_rows_have_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "SIZES", ((2, 8),))
    rows = questions.questions(tmp_path, sweeps=2, searches=1)
    assert len(rows) == 23
    assert all(row.target for row in rows)
