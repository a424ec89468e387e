"""`kdsweep clean`: how large the caches are, and removing what no sweep uses."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kdsweep.core.cache_lock import cleaning
from kdsweep.core.files import only_read
from kdsweep.core.lock_file import open_lock
from kdsweep.errors import KdsweepError, first_few
from kdsweep.housekeeping.cache_entries import KINDS, Entry, cache_entries, read_uses
from kdsweep.sweep.folders import Home


@dataclass(frozen=True)
class CacheSize:
    """One kind of entry: how many, their bytes, and of those what would be removed."""

    kind: str
    entries: int
    bytes: int
    unused_entries: int
    unused_bytes: int


@dataclass(frozen=True)
class Cleaning:
    """The caches of a home. running: sweeps that run. unread: sweeps whose use isn't known.

    removed_bytes: None where nothing was to be removed.
    """

    home: str
    sizes: tuple[CacheSize, ...]
    running: tuple[str, ...]
    unread: tuple[str, ...]
    removed_bytes: int | None = None

    @property
    def unused_bytes(self) -> int:
        return sum(one.unused_bytes for one in self.sizes)

    def to_json(self) -> dict[str, object]:
        """As `kdsweep clean --json` prints it."""
        return asdict(self)


def describe_caches(home: Home, *, everything: bool) -> Cleaning:
    """How large the caches are. everything: what sweeps use counts as unused, if it is made again.

    Changes nothing. Raises KdsweepError where home can't be read.
    """
    home.check_usable()
    return _describe(home, everything)[0]


def clean(home: Home, *, everything: bool) -> Cleaning:
    """Remove what is unused. Raises KdsweepError where that can't be done now."""
    home.check_writable()
    if home.cache.is_symlink():
        raise KdsweepError(
            f"{home.cache} is a link to {home.cache.resolve()}, which other homes may use too; "
            "nothing was removed: clean it there by hand"
        )
    if not home.cache.is_dir():
        return _describe(home, everything)[0]
    if only_read(home.cache):
        raise KdsweepError(f"nothing was removed: you may not write to {home.cache}")
    with cleaning(home.cache) as is_alone:
        found, entries = _describe(home, everything)
        if found.running or not is_alone:
            who = first_few(found.running) or "another command"
            raise KdsweepError(
                f"nothing was removed: {who} uses the cache now; wait for it, or stop it "
                "(kdsweep stop NAME)"
            )
        removed = sum(one.bytes for one in entries if _may_go(one, everything) and _remove(one))
        return Cleaning(found.home, found.sizes, (), found.unread, removed)


def _describe(home: Home, everything: bool) -> tuple[Cleaning, list[Entry]]:
    uses = read_uses(home)
    entries = cache_entries(home, uses)
    sizes: list[CacheSize] = []
    for kind in KINDS:
        own = [one for one in entries if one.kind == kind]
        unused = [one for one in own if _may_go(one, everything)]
        sizes.append(
            CacheSize(
                kind,
                len(own),
                sum(one.bytes for one in own),
                len(unused),
                sum(one.bytes for one in unused),
            )
        )
    return Cleaning(str(home.root), tuple(sizes), _running(home), tuple(uses.unread)), entries


def _may_go(entry: Entry, everything: bool) -> bool:
    if not entry.is_used:
        return True
    return everything and not entry.is_kept and entry.kind != "leftovers"


def _running(home: Home) -> tuple[str, ...]:
    """Sweeps that run now, those that just start too."""
    if not home.sweeps.is_dir():
        return ()
    folders = [home.sweep(root.name) for root in home.sweeps.iterdir()]
    return tuple(
        folder.name
        for folder in folders
        if (holder := folder.holder()) is not None and holder.doing == "run"
    )


def _remove(entry: Entry) -> bool:
    """Whether the entry was removed. One that is being written is left alone."""
    with _not_written(entry.paths[0]) as is_free:
        if is_free:
            for path in entry.paths:
                _remove_path(path)
    return is_free


@contextlib.contextmanager
def _not_written(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock with which this is written. Inside, nobody can take it."""
    name = path.name.removesuffix("-training")
    if name.startswith("."):
        name = name.split(".")[1]
    file = path.with_name(f"{name}.lock")
    if not file.exists():
        yield True
        return
    with open_lock(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _remove_path(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    gone = path
    if not path.name.startswith("."):
        # A folder that is only half there would be taken for a whole one.
        gone = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        path.rename(gone)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(gone)
