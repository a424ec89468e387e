"""`kdsweep remove`: a sweep with all that belongs to it alone. The caches stay.

First what the tracker has, then the studies, at last the folder: while anything is left, the folder
says what, and the same command continues. From the first step on `sweep.json` is called
`removing.json`, so that nobody runs, resumes or reads half a sweep.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from kdsweep import metric_names
from kdsweep.core.files import only_read
from kdsweep.databases import shown_database, sqlite_file
from kdsweep.errors import KdsweepError, SweepLocked, first_few
from kdsweep.formatting import count, file_size
from kdsweep.housekeeping.disk_use import bytes_of
from kdsweep.housekeeping.sweep_remains import Remains, read_remains
from kdsweep.sweep.folders import Home
from kdsweep.tracking.base import KeptRuns, MadeHere, Tracker

T = TypeVar("T")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Removal:
    """What belongs to a sweep. bytes: of its folder, and of its runs' files in this home.

    storage, tracker: where the studies and the runs are, without passwords; None where they have
    nothing of it. studies: the trials of each. stays: what isn't removed, a line each.
    """

    sweep: str
    folder: str | None
    bytes: int
    storage: str | None
    studies: dict[str, int]
    tracker: str | None
    runs: int
    versions: tuple[str, ...]
    experiments: tuple[str, ...]
    stays: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """As `kdsweep remove --json` prints it."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """What would be removed, for a person."""
        if self.folder is not None:
            yield f"folder   {self.folder}"
        else:
            yield "folder   what an interrupted removal left"
        if self.storage is not None:
            trials = count(sum(self.studies.values()), "trial")
            yield f"studies  {', '.join(self.studies)} ({trials}) in {self.storage}"
        if self.tracker is not None and self.runs:
            yield f"runs     {self.runs:,} in {self.tracker}"
        for experiment in self.experiments:
            yield f"         and experiment {experiment}, in which nothing else is"
        for version in self.versions:
            yield f"model    registered model {version}"
        yield f"space    {file_size(self.bytes)}"
        for line in self.stays:
            yield f"stays    {line}"


def describe_removal(home: Home, name: str, *, leave_unreachable: bool = False) -> Removal:
    """What removing the sweep would remove. Changes nothing.

    leave_unreachable: leave what a database has that doesn't answer. Raises UnknownSweep,
    SweepLocked while the sweep runs, and KdsweepError where it can't be removed.
    """
    remains = read_remains(home, name)
    _check_can_be_removed(remains)
    return _Removing(remains, leave_unreachable).found()


def remove_sweep(home: Home, name: str, *, leave_unreachable: bool, say: Say) -> Removal:
    """Remove it; returns what was removed. Raises what `describe_removal` raises.

    After an error, or if it is killed, the same call removes what is left.
    """
    remains = read_remains(home, name)
    _check_can_be_removed(remains)
    folder = remains.folder
    leftovers = list(remains.leftovers)
    if not folder.root.exists():
        found = _Removing(remains, leave_unreachable).found()
    else:
        with folder.locked("remove"):
            # What was asked about may have changed before this process had the lock.
            removing = _Removing(read_remains(home, name), leave_unreachable)
            found = removing.found()
            if folder.facts.exists():
                folder.facts.replace(folder.removing)
            removing.remove(say)
            gone = home.sweeps / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
            folder.root.rename(gone)
            leftovers.append(gone)
    for path in (*leftovers, *_logs(home, name)):
        _remove(path)
    return found


def _check_can_be_removed(remains: Remains) -> None:
    name = remains.folder.name
    holder = remains.folder.holder()
    if holder is not None:
        what = "run" if holder.doing == "run" else "removed"
        todo = f"; kdsweep stop {name} stops it" if holder.doing == "run" else ""
        raise SweepLocked(f"sweep {name!r} is being {what} by {holder.words}{todo}")
    for folder in (remains.home.root, remains.home.sweeps):
        if only_read(folder):
            raise KdsweepError(f"sweep {name!r} can't be removed: you may not write to {folder}")


class _Removing:
    """Asks the databases what they have of a sweep, and removes that."""

    def __init__(self, remains: Remains, leave_unreachable: bool) -> None:
        self._remains = remains
        self._name = remains.folder.name
        self._home = remains.home
        self._leave_unreachable = leave_unreachable
        self._stays: list[str] = []
        self._left: set[str] = set()

    def found(self) -> Removal:
        """What there is. Raises KdsweepError where a database doesn't answer and can't be left."""
        remains = self._remains
        root = remains.folder.root
        studies: dict[str, int] = {}
        kept: Sequence[KeptRuns] = ()
        if root.exists() and remains.is_name_of_sweep:
            studies = self._ask("storage", self._studies, {})
            kept = self._ask("tracking", self._kept, ())
            self._check_nothing_by_hand(kept)
            if remains.problem is not None:
                self._stays.append(f"what it has outside of this home: {remains.problem}")
        if root.is_symlink():
            self._stays.append(f"the files in {root.resolve()}, to which {root} is a link")
        runs = sum(one.runs for one in kept)
        files = [*remains.leftovers, root, *_logs(self._home, self._name)]
        files += [folder for one in kept for folder in one.folders]
        return Removal(
            sweep=self._name,
            folder=str(root) if root.exists() else None,
            bytes=sum(map(bytes_of, files)),
            storage=shown_database(remains.storage) if studies else None,
            studies=studies,
            tracker=shown_database(remains.tracking) if runs else None,
            runs=runs,
            versions=tuple(version for one in kept for version in one.versions),
            experiments=tuple(one.experiment for one in kept if one.experiment is not None),
            stays=(*self._stays, *self._what_trackers_keep(kept)),
        )

    def remove(self, say: Say) -> None:
        """Remove what `found` found outside of the sweep's folder."""
        if not self._remains.is_name_of_sweep:
            return
        try:
            if "tracking" not in self._left:
                metric = metric_names.validation(self._remains.metric)
                for tracker in self._trackers():
                    tracker.remove_kept(self._made_here, metric, say)
            if "storage" not in self._left and _may_exist(self._remains.storage):
                from kdsweep.sweep.study_removal import remove_studies

                remove_studies(self._remains.storage, self._name)
        except KdsweepError as error:
            raise KdsweepError(
                f"{error}; sweep {self._name!r} is half removed: run the same command again"
            ) from error

    def _ask(self, what: str, ask: Callable[[], T], nothing: T) -> T:
        try:
            return ask()
        except KdsweepError as error:
            if self._leave_unreachable:
                self._left.add(what)
                self._stays.append(str(error))
                return nothing
            raise KdsweepError(
                f"{error}; nothing was removed: run the same command again later, or add "
                "--leave-unreachable to remove the rest"
            ) from error

    def _studies(self) -> dict[str, int]:
        if not _may_exist(self._remains.storage):
            return {}
        from kdsweep.sweep.study_removal import studies_of

        return studies_of(self._remains.storage, self._name)

    # --- the tracker -----------------------------------------------------------------------------

    @property
    def _made_here(self) -> MadeHere | None:
        """Only this home uses its own database. Of a shared one, other homes may use names too."""
        is_own = self._remains.tracking == self._home.tracking_uri("sqlite")
        return None if is_own else self._remains.made_run

    def _trackers(self) -> list[Tracker]:
        uri = self._remains.tracking
        if not _may_exist(uri):
            return []
        experiment = self._remains.experiment
        if experiment is not None:
            return [self._tracker(uri, experiment)]
        from kdsweep.tracking.mlflow_removal import experiments_of

        return [self._tracker(uri, one) for one in experiments_of(uri, self._name)]

    def _tracker(self, uri: str, experiment: str) -> Tracker:
        from kdsweep.tracking.opening import open_tracking

        return open_tracking(
            uri, experiment=experiment, sweep=self._name, artifacts=self._home.artifacts
        ).runs

    def _kept(self) -> Sequence[KeptRuns]:
        return [one.find_kept(self._made_here) for one in self._trackers()]

    def _check_nothing_by_hand(self, kept: Sequence[KeptRuns]) -> None:
        if by_hand := [version for one in kept for version in one.by_hand]:
            raise KdsweepError(
                f"students of sweep {self._name!r} are registered in "
                f"{shown_database(self._remains.tracking)} as models that kdsweep didn't make "
                f"({first_few(by_hand)}); delete those there first"
            )

    def _what_trackers_keep(self, kept: Sequence[KeptRuns]) -> Iterator[str]:
        where = shown_database(self._remains.tracking)
        if others := sum(one.not_made_here for one in kept):
            yield f"{count(others, 'run')} of this name in {where}, which another home made"
        if any(one.runs and one.needs_gc for one in kept):
            yield f"the files of its runs, until somebody runs `mlflow gc` for {where}"


def _may_exist(uri: str) -> bool:
    """Whether there may be a database. Opening an SQLite file would make it."""
    file = sqlite_file(uri)
    return file is None or file.exists()


def _logs(home: Home, name: str) -> list[Path]:
    """The logs of the sweep's Slurm jobs."""
    pattern = re.compile(rf"{re.escape(name)}-(driver|worker)-\d+(_\d+)?\.log")
    folder = home.root / "slurm-logs"
    return [file for file in folder.glob("*.log") if pattern.fullmatch(file.name)]


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder; not what a link leads to."""
    if path.is_dir() and not path.is_symlink():
        # Another `kdsweep remove` may be at it too.
        while path.exists():
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
