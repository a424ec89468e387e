"""Every path under home."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdsweep.core.files import nearest_existing, read_json, whole, write_json, write_private
from kdsweep.core.standing import make_folder
from kdsweep.errors import KdsweepError, SweepLocked, UnknownSweep, did_you_mean, first_few
from kdsweep.sweep.sweep_lock import Doing, Held, Holder, hold, holder_of
from kdsweep.trial_id import PHASES, TRIAL_NAMES, Phase, TrialId

if TYPE_CHECKING:
    # These import torch or pydantic, which tab completion does without.
    from kdsweep.config import SweepConfig
    from kdsweep.sweep.facts import SweepFacts
    from kdsweep.sweep.swept_trial import SweptTrial

MOST_SHOWN = 12
NONE_YET = "there are none yet: start one (kdsweep run SPACE), or name another home (--home)"


class Home:
    """The folder with everything that kdsweep writes."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()
        self.optuna_db = self.root / "optuna.db"
        self.mlflow_db = self.root / "mlflow.db"
        self.artifacts = self.root / "artifacts"
        self.cache = self.root / "cache"
        self.sweeps = self.root / "sweeps"

    def storage_url(self, storage: str) -> str:
        """The Optuna URL that a sweep's `storage` means."""
        return _database(self.optuna_db, storage)

    def tracking_uri(self, tracking: str) -> str:
        """The MLflow URI that a sweep's `tracking` means."""
        return _database(self.mlflow_db, tracking)

    def sweep(self, name: str) -> SweepFolder:
        return SweepFolder(self.sweeps / name)

    def names(self) -> list[str]:
        """The sweeps in this home, the last used first."""
        folders = [SweepFolder(root) for root in self.sweeps.glob("*")]
        found = [folder for folder in folders if folder.exists()]
        found.sort(key=lambda folder: -folder.facts.stat().st_mtime)
        return [folder.name for folder in found]

    def check_usable(self) -> None:
        """Raises KdsweepError, with the reason, where home can't be read."""
        there = nearest_existing(self.root)
        if not there.is_dir():
            raise _unusable(f"{there} is a file, not a folder")
        if not os.access(there, os.R_OK | os.X_OK):
            raise _unusable(f"you may not read {there}")

    def check_writable(self, storage: str = "", tracking: str = "") -> None:
        """Raises KdsweepError, with the reason, where home can't be written.

        storage, tracking: of the sweep that is to be run.
        """
        self.check_usable()
        used = [nearest_existing(self.root)]
        used += [self.optuna_db] if storage == "sqlite" else []
        used += [self.mlflow_db] if tracking == "sqlite" else []
        for path in used:
            if path.exists() and not os.access(path, os.W_OK):
                raise _unusable(f"you may not write to {path}")

    def existing(self, name: str) -> SweepFolder:
        """The folder of an existing sweep. Raises UnknownSweep with the names that exist."""
        self.check_usable()
        names = self.names()
        if name not in names:
            known = did_you_mean(name, names)
            if not known:
                known = f"; there are {', '.join(names)}" if names else f"; {NONE_YET}"
            if name in [root.name for root in self.sweeps.glob("*")]:
                self.sweep(name).check_not_removed()
                raise UnknownSweep(
                    f"{self.sweep(name).facts} is missing; run the sweep's command again to start "
                    f"it, or remove the rest (kdsweep remove {name})"
                )
            raise UnknownSweep(f"no sweep {name!r} in {self.root}{known}")
        return self.sweep(name)

    def last_used(self) -> SweepFolder:
        """The folder of the sweep that was used last. Raises UnknownSweep if there is none."""
        names = self.names()
        if not names:
            self.check_usable()
            raise UnknownSweep(f"no sweep in {self.root}: {NONE_YET}")
        return self.existing(names[0])


def _unusable(reason: str) -> KdsweepError:
    return KdsweepError(f"home: {reason}; choose another home (--home, KDSWEEP_HOME)")


def _database(file: Path, chosen: str) -> str:
    """The URL of home's own `file` where `sqlite` was chosen, else the one that was."""
    if chosen != "sqlite":
        return chosen
    # Tab completion does without SQLAlchemy.
    from kdsweep.databases import sqlite_url

    return sqlite_url(file)


class SweepFolder:
    """Every path of one sweep.

    sweep.json    what the sweep is (its identity) and how it was last run
    removing.json sweep.json under another name, once `kdsweep remove` has begun
    space.yaml    the space as resolved
    secrets.json  what of the sweep has a password; only its owner may read it
    clock.json    seconds spent so far, and on what
    latency.json  how long each architecture takes for one row
    cluster.json  where workers join
    cluster-packages.json  the versions that they must have
    attempts/     on a cluster: a file for each trial, with a token of its last start
    lock          held by the driver while it runs
    stop.json     whether somebody asks the driver to stop
    start_from.json  the trials of earlier sweeps that it starts from
    trials/       a folder for each trial of the search
    finalists/    one for each run of a finalist
    confirm/      one for each run of confirm
    teachers/     N.npy: what the teacher N of sweep.json put out for the test split
                  0-SPLIT.npy: what the first one predicts on each of `more_tests`, and its labels
    test_labels.npy   the labels of the test split, in the order of all logits for it
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name
        self.facts = root / "sweep.json"
        # Takes the place of `facts` while the sweep is being removed.
        self.removing = root / "removing.json"
        self.space = root / "space.yaml"
        self.secrets = root / "secrets.json"
        self.clock = root / "clock.json"
        self.latency = root / "latency.json"
        self.cluster = root / "cluster.json"
        self.cluster_packages = root / "cluster-packages.json"
        self.attempts = root / "attempts"
        self.token = root / "cluster.token"
        self.ray_log = root / "ray.log"
        self.lock_file = root / "lock"
        self.stop_file = root / "stop.json"
        self.start_from = root / "start_from.json"
        self.report = root / "report.json"
        self.trials = root / "trials"
        self.finalists = root / "finalists"
        self.confirm = root / "confirm"
        self.page = root / "report.html"
        self.teachers = root / "teachers"
        self.teacher_lost = root / "teacher_lost.json"
        self.test_labels = root / "test_labels.npy"

    @property
    def home(self) -> Home:
        return Home(self.root.parent.parent)

    def exists(self) -> bool:
        """Whether the sweep was ever run."""
        return self.facts.exists()

    def check_not_removed(self) -> None:
        """Raise UnknownSweep where `kdsweep remove` has begun and not come to its end."""
        if self.removing.exists():
            raise UnknownSweep(
                f"sweep {self.name!r} is half removed; kdsweep remove {self.name} removes the rest"
            )

    def teacher_test_logits(self, number: int) -> Path:
        """What the teacher with this number in `sweep.json` put out for the test split."""
        return self.teachers / f"{number}.npy"

    def teacher_predictions(self, split: str) -> Path:
        """What the first teacher of `sweep.json` predicts on one of `more_tests`."""
        return self.teachers / f"0-{split}.npy"

    # --- trials ----------------------------------------------------------------------------------

    def trial(self, trial: TrialId) -> SweptTrial:
        """The files of this trial, started or not."""
        from kdsweep.sweep.swept_trial import SweptTrial

        return SweptTrial(self.of_phase(trial.phase) / trial.name, trial)

    def of_phase(self, phase: Phase) -> Path:
        """The folder with the trials of the search, or with those that were trained again."""
        folders = {"search": self.trials, "finalist": self.finalists, "confirm": self.confirm}
        return folders[phase]

    def started_trials(self) -> list[TrialId]:
        """Every trial of the search, then every run of a finalist and of confirm, that was
        started."""
        started: list[TrialId] = []
        for phase in PHASES:
            for file in sorted(self.of_phase(phase).glob("*/settings.json")):
                with contextlib.suppress(ValueError):  # a folder that a user put there
                    started.append(TrialId.parse(file.parent.name, phase))
        return started

    def ended_runs(self, phase: Phase, strategy: str, number: int | None = None) -> list[TrialId]:
        """The strategy's runs of this phase that have a result. number: those of this trial."""
        found: list[TrialId] = []
        for file in sorted(self.of_phase(phase).glob("*/result.json")):
            with contextlib.suppress(ValueError):  # a folder that a user put there
                found.append(TrialId.parse(file.parent.name, phase))
        return [one for one in found if one.strategy == strategy and number in (None, one.number)]

    def ended_seed_runs(self, strategy: str) -> list[TrialId]:
        """The strategy's runs of finalists and of confirm that have a result."""
        return [*self.ended_runs("finalist", strategy), *self.ended_runs("confirm", strategy)]

    def find_trial(self, name: str) -> TrialId:
        """The started trial with this name. Raises UnknownSweep with the names that exist."""
        started = self.started_trials()
        for trial in started:
            if trial.name == name:
                return trial
        names = [trial.name for trial in started]
        known = did_you_mean(name, names)
        if not known and names:
            known = f"; there are {first_few(names, MOST_SHOWN)}"
        raise UnknownSweep(f"sweep {self.name!r} has no trial {name!r} ({TRIAL_NAMES}){known}")

    def remove_half_written(self, trial: str = "*") -> None:
        """Remove what a killed process left of the files that it was writing.

        trial: the name of one trial, or all. The caller holds the lock.
        """
        # The model card of a student that is quantized is written a second time.
        for inside in ("", "checkpoint/", "student/"):
            for leftover in self.root.glob(f"*/{trial}/{inside}.*.tmp"):
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)

    # --- sweep.json and its secrets --------------------------------------------------------------

    def read_facts(self) -> SweepFacts:
        """What `sweep.json` holds. Raises NewerFiles where a newer version wrote it."""
        from kdsweep.sweep.facts import SweepFacts

        todo = (
            "restore it from a copy, or delete it and run the same command again: finished trials "
            "are kept"
        )
        with whole(self.facts, todo):
            return SweepFacts.from_json(read_json(self.facts, todo), self.name)

    def write_facts(self, facts: SweepFacts) -> None:
        """Replace `sweep.json`. Only for the driver, which holds the lock."""
        write_json(self.facts, facts.to_json())

    def read_config(self) -> SweepConfig:
        """The sweep's configuration as it was last run, with its passwords."""
        secrets = read_json(self.secrets) if self.secrets.exists() else {}
        return self.read_facts().config(self.name, secrets)

    def write_secrets(self, secrets: dict[str, object]) -> None:
        if secrets:
            write_private(self.secrets, json.dumps(secrets))
        else:
            self.secrets.unlink(missing_ok=True)

    # --- the lock --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, doing: Doing = "run") -> Iterator[Holder]:
        """Be the only driver of this sweep. The lock ends with the process, however that ends.

        doing: what for. Raises SweepLocked with the host and process of the other one.
        """
        make_folder(self.root)
        try:
            with hold(self.lock_file, doing) as own:
                yield own
        except Held as other:
            what = "run" if other.holder.doing == "run" else "removed"
            todo = "wait for it"
            if other.holder.doing == "run":
                todo += f", or stop it (kdsweep stop {self.name}) and run again"
            raise SweepLocked(
                f"sweep {self.name!r} is being {what} by {other.holder.words}; {todo}"
            ) from None

    def holder(self) -> Holder | None:
        """Who runs or removes the sweep now, as far as this machine can tell."""
        return holder_of(self.lock_file)

    def is_running(self) -> bool:
        """Whether a driver runs the sweep now, as far as this machine can tell."""
        return self.holder() is not None
