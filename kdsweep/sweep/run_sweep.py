"""Starting a sweep: what may be wrong is found, cheapest first, before anything is written or torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdsweep.config import Plan, load
from kdsweep.core.data.loading import load_task
from kdsweep.core.files import read_json
from kdsweep.errors import KdsweepError, SettingsConflict
from kdsweep.report.model import Report
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.startup_timer import StartupTimer, without_collecting


def run(
    space: Path | str,
    sweep: Path | str | None = None,
    *,
    embedded: bool = False,
    home: Path | str = "runs",
    name: str | None = None,
    assignments: tuple[str, ...] = (),
    fresh: bool = False,
    observer: Observer | None = None,
    startup_timer: StartupTimer | None = None,
) -> Report:
    """Run a sweep, or go on with it; return its report.

    Raises SpaceError, DataError, ModelError or TeacherError for what can't be run, SettingsConflict where a sweep of this name
    is another one (and `fresh` is off), SweepLocked where somebody else runs it, BudgetSpent where no trial finished within the
    budget, and Interrupted when it was stopped by a signal; everything is saved then.
    """
    plan = load(space, sweep, embedded=embedded, assignments=assignments, name=name)
    observer, startup_timer = observer or Observer(), startup_timer or StartupTimer()
    place = Home(home)
    folder = place.sweep(plan.name)
    if not fresh and (report := _finished_report(plan, place)) is not None:
        observer.say(f"{plan.name}: all trials are done; nothing to run")
        return report
    _check_same_sweep(plan, folder, fresh)
    startup_timer.enter("data")
    load_task(
        plan.space.task, place.cache, publish=False
    )  # before torch is imported: a mistake in the data is said within a second or two
    startup_timer.enter("imports")
    with without_collecting():
        from kdsweep.sweep.driver import Driver
        from kdsweep.sweep.preflight import check_models

    startup_timer.enter("models")
    check_models(
        plan.space, place.cache
    )  # whatever is wrong with data or models is said before anything is written
    with folder.locked():
        try:
            if fresh and folder.facts.exists():
                archived = archive(place, folder)
                observer.say(f"{plan.name}: the sweep that had this name is now {archived}")
            return Driver(plan, place, observer, startup_timer).run()
        except OSError as error:
            where = error.filename or place.root
            raise KdsweepError(
                f"{where}: {error.strerror or error}; what was finished is kept: mend it and run the same command again"
            ) from error


def _finished_report(plan: Plan, home: Home) -> Report | None:
    """The report of a sweep that has nothing left to do, or None."""
    folder = home.sweep(plan.name)
    if not folder.facts.exists() or not folder.report.exists():
        return None
    facts = read_json(folder.facts)
    if facts["identity"] != plan.identity or not facts["tracked"]:
        return None
    report = Report.from_json(read_json(folder.report))
    from kdsweep.sweep.results import is_open, open_studies

    if report.state != "done" or is_open(plan, home, open_studies(plan, home)):
        return None
    return report


def _check_same_sweep(plan: Plan, folder: SweepFolder, fresh: bool) -> None:
    if fresh or not folder.facts.exists():
        return
    changes = differences(read_json(folder.facts)["identity"], plan.identity)
    if changes:
        shown = "; ".join(changes[:5]) + (
            f"; and {len(changes) - 5} more" if len(changes) > 5 else ""
        )
        raise SettingsConflict(
            f"sweep {folder.name!r} was started with other settings ({shown}); --fresh starts a new one, --name gives this one its own name"
        )


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Where two plain values differ, a line each: `space.training.epochs: 2 -> 3`."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            line
            for key in keys
            for line in differences(
                before.get(key), after.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    return [] if before == after else [f"{path}: {before} -> {after}"]


def archive(home: Home, folder: SweepFolder) -> str:
    """Give the sweep in `folder` another name, NAME.1 or the next that is free: studies, runs and folder. Returns the name."""
    number = 1
    while home.sweep(
        f"{folder.name}.{number}"
    ).facts.exists():  # moved last: a folder without it is an archiving that was cut short
        number += 1
    name, facts, sweep = f"{folder.name}.{number}", read_json(folder.facts), folder.read_sweep()
    from kdsweep.sweep.studies import rename_studies

    rename_studies(
        home.storage_url(sweep["storage"]),
        folder.name,
        name,
        facts["identity"]["space"]["strategies"],
    )
    from kdsweep.tracking.mlflow_tracker import Tracker

    tracker = Tracker(
        home.tracking_uri(sweep["tracking"]),
        experiment=facts["experiment"],
        sweep=folder.name,
        artifacts=home.artifacts,
    )
    tracker.rename_sweep(name)
    # The folder itself is locked and stays; what is in it moves.
    target = home.sweep(name)
    target.root.mkdir(exist_ok=True)
    for entry in list(folder.root.iterdir()):
        if entry != folder.lock_file and entry != folder.facts:
            entry.rename(target.root / entry.name)
    folder.facts.rename(target.facts)
    return name
