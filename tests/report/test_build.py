"""From trials to a report: one recommended strategy, wherever it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up_sweeps import settings_of, trial

from kdsweep.compare.looks import LookRules
from kdsweep.compare.records import TestLogits, TrialRecord
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.core.tasks import CLASSIFICATION
from kdsweep.report.build import ReportFacts, SearchOutcome, summarize
from kdsweep.report.model import BestTrial, Report, TrialCounts
from kdsweep.report.page import render
from kdsweep.report.sentences import as_markdown
from kdsweep.terminal.report import show_report
from kdsweep.trial_id import TrialId

ROWS, SEEDS = 1000, 5


def confirmed(
    strategy: str, validation: Sequence[float], right: float, layers: int = 3
) -> tuple[list[TrialRecord], dict[int, np.ndarray]]:
    """The best trial, its confirm runs, and their logits on test, of which `right` are right."""
    settings = settings_of(layers=layers)
    records, logits = [trial(strategy, 0, 0.9, settings)], {}
    labels = np.arange(ROWS) % 2
    for seed, value in enumerate(validation):
        record = trial(strategy, 0, value, settings, seed_index=seed)
        assert record.result is not None
        draw = np.random.default_rng(seed)
        hard = np.random.default_rng(0).permutation(ROWS)[: round(ROWS * (1 - right))]
        wrong = np.zeros(ROWS, dtype=bool)
        wrong[hard] = draw.random(len(hard)) < 0.97
        predicted = np.where(wrong, 1 - labels, labels)
        logits[seed] = np.eye(2)[predicted]
        test = {"accuracy": float((predicted == labels).mean())}
        student = {"size_mb": 44.0 * layers, "latency_ms": 2.0 * layers}
        result = replace(record.result, test=test, student=student)
        records.append(replace(record, result=result))
    return records, logits


def report_of(
    *strategies: tuple[str, list[TrialRecord], dict[int, np.ndarray]],
    margin: float = 0.01,
    looks: LookRules | None = None,
) -> Report:
    labels = np.arange(ROWS) % 2
    teacher = np.where(np.arange(ROWS) < 80, 1 - labels, labels)
    outcomes = {
        name: SearchOutcome(
            TrialCounts(complete=1),
            BestTrial(trial=0, params={}, settings=records[0].settings, validation=0.9),
            slot_hours=0.1,
            seeds_asked=SEEDS,
        )
        for name, records, _ in strategies
    }
    return summarize(
        "made-up",
        "accuracy",
        [TeacherRecord(validation={"accuracy": 0.93}, test={"accuracy": 0.92})],
        outcomes,
        [record for _, records, _ in strategies for record in records],
        TestLogits(
            CLASSIFICATION,
            labels,
            {name: logits for name, _, logits in strategies},
            (np.eye(2)[teacher],),
        ),
        ReportFacts(margin=margin, looks=looks),
    )


def test_validation_recommends_among_strategies_that_test_cannot_tell_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # finetune's lucky seed is the best of all on validation, and its mean on test is the highest.
    finetune = ("finetune", *confirmed("finetune", [0.90, 0.90, 0.96, 0.90, 0.90], 0.908))
    combined = ("combined", *confirmed("combined", [0.93, 0.92, 0.94, 0.93, 0.93], 0.905))
    report = report_of(finetune, combined, margin=0.001)
    assert report.pairs[0].state == "undecided"
    assert report.recommended is not None
    assert report.recommended.strategy == report.recommended.first_choice == "combined"
    assert report.recommended.candidates == ("finetune", "combined")
    # Its seed with the best value on validation.
    assert report.winner == report.recommended.student == TrialId("combined", 0, 2)
    assert "combined is recommended" in report.verdict
    assert "\n| **combined** |" in as_markdown(report)
    page = render(report, [], [])
    assert page.count('class="winner"') == 1
    assert page.index('class="winner"') < page.index("combined</th>") < page.index("Each pair")
    show_report(report, Path("runs"))
    assert "combined is recommended" in " ".join(capsys.readouterr().out.split())


def test_the_cheapest_of_equivalent_strategies_is_recommended() -> None:
    large = ("distill", *confirmed("distill", [0.95] * SEEDS, 0.9, layers=6))
    small = ("finetune", *confirmed("finetune", [0.94] * SEEDS, 0.9, layers=3))
    report = report_of(large, small, margin=0.03)
    assert report.pairs[0].state == "equivalent"
    assert report.recommended is not None
    assert report.recommended.first_choice == "distill"
    assert report.recommended.equivalent == ("finetune",)
    assert report.winner == TrialId("finetune", 0, 0)
    assert report.verdict.endswith("; finetune is the cheaper one.")


def test_a_strategy_that_is_beaten_on_test_is_not_recommended() -> None:
    worse = ("distill", *confirmed("distill", [0.95] * SEEDS, 0.7))
    better = ("finetune", *confirmed("finetune", [0.90] * SEEDS, 0.9))
    report = report_of(worse, better)
    assert report.pairs[0].better == "finetune"
    assert report.recommended is not None
    assert report.recommended.candidates == ("finetune",)
    assert report.verdict.startswith("finetune is ")


def test_the_teachers_score_and_each_difference_to_it_have_intervals() -> None:
    worse = ("distill", *confirmed("distill", [0.95] * SEEDS, 0.7))
    level = ("finetune", *confirmed("finetune", [0.90] * SEEDS, 0.92))
    report = report_of(worse, level)
    assert report.teacher is not None
    assert report.teacher.ci95 is not None
    low, high = report.teacher.ci95
    # Wilson's interval of 920 of 1,000, by hand: 0.9015 to 0.9353.
    assert (low, high) == pytest.approx((0.9015, 0.9353), abs=0.002)
    states = {
        name: found.confirm.against_teacher.state
        for name, found in report.strategies.items()
        if found.confirm and found.confirm.against_teacher
    }
    assert states == {"distill": "below", "finetune": "undecided"}


def test_before_confirm_the_best_trial_on_validation_is_recommended() -> None:
    records = [trial("distill", 3, 0.9), trial("finetune", 1, 0.92)]
    outcomes = {
        one.id.strategy: SearchOutcome(
            TrialCounts(complete=1),
            BestTrial(
                trial=one.id.number,
                params={},
                settings=one.settings,
                validation=one.best("accuracy") or 0.0,
            ),
            slot_hours=0.1,
            seeds_asked=0,
        )
        for one in records
    }
    report = summarize("made-up", "accuracy", [], outcomes, records, None, ReportFacts())
    assert report.winner == TrialId("finetune", 1)
    assert report.recommended is not None
    assert report.recommended.candidates == ("distill", "finetune")


# --- seeds: auto ---------------------------------------------------------------------------------


def test_with_looks_each_pair_says_what_they_found_and_the_verdict_when_they_were() -> None:
    better = ("finetune", *confirmed("finetune", [0.9] * 3, 0.9))
    worse = ("distill", *confirmed("distill", [0.95] * 3, 0.7))
    report = report_of(better, worse, looks=LookRules(favorite="finetune"))
    (pair,) = report.pairs
    assert (pair.better, pair.seeds) == ("finetune", 3)
    assert [(look.seeds, look.state) for look in pair.looks] == [(3, "better")]
    assert report.rests_on is not None
    assert report.rests_on.startswith(
        "3 seeds of each pair and 1,000 test rows, after a look at 3 "
    )
    assert report.next_step == "Nothing is left to decide: export the student and use it."
    looks = report.to_json()["pairs"][0]["looks"]
    assert looks[0]["ci95"] == report.to_json()["pairs"][0]["ci95"]


def test_a_failed_seed_ends_a_look_and_is_no_part_of_it() -> None:
    records, logits = confirmed("finetune", [0.9] * 3, 0.9)
    failed = trial("finetune", 0, None, records[0].settings, state="failed", seed_index=1)
    del logits[1]
    one = ("finetune", [*records[:2], failed, records[3]], logits)
    other = ("distill", *confirmed("distill", [0.95] * 3, 0.7))
    report = report_of(one, other, looks=LookRules())
    (pair,) = report.pairs
    assert (pair.better, pair.seeds, [look.seeds for look in pair.looks]) == ("finetune", 2, [3])
    found = report.strategies["finetune"].confirm
    assert found is not None
    assert (found.seeds, found.failed) == (2, 1)


@pytest.mark.parametrize("missing", [1, 3])
def test_before_a_look_is_complete_nothing_is_said_about_its_pairs(missing: int) -> None:
    one = ("finetune", *confirmed("finetune", [0.9] * 3, 0.9))
    other = ("distill", *confirmed("distill", [0.95] * (3 - missing), 0.7))
    report = report_of(one, other, looks=LookRules())
    (pair,) = report.pairs
    assert (pair.state, pair.looks, pair.p) == ("undecided", (), None)
    assert pair.verdict == "not judged yet: the first look is at 3 seeds of both"
    assert report.recommended is not None
    assert report.recommended.strategy == ("distill" if missing == 1 else "finetune")
    said = f"{report.verdict} {report.next_step}"
    assert "Run the sweep again: finetune and distill get seeds up to the look at 3." in said
    assert render(report, [], [])
    assert as_markdown(report)


def test_a_mean_is_over_the_seeds_that_are_named_beside_it() -> None:
    one = ("finetune", *confirmed("finetune", [0.9] * 4, 0.9))
    other = ("distill", *confirmed("distill", [0.95] * 3, 0.9))
    found = report_of(one, other, looks=LookRules()).strategies["finetune"].confirm
    assert found is not None
    # The fourth seed belongs to a look that isn't complete.
    assert (found.seeds, len(found.test)) == (3, 3)
    assert found.mean == pytest.approx(np.mean(found.test))
