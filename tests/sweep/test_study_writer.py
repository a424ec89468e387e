"""What happened in a study is written together, as Optuna would have written it bit by bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import IntegrityError, OperationalError
from statements import counting_statements

from kdsweep.sweep import study_storage, study_writer
from kdsweep.sweep.study_storage import StudyStorage
from kdsweep.sweep.study_writer import KeptStudy, StudyWriter

ALPHA = {"alpha": FloatDistribution(0.0, 1.0)}


def asked(number: int) -> FrozenTrial:
    trial = create_trial(
        state=TrialState.RUNNING, params={"alpha": number / 10}, distributions=ALPHA
    )
    trial.number = number
    trial.system_attrs = {"fixed_params": {"alpha": number / 10}}
    return trial


def ended(number: int, state: TrialState, value: float | None) -> FrozenTrial:
    trial = asked(number)
    trial.state, trial.values = state, None if value is None else [value]
    trial.datetime_complete = datetime(2026, 1, 1)
    return trial


def three_trials(writer: StudyWriter, study: KeptStudy) -> None:
    """One runs, one is complete and one has diverged, with what an evaluation can be."""
    for number in range(3):
        writer.of(study, number).new = asked(number)
    writer.of(study, 0).values = {1: 0.5, 2: math.nan}
    writer.of(study, 1).values = {1: math.inf, 2: 0.75}
    writer.of(study, 1).notes = {"completed_rung_0": 0.75}
    writer.of(study, 1).ended = ended(1, TrialState.COMPLETE, 0.75)
    writer.of(study, 1).attributes = {"kdsweep.state": "complete"}
    writer.of(study, 2).ended = ended(2, TrialState.PRUNED, None)
    writer.of(study, 2).attributes = {"kdsweep.state": "diverged", "kdsweep.reason": "why"}


def kept(file: Path, write: Callable[[StudyWriter, KeptStudy], None]) -> list[Any]:
    """All that the database has of the trials, apart from times."""
    database = StudyStorage(f"sqlite:///{file}")
    study = optuna.create_study(storage=database.storage, study_name="s", direction="maximize")
    write(StudyWriter(database), KeptStudy(study._study_id, {}))
    found = optuna.load_study(study_name="s", storage=database.storage).get_trials()
    return [
        (
            one.number,
            one.state,
            one.values,
            one.params,
            one.distributions,
            str(one.intermediate_values),
            one.user_attrs,
            one.system_attrs,
            one.datetime_start is not None,
            one.datetime_complete is not None,
        )
        for one in found
    ]


def together(writer: StudyWriter, study: KeptStudy) -> None:
    three_trials(writer, study)
    writer.write()


def test_it_is_what_optuna_writes_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = kept(tmp_path / "together.db", together)
    assert [one[1].name for one in at_once] == ["RUNNING", "COMPLETE", "PRUNED"]

    def refuse(*arguments: object) -> None:
        raise IntegrityError("INSERT", None, Exception("a part of it is there"))

    monkeypatch.setattr(study_writer, "_write_together", refuse)
    assert kept(tmp_path / "alone.db", together) == at_once


@pytest.mark.parametrize("is_written", [True, False], ids=["answer-lost", "never-arrived"])
def test_it_is_written_once_if_the_database_goes_away_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    expected = kept(tmp_path / "expected.db", together)
    monkeypatch.setattr(study_storage, "FIRST_PAUSE_SECONDS", 0.0)
    really = study_writer._write_together

    def break_off(storage: Any, changes: Any) -> None:
        if is_written:
            really(storage, changes)
        raise OperationalError("COMMIT", None, Exception("the connection was lost"))

    monkeypatch.setattr(study_writer, "_write_together", break_off)
    assert kept(tmp_path / "interrupted.db", together) == expected


def test_a_trial_is_written_as_it_goes_on(tmp_path: Path) -> None:
    def bit_by_bit(writer: StudyWriter, study: KeptStudy) -> None:
        for number in range(3):
            writer.of(study, number).new = asked(number)
        writer.write()
        writer.of(study, 1).values = {1: math.inf}
        writer.of(study, 0).values = {1: 0.5, 2: math.nan}
        writer.write()
        writer.of(study, 1).values = {2: 0.75}
        writer.of(study, 1).notes = {"completed_rung_0": 0.75}
        writer.of(study, 1).ended = ended(1, TrialState.COMPLETE, 0.75)
        writer.of(study, 1).attributes = {"kdsweep.state": "complete"}
        writer.of(study, 2).ended = ended(2, TrialState.PRUNED, None)
        writer.of(study, 2).attributes = {"kdsweep.state": "diverged", "kdsweep.reason": "why"}
        writer.write()

    assert kept(tmp_path / "1.db", bit_by_bit) == kept(tmp_path / "2.db", together)


def test_the_number_of_statements_does_not_grow_with_the_number_of_trials(tmp_path: Path) -> None:
    found = []
    for count in (3, 30):

        def write(writer: StudyWriter, study: KeptStudy, count: int = count) -> None:
            for number in range(count):
                change = writer.of(study, number)
                change.new, change.values = asked(number % 10), {1: 0.5}
                change.ended = ended(number % 10, TrialState.COMPLETE, 0.75)
                change.attributes = {"kdsweep.state": "complete"}
            with counting_statements() as statements:
                writer.write()
            found.append(len(statements))

        assert len(kept(tmp_path / str(count), write)) == count
    few, many = found
    assert few == many > 0
