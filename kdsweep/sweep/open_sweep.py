"""Opening a sweep to run it: its facts, its studies and its tracker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ruamel.yaml import YAML

from kdsweep import metric_names
from kdsweep.config import Plan
from kdsweep.config.loading import Plain
from kdsweep.core.files import write_atomically
from kdsweep.core.hub.repository import Repository
from kdsweep.core.versions import Versions
from kdsweep.errors import without_password
from kdsweep.sweep.budget import SweepClock
from kdsweep.sweep.changed_space import with_change
from kdsweep.sweep.commits import named
from kdsweep.sweep.confirm_rules import rules_at_start
from kdsweep.sweep.facts import CHANGED_FORMAT, SweepFacts
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.mended_faults import mended_now
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.precision import PrecisionStage
from kdsweep.sweep.results import open_studies
from kdsweep.sweep.startup_timer import without_collecting
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.teacher_threads import teacher_threads
from kdsweep.sweep.tracking_sync import TrackingSync
from kdsweep.sweep.trained_by import unversioned
from kdsweep.tracking.base import RunKey, RunUpdate, Tracking
from kdsweep.tracking.opening import open_tracking
from kdsweep.tracking.params import flat


@dataclass(frozen=True)
class OpenSweep:
    """What the driver and its neighbors work on while a sweep runs."""

    plan: Plan
    home: Home
    folder: SweepFolder
    studies: Studies
    tracking: TrackingSync
    clock: SweepClock
    observer: Observer
    precision: PrecisionStage

    @property
    def metric(self) -> str:
        """The name that the task's metric on validation has in evaluations."""
        return metric_names.validation(self.plan.space.task.metric)


def open_sweep(
    plan: Plan, home: Home, observer: Observer, tracking: Tracking | None = None
) -> OpenSweep:
    """Write the sweep's facts, and open its studies and its tracker.

    tracking: replaces the one that the sweep file names. Raises KdsweepError if a database can't
    be opened, and TrackingUnreachable if the tracker of a new sweep doesn't answer.
    """
    folder = home.sweep(plan.name)
    clock = SweepClock(folder.clock, plan.sweep.budget)
    clock.start()
    write_facts(plan, folder)
    precision = PrecisionStage(plan, folder)
    studies = open_studies(plan, home, observer.say, runs=True)
    # MLflow imports much of itself when it opens a database.
    with without_collecting():
        sync = _open_tracking(plan, home, folder, observer, tracking)
    return OpenSweep(plan, home, folder, studies, sync, clock, observer, precision)


def write_facts(plan: Plan, folder: SweepFolder) -> None:
    """Write the space as resolved, and the sweep with its secrets in a file of their own."""
    shown: dict[str, Plain] = plan.sweep.model_dump(mode="json")
    secrets: dict[str, object] = {}
    for key in ("storage", "tracking"):
        address = str(shown[key])
        shown[key] = without_password(address)
        if shown[key] != address:
            secrets[key] = address
    if plan.sweep.on_done is not None:
        secrets["on_done"] = shown["on_done"]
        shown["on_done"] = plan.sweep.on_done.shown()
    folder.write_secrets(secrets)
    write_atomically(folder.space, lambda file: YAML().dump(plan.resolved, file))
    plugins = plan.space.plugins()
    own = Versions.now().kdsweep
    assert own is not None
    facts = SweepFacts(
        own,
        plan.identity,
        plan.experiment,
        shown,
        teacher_threads=teacher_threads(plan),
        latency="once",
        precision="unsettled",
        mended=mended_now(folder, ()),
        plugins=plugins,
        commits=_kept(plan),
    )
    if folder.exists():
        before, changed = folder.read_facts(), with_change(plan, folder)
        facts = replace(
            before,
            kdsweep=facts.kdsweep,
            identity=facts.identity,
            experiment=facts.experiment,
            sweep=facts.sweep,
            mended=mended_now(folder, before.mended),
            plugins=facts.plugins,
            commits=None if before.commits is None else {**before.commits, **_kept(plan)},
            changed=changed,
            format=max(before.format, CHANGED_FORMAT if changed else 1),
            unversioned=before.unversioned or unversioned(folder, before, own),
            confirm=rules_at_start(plan, folder, before),
            tracked=False,
        )
    folder.write_facts(facts)


def _kept(plan: Plan) -> dict[Repository, str]:
    """The commits of the plan, as `sweep.json` keeps them."""
    return {named(repository): commit for repository, commit in plan.space.commits.items()}


def _open_tracking(
    plan: Plan, home: Home, folder: SweepFolder, observer: Observer, given: Tracking | None
) -> TrackingSync:
    """A new sweep needs a tracker that answers; one that was run before can do without."""
    tracking = given or open_tracking(
        home.tracking_uri(plan.sweep.tracking),
        experiment=plan.experiment,
        sweep=plan.name,
        artifacts=home.artifacts,
        say=observer.say,
    )
    facts = folder.read_facts()
    if not facts.connected:
        tracking.runs.connect()
        folder.write_facts(replace(facts, connected=True))
    sync = TrackingSync(tracking, folder, observer.say)

    def start_run() -> None:
        update = RunUpdate(state="running", params=_sweep_params(plan))
        sync.update_run(RunKey("sweep"), update)
        tracking.runs.prepare_views(plan.space.task.metric)

    sync.send_once("sweep", start_run)
    sync.send_lost_runs()
    return sync


def _sweep_params(plan: Plan) -> dict[str, object]:
    return (
        flat("task", plan.resolved["task"])
        | flat("sampler", plan.sweep.sampler.model_dump())
        | flat("pruner", plan.sweep.pruner.model_dump())
        | {f"commit/{one.page}": commit for one, commit in _kept(plan).items()}
    )
