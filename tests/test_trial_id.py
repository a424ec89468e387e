"""A trial's identity: its name, its phase, and the way back from the name."""

from __future__ import annotations

import pytest

from kdsweep.trial_id import TrialId


@pytest.mark.parametrize(
    ("trial", "name", "phase"),
    [
        (TrialId("distill", 0), "distill-0", "search"),
        (TrialId("distill", 12, 3), "distill-12-seed-3", "confirm"),
        (TrialId("distill", 12, 3, is_finalist=True), "distill-12-finalist-3", "finalist"),
        (TrialId("distill-7", 1), "distill-7-1", "search"),
        (TrialId("a.b_c-seed", 4, 0), "a.b_c-seed-4-seed-0", "confirm"),
    ],
)
def test_a_name_leads_back_to_its_trial(trial: TrialId, name: str, phase: str) -> None:
    assert (trial.name, trial.phase) == (name, phase)
    assert TrialId.parse(name) == trial
    assert TrialId.parse(name, trial.phase) == trial


def test_where_a_name_has_two_readings_the_phase_decides() -> None:
    assert TrialId.parse("a-0-seed-1") == TrialId("a", 0, 1)
    assert TrialId.parse("a-0-seed-1", "search") == TrialId("a-0-seed", 1)
    finalist = TrialId("a", 0, 1, is_finalist=True)
    assert TrialId.parse("a-0-finalist-1") == finalist
    assert TrialId.parse("a-0-finalist-1", "search") == TrialId("a-0-finalist", 1)
    assert TrialId.parse("a-0-seed-1-finalist-1").strategy == "a-0-seed"


@pytest.mark.parametrize(
    "name", ["", "distill", "-1", "distill-x", "distill-1-seed-", "a-finalist-"]
)
def test_what_is_no_name_of_a_trial_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no trial"):
        TrialId.parse(name)
    with pytest.raises(ValueError, match="is no trial"):
        TrialId.parse("distill-1", "confirm")
