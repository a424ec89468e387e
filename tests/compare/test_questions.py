"""Questions are answered from trials, with how sure it is; with too few trials they are not."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_up_sweeps import settings_of

from kdsweep.compare.findings import Question
from kdsweep.compare.questions import answer_questions, direction
from kdsweep.compare.records import TrialRecord
from kdsweep.compare.strategy_costs import Costs
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.core.schedules import parse_schedule
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.trial_id import TrialId

RISING = {"shape": "linear", "start": 0.2, "end": 0.8}
FALLING = {"shape": "per_epoch", "values": [0.7, 0.5, 0.3], "after": 0.2}
COOLING = {"shape": "linear", "start": 8.0, "end": 1.0}
numbers = itertools.count()


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def trial(
    value: float | None,
    strategy: str = "combined",
    *,
    alpha: Any = 0.5,
    temperature: Any = 4.0,
    rate: Any = 2.0e-5,
    state: str = "complete",
    seed_index: int | None = None,
) -> TrialRecord:
    evaluations: tuple[Evaluation, ...] = ()
    if value is not None:
        evaluations = tuple(
            Evaluation(step, step / 10, {"validation/accuracy": value - 0.1 * (step < 10)}, 60.0, 0)
            for step in (5, 10)
        )
    return TrialRecord(
        TrialId(strategy, next(numbers), seed_index),
        state=state,
        settings=settings_of(alpha, temperature, rate, epochs=5),
        evaluations=evaluations,
        result=TrialResult("complete", 10, 120.0),
    )


def around(mean: float, count: int) -> list[float]:
    """Values that spread by about a point around `mean`."""
    return [mean + 0.01 * offset for offset in np.linspace(-1, 1, count)]


def ask(
    records: list[TrialRecord],
    slot_hours: dict[str, float] | None = None,
    teachers: tuple[TeacherRecord, ...] = (),
    teacher_seconds: float | None = None,
) -> dict[str, Question]:
    costs = Costs(slot_hours or {}, teachers, teacher_seconds)
    found = answer_questions("accuracy", records, costs)
    return {one.question: one for one in found}


ALPHA = "does a rising, falling or constant alpha do best?"
TEMPERATURE = "does lowering the temperature during training help?"
COST = "what did each strategy cost?"


@pytest.mark.parametrize(
    ("schedule", "epochs", "expected"),
    [
        (0.5, 3, "constant"),
        (RISING, 3, "rising"),
        ({"shape": "cosine", "start": 0.8, "end": 0.1}, 3, "falling"),
        ({"shape": "linear", "start": 0.5, "end": 0.5}, 3, "constant"),
        ({"shape": "step", "values": [0.0, 1.0], "at": 0.5}, 3, "rising"),
        ({"shape": "step", "values": [0.0, 1.0, 0.5], "at": [0.3, 0.6]}, 3, "up and down"),
        (FALLING, 5, "falling"),
        (FALLING, None, "falling"),
        ({"shape": "per_epoch", "values": [0.5, 0.5], "after": 0.9}, 3, "rising"),
        # Two epochs never reach the 0.9.
        ({"shape": "per_epoch", "values": [0.5, 0.5], "after": 0.9}, 2, "constant"),
        ({"shape": "per_epoch", "values": [0.5]}, 3, "constant"),
    ],
)
def test_the_direction_of_a_schedule(schedule: Any, epochs: int | None, expected: str) -> None:
    assert direction(parse_schedule(schedule), epochs) == expected


def test_the_best_kind_of_alpha_is_named_and_fine_tuning_is_no_constant_alpha() -> None:
    records = [trial(value, alpha=RISING) for value in around(0.90, 8)]
    records += [trial(value, alpha=FALLING) for value in around(0.86, 7)]
    records += [trial(value, "distill", alpha=0.5) for value in around(0.87, 9)]
    records += [trial(value, "finetune", alpha=1.0) for value in around(0.95, 6)]
    found = ask(records)[ALPHA]
    assert found.answer.startswith("rising does best: 3.0 points over constant (")
    assert "labels alone 0.9500 (n = 6" in found.answer
    assert "differ in other settings" in found.answer
    assert "pruned" in found.answer
    assert found.n == 24
    assert found.effect == pytest.approx(0.03)
    assert 0 < found.ci95[0] < 0.03 < found.ci95[1]


def test_alphas_that_do_alike_are_not_ranked_and_a_rare_one_is_named_as_such() -> None:
    records = (
        [trial(value, alpha=RISING) for value in around(0.900, 6)]
        + [trial(value) for value in around(0.899, 6)]
        + [trial(0.99, alpha=FALLING)]
    )
    found = ask(records)[ALPHA]
    assert found.answer.startswith("no difference shown: rising is 0.1 points over constant (")
    assert "Not enough trials with a falling alpha (n = 1)" in found.answer
    assert found.ci95[0] < 0 < found.ci95[1]


def test_a_falling_temperature_is_compared_within_the_strategy_that_has_both() -> None:
    records = [trial(value, temperature=COOLING, alpha=RISING) for value in around(0.90, 6)] + [
        trial(value, alpha=RISING) for value in around(0.85, 6)
    ]
    records += [trial(value, "distill") for value in around(0.99, 20)]  # better for another reason
    records += [trial(value, "finetune", alpha=1.0) for value in around(0.99, 20)]
    found = ask(records)[TEMPERATURE]
    assert found.answer.startswith("yes: 5.0 points over a constant temperature (")
    assert "Means within combined" in found.answer
    assert found.n == 12
    worse = ask(
        [trial(value, temperature=COOLING) for value in around(0.80, 6)]
        + [trial(value, "distill") for value in around(0.85, 6)]
    )[TEMPERATURE]
    assert worse.answer.startswith("no, it costs: -5.0 points")
    assert "Trials of combined, distill are taken together" in worse.answer
    assert worse.ci95[1] < 0


def test_too_few_trials_of_a_kind_give_no_answer() -> None:
    few = [trial(0.9, alpha=RISING) for _ in range(4)]
    found = ask(few + [trial(0.8) for _ in range(20)])
    assert found[ALPHA].answer.startswith(
        "not enough trials (rising n = 4, falling n = 0, constant n = 20)"
    )
    assert found[TEMPERATURE].answer.startswith(
        "not enough trials (falling n = 0, constant n = 24)"
    )
    assert found[ALPHA].effect is None
    assert found[ALPHA].ci95 is None


def test_pruned_failed_and_confirm_runs_are_no_evidence() -> None:
    good = [trial(value, alpha=RISING) for value in around(0.90, 6)] + [
        trial(value) for value in around(0.85, 6)
    ]
    others = [
        trial(0.1, alpha=RISING, state=state)
        for state in ("pruned", "diverged", "failed", "running")
    ]
    others += [
        trial(None, alpha=RISING),
        trial(float("nan"), alpha=RISING),
        trial(0.1, alpha=RISING, seed_index=0),
    ]
    assert ask(good + others, {"combined": 1.0}) == ask(good, {"combined": 1.0})


def test_the_cost_of_a_factor_of_2_in_the_learning_rate_is_the_curvature() -> None:
    rates = 2.0e-5 * 2 ** np.linspace(-2, 2, 9)
    noise = 0.001 * np.array([1, -1, 1, -1, 1, -1, 1, -1, 1])
    records = [
        trial(0.9 - 0.02 * np.log2(rate / 2.0e-5) ** 2 + extra, rate=float(rate))
        for rate, extra in zip(rates, noise, strict=True)
    ]
    found = ask(records, {"combined": 1.0})["how sensitive is combined to its learning rate?"]
    assert found.answer.startswith(
        "a factor of 2 away from 2.0e-05, where a fitted curve is highest, costs 2.0 points ("
    )
    assert found.ci95[0] < 0.02 < found.ci95[1]
    flat = ask(
        [trial(0.9 + extra, rate=float(rate)) for rate, extra in zip(rates, noise, strict=True)], {}
    )
    assert flat["how sensitive is combined to its learning rate?"].answer.startswith(
        "no sensitivity shown: "
    )


def test_a_best_rate_at_the_end_of_those_tried_is_reported_as_such() -> None:
    rates = 2.0e-5 * 2 ** np.linspace(-2, 2, 9)
    records = [
        trial(
            0.8 + 0.02 * np.log2(rate / 2.0e-5),
            rate={"shape": "linear", "start": float(rate), "end": 0.0},
        )
        for rate in rates
    ]
    found = ask(records)["how sensitive is combined to its learning rate?"]
    assert "That is the highest rate that was tried: higher ones may do better" in found.answer
    assert found.effect == pytest.approx(0.02)
    lowest = ask([trial(0.8 - 0.02 * np.log2(rate / 2.0e-5), rate=float(rate)) for rate in rates])[
        "how sensitive is combined to its learning rate?"
    ]
    assert "That is the lowest rate that was tried: lower ones may do better" in lowest.answer


def test_equal_or_few_rates_say_nothing_about_sensitivity() -> None:
    alike = ask([trial(value) for value in around(0.9, 8)])[
        "how sensitive is combined to its learning rate?"
    ]
    assert alike.answer.startswith("unknown: 8 trials, but all have the learning rate 2.0e-05")
    three = ask(
        [
            trial(value, rate=rate)
            for value, rate in zip(around(0.9, 9), [1e-5, 3e-5, 9e-5] * 3, strict=True)
        ]
    )
    assert (
        "their 3 learning rates lie between 1.0e-05 and 9.0e-05"
        in three["how sensitive is combined to its learning rate?"].answer
    )
    assert alike.effect is None
    same = ask([trial(0.9, rate=1e-5 * 2**power) for power in range(8)])[
        "how sensitive is combined to its learning rate?"
    ]
    assert same.answer == "no sensitivity shown: all 8 trials reach 0.9000"


def test_each_strategy_has_a_line_on_learning_rates_and_a_share_of_the_cost() -> None:
    records = [trial(value, "distill") for value in around(0.9, 3)] + [
        trial(None, "finetune", alpha=1.0, state="failed")
    ]
    found = ask(records, {"finetune": 0.5, "distill": 1.5, "combined": 0.0})
    assert [question for question in found if question.startswith("how sensitive")] == [
        f"how sensitive is {name} to its learning rate?"
        for name in ("finetune", "distill", "combined")
    ]
    assert (
        found["how sensitive is finetune to its learning rate?"].answer
        == "not enough trials (n = 0): a curve needs 8"
    )
    assert found[COST].answer == (
        "finetune 0.5 slot hours (25%), no trial finished; distill 1.5 slot hours (75%), 2 min 0 s "
        "for each finished trial (n = 3); combined 0 slot hours (0%), no trial finished"
    )
    assert found[COST].n == 3


@pytest.mark.parametrize(
    ("records", "slot_hours"),
    [
        ([], {}),
        ([], {"finetune": 0.0}),
        ([trial(None, state="failed")] * 7, {"combined": 0.2}),
        ([trial(0.5, "finetune", alpha=1.0)] * 9, {"finetune": 0.2}),
        (
            [
                trial(1.0, alpha=alpha, temperature=temperature)
                for alpha in (0.5, RISING, FALLING)
                for temperature in (2.0, COOLING)
            ]
            * 9,
            {"combined": 2.0},
        ),
    ],
    ids=["nothing", "no trial", "all failed", "fine-tuning alone", "all equal"],
)
def test_without_evidence_an_answer_claims_nothing(
    records: list[TrialRecord], slot_hours: dict[str, float]
) -> None:
    for question, found in ask(records, slot_hours).items():
        assert found.answer
        assert "nan" not in found.answer
        assert "does best" not in found.answer
        if question in (ALPHA, TEMPERATURE):
            assert found.answer.startswith(("not enough trials", "no difference shown"))


def test_the_cost_names_the_teacher_once_and_where_it_came_from() -> None:
    records = [trial(value, "distill") for value in around(0.9, 3)]
    made = TeacherRecord(validation={"accuracy": 0.95}, seconds=900.0, from_cache=False)
    cached = made.model_copy(update={"from_cache": True})
    hours = {"finetune": 0.5, "distill": 1.0}

    def cost(teacher: TeacherRecord, seconds: float | None) -> str:
        return ask(records, hours, (teacher,), seconds)[COST].answer

    assert cost(made, 1800.0).startswith(
        "the teacher 0.5 slot hours (25%) to fine-tune and to label rows, once for all strategies; "
        "finetune 0.5 slot hours (25%)"
    )
    assert "which came from the cache; its fine-tuning had taken 15 min 0 s" in cost(cached, 18.0)
    # The driver died before it heard that the job had ended.
    assert cost(made, 18.0).startswith("the teacher 0.25 slot hours (14%) to fine-tune")
    of_old_sweep = cost(TeacherRecord(validation={"accuracy": 0.95}), None)
    assert of_old_sweep.startswith("the teacher a time that this sweep's version didn't record; ")


def test_answers_say_that_their_intervals_hold_together() -> None:
    alone = [trial(value, alpha=RISING) for value in around(0.90, 6)]
    alone += [trial(value) for value in around(0.88, 6)]
    cooling = [trial(value, temperature=COOLING) for value in around(0.88, 6)]
    one, two = ask(alone)[ALPHA], ask(alone + cooling)[ALPHA]
    assert "hold together" not in one.answer
    assert "those of all 2 questions that this sweep answers hold together" in two.answer


def test_trials_with_one_number_count_once_because_they_share_a_seed() -> None:
    rising = [
        replace(trial(value, alpha=RISING), id=TrialId(strategy, number))
        for strategy in ("combined", "mine", "other")
        for number, value in enumerate(around(0.90, 4))
    ]
    constant = [trial(value, "distill") for value in around(0.85, 8)]
    found = ask(rising + constant)[ALPHA]
    assert found.answer.startswith("not enough trials (rising n = 4")


def test_groups_of_different_strategies_are_named_as_such() -> None:
    rising = [trial(value, "combined", alpha=RISING) for value in around(0.90, 6)]
    constant = [trial(value, "distill") for value in around(0.85, 6)]
    answer = ask(rising + constant)[ALPHA].answer
    assert answer.startswith("rising does better than constant: 5.0 points over constant (")
    assert "a rising alpha are of combined, those with a constant one of distill" in answer
