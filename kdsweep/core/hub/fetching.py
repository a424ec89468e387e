"""Bringing a version's files to this machine: its commit, what it consists of, downloads."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kdsweep.core.files import write_atomically
from kdsweep.core.hub.client import (
    BUSY,
    BUSY_SECONDS,
    NOT_ASKED,
    HubFault,
    asking,
    busy,
    checking,
    is_offline,
    not_the_hub,
    unreachable,
)
from kdsweep.core.hub.repository import Repository, is_commit
from kdsweep.core.hub.snapshots import (
    HubFile,
    Listing,
    commit_here,
    is_settled,
    is_shared,
    listing_here,
    may_ask,
    place_for_downloads,
    remember_commit,
    remember_listing,
    remove_leftovers,
    snapshots_of,
)
from kdsweep.core.lock_file import make_lock_folder
from kdsweep.core.standing import make_folder
from kdsweep.errors import DataError, HubUnreachable, KdsweepError, first_few, first_line

Made = TypeVar("Made")
AT_ONCE = 4
SECONDS_BETWEEN_TRIES = 1.0
# How often a file is fetched whose content turns out to be wrong.
MOST_DAMAGED = 3


class Progress:
    """Is told about downloads, from several threads. This one ignores it; a subclass shows it."""

    def start(self, what: str, size: int) -> None:
        """`what` is fetched now, `size` bytes."""

    def advance(self, count: int) -> None:
        """So many bytes have arrived."""

    def end(self) -> None:
        """All that was started is here, or has failed."""


# --- which commit --------------------------------------------------------------------------------


def commit_of(repository: Repository, *, key: str) -> str:
    """The commit that a revision means: of the Hub if it may be asked, else of this machine.

    key: what names the repository, for messages. Raises HubUnreachable where neither knows, and
    what `asking` raises.
    """
    known = commit_here(repository)
    is_final = is_commit(repository.revision) or is_settled(repository) or not may_ask()
    if known is not None and is_final:
        return known
    try:
        return asked_commit(repository, key=key)
    except HubUnreachable:
        if known is None:
            raise
        return known


def asked_commit(repository: Repository, *, key: str, patiently: bool = True) -> str:
    """The commit that the Hub says a revision means now; asked once if not `patiently`.

    Raises what `asking` raises.
    """
    if not may_ask() or is_offline():
        raise unreachable(repository, _not_asked(), key=key, is_away=True)
    with asking(repository, key=key) as api:
        info = _again_and_again(
            lambda: api.repo_info(
                repository.name, repo_type=repository.kind, revision=repository.revision
            ),
            tries=None if patiently else 1,
        )
    if repository.kind == "dataset" and info.id != repository.name:
        raise DataError(
            f"{key}: the Hub calls the dataset {repository.name!r} {info.id!r} now; write that name"
        )
    commit = str(info.sha)
    remember_commit(repository, commit)
    return commit


def _not_asked() -> str:
    return NOT_ASKED if is_offline() else "isn't asked while a sweep runs"


def files_of(repository: Repository, commit: str, *, key: str) -> Listing:
    """What this version consists of.

    Raises HubUnreachable if only the Hub knows and it can't be used now, and what `asking` raises.
    """
    if (found := listing_here(repository, commit)) is not None:
        return found
    if not may_ask() or is_offline():
        raise unreachable(repository.at(commit), _not_asked(), key=key, is_away=True)
    with asking(repository.at(commit), key=key) as api:
        from huggingface_hub.hf_api import RepoFile

        tree = _again_and_again(
            lambda: list(
                api.list_repo_tree(
                    repository.name, repo_type=repository.kind, revision=commit, recursive=True
                )
            )
        )
        listing = {
            one.path: HubFile(one.size, one.lfs.sha256 if one.lfs else None, one.blob_id)
            for one in tree
            if isinstance(one, RepoFile)
        }
        if not listing:
            raise HubFault(not_the_hub("a version without files"))
    remember_listing(repository, commit, listing)
    return listing


def _again_and_again(ask: Callable[[], Made], *, tries: int | None = None) -> Made:
    """What `ask` returns. A fault that passes is waited for; the client ends the waiting."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    tried = 0
    while True:
        tried += 1
        try:
            return ask()
        except (httpx2.TransportError, HfHubHTTPError) as error:
            response = getattr(error, "response", None)
            if tried == tries or (response is not None and response.status_code not in BUSY):
                raise
        time.sleep(SECONDS_BETWEEN_TRIES)


# --- downloads -----------------------------------------------------------------------------------


def snapshot_with(
    repository: Repository,
    commit: str,
    files: Sequence[str],
    *,
    key: str,
    progress: Progress | None = None,
) -> Path:
    """A folder with all of these files of a version; those that no cache has are downloaded.

    Raises HubUnreachable if some can't be, and what `asking` raises.
    """
    listing = listing_here(repository, commit) or {}
    for folder in snapshots_of(repository, commit):
        if all(_is_here(folder / name, listing.get(name)) for name in files):
            return where_all_see_it(folder, files)
    cache = place_for_downloads()
    folder = cache / repository.folder / "snapshots" / commit
    missing = [name for name in files if not _is_here(folder / name, listing.get(name))]
    if not may_ask() or is_offline():
        fault = f"{_not_asked()}; {first_few(missing, 3)} missing"
        raise unreachable(repository, fault, key=key, is_away=True)
    for name in missing:
        # One that is too short would be taken for the whole.
        _remove(folder / name)
    _download(repository, commit, missing, cache, key=key, progress=progress or Progress())
    return folder


def _is_here(file: Path, facts: HubFile | None) -> bool:
    return file.is_file() and (facts is None or file.stat().st_size == facts.size)


def _remove(file: Path) -> None:
    """Remove a file of a cache, which is a link to its content or the content itself."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def where_all_see_it(folder: Path, files: Iterable[str]) -> Path:
    """A snapshot that all workers see: this one, or a copy of these files in the shared cache."""
    cache = place_for_downloads()
    if not is_shared() or folder.is_relative_to(cache):
        return folder
    # CACHE/models--OWNER--NAME/snapshots/COMMIT
    target = cache / folder.relative_to(folder.parents[2])
    for name in files:
        if not (target / name).is_file():
            make_folder((target / name).parent)
            with (folder / name).open("rb") as source:
                write_atomically(target / name, partial(shutil.copyfileobj, source))
    return target


def _download(
    repository: Repository,
    commit: str,
    files: Sequence[str],
    cache: Path,
    *,
    key: str,
    progress: Progress,
) -> None:
    remove_leftovers()
    listing = listing_here(repository, commit) or {}
    sizes = [listing[name].size for name in files if name in listing]
    at_commit = repository.at(commit)
    progress.start(at_commit.words, sum(sizes))
    stop = threading.Event()

    def bring(name: str) -> None:
        arrival = _Arrival(name, progress.advance, stop)
        with checking(arrival.check):
            _download_file(at_commit, name, cache, listing.get(name), arrival)

    try:
        # The first file alone: it finds out whether the rest can be had, in one error.
        with asking(repository, key=key), ThreadPoolExecutor(AT_ONCE) as pool:
            bring(files[0])
            try:
                for _ in pool.map(bring, files[1:]):
                    pass
            except BaseException:
                # Ctrl-C must not wait until the files that are on their way have arrived.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        progress.end()


class _Arrival:
    """How far a file has come. Only what wasn't here before counts: not a page that is sent in its
    place each time, nor a file that starts anew after each break.
    """

    def __init__(self, name: str, advance: Callable[[int], None], stop: threading.Event) -> None:
        self._name, self._advance, self._stop = name, advance, stop
        self._at = self._farthest = 0
        self._since = time.monotonic()
        self._is_coming = False

    def start(self, at: int) -> None:
        """The answer has begun, with so many bytes that are here."""
        self._at, self._is_coming = 0, True
        self.add(at)

    def add(self, count: int) -> None:
        self._check_not_stopped()
        self._at += count
        if self._at > self._farthest:
            self._advance(self._at - self._farthest)
            self._farthest, self._since = self._at, time.monotonic()

    def check(self) -> None:
        """Raise HubFault if the answer has begun, and nothing of it has arrived for too long."""
        self._check_not_stopped()
        if self._is_coming and self._is_over():
            raise HubFault(f"breaks {self._name} off again and again; try again later")

    def wait_after(self, error: Exception) -> None:
        """Wait before the next try. Raises HubFault if nothing has arrived for too long."""
        self._check_not_stopped()
        if self._is_over():
            raise HubFault(_lasting(error, self._name))
        self._is_coming = False
        self._stop.wait(SECONDS_BETWEEN_TRIES)

    def _is_over(self) -> bool:
        return time.monotonic() - self._since > BUSY_SECONDS

    def _check_not_stopped(self) -> None:
        if self._stop.is_set():
            raise HubFault("isn't asked any more")


def _lasting(error: Exception, name: str) -> str:
    """What is wrong with a Hub that gives this error again and again."""
    if (response := getattr(error, "response", None)) is not None:
        return busy(response.status_code)
    # huggingface_hub says so of a file that has another size, without a number.
    if isinstance(error, OSError):
        return f"sends {name} with another size than it says; try again later"
    return f"breaks {name} off again and again ({first_line(error)[:120]})"


def _download_file(
    repository: Repository, name: str, cache: Path, facts: HubFile | None, arrival: _Arrival
) -> None:
    """One file. A fault that passes is waited for, as long as bytes arrive now and then."""
    import httpx2
    from huggingface_hub import errors, hf_hub_download

    make_lock_folder(cache / ".locks")
    for _ in range(MOST_DAMAGED):
        while True:
            fault: Exception
            try:
                path = hf_hub_download(
                    repository.name,
                    name,
                    repo_type=repository.kind,
                    revision=repository.revision,
                    cache_dir=cache,
                    tqdm_class=_counter(arrival),
                )
                break
            except (httpx2.TransportError, errors.HfHubHTTPError) as error:
                fault = error
            except errors.LocalEntryNotFoundError as error:
                cause = error.__cause__
                if not isinstance(cause, httpx2.TransportError | errors.HfHubHTTPError):
                    raise
                fault = cause
            except OSError as error:
                if error.errno is not None:
                    raise KdsweepError(
                        f"{cache}: {error.strerror}; {name} of {repository.words} can't be kept "
                        "there: fix this and run the same command again"
                    ) from error
                fault = error
            response = getattr(fault, "response", None)
            if response is not None and response.status_code not in BUSY:
                raise fault
            arrival.wait_after(fault)
        _check_version(repository, Path(path))
        if _is_whole(Path(path), facts):
            return
    raise HubFault(f"sends {name} with another content than it says; try again later")


def _check_version(repository: Repository, path: Path) -> None:
    """Raise HubFault if the file is of another version than was asked for."""
    if repository.revision not in path.parts:
        raise HubFault(not_the_hub("files of another version"))


def _is_whole(file: Path, facts: HubFile | None) -> bool:
    """Whether its content is what the Hub says; a file that isn't is removed."""
    if facts is None or _has_content(file, facts):
        return True
    _remove(file)
    return False


def _has_content(file: Path, facts: HubFile) -> bool:
    if facts.sha256 is not None:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == facts.sha256
    # Of a large file this names the pointer to it, and a hash of another length isn't a SHA-1.
    if facts.git is not None and is_commit(facts.git):
        content = file.read_bytes()
        header = b"blob %d\0" % len(content)
        return hashlib.sha1(header + content, usedforsecurity=False).hexdigest() == facts.git
    return True


def _counter(arrival: _Arrival) -> Any:
    """What huggingface_hub takes for a progress bar."""

    class Counter:
        def __init__(
            self, iterable: Iterable[Any] | None = None, *, initial: int = 0, **_: Any
        ) -> None:
            arrival.start(initial)

        def update(self, count: float | None = 1) -> None:
            arrival.add(int(count or 0))

        def __enter__(self) -> Counter:
            return self

        def __exit__(self, *_: object) -> None: ...

        def close(self) -> None: ...

    return Counter
