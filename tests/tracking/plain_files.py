"""A tracker and a store for students that keep plain files, as an example of another tracker.

FOLDER/runs/NAME/run.json, FOLDER/runs/NAME/FILE, FOLDER/sweep.md, FOLDER/students/NAME/,
FOLDER/models/MODEL.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from kdsweep.core.settings import TrialSettings
from kdsweep.errors import KdsweepError, TrackingUnreachable
from kdsweep.tracking.base import KeptRuns, MadeHere, RunKey, RunUpdate, Tracking


class PlainFiles:
    """Implements `Tracker` and `StudentStore`. Raises TrackingUnreachable while `is_away`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_away = False

    @property
    def tracking(self) -> Tracking:
        return Tracking(self, self)

    # --- the tracker -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return f"plain files in {self.folder}"

    def connect(self) -> None:
        self._reach()
        self.folder.mkdir(parents=True, exist_ok=True)

    def update(self, run: RunKey, update: RunUpdate) -> str:
        self._reach()
        file = self._run(run) / "run.json"
        known: dict[str, Any] = {"params": {}, "tags": {}, "metrics": []}
        if file.exists():
            known = json.loads(file.read_text())
        file.parent.mkdir(parents=True, exist_ok=True)
        params = {name: str(value) for name, value in update.params.items()}
        metrics = [asdict(one) for one in update.metrics]
        new = {
            "state": update.state,
            "params": known["params"] | params,
            "tags": known["tags"] | dict(update.tags),
            "metrics": known["metrics"] + [one for one in metrics if one not in known["metrics"]],
        }
        file.write_text(json.dumps(new))
        return run.name

    def update_all(self, updates: Sequence[tuple[RunKey, RunUpdate]]) -> list[str]:
        return [self.update(run, update) for run, update in updates]

    def find(self, run: RunKey) -> str | None:
        self._reach()
        return run.name if (self._run(run) / "run.json").exists() else None

    def prepare_views(self, metric: str) -> None:
        self._reach()

    def describe_sweep(self, text: str) -> None:
        self._reach()
        (self.folder / "sweep.md").write_text(text)

    def add_file(self, run: RunKey, file: Path) -> None:
        self._reach()
        shutil.copy(file, self._run(run))

    def rename_sweep(self, name: str) -> None:
        self._reach()
        self.folder.rename(self.folder.with_name(name))

    def find_kept(self, made_here: MadeHere | None) -> KeptRuns:
        self._reach()
        return KeptRuns(len(self.runs()), folders=(self.folder,))

    def remove_kept(
        self, made_here: MadeHere | None, metric: str, say: Callable[[str], None]
    ) -> None:
        self._reach()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the students ----------------------------------------------------------------------------

    def keep(self, run: RunKey, folder: Path, settings: TrialSettings) -> None:
        self._reach()
        shutil.copytree(folder, self._student(run), dirs_exist_ok=True)

    def fetch(self, run: RunKey, folder: Path, run_id: str | None = None) -> None:
        self._reach()
        if not self._student(run).exists():
            raise KdsweepError(f"tracking: {self.name} has no student of {run.name}")
        shutil.copytree(self._student(run), folder, dirs_exist_ok=True)

    def left_behind(self, run_id: str) -> Path | None:
        return None

    def drop(self, run: RunKey) -> Literal["removed", "registered"]:
        self._reach()
        if any(self.best(file.stem)["run"] == run.name for file in self._models.glob("*.json")):
            return "registered"
        shutil.rmtree(self._student(run))
        return "removed"

    def register_best(self, model: str, run: RunKey, metric: str, value: float) -> str:
        self._reach()
        file = self._models / f"{model}.json"
        if file.exists() and self.best(model)["value"] >= value:
            return f"{model}: {self.best(model)['run']} stays the best"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"run": run.name, "metric": metric, "value": value}))
        return f"{model}: {run.name} is the best"

    # --- what tests read -------------------------------------------------------------------------

    def runs(self) -> dict[str, dict[str, Any]]:
        files = (self.folder / "runs").glob("*/run.json")
        return {file.parent.name: json.loads(file.read_text()) for file in files}

    def students(self) -> set[str]:
        return {folder.name for folder in (self.folder / "students").iterdir()}

    def best(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._models / f"{model}.json").read_text())
        return found

    @property
    def _models(self) -> Path:
        return self.folder / "models"

    def _run(self, run: RunKey) -> Path:
        return self.folder / "runs" / run.name

    def _student(self, run: RunKey) -> Path:
        return self.folder / "students" / run.name

    def _reach(self) -> None:
        if self.is_away:
            raise TrackingUnreachable(f"tracking: {self.name} can't be reached")
