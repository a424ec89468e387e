"""What of the Hub is on this machine: the caches, the versions in them, and lists of their files.

A cache has the layout of huggingface_hub: `models--OWNER--NAME/snapshots/COMMIT/` and
`refs/REVISION`, which holds a commit. Ours has `listings/` too: what a version consists of, so that
a part is never taken for the whole.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path

from kdsweep.core.files import only_read, write_atomically, write_json
from kdsweep.core.hub.repository import MAIN, Repository, is_commit
from kdsweep.core.standing import make_folder

# A folder in a cache that `datasets` is shown.
READING = ".reading-"
LEFT_SECONDS = 3600.0
Listing = Mapping[str, "HubFile"]


@dataclass(frozen=True)
class HubFile:
    """size: in bytes. sha256: of its content, for large files. git: the name that git gives the
    content of all others, a SHA-1.
    """

    size: int
    sha256: str | None = None
    git: str | None = None


@dataclass
class _Scope:
    """Where this process looks. own: the caches beside the user's, the first one first.
    local: how many `snapshots_only` are open. shared: whether other machines need the files.
    commits: what was asked of the Hub in this process. settled: for which nothing is asked.
    """

    own: list[Path] = field(default_factory=list)
    local: int = 0
    shared: bool = False
    commits: dict[Repository, str] = field(default_factory=dict)
    settled: set[Repository] = field(default_factory=set)
    listings: dict[Repository, Listing] = field(default_factory=dict)


_SCOPE = _Scope()


def hub_cache(cache: Path) -> Path:
    """The cache for the Hub's files in a home's cache: all workers see it."""
    return cache / "hub"


@contextlib.contextmanager
def looking_in(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Look into this cache too, before the user's own.

    shared: other machines see this cache and not the user's, so it gets all files.
    """
    before = _SCOPE.shared
    _SCOPE.own.insert(0, folder)
    _SCOPE.shared = before or shared
    try:
        yield
    finally:
        _SCOPE.own.remove(folder)
        _SCOPE.shared = before


@contextlib.contextmanager
def snapshots_only(folder: Path) -> Iterator[None]:
    """The same, and ask the Hub for nothing."""
    _SCOPE.local += 1
    try:
        with looking_in(folder):
            yield
    finally:
        _SCOPE.local -= 1


def may_ask() -> bool:
    return _SCOPE.local == 0


def users_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def caches() -> list[Path]:
    """All caches, the user's own last."""
    return list(dict.fromkeys([*_SCOPE.own, users_cache()]))


def is_shared() -> bool:
    return _SCOPE.shared


def place_for_downloads() -> Path:
    """The cache that gets what isn't here yet: the first one that can be written to. A plan for a
    home that can only be read still needs a place."""
    return next((one for one in caches() if not only_read(one)), caches()[0])


def remove_leftovers() -> None:
    """Remove what killed processes left in the cache of this home: parts of files, and folders of
    links. Young ones may be another process's."""
    if not _SCOPE.own:
        return
    cache = _SCOPE.own[0]
    for one in [*cache.glob("*/blobs/*.incomplete"), *cache.glob(f"{READING}*")]:
        with contextlib.suppress(OSError):
            if time.time() - one.stat().st_mtime > LEFT_SECONDS:
                if one.is_dir():
                    shutil.rmtree(one)
                else:
                    one.unlink()


# --- versions ------------------------------------------------------------------------------------


def remember_commit(repository: Repository, commit: str) -> None:
    """Keep what a revision means now, for this process and for later ones without a network."""
    _SCOPE.commits[repository] = commit
    if is_commit(repository.revision) or not _SCOPE.own:
        return
    file = _ref(_SCOPE.own[0], repository)
    if only_read(_SCOPE.own[0].parent) or (file.is_file() and file.read_text() == commit):
        return
    make_folder(file.parent)
    write_atomically(file, lambda stream: stream.write(commit.encode()))


def commit_here(repository: Repository) -> str | None:
    """The commit that a revision means as far as this machine knows."""
    revision = repository.revision
    if revision is not None and is_commit(revision):
        return revision
    if (asked := _SCOPE.commits.get(repository)) is not None:
        return asked
    for cache in caches():
        if (commit := _commit_in(cache, repository)) is not None:
            return commit
    return None


def settle_on_users_commit(repository: Repository) -> None:
    """Let the revision mean what the user's own cache says, if that says anything, and no longer
    what the Hub says."""
    for cache in reversed(caches()):
        if (commit := _commit_in(cache, repository)) is not None:
            remember_commit(repository, commit)
            _SCOPE.settled.add(repository)
            return


def is_settled(repository: Repository) -> bool:
    return repository in _SCOPE.settled


def _commit_in(cache: Path, repository: Repository) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = _ref(cache, repository).read_text(encoding="utf-8").strip()
        if is_commit(commit):
            return commit
    return None


def _ref(cache: Path, repository: Repository) -> Path:
    return cache / repository.folder / "refs" / (repository.revision or MAIN)


# --- files ---------------------------------------------------------------------------------------


def snapshots_of(repository: Repository, commit: str) -> list[Path]:
    """The folders that have this version, or a part of it."""
    found = [cache / repository.folder / "snapshots" / commit for cache in caches()]
    return [folder for folder in found if folder.is_dir()]


def remember_listing(repository: Repository, commit: str, listing: Listing) -> None:
    _SCOPE.listings[repository.at(commit)] = listing
    if _SCOPE.own and not only_read(_SCOPE.own[0].parent):
        file = _listing_file(_SCOPE.own[0], repository, commit)
        make_folder(file.parent)
        write_json(file, {name: astuple(one) for name, one in listing.items()})


def listing_here(repository: Repository, commit: str) -> Listing | None:
    """What the version consists of, if this machine knows; a damaged list is no list."""
    if (found := _SCOPE.listings.get(repository.at(commit))) is not None:
        return found
    for cache in _SCOPE.own:
        with contextlib.suppress(OSError, ValueError, TypeError):
            file = _listing_file(cache, repository, commit)
            facts = json.loads(file.read_text(encoding="utf-8"))
            # A version never changes, so it is read once.
            listing = {name: HubFile(*one) for name, one in facts.items()}
            return _SCOPE.listings.setdefault(repository.at(commit), listing)
    return None


def _listing_file(cache: Path, repository: Repository, commit: str) -> Path:
    return cache / "listings" / repository.folder / f"{commit}.json"
