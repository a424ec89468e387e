"""The database of a sweep's studies: opened, waited for while it is away, replaced if damaged."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, SQLAlchemyError

from kdsweep.core.standing import check_standing, stands_anew
from kdsweep.databases import (
    damage_in,
    is_damage,
    made_alone,
    may_write_ahead,
    set_aside,
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
# How often a database is replaced while one sweep runs. The disk is at fault if it happens again.
MOST_REPLACED = 3
T = TypeVar("T")
Access = Literal["read", "write", "replace"]


class StudyStorage:
    """The database with this Optuna URL.

    access: what may be done to it. With `replace`, a damaged file gets another name, and a new one
    its place, which the studies are written to again. With `read`, an empty storage in memory
    stands in for a damaged file. replaced: called after a file was replaced while the sweep runs.

    Raises KdsweepError if it can't be opened.
    """

    def __init__(
        self,
        url: str,
        say: Callable[[str], None] = lambda line: None,
        access: Access = "write",
    ) -> None:
        self.shown = shown_database(url)
        file = sqlite_file(url)
        # The database, where it is a file.
        self.files = [] if file is None else [file]
        self.replaced: Callable[[], None] = lambda: None
        self._url = url
        self._say = say
        self.access = access
        self._times_replaced = 0
        self.storage = self._open()

    @property
    def stands_in(self) -> bool:
        """Whether the database itself is damaged or gone, and nothing may be written."""
        return isinstance(self.storage, InMemoryStorage)

    def _open(self) -> BaseStorage:
        file = sqlite_file(self._url)
        if self.access == "read" and file is not None and not file.exists():
            return InMemoryStorage()
        if file is None or (damage := damage_in(file)) is None:
            return open_storage(self._url)
        if self.access == "replace":
            return self._in_place_of_damaged(damage)
        if self.access == "write":
            raise KdsweepError(self._damaged_words(damage))
        self._say(
            f"storage: {file} is damaged ({damage}); what is shown is read from the trials' "
            "folders, and the next `kdsweep run` writes it again"
        )
        return InMemoryStorage()

    def _in_place_of_damaged(self, damage: str) -> RDBStorage:
        """A new database where the damaged file was."""
        file = self.files[0]
        if (aside := set_aside(file)) is not None:
            self._say(
                f"storage: {file} was damaged ({damage}) and is now called {aside.name}; a new "
                "one is made from the trials' folders"
            )
        storage = open_storage(self._url)
        stands_anew(file)
        return storage

    def _replace(self, error: BaseException) -> None:
        """The file was damaged while the sweep ran: write all that is known to a new one."""
        self._times_replaced += 1
        if self.access != "replace" or self._times_replaced > MOST_REPLACED:
            raise KdsweepError(self._damaged_words(first_line(error))) from error
        if isinstance(self.storage, RDBStorage):
            self.storage.engine.dispose()
        self.storage = self._in_place_of_damaged(first_line(error))
        self.replaced()

    def _damaged_words(self, damage: str) -> str:
        return (
            f"storage: {self.shown} is damaged ({damage}); move the file away and run the same "
            "command again: the studies are made again from the trials' folders"
        )

    def retrying(self, call: Callable[[], T]) -> T:
        """What `call` returns; it is repeated for up to ten minutes while the database is away."""
        started = time.monotonic()
        pause = FIRST_PAUSE_SECONDS
        while True:
            for file in self.files:
                # SQLite would write to one that nobody finds any more.
                check_standing(file)
            try:
                return call()
            except (DatabaseError, InterfaceError, optuna.exceptions.StorageInternalError) as error:
                cause: BaseException = error
                # Optuna wraps SQLAlchemy's error, whose own cause is the database driver's.
                if isinstance(error, optuna.exceptions.StorageInternalError):
                    cause = error.__cause__ or error
                if is_damage(cause):
                    self._replace(cause)
                    continue
                if not isinstance(cause, OperationalError | InterfaceError):
                    raise
                self._check_it_may_pass(cause, started)
                reason = without_password(first_line(cause))
                if pause == FIRST_PAUSE_SECONDS:
                    self._say(f"storage: {self.shown} doesn't answer ({reason}); trying again")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _check_it_may_pass(self, error: OperationalError | InterfaceError, started: float) -> None:
        """Raise KdsweepError where waiting is of no use, or has been long enough."""
        # SQLite puts more of the reason into the higher bits.
        number = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if number in LASTING_ERRORS:
            raise KdsweepError(
                f"storage: {self.shown}: {LASTING_ERRORS[number]} and run the same command again"
            ) from error
        if time.monotonic() - started > PATIENCE_SECONDS:
            raise KdsweepError(
                f"storage: {self.shown} hasn't answered for {PATIENCE_SECONDS // 60} minutes: "
                f"{without_password(first_line(error))}"
            ) from error


def rename_studies(database: StudyStorage, old: str, new: str) -> None:
    """Move the studies of sweep `old` to the name `new`, those of earlier spaces too."""
    opened = database.storage
    summaries = optuna.get_all_study_summaries(opened, include_best_trial=False)
    names = {summary.study_name for summary in summaries}
    for before in sorted(name for name in names if name.startswith(f"{old}/")):
        after = f"{new}/{before.removeprefix(f'{old}/')}"
        if after in names:  # an earlier attempt was stopped between the copy and the removal
            optuna.delete_study(study_name=after, storage=opened)
        optuna.copy_study(
            from_study_name=before, from_storage=opened, to_storage=opened, to_study_name=after
        )
        optuna.delete_study(study_name=before, storage=opened)


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage at this URL, with its tables. Raises KdsweepError."""
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
            return RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, ImportError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        if isinstance(error, ImportError) and url.startswith("postgresql"):
            reason = "its driver isn't installed; pip install 'kdsweep[postgresql]'"
        raise KdsweepError(
            f"storage: {shown} can't be opened as an Optuna database: {without_password(reason)}"
        ) from error
