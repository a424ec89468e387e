"""Writes what happened in the studies to their database: all that has gathered, in one transaction.

A transaction of Optuna's own for each evaluation costs several milliseconds, which hundreds of
slots turn into all of a core.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from pydantic import JsonValue
from sqlalchemy import insert, inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from kdsweep.sweep.study_storage import StudyStorage


@dataclass
class KeptStudy:
    """A strategy's study in the database.

    id: None if it isn't there and nothing may be written. trials: number -> the trial's id there.
    imported: how many trials of earlier sweeps come before the sweep's own ones there, so that
    trial n has the number n + imported.
    """

    id: int | None
    trials: dict[int, int]
    imported: int = 0


@dataclass
class _Change:
    """What the database lacks of one trial.

    new: the trial as it was when it was asked for; None if the database has it. values: by
    evaluation. notes: the pruner's. ended, attributes: the trial at its end, and its notes then.
    """

    study: KeptStudy
    number: int
    new: FrozenTrial | None = None
    values: dict[int, float] = field(default_factory=dict)
    notes: dict[str, JsonValue] = field(default_factory=dict)
    ended: FrozenTrial | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def number_there(self) -> int:
        """The trial's number in the database."""
        return self.number + self.study.imported

    @property
    def trial_id(self) -> int:
        return self.study.trials[self.number]


class StudyWriter:
    """What is still to be written, in the order of its trials. Only one process writes a study."""

    def __init__(self, database: StudyStorage) -> None:
        self._database = database
        self._changes: dict[tuple[int, int], _Change] = {}

    def of(self, study: KeptStudy, number: int) -> _Change:
        """What is to be written of this trial: the caller adds to it."""
        return self._changes.setdefault((id(study), number), _Change(study, number))

    def write(self) -> None:
        """Write it. If the database goes away meanwhile, it is written again, trial by trial, as
        far as it isn't there."""
        if not self._changes:
            return
        changes = list(self._changes.values())
        attempts = iter([True])

        def attempt() -> None:
            if next(attempts, False):
                with contextlib.suppress(IntegrityError):
                    _write_together(self._database.storage, changes)
                    return
            for change in changes:
                _write_alone(self._database.storage, change)

        self._database.retrying(attempt)
        self._changes.clear()


def _write_together(storage: BaseStorage, changes: Sequence[_Change]) -> None:
    """Raises IntegrityError, and writes nothing, where a part of it is there."""
    assert isinstance(storage, RDBStorage)
    new = [change for change in changes if change.new is not None]
    with Session(storage.engine) as session:
        of = {one.trial_id: one for one in changes if one.new is None}
        of |= _insert_trials(session, new)
        _insert_drawn(session, {at: one.new for at, one in of.items() if one.new is not None})
        _insert_values(session, of)
        _end(session, {at: one for at, one in of.items() if one.ended is not None})
        session.commit()
    for trial_id, change in of.items():
        change.study.trials[change.number] = trial_id


def _insert_trials(session: Session, changes: Sequence[_Change]) -> dict[int, _Change]:
    """Insert trials; returns them by the ids that the database gave them."""
    if not changes:
        return {}
    names = [one.key for one in inspect(models.TrialModel).column_attrs if one.key != "trial_id"]
    rows = [{name: getattr(row, name) for name in names} for row in map(_trial_row, changes)]
    # Not as the session's objects, which SQLite would be given one by one.
    session.execute(insert(models.TrialModel), rows)
    model = models.TrialModel
    chosen = select(model.trial_id, model.study_id, model.number).where(
        model.study_id.in_({change.study.id for change in changes}),
        model.number.in_({change.number_there for change in changes}),
    )
    asked = {(change.study.id, change.number_there): change for change in changes}
    return {
        trial_id: asked[study_id, number]
        for trial_id, study_id, number in session.execute(chosen)
        if (study_id, number) in asked
    }


def _trial_row(change: _Change) -> models.TrialModel:
    assert change.new is not None
    return models.TrialModel(
        study_id=change.study.id,
        number=change.number_there,
        state=change.new.state,
        datetime_start=change.new.datetime_start,
    )


def _insert_drawn(session: Session, trials: dict[int, FrozenTrial]) -> None:
    drawn = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(trial.distributions[name]),
        }
        for trial_id, trial in trials.items()
        for name, value in trial.params.items()
    ]
    if drawn:
        session.execute(insert(models.TrialParamModel), drawn)
    for model, attributes in (
        (models.TrialSystemAttributeModel, {at: one.system_attrs for at, one in trials.items()}),
        (models.TrialUserAttributeModel, {at: one.user_attrs for at, one in trials.items()}),
    ):
        if rows := list(_attribute_rows(attributes)):
            session.execute(insert(model), rows)


def _attribute_rows(attributes: dict[int, dict[str, JsonValue]]) -> Iterator[dict[str, object]]:
    for trial_id, of_trial in attributes.items():
        for key, value in of_trial.items():
            yield {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _insert_values(session: Session, changes: dict[int, _Change]) -> None:
    model = models.TrialIntermediateValueModel
    values = []
    for trial_id, change in changes.items():
        for evaluation, value in change.values.items():
            stored, kind = model.intermediate_value_to_stored_repr(value)
            values.append(
                {
                    "trial_id": trial_id,
                    "step": evaluation,
                    "intermediate_value": stored,
                    "intermediate_value_type": kind,
                }
            )
    if values:
        session.execute(insert(model), values)
    if notes := list(_attribute_rows({at: change.notes for at, change in changes.items()})):
        session.execute(insert(models.TrialSystemAttributeModel), notes)


def _end(session: Session, changes: dict[int, _Change]) -> None:
    if not changes:
        return
    attributes = list(_attribute_rows({at: dict(one.attributes) for at, one in changes.items()}))
    if attributes:
        session.execute(insert(models.TrialUserAttributeModel), attributes)
    values = []
    chosen = select(models.TrialModel).where(models.TrialModel.trial_id.in_(changes))
    for row in session.scalars(chosen):
        ended = changes[cast(int, row.trial_id)].ended
        assert ended is not None
        row.state, row.datetime_complete = ended.state, ended.datetime_complete
        for objective, value in enumerate(ended.values or ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            values.append(
                {
                    "trial_id": row.trial_id,
                    "objective": objective,
                    "value": stored,
                    "value_type": kind,
                }
            )
    if values:
        session.execute(insert(models.TrialValueModel), values)


def _write_alone(storage: BaseStorage, change: _Change) -> None:
    """Write what isn't there, through Optuna, which replaces what is."""
    study = change.study
    assert study.id is not None
    if change.new is not None:
        try:
            kept = storage.get_trial_id_from_study_id_trial_number(study.id, change.number_there)
        except KeyError:
            kept = storage.create_new_trial(study.id, template_trial=change.new)
        study.trials[change.number] = kept
    # The error means: it was written, and then the database's answer was lost.
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
        for evaluation, value in change.values.items():
            storage.set_trial_intermediate_value(change.trial_id, evaluation, value)
        for name, note in change.notes.items():
            storage.set_trial_system_attr(change.trial_id, name, note)
        for name, text in change.attributes.items():
            storage.set_trial_user_attr(change.trial_id, name, text)
        if change.ended is not None:
            storage.set_trial_state_values(change.trial_id, change.ended.state, change.ended.values)
