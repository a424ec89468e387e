"""`--push-to`: an exported folder as a model on the Hub, in one commit."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import huggingface_hub
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    ModelInfo,
    constants,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import _http
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from kdsweep import __version__
from kdsweep.errors import LONGEST_REASON, KdsweepError, SettingsConflict, first_few
from kdsweep.export.facts import Pushed
from kdsweep.export.hub_errors import ANY_HUB_ERROR, in_plain_words, log_in
from kdsweep.formatting import count, megabytes
from kdsweep.sweep.observer import Observer

# A connection that says nothing for so long is broken. The Hub's client alone waits forever.
CHECK_SECONDS, UPLOAD_SECONDS = 15.0, 60.0
# The status of an answer where what was asked for is there already.
CONFLICT = 409
# The Hub writes it into each new repository.
GIT_ATTRIBUTES = ".gitattributes"

Say = Callable[[str], None]


@dataclass(frozen=True)
class PushTo:
    """What a user asked for. name: `NAME` or `OWNER/NAME`."""

    name: str
    is_public: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Target:
    """A repository that may be written to. existing: None if it must be created."""

    name: str
    is_public: bool
    overwrite: bool
    existing: ModelInfo | None = None

    @property
    def taken(self) -> SettingsConflict:
        return SettingsConflict(
            f"--push-to {self.name}: it already exists on the Hub and has files; choose another "
            "name, or add --overwrite to replace all of its files in one commit"
        )


def check_target(asked: PushTo, exported: Path | None) -> Target:
    """The repository to push to, before anything is exported or changed on the Hub.

    exported: the folder to push, if there is one already. Raises KdsweepError for an invalid name,
    without a login, without the right to write, and if the Hub doesn't answer; SettingsConflict if
    the repository exists and pushing would change what it has or who sees it.
    """
    try:
        validate_repo_id(asked.name)
    except HFValidationError as error:
        raise KdsweepError(
            f"--push-to {asked.name!r} is no name of a model on the Hub: NAME or OWNER/NAME, with "
            "letters, digits, '-', '_' and '.', no '--' and no '..'"
        ) from error
    with _talking_to_hub(asked.name, CHECK_SECONDS, "nothing was exported") as api:
        owner = _owner(api, asked.name)
        name = f"{owner}/{asked.name.rpartition('/')[2]}"
        try:
            found = api.model_info(name, files_metadata=True, timeout=CHECK_SECONDS)
        except RepositoryNotFoundError:
            return Target(name, asked.is_public, asked.overwrite)
    target = Target(found.id, asked.is_public, asked.overwrite, found)
    _check_visibility(target, found)
    is_same = exported is not None and _holds(found, exported)
    if _files_of(found) and not asked.overwrite and not is_same:
        raise target.taken
    return target


def push(folder: Path, target: Target, message: str, observer: Observer, left: str) -> Pushed:
    """Upload `folder` in one commit, so that the repository has all of it or nothing.

    observer: is told how much is uploaded. left: what an error adds: where the export is, and that
    the same command may be run again. Raises KdsweepError.
    """
    files = _files_to_push(folder)
    size = sum(file.stat().st_size for file in files.values())
    visibility = "public" if target.is_public else "private"
    what = f"{count(len(files), 'file')}, {megabytes(size / 1e6)}"
    observer.say(f"uploading {what}, to {target.name} ({visibility})")
    sent = _Sent(observer, f"uploading to {target.name}", size)
    before = target.existing
    with _talking_to_hub(target.name, UPLOAD_SECONDS, left) as api:
        if before is None:
            before = _create(api, target)
        gone = [path for path in _files_of(before) if path not in files] if before else []
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *(CommitOperationDelete(path) for path in gone),
            *(_CountedFile(path, file, sent) for path, file in files.items()),
        ]
        try:
            # `upload_folder` may spread a large or slow upload over several commits.
            with _warnings_to(observer.say):
                commit = api.create_commit(
                    target.name,
                    operations,
                    commit_message=message,
                    parent_commit=before.sha if before else None,
                ).oid
        except ANY_HUB_ERROR:
            # The answer may have been lost after the Hub had done it all.
            there = _already_there(api, target.name, folder)
            if there is None:
                raise
            commit = there
        finally:
            observer.over(sent.what)
    return Pushed(target.name, f"{constants.ENDPOINT}/{target.name}", commit, target.is_public)


def _create(api: HfApi, target: Target) -> ModelInfo | None:
    """The repository if it is there by now and empty, as a creation leaves it that was given up."""
    try:
        api.create_repo(target.name, private=not target.is_public)
    except HfHubHTTPError as error:
        if error.response.status_code != CONFLICT:
            raise
        found = api.model_info(target.name, files_metadata=True, timeout=CHECK_SECONDS)
        if _files_of(found) or bool(found.private) == target.is_public:
            raise
        return found
    return None


# --- how much is there ---


class _Sent:
    """How much of each file is uploaded; several threads tell it."""

    def __init__(self, observer: Observer, what: str, size: int) -> None:
        self.what = what
        self._observer, self._size = observer, size
        self._positions: dict[str, int] = {}
        self._lock = threading.Lock()

    def reached(self, path: str, position: int) -> None:
        with self._lock:
            self._positions[path] = position
            done = sum(self._positions.values())
        self._observer.transfer(self.what, done, self._size)


class _CountedFile(CommitOperationAdd):
    """A file to commit that tells how far it has been read, each time it is uploaded."""

    def __init__(self, path: str, file: Path, sent: _Sent) -> None:
        super().__init__(path, file)
        self._source, self._sent = file, sent

    @contextlib.contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """As the class above does it. `with_tqdm` is asked for when the file is uploaded."""
        with _Reader(self._source, self._reached if with_tqdm else None) as file:
            yield file

    def _reached(self, position: int) -> None:
        self._sent.reached(self.path_in_repo, position)


class _Reader(io.BufferedReader):
    def __init__(self, file: Path, reached: Callable[[int], None] | None) -> None:
        super().__init__(io.FileIO(file))
        self._reached = reached

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self._reached is not None:
            self._reached(self.tell())
        return data


# --- who pushes, and what is on the Hub ---


def _owner(api: HfApi, name: str) -> str:
    """Whose repository it will be. Raises KdsweepError where the token's user can't write."""
    token = api.token
    if not isinstance(token, str):
        raise KdsweepError(f"--push-to {name}: you aren't logged in to the Hub; {log_in()}")
    # The error of such a header would show the token.
    if not token.isascii() or not token.isprintable() or " " in token:
        raise KdsweepError(f"--push-to {name}: the token isn't one; {log_in()}")
    account = api.whoami()
    user = str(account["name"])
    roles = {str(one["name"]): one.get("roleInOrg") for one in account.get("orgs", ())}
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise KdsweepError(f"--push-to {name}: the token of {user} may only read; {log_in()}")
    owner, _, short = name.rpartition("/")
    if not owner:
        return user
    for known in (user, *roles):
        if known.casefold() == owner.casefold():
            if roles.get(known) == "read":
                raise KdsweepError(
                    f"--push-to {name}: you ({user}) may only read in {known}; ask its owners, or "
                    f"choose {user}/{short}"
                )
            return known
    # A fine-grained token may hide organizations: then the Hub decides.
    if role == "fineGrained":
        return owner
    exists = "exists and belongs to" if api.repo_exists(name) else "would belong to"
    writable = [user, *(known for known, role in roles.items() if role != "read")]
    own = first_few(f"{one}/{short}" for one in writable)
    raise KdsweepError(
        f"--push-to {name}: it {exists} {owner}, not to you ({user}); choose a name of your own: "
        f"{own}"
    )


def _check_visibility(target: Target, found: ModelInfo) -> None:
    if found.private and target.is_public:
        raise SettingsConflict(
            f"--push-to {target.name}: it is private on the Hub, and a push doesn't change that; "
            "leave --public out, or change it in its settings there"
        )
    if not found.private and not target.is_public:
        raise SettingsConflict(
            f"--push-to {target.name}: it is public on the Hub; add --public to publish there, or "
            "choose another name"
        )


def _files_of(found: ModelInfo) -> dict[str, str | None]:
    """The files in a repository with their hashes: SHA-256 of a large one, git's of others."""
    return {
        one.rfilename: one.lfs.sha256 if one.lfs else one.blob_id
        for one in found.siblings or ()
        if one.rfilename != GIT_ATTRIBUTES
    }


def _files_to_push(folder: Path) -> dict[str, Path]:
    """Every file by its path in the repository, but for hidden ones: `.git`, `.DS_Store`."""
    paths = {file.relative_to(folder): file for file in sorted(folder.rglob("*"))}
    return {
        path.as_posix(): file
        for path, file in paths.items()
        if file.is_file() and not any(part.startswith(".") for part in path.parts)
    }


def _holds(found: ModelInfo, folder: Path) -> bool:
    """Whether a repository has the folder's files and no others."""
    stored, files = _files_of(found), _files_to_push(folder)
    return stored.keys() == files.keys() and all(
        stored[path] in _hashes(file) for path, file in files.items()
    )


def _hashes(file: Path) -> tuple[str, str]:
    """What the Hub may know the file by: its SHA-256, and git's hash."""
    size = file.stat().st_size
    sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            sha256.update(chunk)
            git.update(chunk)
    return sha256.hexdigest(), git.hexdigest()


def _already_there(api: HfApi, name: str, folder: Path) -> str | None:
    """The commit at which the repository has exactly this folder."""
    with contextlib.suppress(*ANY_HUB_ERROR):
        found = api.model_info(name, files_metadata=True, timeout=CHECK_SECONDS)
        return found.sha if _holds(found, folder) else None
    return None


# --- the Hub's client ---


@contextlib.contextmanager
def _talking_to_hub(repository: str, timeout: float, left: str) -> Iterator[HfApi]:
    """The Hub's client, quiet, which gives up on a connection that says nothing for `timeout` s.

    What goes wrong inside becomes a KdsweepError; `left` is added to it.
    """
    verbosity = huggingface_hub.logging.get_verbosity()
    shows_bars = not are_progress_bars_disabled()
    uses_no_xet = constants.HF_HUB_DISABLE_XET
    others_factory = _http._GLOBAL_CLIENT_FACTORY

    def limit(request: httpx2.Request) -> None:
        # For most questions huggingface_hub sets no time limit.
        waits = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = dict.fromkeys(waits, timeout)

    def client_with_timeout() -> Any:
        client = _http.default_client_factory()
        client.event_hooks["request"].append(limit)
        return client

    huggingface_hub.logging.set_verbosity_error()
    disable_progress_bars()
    # Xet's storage is one more host: where it can't be reached, Xet is silent for six minutes.
    constants.HF_HUB_DISABLE_XET = True
    huggingface_hub.set_client_factory(client_with_timeout)
    token = huggingface_hub.get_token() or False
    try:
        yield HfApi(token=token, library_name="kdsweep", library_version=__version__)
    except ANY_HUB_ERROR as error:
        words = in_plain_words(error, repository)
        raise KdsweepError(f"--push-to {repository}: {words}; {left}") from error
    finally:
        huggingface_hub.set_client_factory(others_factory)
        constants.HF_HUB_DISABLE_XET = uses_no_xet
        huggingface_hub.logging.set_verbosity(verbosity)
        if shows_bars:
            enable_progress_bars()


@contextlib.contextmanager
def _warnings_to(say: Say) -> Iterator[None]:
    """What the Hub and its client remark, on a card for example, as lines."""
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        yield
    texts = [str(one.message) for one in remarks if issubclass(one.category, UserWarning)]
    for text in dict.fromkeys(texts):
        say(" ".join(text.split())[:LONGEST_REASON])
