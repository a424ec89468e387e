"""What a sweep's folder and studies say, read without running anything."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

from pydantic import JsonValue
from ruamel.yaml import YAML

import kdsweep
from kdsweep import metric_names
from kdsweep.compare.finalists import Judged, mean_of
from kdsweep.compare.findings import SettingsComparison
from kdsweep.compare.records import TrialRecord
from kdsweep.config import Plan, SearchSpace
from kdsweep.config.loading import Plain
from kdsweep.config.space_loading import load_space
from kdsweep.config.sweep import COSTS
from kdsweep.core.data.rows import Say
from kdsweep.core.files import fingerprint, only_read, write_atomically
from kdsweep.core.versions import PACKAGES
from kdsweep.errors import DataError, SpaceError
from kdsweep.formatting import precision_in_words
from kdsweep.report.model import (
    BestTrial,
    EarlierSweeps,
    Finalist,
    ModelCosts,
    Report,
    Reproduction,
    TrialCounts,
)
from kdsweep.sweep.budget import TimeSpent, use_of_slots
from kdsweep.sweep.commits import revisions, with_kept_commits
from kdsweep.sweep.confirm import not_shown
from kdsweep.sweep.earlier_rows import not_known
from kdsweep.sweep.folders import Home, SweepFolder
from kdsweep.sweep.input_check import SHOWN_AS_STORED, changed_inputs
from kdsweep.sweep.kept_logits import read_search_predictions, read_test_logits
from kdsweep.sweep.latency_file import LatencyFile
from kdsweep.sweep.progress import Progress
from kdsweep.sweep.seed_runs import SeedRuns, finished
from kdsweep.sweep.studies import Studies
from kdsweep.sweep.study_storage import Access, StudyStorage
from kdsweep.sweep.trained_by import trained_by
from kdsweep.trial_id import TrialId

if TYPE_CHECKING:
    from kdsweep.compare.findings import ParetoEntry
    from kdsweep.report.build import SearchOutcome
    from kdsweep.sweep.facts import SweepFacts

REPRODUCED_WITH = (
    *(name for name in PACKAGES if name != "kdsweep"),
    "datasets",
    "optuna",
    "mlflow",
    "ray",
    "scikit-learn",
)


def open_studies(
    plan: Plan, home: Home, say: Callable[[str], None] = lambda line: None, *, runs: bool = False
) -> Studies:
    """The studies of the plan's sweep. runs: whether the caller runs it, and so may write."""
    database = open_database(home, plan.sweep.storage, say, runs=runs)
    return Studies(database, plan.name, plan.space, plan.sweep, home.sweep(plan.name))


def open_database(
    home: Home, storage: str, say: Callable[[str], None], *, runs: bool
) -> StudyStorage:
    """The database of a sweep with this `storage`. Only home's own file is ever replaced."""
    writing: Access = "replace" if storage == "sqlite" else "write"
    return StudyStorage(home.storage_url(storage), say, writing if runs else "read")


# --- what was recorded ---------------------------------------------------------------------------


def read_records(plan: Plan, home: Home, studies: Studies) -> list[TrialRecord]:
    """Every trial of the search, of finalists and of confirm that was started."""
    folder = home.sweep(plan.name)
    again = SeedRuns(plan, folder, studies)
    trials: list[TrialId] = []
    for strategy in plan.space.strategies:
        progress = studies.progress(strategy)
        for number in [*progress.counted_ends, *sorted(progress.running)]:
            trials.append(TrialId(strategy, number))
        trials += [run.id for run in again.asked(strategy)]
    return [
        _record(folder, trial, studies.params(trial))
        for trial in trials
        if folder.trial(trial).settings.exists()
    ]


def _record(folder: SweepFolder, trial: TrialId, params: Mapping[str, JsonValue]) -> TrialRecord:
    files = folder.trial(trial)
    result, evaluations = files.read_result(), files.read_evaluations()
    if result is not None:
        evaluations = [one for one in evaluations if one.step <= result.steps]
    return TrialRecord(
        trial,
        state=result.state if result else "running",
        settings=files.read_settings(),
        params=params,
        evaluations=tuple(evaluations),
        result=result,
    )


# --- the report ----------------------------------------------------------------------------------


def build_report(
    plan: Plan, home: Home, studies: Studies, records: Sequence[TrialRecord], *, state: str
) -> Report:
    """The report of a sweep as it stands: `done` or `stopped`. records: of `read_records`."""
    from kdsweep.compare.settings_comparison import compare_settings
    from kdsweep.report.build import ReportFacts, summarize

    folder = home.sweep(plan.name)
    facts = folder.read_facts()
    spent = TimeSpent.read(folder.clock)
    metric = plan.space.task.metric
    again = SeedRuns(plan, folder, studies)
    confirmed = {
        strategy: finished(folder, again.confirmations(strategy))
        for strategy in plan.space.strategies
        # One that has found no trial is compared with nothing.
        if again.to_confirm is None or strategy in again.to_confirm
    }
    settings = compare_settings(
        metric,
        {
            strategy: read_search_predictions(plan, folder, strategy, records)
            for strategy in plan.space.strategies
        },
    )
    outcomes = {
        strategy: _outcome(again, strategy, records, settings.get(strategy))
        for strategy in plan.space.strategies
    }
    return summarize(
        plan.name,
        metric,
        facts.teachers,
        outcomes,
        records,
        read_test_logits(plan, home, confirmed),
        ReportFacts(
            margin=plan.sweep.confirm.margin,
            looks=again.look_rules,
            expected=facts.expected,
            cheapest=plan.sweep.cheapest,
            pareto=_front(plan, facts, records),
            latencies=LatencyFile.read(folder.latency).architectures,
            importance={name: studies.importance(name) for name in plan.space.strategies},
            slots=use_of_slots(spent),
            teacher_seconds=spent.teacher_seconds,
            reproduce=_reproduce(plan, home, facts, records),
            precision=precision_in_words(plan.space.precisions()),
            start_from=_earlier_sweeps(plan, folder),
            state=state,
        ),
    )


def _earlier_sweeps(plan: Plan, folder: SweepFolder) -> EarlierSweeps | None:
    from kdsweep.sweep.knowledge import Knowledge
    from kdsweep.sweep.start_from import StartedFrom

    if not plan.sweep.start_from:
        return None
    found = StartedFrom.read(folder)
    learns = Knowledge.of(plan.sweep).sampler_learns
    return EarlierSweeps(
        sweeps=plan.sweep.start_from,
        known={name: len(trials) for name, trials in found.known.items() if learns},
        tried_first={name: len(trials) for name, trials in found.first.items()},
    )


def _front(
    plan: Plan, facts: SweepFacts, records: Sequence[TrialRecord]
) -> tuple[ParetoEntry, ...] | None:
    """None without several objectives; empty where all students cost the same."""
    from kdsweep.compare.latency import cost_the_same
    from kdsweep.compare.pareto import pareto

    costs = {name: COSTS[name] for name in plan.sweep.costs}
    if not costs:
        return None
    measured_once = facts.latency == "once"
    if cost_the_same(list(costs.values()), records, measured_once=measured_once):
        return ()
    return tuple(pareto(plan.space.task.metric, costs, records))


def _outcome(
    again: SeedRuns,
    strategy: str,
    records: Iterable[TrialRecord],
    settings: SettingsComparison | None,
) -> SearchOutcome:
    from kdsweep.report.build import SearchOutcome

    progress = again.studies.progress(strategy)
    seconds = sum(
        record.result.seconds
        for record in records
        if record.id.strategy == strategy and record.result
    )
    return SearchOutcome(
        _counts(progress),
        _best_trial(again, strategy),
        slot_hours=seconds / 3600,
        seeds_asked=max(again.seeds_wanted(strategy), len(again.confirmations(strategy))),
        settings_comparison=settings,
        finalists=_finalists(again.judged(strategy)),
    )


def _counts(progress: Progress) -> TrialCounts:
    return TrialCounts(
        complete=progress.complete,
        pruned=progress.pruned,
        failed=progress.failed,
        earlier_space=len(progress.outside),
    )


def _finalists(judged: Judged | None) -> tuple[Finalist, ...]:
    if judged is None or not any(judged.values.values()):
        return ()
    return tuple(
        Finalist(
            trial=number,
            seeds=len(judged.values[number]),
            values=judged.values[number],
            mean=mean_of(judged.values[number]),
            chosen=number == judged.chosen,
        )
        for number in judged.order
    )


def _best_trial(again: SeedRuns, strategy: str) -> BestTrial | None:
    trial = again.best_trial(strategy)
    if trial is None:
        return None
    files = again.folder.trial(trial)
    result = files.read_result()
    student = ModelCosts.from_json(result.student) if result and result.student else None
    teachers = None
    if result and result.best:
        teachers = result.best.metrics.get(metric_names.teachers(again.plan.space.task.metric))
    return BestTrial(
        trial=trial.number,
        params=again.studies.params(trial),
        settings=files.read_settings(),
        validation=again.studies.progress(strategy).values[trial.number],
        student=student,
        teachers=teachers,
    )


def _reproduce(
    plan: Plan, home: Home, facts: SweepFacts, records: Sequence[TrialRecord]
) -> Reproduction:
    others = {name: version(name) for name in REPRODUCED_WITH}
    sweep = plan.sweep.model_dump(mode="json")
    keys = ("trials", "sampler", "pruner", "confirm", "start_from")
    sets = [f"{key}={json.dumps(sweep[key])}" for key in keys if key in sweep]
    sets += [f"{key}={commit}" for key, commit in revisions(plan.space).items()]
    command = [
        "kdsweep",
        "run",
        str(home.sweep(plan.name).space),
        "--name",
        plan.name,
        *(word for text in sets for word in ("--set", text)),
    ]
    return Reproduction(
        command=shlex.join([*command, "--home", "ANOTHER_HOME"]),
        versions={"kdsweep": kdsweep.__version__, **others},
        hashes={"sweep": fingerprint(facts.identity), "data": facts.data},
        commits={one.page: commit for one, commit in (facts.commits or {}).items()},
        trained_by=trained_by(home.sweep(plan.name), facts, [one.id for one in records]),
    )


def report(home: Home, name: str, say: Say = lambda line: None) -> Report:
    """The report of sweep `name` as it stands now. Raises UnknownSweep.

    If rows or models have changed since, one line says so. A sweep of version 0.1 kept no labels:
    there it is the report that was written at the end of the sweep.
    """
    plan, studies = recorded(home, name, say)
    folder = home.sweep(name)
    if (changes := changed_inputs(home, folder, plan.space.task)) is not None:
        say(f"{name}: {changes}; {SHOWN_AS_STORED}")
    for line in (not_shown(plan, folder, studies), not_known(folder.read_facts())):
        if line is not None:
            say(f"{name}: {line}")
    state = "stopped" if is_open(plan, home, studies) else "done"
    try:
        records = read_records(plan, home, studies)
        return build_report(plan, home, studies, records, state=state)
    except DataError as error:
        if not folder.report.exists():
            raise
        if changes is None:
            say(f"{name}: {error}; what is shown is the report that was written at its end")
        return Report.read(folder.report)


def is_open(plan: Plan, home: Home, studies: Studies) -> bool:
    """Whether a trial, or a run with a fresh seed, is still to be done."""
    again = SeedRuns(plan, home.sweep(plan.name), studies)
    for strategy in plan.space.strategies:
        if studies.trials_left(strategy) or studies.open_trials(strategy):
            return True
        if not all(again.folder.trial(run.id).is_over for run in again.asked(strategy)):
            return True
    return False


def stored_space(folder: SweepFolder) -> SearchSpace:
    """The sweep's space. A broken `space.yaml` is written again from `sweep.json`."""
    try:
        return load_space(folder.space, is_stored=True)
    except SpaceError:
        if only_read(folder.root):
            raise
        space = folder.read_facts().identity["space"]
        write_atomically(folder.space, lambda file: YAML().dump(space, file))
        return load_space(folder.space, is_stored=True)


def recorded(
    home: Home, name: str, say: Callable[[str], None] = lambda line: None
) -> tuple[Plan, Studies]:
    """The plan and the studies of an existing sweep. Raises UnknownSweep."""
    folder = home.existing(name)
    resolved = cast(dict[str, Plain], folder.read_facts().identity["space"])
    plan = Plan(name, stored_space(folder), folder.read_config(), resolved)
    plan = with_kept_commits(plan, folder)
    plan.space.settle_auto(folder.read_facts().auto)
    return plan, open_studies(plan, home, say)
