"""The verdict of a search for the cheapest student claims no more than its runs show."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from made_up_sweeps import settings_of, trial

from kdsweep.config.sweep import Cheapest
from kdsweep.report.cheapest import cheapest_student, cheapest_verdict
from kdsweep.report.model import BestTrial, Finalist, StrategyResult, TeacherFacts, TrialCounts
from kdsweep.report.verdict import Verdict

RULE = Cheapest(least="size", within=0.01, of="teacher")
SETTINGS = settings_of(layers=3)
MAY_BE = "distill-0 (3 layers) is the smallest student found that may be: "


def strategy(value: float, judged: Sequence[float] = ()) -> StrategyResult:
    best = BestTrial(trial=0, params={}, settings=SETTINGS, validation=value)
    finalists = ()
    if judged:
        mean = sum(judged) / len(judged)
        one = Finalist(trial=0, seeds=len(judged), values=tuple(judged), mean=mean, chosen=True)
        finalists = (one,)
    counts = TrialCounts(complete=1)
    return StrategyResult(trials=counts, best=best, slot_hours=0, confirm=None, finalists=finalists)


def verdict(**strategies: StrategyResult) -> tuple[Verdict, bool | None]:
    records = [trial(name, 0, found.reached or 0, SETTINGS) for name, found in strategies.items()]
    found = cheapest_student(RULE, "accuracy", TeacherFacts(validation=0.9), strategies, records)
    said = cheapest_verdict("accuracy", found, strategies)
    assert found is not None and said is not None
    return said, found.good_enough


@pytest.mark.parametrize(("value", "words"), [(0.9, MAY_BE), (0.8, "is the nearest: ")])
def test_one_trial_shows_no_student_to_be_good_enough(value: float, words: str) -> None:
    said, good_enough = verdict(distill=strategy(value))
    assert good_enough is None
    assert said.says.startswith("No student is shown to be within 1 point of the teacher yet; by")
    assert words in said.says
    assert said.next_step is not None and "confirm.seeds" in said.next_step


def test_seeds_show_it_and_as_long_as_a_strategy_is_not_judged_only_so_far() -> None:
    judged = strategy(0.9, [0.9, 0.901, 0.9])
    said, good_enough = verdict(distill=judged)
    assert good_enough and "is the smallest student found that is within 1 point" in said.says
    said, good_enough = verdict(distill=judged, finetune=strategy(0.9))
    assert good_enough and "the smallest student found so far that is within" in said.says
    assert said.next_step == "Finalists of finetune aren't judged yet: run the sweep to its end."
