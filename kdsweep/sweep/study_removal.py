"""Removing the studies of a sweep from Optuna's database."""

from __future__ import annotations

import optuna
from sqlalchemy.exc import SQLAlchemyError

from kdsweep.databases import shown_database
from kdsweep.errors import KdsweepError, first_line, without_password
from kdsweep.sweep.study_storage import open_storage


def studies_of(storage: str, sweep: str) -> dict[str, int]:
    """The studies of this sweep, and how many trials each has.

    Raises KdsweepError where the database can't be read.
    """
    try:
        found = optuna.get_all_study_summaries(open_storage(storage), include_best_trial=False)
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise _unusable(storage, error) from error
    return {one.study_name: one.n_trials for one in found if _is_of(one.study_name, sweep)}


def remove_studies(storage: str, sweep: str) -> None:
    """Remove all studies of this sweep. Raises KdsweepError; then the call can be repeated."""
    try:
        opened = open_storage(storage)
        for name in studies_of(storage, sweep):
            optuna.delete_study(study_name=name, storage=opened)
    except KeyError:
        # Another process removed it meanwhile.
        return
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise _unusable(storage, error) from error


def _is_of(study: str, sweep: str) -> bool:
    # The name of a sweep has no slash.
    return study.startswith(f"{sweep}/")


def _unusable(storage: str, error: Exception) -> KdsweepError:
    reason = without_password(first_line(error.__cause__ or error))
    return KdsweepError(f"storage: {shown_database(storage)} can't be used: {reason}")
