"""Who works with a cache keeps `kdsweep clean` from removing anything there meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from kdsweep.core.files import only_read
from kdsweep.core.lock_file import open_lock
from kdsweep.core.standing import make_folder

SECONDS_TO_WAIT = 5.0
SECONDS_BETWEEN_TRIES = 0.1


@contextlib.contextmanager
def cache_in_use(cache: Path, *, make: bool = True) -> Iterator[None]:
    """Inside, nothing is cleaned. Any number of processes can use a cache; it waits for a cleaning.

    What can only be read isn't cleaned either. make: make the cache's folder if there is none.
    """
    if only_read(cache) or not (make or cache.is_dir()):
        yield
        return
    make_folder(cache)
    with open_lock(_lock_file(cache)) as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def cleaning(cache: Path) -> Iterator[bool]:
    """Whether nobody uses the cache. Inside, those who want to wait until the end of the block."""
    with open_lock(_lock_file(cache)) as handle:
        until = time.monotonic() + SECONDS_TO_WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    yield False
                    return
                time.sleep(SECONDS_BETWEEN_TRIES)
        yield True


def _lock_file(cache: Path) -> Path:
    return cache / ".in-use.lock"
