"""What there is of a sweep in its folder, whole, damaged or half removed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from kdsweep.config import SweepConfig, checked_name
from kdsweep.core.files import read_json
from kdsweep.errors import (
    KdsweepError,
    NewerFiles,
    SpaceError,
    UnknownSweep,
    did_you_mean,
    first_line,
)
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home, SweepFolder


@dataclass(frozen=True)
class Remains:
    """leftovers: folders that an earlier removal was emptying. facts: None where `sweep.json` is
    missing or damaged; `problem` says so then.
    """

    home: Home
    folder: SweepFolder
    leftovers: tuple[Path, ...]
    facts: SweepFacts | None
    problem: str | None

    @property
    def storage(self) -> str:
        """The URL of the database with its studies."""
        return self.home.storage_url(self._config.storage)

    @property
    def tracking(self) -> str:
        """The URI of its tracker."""
        return self.home.tracking_uri(self._config.tracking)

    @property
    def experiment(self) -> str | None:
        """Its experiment's name; None where that isn't known."""
        return None if self.facts is None else self.facts.experiment

    @property
    def metric(self) -> str:
        """The task's metric; empty where that isn't known."""
        if self.facts is None:
            return ""
        space = cast(dict[str, dict[str, str]], self.facts.identity["space"])
        return space["task"]["metric"]

    @property
    def _config(self) -> SweepConfig:
        if self.facts is None:
            return SweepConfig()
        secrets = read_json(self.folder.secrets) if self.folder.secrets.exists() else {}
        return _config_of(self.facts, self.folder.name, secrets)

    @property
    def is_name_of_sweep(self) -> bool:
        """Whether a sweep can have this name. A folder that a user put there can have any."""
        try:
            checked_name(self.folder.name)
        except SpaceError:
            return False
        return True

    def made_run(self, trial: str, run_id: str) -> bool:
        """Whether this home made the tracker's run of a trial, as far as its folder knows."""
        for phase in ("trials", "finalists", "confirm"):
            root = self.folder.root / phase / trial
            if not (root / "settings.json").exists():
                continue
            tracked = root / "tracked.json"
            recorded = None
            with contextlib.suppress(KdsweepError, LookupError, TypeError):
                recorded = read_json(tracked)["run_id"] if tracked.exists() else None
            return recorded in (None, run_id)
        return False


def read_remains(home: Home, name: str) -> Remains:
    """What there is of sweep `name`. Raises UnknownSweep where there is nothing.

    Raises NewerFiles where a newer version of kdsweep wrote its files.
    """
    home.check_usable()
    entries = {root.name: root for root in home.sweeps.iterdir()} if home.sweeps.is_dir() else {}
    folder = home.sweep(name)
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}\.tmp")
    leftovers = tuple(root for one, root in entries.items() if pattern.fullmatch(one))
    if name.startswith(".") or (name not in entries and not leftovers):
        known = sorted(one for one in entries if not one.startswith("."))
        raise UnknownSweep(f"no sweep {name!r} in {home.root}{did_you_mean(name, known)}")
    facts, problem = None, None
    if name in entries:
        facts, problem = _read_facts(folder)
    return Remains(home, folder, leftovers, facts, problem)


def _read_facts(folder: SweepFolder) -> tuple[SweepFacts | None, str | None]:
    file = folder.removing if folder.removing.exists() else folder.facts
    if not file.exists():
        return None, f"{file} is missing"
    try:
        facts = SweepFacts.from_json(read_json(file), folder.name)
        _config_of(facts, folder.name, {})
        return facts, None
    except NewerFiles:
        # What belongs to the sweep isn't known here, and a removal would leave a part of it.
        raise
    except (KdsweepError, LookupError, TypeError, ValueError, AttributeError) as error:
        return None, f"{file} can't be read: {first_line(error)}"


def _config_of(facts: SweepFacts, sweep: str, secrets: Mapping[str, object]) -> SweepConfig:
    return facts.config(sweep, {**secrets, "on_done": None})
