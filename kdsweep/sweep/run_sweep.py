"""Starting a sweep, or resuming it. Also: giving an old sweep another name.

Mistakes are found, the cheapest first, before anything is written or torch is imported.
`kdsweep.sweep` exports `run`; a module of that name would shadow the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kdsweep.config import Plan, load
from kdsweep.config.older_spaces import as_trained
from kdsweep.config.sweep import RayEngine
from kdsweep.core.cache_lock import cache_in_use
from kdsweep.core.data.loading import load_task
from kdsweep.core.files import only_read
from kdsweep.core.hub.snapshots import hub_cache, looking_in, snapshots_only
from kdsweep.core.standing import standing
from kdsweep.errors import DamagedFile, KdsweepError
from kdsweep.report.model import Report
from kdsweep.sweep.commits import (
    fetch_models,
    fetch_rows,
    kept_commits,
    with_commits,
    with_kept_commits,
)
from kdsweep.sweep.confirm_rules import check_confirm_rules, starts_looks, with_kept_rules
from kdsweep.sweep.engines.memory import memory_limit
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.identity import check_same_sweep
from kdsweep.sweep.input_check import SHOWN_AS_STORED, changed_inputs, check_same_inputs
from kdsweep.sweep.mended_faults import check_untouched
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
) -> Report:
    """Run the sweep of these two files, or resume it. The parameters are `kdsweep run`'s options.

    Returns its report. Raises SpaceError, and what `run_plan` raises.
    """
    plan = load(space, sweep, embedded=embedded, assignments=assignments, name=name)
    return run_plan(plan, Home(home), fresh=fresh, observer=observer)


def run_plan(
    plan: Plan,
    home: Home,
    *,
    fresh: bool = False,
    observer: Observer | None = None,
    startup_timer: StartupTimer | None = None,
) -> Report:
    """Run a sweep, or resume it; returns its report. fresh: rename an existing one and start over.

    Raises DataError, ModelError or TeacherError for what can't be run, SettingsConflict if the
    sweep of this name is another one (and `fresh` is off), SweepLocked if another driver runs it,
    BudgetSpent if no trial finished within the budget, and Interrupted if a signal stopped it;
    everything is saved then.
    """
    observer = observer or Observer()
    startup_timer = startup_timer or StartupTimer()
    folder = home.sweep(plan.name)
    folder.check_not_removed()
    if folder.exists():
        # Files of a newer version are refused before anything is read or locked.
        folder.read_facts()
    if not fresh:
        plan = with_sweeps_rules(plan, folder)
        check_confirm_rules(plan, folder)
        if (report := _finished_report(plan, home)) is not None:
            observer.say(f"{plan.name}: all trials are done; nothing to run")
            task = with_kept_commits(plan, folder).space.task
            if (changes := changed_inputs(home, folder, task)) is not None:
                observer.say(f"{plan.name}: {changes}; {SHOWN_AS_STORED}")
            return report
    home.check_writable(plan.sweep.storage, plan.sweep.tracking)
    if not fresh:
        check_same_sweep(plan, folder)
    with cache_in_use(home.cache, make=False):
        return _check_and_run(plan, home, observer, startup_timer, fresh=fresh)


def _check_and_run(
    plan: Plan, home: Home, observer: Observer, startup_timer: StartupTimer, *, fresh: bool
) -> Report:
    folder = home.sweep(plan.name)
    # A mistake in the data is reported within a second or two: torch isn't imported yet.
    startup_timer.enter("data")
    plan = with_inputs(plan, home, observer, fresh=fresh)
    # Everything is on this machine now: no trial can fail because of the network.
    with snapshots_only(hub_cache(home.cache)):
        if not fresh:
            check_same_inputs(home, folder, plan.space)
        return _run_checked(plan, home, observer, startup_timer, fresh=fresh)


def _run_checked(
    plan: Plan, home: Home, observer: Observer, startup_timer: StartupTimer, *, fresh: bool
) -> Report:
    """Run the sweep after a check of its models."""
    folder = home.sweep(plan.name)
    startup_timer.enter("imports")
    with without_collecting():
        from kdsweep.sweep.changed_space import space_change
        from kdsweep.sweep.driver import Driver
        from kdsweep.sweep.earlier_sweeps import what_to_start_from
        from kdsweep.sweep.engines.slots import slots_here
        from kdsweep.sweep.idle_slots import idle_slots
        from kdsweep.sweep.memory_estimate import estimate_memory
        from kdsweep.sweep.preflight import check_models

    startup_timer.enter("models")
    checked = check_models(plan.space, home.cache)
    if not fresh:
        check_untouched(folder, plan.space, checked)
    for note in checked.model_notes:
        observer.say(f"model: {note}")
    memory = estimate_memory(checked, plan.sweep.engine, memory_limit())
    if memory.is_too_much:
        observer.say(memory.words)
    if (line := idle_slots(plan, slots_here(plan.sweep.engine))) is not None:
        observer.say(line)
    if not fresh and (change := space_change(plan, folder)) is not None:
        for note in change.lines:
            observer.say(f"space: {note}")
    starts_from = what_to_start_from(plan, home, fresh=fresh)
    for note in starts_from.lines if fresh or not folder.exists() else ():
        observer.say(f"start_from: {note}")
    with (
        folder.locked(),
        standing(home.root, folder.root, folder.lock_file),
        cache_in_use(home.cache),
    ):
        folder.check_not_removed()
        try:
            if fresh and folder.exists():
                archived = archive(home, folder, observer.say)
                observer.say(f"{plan.name}: the existing sweep is now called {archived}")
            if not folder.exists():
                # Before `sweep.json`, without which there is no sweep: it starts from all or none.
                starts_from.write(folder)
            return Driver(plan, home, observer, startup_timer).run()
        except OSError as error:
            where = error.filename or home.root
            raise KdsweepError(
                f"{where}: {error.strerror or error}; what was finished is kept: fix this and run "
                "the same command again"
            ) from error


def with_inputs(
    plan: Plan, home: Home, observer: Observer, *, fresh: bool = False, weights: bool = True
) -> Plan:
    """The plan with its versions of what is on the Hub, once their files are on this machine and
    its rows can be read. Without `weights`, those are left where they are.

    Raises what `with_commits`, `load_task`, `fetch_rows` and `fetch_models` raise.
    """
    engine = plan.sweep.engine
    shared = isinstance(engine, RayEngine) and engine.address != "local"
    with looking_in(hub_cache(home.cache), shared=shared):
        folder = home.sweep(plan.name)
        kept = kept_commits(folder) if folder.exists() and not fresh else {}
        # What is being fetched is of no sweep yet.
        with cache_in_use(home.cache, make=False):
            plan = with_commits(plan, kept, observer.say, "dataset")
            fetch_rows(plan, kept, observer)
            # Before models, which may be large: a mistake in the data needs none.
            load_task(plan.space.task, home.cache, publish=False)
            plan = with_commits(plan, kept, observer.say, "model")
            return fetch_models(plan, kept, observer, weights=weights)


def with_sweeps_rules(plan: Plan, folder: SweepFolder) -> Plan:
    """The plan with the rules and defaults that the sweep was started with, if it exists."""
    if not folder.exists():
        return plan
    facts = folder.read_facts()
    plan = replace(plan, sweep=with_kept_rules(plan.sweep, facts))
    ruled = plan.with_rules_of(facts.identity)
    ruled.space.settle_auto(facts.auto)
    return ruled


def _finished_report(plan: Plan, home: Home) -> Report | None:
    """The report of a sweep that has nothing left to do, or None."""
    folder = home.sweep(plan.name)
    if not folder.exists() or not folder.report.exists():
        return None
    facts = folder.read_facts()
    if as_trained(facts.identity) != as_trained(plan.identity) or not facts.tracked:
        return None
    if starts_looks(plan, facts):
        # What confirm found is judged again, by looks.
        return None
    try:
        report = Report.read(folder.report)
    except DamagedFile:
        # It is written again.
        return None
    if report.state != "done" or _tracker_lacks_runs(plan, home):
        return None
    from kdsweep.sweep.mended_results import broken_trials
    from kdsweep.sweep.results import is_open, open_studies

    studies = open_studies(plan, home)
    if not only_read(home.root) and (
        studies.database.stands_in or broken_trials(folder, studies, plan.space.strategies)
    ):
        # The driver makes them again.
        return None
    return None if is_open(plan, home, studies) else report


def _tracker_lacks_runs(plan: Plan, home: Home) -> bool:
    """Whether the tracker's database is another one than the sweep's runs were sent to."""
    from kdsweep.tracking.home_database import lacks_runs

    folder = home.sweep(plan.name)
    sent = [folder.trial(trial).read_tracked().run_id for trial in folder.started_trials()]
    return lacks_runs(home.tracking_uri(plan.sweep.tracking), {one for one in sent if one})


def archive(home: Home, folder: SweepFolder, say: Callable[[str], None] = lambda line: None) -> str:
    """Rename the sweep in `folder`, its studies and runs to NAME.1, or the next free name.

    Returns that name.
    """
    # sweep.json is moved last: a folder without it is left from an attempt that was cut short.
    number = 1
    while home.sweep(f"{folder.name}.{number}").exists():
        number += 1
    name = f"{folder.name}.{number}"
    facts = folder.read_facts()
    config = folder.read_config()
    from kdsweep.sweep.results import open_database
    from kdsweep.sweep.study_storage import rename_studies

    database = open_database(home, config.storage, say, runs=True)
    rename_studies(database, folder.name, name)
    from kdsweep.tracking.opening import open_tracking

    tracking = open_tracking(
        home.tracking_uri(config.tracking),
        experiment=facts.experiment,
        sweep=folder.name,
        artifacts=home.artifacts,
        say=say,
    )
    tracking.runs.rename_sweep(name)
    # The folder itself is locked and stays; what is in it moves.
    target = home.sweep(name)
    target.root.mkdir(exist_ok=True)
    for entry in list(folder.root.iterdir()):
        if entry != folder.lock_file and entry != folder.facts:
            entry.rename(target.root / entry.name)
    folder.facts.rename(target.facts)
    return name
