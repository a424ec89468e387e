"""What is in a home's cache, and which sweeps use it.

A sweep knows the content hashes of its rows, and all that is made from rows is found by those. What
an earlier version made doesn't always say from which rows; that counts as used while there is a
sweep.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kdsweep.core.files import fingerprint, read_json
from kdsweep.errors import KdsweepError
from kdsweep.housekeeping.disk_use import bytes_of
from kdsweep.sweep.folders import Home, SweepFolder

Kind = Literal["rows", "tokens", "views", "teachers", "logits", "hub", "leftovers"]
KINDS: tuple[Kind, ...] = ("rows", "tokens", "views", "teachers", "logits", "hub", "leftovers")
# What is being written looks like what a killed process left, but changes.
SECONDS_UNTIL_LEFT = 3600.0


@dataclass(frozen=True)
class Entry:
    """A part of the cache. paths: removed one after the other, the first ends its use.

    is_used: by a sweep of this home. is_kept: a sweep would lose numbers without it.
    """

    kind: Kind
    paths: tuple[Path, ...]
    bytes: int
    is_used: bool
    is_kept: bool = False


@dataclass
class Uses:
    """What the sweeps of a home use.

    rows: hashes of their splits. teachers: keys of theirs, as far as they are known.
    unknown_teachers: hashes of the train split of sweeps that don't know theirs. kept: the same, of
    sweeps of version 0.1, which have no copy of their teacher's logits. commits: the folders of
    repositories of the Hub, each with the commit that a sweep uses. names: the text of each
    `sweep.json` that doesn't know its commits. unread: sweeps that can't be read; what they use
    isn't known, so no teacher and nothing of the Hub counts as unused.
    """

    sweeps: int = 0
    rows: set[str] = field(default_factory=set)
    teachers: set[str] = field(default_factory=set)
    unknown_teachers: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    commits: set[tuple[str, str]] = field(default_factory=set)
    names: str = ""
    unread: list[str] = field(default_factory=list)


def read_uses(home: Home) -> Uses:
    """What the sweeps use."""
    uses = Uses()
    for name in home.names():
        try:
            _add_uses(uses, home.sweep(name))
        except (KdsweepError, LookupError, TypeError, ValueError, AttributeError):
            uses.unread.append(name)
    return uses


def _add_uses(uses: Uses, folder: SweepFolder) -> None:
    facts = folder.read_facts()
    keys = {name: split.key for name, split in facts.pins.splits.items()}
    uses.sweeps += 1
    uses.rows |= set(keys.values())
    if facts.commits is None:
        uses.names += folder.facts.read_text(encoding="utf-8")
    for repository, commit in (facts.commits or {}).items():
        uses.commits.add((repository.folder, commit))
    known = [key for one in facts.teachers for key in one.keys or ()]
    uses.teachers |= set(known)
    train = {keys["train"]} if "train" in keys else set()
    if not facts.teachers or any(one.keys is None for one in facts.teachers):
        uses.unknown_teachers |= train
    copies = [folder.teacher_test_logits(number) for number in range(len(facts.teachers))]
    is_of_0_1 = not folder.test_labels.exists()
    if is_of_0_1 and copies and not any(file.exists() for file in copies):
        uses.kept |= train


def cache_entries(home: Home, uses: Uses) -> list[Entry]:
    """Everything in the cache, and what interrupted writes left in home."""
    views = list(_views(home.cache, uses))
    rows = set(uses.rows)
    for folder, entry in views:
        if entry.is_used:
            rows |= {str(_facts(folder / "meta.json").get("key"))}
    return [
        *_rows(home.cache, uses),
        *_tokens(home.cache, uses, rows),
        *(entry for _, entry in views),
        *_Teachers(home.cache, uses, rows).entries(),
        *_hub(home.cache, uses),
        *_leftovers(home),
    ]


def _rows(cache: Path, uses: Uses) -> Iterator[Entry]:
    for folder in _folders(cache / "rows"):
        found = _facts(folder / "meta.json")
        keys = {str(split.get("key")) for split in found.get("splits", {}).values()}
        keys |= {str(found.get("key"))}
        yield _entry("rows", folder, is_used=bool(keys & uses.rows))


def _tokens(cache: Path, uses: Uses, rows: Collection[str]) -> Iterator[Entry]:
    for folder in _folders(cache / "tokens"):
        split = _facts(folder / "meta.json").get("split")
        is_used = uses.sweeps > 0 if split is None else split in rows
        yield _entry("tokens", folder, is_used=is_used)


def _views(cache: Path, uses: Uses) -> Iterator[tuple[Path, Entry]]:
    for folder in _folders(cache / "views"):
        train = _facts(folder / "meta.json").get("of")
        is_used = uses.sweeps > 0 if train is None else train in uses.rows
        yield folder, _entry("views", folder, is_used=is_used)


class _Teachers:
    """The teachers, what their training left, and their logits."""

    def __init__(self, cache: Path, uses: Uses, rows: Collection[str]) -> None:
        self.folder = cache / "teachers"
        self.logits = cache / "logits"
        self.uses = uses
        self.rows = rows
        folders = _folders(self.folder)
        self.made = {one.name: one for one in folders if (one / "teacher.json").exists()}
        self.training = [one for one in folders if one.name not in self.made]
        records = list(self.folder.glob("*.json")) if self.folder.is_dir() else []
        self.records = {file: _facts(file) for file in records}

    def entries(self) -> Iterator[Entry]:
        used = {key for key in self.made if self._is_used(key)}
        kept = {key for key in self.made if self._has_logits_of(key, self.uses.kept)}
        for facts in self.records.values():
            folds = [str(one) for one in facts.get("folds") or ()]
            if facts.get("teacher") in used:
                used |= set(folds)
            if facts.get("teacher") in kept:
                kept |= set(folds)
        for key, folder in self.made.items():
            yield _entry("teachers", folder, is_used=key in used, is_kept=key in kept)
        for file, facts in self.records.items():
            is_of_used = facts.get("teacher") in used
            yield _entry("teachers", file, is_used=is_of_used, is_kept=facts.get("teacher") in kept)
        of_used = {self._training_of(key) for key in used}
        of_any = {self._training_of(key) for key in self.made}
        for folder in self.training:
            is_used = folder.name in of_used
            if folder.name not in of_any:
                # A teacher that isn't made yet: a sweep that was stopped resumes it.
                is_used = bool(self.uses.unknown_teachers or self.uses.unread)
            yield _entry("teachers", folder, is_used=is_used)
        yield from self._logits(used, kept)

    def _is_used(self, key: str) -> bool:
        is_known = bool(self.uses.unread) or key in self.uses.teachers
        return is_known or self._has_logits_of(key, self.uses.unknown_teachers)

    def _has_logits_of(self, key: str, trains: Collection[str]) -> bool:
        return any((self.logits / f"{_stem(key, train)}.npy").exists() for train in trains)

    def _training_of(self, key: str) -> str:
        """The folder in which it was trained. Its path may be that of another home."""
        if key not in self.made:
            return ""
        return Path(str(_facts(self.made[key] / "teacher.json").get("training_folder"))).name

    def _logits(self, used: Collection[str], kept: Collection[str]) -> Iterator[Entry]:
        by_fold: dict[str, str] = {}
        for facts in self.records.values():
            if folds := facts.get("folds"):
                by_fold[fingerprint("out of fold 1", *folds)] = str(facts.get("teacher"))
        owners = {key: key for key in self.made} | by_fold
        owner_of = {_stem(key, row): owner for key, owner in owners.items() for row in self.rows}
        for path in sorted(self.logits.glob("[!.]*")) if self.logits.is_dir() else ():
            if path.suffix == ".npy":
                owner = owner_of.get(path.stem)
                hashes = self.logits.with_name("logits-hashes") / f"{path.stem}.json"
                is_used = owner in used or bool(self.uses.unread)
                yield _entry("logits", path, hashes, is_used=is_used, is_kept=owner in kept)
            elif path.is_dir() and path.name != "logits-hashes":
                owner = owners.get(path.name)
                names = [f"{file.stem}.json" for file in path.glob("*.npy")]
                checks = [self.logits / "logits-hashes" / name for name in names]
                yield _entry("logits", path, *checks, is_used=owner in used, is_kept=owner in kept)


def _stem(teacher: str, rows: str) -> str:
    """As `kdsweep.core.teachers.logits` names the file; that module imports torch."""
    return fingerprint("logits 1", teacher, rows)


def _hub(cache: Path, uses: Uses) -> Iterator[Entry]:
    """Repositories of the Hub. Of one that a sweep uses, each version that none uses is an entry of
    its own, before all the rest of it.
    """
    for folder in _repositories(cache / "hub"):
        listings = cache / "hub" / "listings" / folder.name
        name = folder.name.partition("--")[2].replace("--", "/")
        is_wholly_used = bool(uses.unread) or name in uses.names
        used = {commit for of, commit in uses.commits if of == folder.name}
        blobs = _blobs_of_versions(folder)
        needed = {blob for commit in used for blob in blobs.get(commit, ())}
        apart = sum(map(bytes_of, _half_brought(folder, blobs)))
        for commit in sorted(blobs) if used and not is_wholly_used else ():
            if commit in used:
                continue
            own = blobs[commit] - needed
            # Two versions share a file: it goes with the first one of them.
            needed |= own
            refs = [file for file in folder.glob("refs/**/*") if _is_ref_to(commit, file)]
            version = folder / "snapshots" / commit
            listing = listings / f"{commit}.json"
            entry = _entry("hub", version, *sorted(own), *refs, listing, is_used=False)
            apart += entry.bytes
            yield entry
        paths = (folder, listings, cache / "hub" / ".locks" / folder.name)
        size = max(0, sum(map(bytes_of, paths)) - apart)
        yield Entry("hub", paths, size, is_used=is_wholly_used or bool(used))


def _repositories(hub: Path) -> list[Path]:
    kinds = ("models--", "datasets--", "spaces--")
    return [folder for folder in _folders(hub) if folder.name.startswith(kinds)]


def _blobs_of_versions(folder: Path) -> dict[str, set[Path]]:
    """The files to which each version in a repository's folder links. Some are no links."""
    return {
        version.name: {file.resolve() for file in version.rglob("*") if file.is_symlink()}
        for version in _folders(folder / "snapshots")
    }


def _half_brought(folder: Path, blobs: Mapping[str, Collection[Path]]) -> Iterator[Path]:
    """Files of a repository that belong to no version: half a download, half a removal."""
    linked = {blob for one in blobs.values() for blob in one}
    for file in folder.glob("blobs/*"):
        if file.resolve() not in linked:
            yield file


def _is_ref_to(commit: str, file: Path) -> bool:
    try:
        return file.is_file() and file.read_text(encoding="utf-8").strip() == commit
    except (OSError, ValueError):
        return False


def _leftovers(home: Home) -> Iterator[Entry]:
    """What a killed process was writing, and what an interrupted removal was removing."""
    for path in home.sweeps.glob(".*.tmp"):
        yield _entry("leftovers", path, is_used=False)
    patterns = (".*.tmp", "*/.*.tmp", "*/*/.*.tmp", "*/*/*/.*.tmp", "hub/.reading-*")
    found = [path for pattern in patterns for path in home.cache.glob(pattern)]
    for folder in _repositories(home.cache / "hub"):
        found += _half_brought(folder, _blobs_of_versions(folder))
    for path in found:
        yield _entry("leftovers", path, is_used=_is_changing(path))


def _is_changing(path: Path) -> bool:
    newest = 0.0
    for one in (path, *path.rglob("*")):
        try:
            newest = max(newest, one.lstat().st_mtime)
        except OSError:
            return True
    return time.time() - newest < SECONDS_UNTIL_LEFT


def _entry(kind: Kind, *paths: Path, is_used: bool, is_kept: bool = False) -> Entry:
    return Entry(kind, paths, sum(map(bytes_of, paths)), is_used, is_kept)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))


def _facts(file: Path) -> dict[str, Any]:
    """What the file holds; nothing if it is missing or damaged: it is made again then."""
    try:
        found = read_json(file)
    except KdsweepError:
        return {}
    return found if isinstance(found, dict) else {}
