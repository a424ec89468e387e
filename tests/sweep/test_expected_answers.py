"""`plan` says which questions a sweep's budget can answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsweep.compare.questions import LOWER_TEMPERATURE, WHICH_ALPHA, sensitivity_question
from kdsweep.config import Plan, load
from kdsweep.sweep.expected_answers import ExpectedAnswers, expected_answers, in_words
from kdsweep.sweep.samplers_and_pruners import complete_share

SPACES = Path(__file__).parents[2] / "search_spaces"
EVERY_STRATEGY = ("finetune", "distill", "combined", "distill_then_finetune")


def plan(*assignments: str) -> Plan:
    return load(SPACES / "sst2.yaml", assignments=assignments)


# Each trial is compared with all before it.
LAG = "sampler={type: tpe, lag: 1}"


def expected(*assignments: str, slots: int = 1) -> ExpectedAnswers:
    return expected_answers(plan(LAG, *assignments), slots)


def test_20_trials_with_asha_leave_3_or_4_complete_ones_and_answer_no_question() -> None:
    found = expected("pruner={type: asha}")
    assert all(2.5 <= complete <= 4.5 for complete in found.complete.values())
    assert not found.likely
    assert in_words(found, dict.fromkeys(EVERY_STRATEGY, 20)) == [
        "complete trials expected: 4 of 20 of each strategy. Enough to answer: no question",
        "too few to answer: the direction of alpha, a falling temperature, the learning rate of "
        "finetune, distill, combined and distill_then_finetune; enough for all of them: --set "
        "trials=80 or --set 'pruner={type: none}'",
    ]


def test_what_the_plan_advises_is_enough() -> None:
    assert not expected("trials=80").unlikely
    unpruned = expected("pruner={type: none}")
    assert not unpruned.unlikely
    assert not unpruned.advice
    assert set(unpruned.complete.values()) == {20}


@pytest.mark.parametrize(
    ("pruner", "share"),
    [
        ("{type: none}", 1.0),
        ("{type: median}", 0.55),
        ("{type: asha}", 0.18),
        ("{type: paired}", 0.6),
    ],
)
def test_the_sweeps_own_pruner_decides_how_many_trials_complete(pruner: str, share: float) -> None:
    one = plan(LAG, f"pruner={pruner}")
    found = complete_share(one.sweep, one.space, "finetune", trials=20, slots=1)
    assert found == pytest.approx(share, abs=0.06)
    assert found == complete_share(one.sweep, one.space, "finetune", trials=20, slots=1)


def test_more_trials_complete_where_fewer_are_known_and_slots_change_nothing() -> None:
    shares = []
    for lag in (1, 4, 8):
        one = plan(f"sampler={{type: tpe, lag: {lag}}}", "pruner={type: asha}")
        found = {
            complete_share(one.sweep, one.space, "finetune", trials=20, slots=slots)
            for slots in (1, 8)
        }
        assert len(found) == 1
        shares += found
    assert shares == sorted(set(shares))


def test_several_objectives_have_no_pruner() -> None:
    found = expected("objective=[accuracy, size]")
    assert set(found.complete.values()) == {20}


def test_a_space_that_varies_too_little_is_told_what_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "name: plain\n"
        "task: {dataset: rows.csv, text: text, label: label}\n"
        "student: {model: none}\n"
        "strategies: {finetune: {alpha: 1.0, learning_rate: {choices: [1.0e-5, 2.0e-5]}}}\n",
        encoding="utf-8",
    )
    found = expected_answers(load(file), 1)
    assert set(found.unlikely) == {
        WHICH_ALPHA,
        LOWER_TEMPERATURE,
        sensitivity_question("finetune"),
    }
    assert found.advice == [
        "the space has no second direction of alpha to compare (rising, falling or constant)",
        "the space has no falling temperature beside a constant one",
        "how sensitive is finetune to its learning rate? needs four rates over more than a factor "
        "of 2",
    ]
