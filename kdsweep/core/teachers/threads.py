"""With how many CPU threads torch computes while teachers are made in this process.

The last bits of a teacher depend on them, and it may be made by the job of a trial too, where the
cache has lost it. torch is imported once one is made: not each job needs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class _Scope:
    """threads: None where teachers have those that torch has anyway."""

    threads: int | None = None


_SCOPE = _Scope()


@contextlib.contextmanager
def with_teacher_threads(threads: int | None) -> Iterator[None]:
    """Meanwhile teachers are made with so many threads; None: with those that torch has."""
    before, _SCOPE.threads = _SCOPE.threads, threads
    try:
        yield
    finally:
        _SCOPE.threads = before


def teacher_threads() -> int | None:
    """With how many threads teachers are made now; None: with those that torch has."""
    return _SCOPE.threads


@contextlib.contextmanager
def making_teachers() -> Iterator[None]:
    """Meanwhile torch has the threads for that."""
    from kdsweep.core.device import using_threads

    with using_threads(_SCOPE.threads):
        yield
