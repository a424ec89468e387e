"""Counts SQL statements: what tells of a cost that grows, on a machine of any speed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import Engine, event


@contextlib.contextmanager
def counting_statements() -> Iterator[list[str]]:
    """The statements of all databases in this block; one for many rows counts once."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
