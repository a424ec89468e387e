"""The end of a run of the sweep: its report, the tracker, the registered student, `on_done`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from pydantic import JsonValue

from kdsweep import metric_names
from kdsweep.core.files import write_json
from kdsweep.errors import BudgetSpent, Interrupted, KdsweepError
from kdsweep.report.model import Report
from kdsweep.sweep.budget import say_use, use_of_slots
from kdsweep.sweep.engines.slots import slots_here
from kdsweep.sweep.expected_answers import expected_complete
from kdsweep.sweep.folders import SweepFolder
from kdsweep.sweep.notify import notify_once
from kdsweep.sweep.open_sweep import OpenSweep
from kdsweep.sweep.results import build_report, read_records
from kdsweep.sweep.run_updates import once
from kdsweep.sweep.shown_rows import find_differences
from kdsweep.sweep.signals import StopRequest
from kdsweep.sweep.slow_steps import saying_how_long
from kdsweep.tracking.base import RunKey, RunState, RunUpdate
from kdsweep.trial_id import TrialId


@dataclass(frozen=True)
class RunEnd:
    """How this run of the sweep ended.

    stop: whether a signal stopped it. jobs_left: how many more trials there may be. open_trials:
    those that were started and have not ended.
    """

    error: Exception | None
    stop: StopRequest
    jobs_left: int
    open_trials: frozenset[TrialId]


def finish(sweep: OpenSweep, end: RunEnd) -> Report:
    """The report of the sweep; raises the error that ended it.

    Either way the tracker is sent everything first.
    """
    report: Report | None = None
    error = end.error
    if error is None and not end.stop.requested:
        try:
            with saying_how_long(sweep.observer.say, "writing the report"):
                report = _write_report(sweep, end)
        except KdsweepError as problem:
            error = problem
    done = report is not None and report.state == "done"
    state: RunState = "complete" if done else "paused"
    if error is not None and not isinstance(error, BudgetSpent):
        state = "failed"
    if not done:
        sweep.tracking.pause(end.open_trials)
    _send_everything(sweep, state, report)
    if report is not None and done:
        on_done, say = sweep.plan.sweep.on_done, sweep.observer.say
        notify_once(sweep.folder, on_done, report, say, lambda: end.stop.requested)
    if error is not None:
        raise error
    if report is None:
        raise Interrupted("everything is saved; run the same command again to resume")
    if (use := use_of_slots(sweep.clock.total)) is not None:
        sweep.observer.say(say_use(use))
    return report


def _write_report(sweep: OpenSweep, end: RunEnd) -> Report:
    """Write `report.json` and `report.html`. Raises an error if no trial finished."""
    stopped = sweep.clock.over and end.jobs_left > 0
    state = "stopped" if stopped else "done"
    _keep_expected(sweep)
    # Read once: tens of thousands of trials take a minute.
    records = read_records(sweep.plan, sweep.home, sweep.studies)
    report = build_report(sweep.plan, sweep.home, sweep.studies, records, state=state)
    if all(found.best is None for found in report.strategies.values()):
        if stopped:
            raise BudgetSpent(
                "the budget was spent before any trial finished; give it more time (budget) and "
                "run the same command again"
            )
        raise KdsweepError(
            "no trial finished: all failed, diverged or were pruned"
            f"{_first_reason(sweep.folder)}; `kdsweep status {sweep.plan.name}` counts them"
        )
    from kdsweep.report.page import write_page

    for strategy, found in report.strategies.items():
        if found.finalists:
            noted: list[JsonValue] = [one.model_dump(mode="json") for one in found.finalists]
            sweep.studies.note(strategy, "kdsweep.finalists", noted)
        if looks := _looks_of(report, strategy):
            sweep.studies.note(strategy, "kdsweep.looks", looks)
    write_json(sweep.folder.report, report.to_json())
    differences = find_differences(sweep.plan, sweep.home, report)
    write_page(report, records, sweep.folder.page, differences)
    if stopped:
        sweep.observer.say(
            "the budget is spent and open trials are saved; raise it and run the same command "
            "again to resume"
        )
    return report


def _keep_expected(sweep: OpenSweep) -> None:
    """Keep how many trials were expected to run to their end: that takes too long to be computed
    whenever the report is read."""
    expected = expected_complete(sweep.plan, slots_here(sweep.plan.sweep.engine))
    sweep.folder.write_facts(replace(sweep.folder.read_facts(), expected=expected))


def _looks_of(report: Report, strategy: str) -> list[JsonValue]:
    """What each look found about the strategy and each other one."""
    return [
        {
            "against": other,
            "seeds": look.seeds,
            "points": None if look.difference is None else 100 * sign * look.difference,
            "state": look.state,
        }
        for pair in report.pairs
        if (other := pair.other(strategy)) is not None
        for sign in (1 if pair.a == strategy else -1,)
        for look in pair.looks
    ]


def _first_reason(folder: SweepFolder) -> str:
    """Why the first trial that has a reason ended, and where to read more."""
    for trial in folder.started_trials():
        files = folder.trial(trial)
        result = files.read_result()
        if result is not None and result.reason:
            shown = files.error if files.error.exists() else files.root
            return f" ({trial.name}: {result.reason}; {shown})"
    return f" ({folder.trials})"


# --- the tracker ---------------------------------------------------------------------------------


def _send_everything(sweep: OpenSweep, state: RunState, report: Report | None) -> None:
    """Send the end and whatever is left, and note whether the tracker has everything."""
    ended = time.time_ns() // 1_000_000
    sweep.tracking.send_once("end", lambda: _send_end(sweep, state, report, ended))
    with saying_how_long(sweep.observer.say, "sending what the tracker lacks"):
        unsent = sweep.tracking.close()
    if sweep.tracking.is_away:
        sweep.observer.say(
            f"tracking: {sweep.tracking.tracking.runs.name} hasn't got everything; "
            "the next `kdsweep run` sends what is missing"
        )
    facts = sweep.folder.read_facts()
    sweep.folder.write_facts(replace(facts, tracked=not unsent))


def _send_end(sweep: OpenSweep, state: RunState, report: Report | None, ended: int) -> None:
    from kdsweep.report.sentences import as_markdown

    tracker = sweep.tracking.tracking.runs
    run = RunKey("sweep")
    metrics = {metric_names.SECONDS: sweep.clock.seconds} if state == "complete" else {}
    sweep.tracking.update_run(
        run, RunUpdate(state=state, metrics=once(metrics, ended), ended=ended)
    )
    if report is None:
        return
    for file in (sweep.folder.report, sweep.folder.page):
        tracker.add_file(run, file)
    tracker.describe_sweep(as_markdown(report))
    if state == "complete":
        _register_best(sweep, report)


def _register_best(sweep: OpenSweep, report: Report) -> None:
    """Register the winner's student, unless an earlier sweep's is better."""
    winner = report.winner
    if winner is None or not sweep.plan.sweep.keep.students:
        return
    result = sweep.folder.trial(winner).read_result()
    assert result is not None and result.best is not None
    line = sweep.tracking.tracking.students.register_best(
        sweep.plan.experiment,
        RunKey.of(winner),
        sweep.metric,
        result.best.metrics[sweep.metric],
    )
    sweep.observer.say(line)
