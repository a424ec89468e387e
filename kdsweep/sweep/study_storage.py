"""The database with the studies: opened, kept trying, and a sweep's studies renamed in it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, TypeVar

import optuna
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from kdsweep.core.standing import check_standing
from kdsweep.databases import (
    made_alone,
    may_write_ahead,
    shown_database,
    sqlite_file,
    url_to_open,
    write_ahead,
)
from kdsweep.errors import KdsweepError, first_line, without_password

PATIENCE_SECONDS = 600
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
# Errors of SQLite that don't go away by themselves, and what to do.
LASTING_ERRORS = {
    sqlite3.SQLITE_FULL: "the disk is full; make room",
    sqlite3.SQLITE_READONLY: "you may only read it; get the right to write it",
}
T = TypeVar("T")


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """The database, made if there is none. Raises KdsweepError if it can't be opened."""
    options: dict[str, Any] = {}
    shown = shown_database(url)
    alone = made_alone(url)
    if (file := sqlite_file(url)) is not None:
        url = url_to_open(url)
        if may_write_ahead(file.parent):
            options = {"pool_events": [(write_ahead, "connect")]}
    elif url.startswith("postgresql"):
        options = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}
        if url.startswith("postgresql://") and find_spec("psycopg") is not None:
            url = "postgresql+psycopg" + url.removeprefix("postgresql")
    try:
        with alone:
            return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        if isinstance(error, ImportError) and url.startswith("postgresql"):
            reason = "its driver isn't installed; pip install 'kdsweep[postgresql]'"
        raise KdsweepError(
            f"storage: {shown} can't be opened as an Optuna database: {without_password(reason)}"
        ) from error


def retrying(call: Callable[[], T], url: str, say: Callable[[str], None]) -> T:
    """What `call` returns, which uses the database at `url`. It is repeated for up to ten minutes
    while the database is away.

    Raises KdsweepError where that is too long or doesn't help, and FolderGone where the file was
    removed: SQLite would go on writing to what nobody finds any more.
    """
    file = sqlite_file(url)
    started = time.monotonic()
    pause = FIRST_PAUSE_SECONDS
    while True:
        if file is not None:
            check_standing(file)
        try:
            return call()
        except (
            OperationalError,
            InterfaceError,
            optuna.exceptions.StorageInternalError,
        ) as error:
            cause = error.__cause__ or error
            if not isinstance(cause, OperationalError | InterfaceError):
                raise
            shown = shown_database(url)
            reason = without_password((str(cause).strip().splitlines() or [""])[0])
            # SQLite puts more of the reason into the higher bits.
            number = getattr(cause.orig, "sqlite_errorcode", 0) & 0xFF
            if number in LASTING_ERRORS:
                raise KdsweepError(
                    f"storage: {shown}: {LASTING_ERRORS[number]} and run the same command again"
                ) from error
            if time.monotonic() - started > PATIENCE_SECONDS:
                raise KdsweepError(
                    f"storage: {shown} hasn't answered for {PATIENCE_SECONDS // 60} minutes: "
                    f"{reason}"
                ) from error
            if pause == FIRST_PAUSE_SECONDS:
                say(f"storage: {shown} doesn't answer ({reason}); trying again")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def rename_studies(storage: str, old: str, new: str, strategies: Iterable[str]) -> None:
    """Move the studies of sweep `old` to the name `new`."""
    opened = open_storage(storage)
    summaries = optuna.get_all_study_summaries(opened, include_best_trial=False)
    names = {summary.study_name for summary in summaries}
    for strategy in strategies:
        before = f"{old}/{strategy}"
        after = f"{new}/{strategy}"
        if before not in names:
            continue
        if after in names:  # an earlier attempt was stopped between the copy and the removal
            optuna.delete_study(study_name=after, storage=opened)
        optuna.copy_study(
            from_study_name=before, from_storage=opened, to_storage=opened, to_study_name=after
        )
        optuna.delete_study(study_name=before, storage=opened)
