"""Which version of each repository of the Hub a sweep uses, and having its files before it starts.

A sweep finds the commits once and keeps them in `sweep.json`. A sweep of an earlier version has
none: its models and rows are what the caches have.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from kdsweep.config import Plan, SearchSpace
from kdsweep.config.teacher_values import TeacherValues
from kdsweep.core.data.hub_dataset import fetch_dataset
from kdsweep.core.data.sources import may_be_on_hub
from kdsweep.core.hub.fetching import Progress, asked_commit, commit_of
from kdsweep.core.hub.repository import MAIN, Repository, is_commit, model_named, short
from kdsweep.core.hub.snapshots import may_ask, settle_on_users_commit
from kdsweep.core.models.borrowed_code import fetch_borrowed_code
from kdsweep.core.models.model_snapshot import model_folder
from kdsweep.errors import DataError, HubUnreachable, ModelError, SettingsConflict
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.input_check import models_of_space
from kdsweep.sweep.observer import Observer

Commits = Mapping[Repository, str]
Kind = Literal["dataset", "model"]
Say = Callable[[str], None]


def kept_commits(folder: SweepFolder) -> Commits | None:
    """Those of an existing sweep; None if an earlier version started it, or there is none."""
    return folder.read_facts().commits if folder.exists() else None


def with_kept_commits(plan: Plan, folder: SweepFolder) -> Plan:
    """The plan with the commits that its sweep has kept. Nothing is asked of the Hub."""
    kept = kept_commits(folder)
    return plan if kept is None else plan.with_commits(_known(plan, kept))


def _known(plan: Plan, kept: Commits) -> dict[Repository, str]:
    """Of the repositories of the space, those whose commit is known."""
    found: dict[Repository, str] = {}
    for repository in plan.space.repositories():
        if (commit := kept.get(named(repository))) is not None:
            found[repository] = commit
    return found


def named(repository: Repository) -> Repository:
    """`main` written out means the same as no revision."""
    if repository.revision == MAIN:
        return Repository(repository.kind, repository.name)
    return repository


def with_commits(plan: Plan, kept: Commits | None, say: Say, kind: Kind) -> Plan:
    """The plan with a commit for each dataset, or each model: those that its sweep has kept, else
    those that the Hub names now. kept: None for a sweep of an earlier version, which has none.

    Raises SettingsConflict where a revision in the space means another commit than the sweep uses,
    and HubUnreachable, DataError or ModelError where a commit isn't known.
    """
    repositories = [one for one in plan.space.repositories() if one.kind == kind]
    if kept is None:
        for repository in repositories:
            settle_on_users_commit(repository)
        return plan
    commits = dict(plan.space.commits)
    given_up = {one for one in kept if one not in map(named, repositories)}
    is_away = not may_ask()
    for repository in repositories:
        stored = kept.get(named(repository))
        if stored is None:
            commit = commit_of(repository, key=_key(repository))
            others = [kept[one] for one in given_up if _is_same(one, repository)]
            if others and commit not in others:
                raise _other_commit(repository, commit, others[0], plan.name)
            commits[repository] = commit
            continue
        commits[repository] = stored
        if is_away or is_commit(repository.revision):
            continue
        now = _commit_now(repository)
        # The stored one is on this machine, or is looked for where its files are fetched.
        is_away = now is None
        if now is None or now == stored:
            continue
        if named(repository).revision is not None:
            raise _other_commit(repository, now, stored, plan.name)
        say(
            f"{repository.words}: {MAIN} has moved from {short(stored)} to {short(now)} since "
            f"the sweep was started, which goes on with {short(stored)}"
        )
    return plan.with_commits(commits)


def _is_same(one: Repository, other: Repository) -> bool:
    """Whether they differ in their revision at most."""
    return (one.kind, one.name) == (other.kind, other.name)


def _commit_now(repository: Repository) -> str | None:
    """What the Hub says that the revision means; None if it can't say, or not at once."""
    try:
        return asked_commit(repository, key=_key(repository), patiently=False)
    except (HubUnreachable, DataError, ModelError):
        return None


def _other_commit(repository: Repository, now: str, stored: str, sweep: str) -> SettingsConflict:
    return SettingsConflict(
        f"sweep {sweep!r}: {repository.words} means commit {now} now, and the sweep uses {stored}; "
        f"name that one (revision: {stored}), or start a new sweep (--fresh or --name)"
    )


def _key(repository: Repository) -> str:
    return "task.dataset" if repository.kind == "dataset" else "model"


def revisions(space: SearchSpace) -> dict[str, str]:
    """The commits as settings of the space, where one key says it all: `student.revision`."""
    found: dict[str, str] = {}
    if (task := space.task).revision is not None:
        found["task.revision"] = task.revision
    if task.unlabelled is not None and task.unlabelled.revision is not None:
        found["task.unlabelled.revision"] = task.unlabelled.revision
    of_models = {
        "student.revision": {one.revision for one in space.students() if one.model != "teacher"},
    }
    if isinstance(space.teacher, TeacherValues):
        every = [space.at_commit(one) for one in space.teacher.every()]
        of_models["teacher.revision"] = {one.revision for one in every}
    for key, commits in of_models.items():
        if len(commits) == 1 and (commit := next(iter(commits))) is not None:
            found[key] = commit
    return found


# --- files ---------------------------------------------------------------------------------------


def fetch_rows(plan: Plan, kept: Commits | None, observer: Observer) -> None:
    """Have the files of the plan's datasets on this machine.

    Raises HubUnreachable or DataError for what the Hub doesn't give or what can't be read, and
    SettingsConflict where it hasn't the commit any more that the sweep uses.
    """
    progress = _Shown(observer)
    task = plan.space.task
    rows = [(task.dataset, task.subset, task.revision)]
    if (more := task.unlabelled) is not None:
        rows.append((more.dataset, more.subset, more.revision))
    for name, subset, revision in rows:
        if isinstance(name, str) and may_be_on_hub(name):
            with _naming_both(Repository("dataset", name, revision), kept):
                fetch_dataset(name, subset, revision, progress=progress)


def fetch_models(plan: Plan, kept: Commits | None, observer: Observer, *, weights: bool) -> Plan:
    """Have configs and tokenizers of the plan's models on this machine, and with `weights` these
    too. Returns the plan with the commits of code that models take from elsewhere.

    Raises what `fetch_rows` raises, with ModelError for DataError.
    """
    progress = _Shown(observer)
    commits = dict(plan.space.commits)
    for source, trust in models_of_space(plan.space).items():
        with _naming_both(model_named(source), kept):
            folder = model_folder(
                source, weights=weights, trust_remote_code=trust, progress=progress
            )
        if trust:
            commits |= fetch_borrowed_code(source, folder, kept or {})
    return plan.with_commits(commits)


@contextlib.contextmanager
def _naming_both(repository: Repository, kept: Commits | None) -> Iterator[None]:
    """Let an error about a commit that the sweep uses name the one that there is now too."""
    try:
        yield
    except (DataError, ModelError) as error:
        is_kept = repository.revision in (kept or {}).values()
        if isinstance(error, HubUnreachable) or not is_kept:
            raise
        now = _commit_now(Repository(repository.kind, repository.name))
        if now in (None, repository.revision):
            raise
        raise SettingsConflict(
            f"{error}; the sweep uses commit {repository.revision} of it, and {MAIN} is {now} now: "
            "start a new sweep (--fresh or --name)"
        ) from error


class _Shown(Progress):
    """Tells an observer about downloads, which come from several threads."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._what, self._done, self._size = "", 0, 0

    def start(self, what: str, size: int) -> None:
        self._what, self._done, self._size = f"fetching {what}", 0, size
        self._observer.transfer(self._what, 0, size)

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
        self._observer.transfer(self._what, min(self._done, self._size), self._size)

    def end(self) -> None:
        self._observer.over(self._what)
