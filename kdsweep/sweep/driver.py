"""The one loop: ask -> begin -> events -> tell -> track. Only the driver asks, tells and writes the databases."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from ruamel.yaml import YAML

from kdsweep import __version__, metric_names
from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.config import Plan
from kdsweep.config.sweep import COSTS
from kdsweep.core.data.loading import load_task
from kdsweep.core.data.unlabelled import load_unlabelled
from kdsweep.core.files import fingerprint, read_json, write_atomically, write_json
from kdsweep.core.settings import TeacherSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.teachers.logits import teacher_test
from kdsweep.core.teachers.selection import cached_teacher
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.errors import BudgetSpent, Interrupted, KdsweepError, TeacherError, without_password
from kdsweep.report.model import Report
from kdsweep.sweep.budget import SweepClock, TimeSpent, say_use, use_of_slots
from kdsweep.sweep.confirm import Confirm, ConfirmRun, best_confirmed, confirmations, finished
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.events import (
    Ended,
    Evaluated,
    Event,
    Message,
    StepReached,
    WorkerLost,
)
from kdsweep.sweep.engines.jobs import Job, TeacherJob, TrialJob
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.facts import SweepFacts
from kdsweep.sweep.folders import Home
from kdsweep.sweep.notify import notify_once
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.results import build_report, open_studies, read_records
from kdsweep.sweep.run_updates import once, teacher_update
from kdsweep.sweep.startup_timer import StartupTimer, without_collecting
from kdsweep.sweep.studies import SearchTrial
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.sweep.tracking_sync import TrackingSync
from kdsweep.tracking.base import RunKey, RunState, RunUpdate, Tracking
from kdsweep.tracking.opening import open_tracking
from kdsweep.tracking.params import flat
from kdsweep.trial_id import TrialId

TEACHER: Literal["teacher"] = "teacher"
Work = SearchTrial | ConfirmRun
MOST_DEATHS = 3


@dataclass
class _Running:
    """A job on a slot. `pruned_at`: the evaluation after which it was given up; it may go on a little until it hears."""

    job: Job
    work: Work | None = None
    evaluations: int = 0
    last: Evaluation | None = None
    pruned_at: Evaluation | None = None


class Driver:
    """One sweep being run. The caller holds the sweep's lock."""

    def __init__(
        self,
        plan: Plan,
        home: Home,
        observer: Observer,
        startup_timer: StartupTimer | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        """tracking: takes the place of the plan's own tracker."""
        self.given_tracking = tracking
        self.plan, self.home, self.observer = plan, home, observer
        self.startup_timer = startup_timer or StartupTimer()
        self.folder = home.sweep(plan.name)
        self.metric = metric_names.validation(plan.space.task.metric)
        self.stop = _Stop(observer)
        self.clock = SweepClock(self.folder.clock, plan.sweep.budget)
        self.running: dict[str, _Running] = {}
        self.waiting: deque[Work] = deque()  # what was begun and goes on when a slot is free
        self.fatal: Exception | None = None
        self.draining = False
        self.teacher_deaths = 0
        self.teacher_ready = self.teacher_begun = not plan.space.needs_teacher
        self.teacher_judged = not plan.space.needs_teacher or not plan.sweep.confirm.seeds

    def run(self) -> Report:
        self.clock.start()
        self.startup_timer.enter("databases")
        self._write_facts()
        self.studies = open_studies(self.plan, self.home, self.observer.say)
        self.confirm = Confirm(self.plan, self.folder, self.studies)
        with without_collecting():  # MLflow imports much of itself when it opens a database
            self.tracking = self._open_tracking()
        self.startup_timer.enter("data")
        with self.stop.listening():
            try:
                self._show_data()
                self._take_up()
                if self._work_left():
                    self.startup_timer.enter("slots")
                    with open_engine(
                        self.plan.sweep,
                        self.folder,
                        self._on_event,
                        self.observer.say,
                        packages=dict(self.plan.space.plugins().values()),
                    ) as self.engine:
                        self._work(self.engine)
                        self.engine.announce_end(resuming=self.stop.coming_back)
                elif self.plan.space.needs_teacher and self._cached_teachers():
                    self._record_teachers()
            except (KdsweepError, OSError) as error:
                self.fatal = self.fatal or error
            finally:
                self.clock.update(slots=0, running=0, has_work=False, gpus_per_slot=0)
                self.clock.save()
            return self._end()

    def _write_facts(self) -> None:
        plan = self.plan
        sweep = plan.sweep.model_dump(mode="json")
        secrets = {
            key: sweep[key]
            for key in ("storage", "tracking")
            if without_password(sweep[key]) != sweep[key]
        }
        sweep |= {key: without_password(sweep[key]) for key in ("storage", "tracking")}
        if plan.sweep.on_done is not None:
            secrets |= {"on_done": sweep["on_done"]}
            sweep |= {"on_done": plan.sweep.on_done.shown()}
        self.folder.write_secrets(secrets)
        if self.folder.exists():
            facts = replace(self.folder.read_facts(), kdsweep=__version__, identity=plan.identity)
            facts = replace(facts, experiment=plan.experiment, sweep=sweep, tracked=False)
        else:
            facts = SweepFacts(__version__, plan.identity, plan.experiment, sweep)
        facts = replace(facts, plugins=plan.space.plugins())
        write_atomically(self.folder.space, lambda file: YAML().dump(plan.resolved, file))
        self.folder.write_facts(facts)

    def _add_facts(self, **more: Any) -> None:
        self.folder.write_facts(replace(self.folder.read_facts(), **more))

    def _open_tracking(self) -> TrackingSync:
        """A new sweep needs a tracker that answers; one that was started runs on without."""
        plan = self.plan
        tracking = self.given_tracking or open_tracking(
            self.home.tracking_uri(plan.sweep.tracking),
            experiment=plan.experiment,
            sweep=plan.name,
            artifacts=self.home.artifacts,
        )
        if not read_json(self.folder.facts).get("connected"):
            tracking.runs.connect()
            self._add_facts(connected=True)
        sync = TrackingSync(tracking, self.folder, self.observer.say)

        def start_sweep() -> None:
            tracking.runs.update(
                RunKey("sweep"), RunUpdate(state="running", params=_sweep_params(plan))
            )
            tracking.runs.prepare_views(plan.space.task.metric)

        sync.send_once("sweep", start_sweep)
        return sync

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _work(self, engine: Engine) -> None:
        self._show_progress()
        while True:
            self._give_out(engine)
            if not self.running and (self.draining or not self._has_work()):
                self.clock.update(
                    slots=0, running=0, has_work=False, gpus_per_slot=0
                )  # ending Ray is no time of the slots
                return
            try:
                engine.wait(self.clock.seconds_left())
            except KdsweepError as error:
                self.fatal = self.fatal or error
            self._watch()

    def _take_up(self) -> None:
        """What an earlier driver left: trials that are open, that ended untold, or that MLflow doesn't know whole."""
        self.folder.remove_half_written()
        for strategy in self.plan.space.strategies:
            for trial_id in self.studies.open_trials(strategy):
                ticket = self.studies.resume(trial_id)
                files = self._files(ticket)
                if (result := files.read_result()) is None:
                    self.waiting.append(ticket)
                    continue
                for i, evaluation in enumerate(files.read_evaluations()):
                    if evaluation.step <= result.steps:
                        self.studies.report(ticket, i + 1, evaluation.metrics[self.metric])
                self._finish(ticket)
            self.studies.write_ends()
            confirmed = finished(
                self.folder, confirmations(self.plan, self.folder, self.studies, strategy)
            )
            for trial in [
                *(TrialId(strategy, number) for number in self.studies.progress(strategy).ended),
                *(run.id for run in confirmed),
            ]:
                if self.tracking.is_behind(trial):
                    self.tracking.update_trial(trial)
            self._keep_students(strategy)

    def _give_out(self, engine: Engine) -> None:
        """A job for every slot that is free; whatever else there is to write waits until they are busy again."""
        begun: list[Work] = []
        while engine.free_slots and not self.draining and (running := self._next()) is not None:
            self.running[running.job.name] = running
            self.startup_timer.enter(
                "teacher" if isinstance(running.job, TeacherJob) else "first trial"
            )
            engine.start(running.job)
            self._tick()
            begun += [running.work] if running.work else []
        self._tick()
        self.studies.write_ends()
        for work in begun:
            self._files(work).claim(work.settings)
            self.tracking.update_trial(work.id)
            self._show_progress()
        engine.request_slots(
            0 if self.draining else len(self.running) + self._work_left() + (not self.teacher_begun)
        )

    def _tick(self) -> None:
        engine = self.engine
        self.clock.update(
            slots=engine.slots,
            running=len(self.running),
            has_work=not self.draining and self._has_work(),
            gpus_per_slot=engine.gpus_per_slot,
        )

    def _next(self) -> _Running | None:
        space = self.plan.space
        if not self.teacher_begun:
            self.teacher_begun = True
            return _Running(
                TeacherJob(TEACHER, space.task, tuple(space.teachers()), self.home.cache)
            )
        work = self._next_work()
        if work is None:
            return None
        if isinstance(work, ConfirmRun) and self.teacher_ready and not self.teacher_judged:
            self.teacher_judged = True
            self.waiting.append(work)
            return _Running(
                TeacherJob(
                    TEACHER, space.task, tuple(space.teachers()), self.home.cache, judge_test=True
                )
            )
        return _Running(
            TrialJob(work.id, work.settings, self._files(work).root, self.home.cache), work
        )

    def _next_work(self) -> Work | None:
        """What was begun before; else a new trial of the strategy that has the fewest, so that they advance side by side; else
        a run that confirms what a search that is over has found."""
        for work in self.waiting:
            if self.teacher_ready or not work.settings.needs_teacher:
                self.waiting.remove(work)
                return work
        open_to = self._strategies_with_trials_left()
        if open_to:
            return self.studies.ask(
                min(open_to, key=lambda strategy: self.studies.progress(strategy).started)
            )
        return self.confirm.take(teacher=self.teacher_ready)

    def _strategies_with_trials_left(self) -> list[str]:
        """Those that can be asked now: without the teacher, only those that never need it."""
        space = self.plan.space
        ready = [
            strategy
            for strategy in space.strategies
            if self.teacher_ready or not space.may_need_teacher(strategy)
        ]
        return [strategy for strategy in ready if self.studies.trials_left(strategy)]

    def _has_work(self) -> bool:
        """Whether there is a job for a slot now, or will be."""
        if not self.teacher_begun or self.waiting or self._strategies_with_trials_left():
            return True
        return bool(self.confirm.ready(teacher=self.teacher_ready))

    def _work_left(self) -> int:
        """How many more jobs there may be: no more slots than that are of use."""
        left = sum(self.studies.trials_left(strategy) for strategy in self.plan.space.strategies)
        return len(self.waiting) + left + self.confirm.left()

    def _watch(self) -> None:
        """Let everything be saved when the user, the budget or an error says so."""
        if not self.draining and (self.stop.requested or self.fatal or self.clock.is_over()):
            self.draining = True
            for name in self.running:
                self.engine.stop(name, save=True)

    # --- events ------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case StepReached():
                if (line := self.startup_timer.first_step()) is not None:
                    self.observer.say(line)
                self.observer.step(event.name, event.step, event.total_steps)
                self._watch()
            case Message():
                self.observer.say(event.line)
            case Evaluated():
                self._evaluated(self.running[event.name], event.evaluation)
            case Ended():
                self.clock.spend(event.spent)
                self.observer.over(event.name)
                self._ended(self.running.pop(event.name), event)
                self._tick()
            case WorkerLost():
                self.observer.over(event.name)
                self._lost(self.running.pop(event.name), event.reason)
                self._tick()

    def _evaluated(self, running: _Running, evaluation: Evaluation) -> None:
        work = running.work
        assert work is not None
        if running.pruned_at is not None:
            return
        running.evaluations += 1
        running.last = evaluation
        prune = isinstance(work, SearchTrial) and self.studies.report(
            work, running.evaluations, evaluation.metrics[self.metric]
        )
        self.tracking.update_trial(work.id)
        if prune and not self._files(work).result.exists():
            running.pruned_at = evaluation
            self.engine.stop(work.id.name, save=False)

    def _ended(self, running: _Running, event: Ended) -> None:
        work = running.work
        if event.outcome == "fatal":
            self.fatal = self.fatal or event.error
            self._watch()
        if work is None:
            assert isinstance(running.job, TeacherJob)
            self._teacher_ended(running.job, event)
            return
        files = self._files(work)
        at = running.pruned_at or running.last
        steps, seconds = (at.step, at.seconds) if at else (0, 0.0)
        if event.outcome in ("saved", "fatal"):
            self.waiting.appendleft(work)
            return
        if event.outcome == "dropped":
            files.write_result(TrialResult("pruned", steps, seconds))
        elif event.outcome == "failed":
            files.write_error(event.trace or "")
            files.write_result(TrialResult("failed", steps, seconds, reason=event.reason))
        self._finish(work)

    def _lost(self, running: _Running, reason: str) -> None:
        """The process that ran the job is gone. The job goes on elsewhere, unless it is the job that kills."""
        if running.work is None:
            assert isinstance(running.job, TeacherJob)
            self._forget_teacher_job(running.job)
            self.teacher_deaths += 1
            self.observer.say(f"teacher: {reason}; it goes on from its last checkpoint")
            if self.teacher_deaths >= MOST_DEATHS:
                self.fatal = TeacherError(
                    f"teacher: the process that made it died {MOST_DEATHS} times: {reason}"
                )
            return
        work, files = running.work, self._files(running.work)
        self.folder.remove_half_written(work.id.name)
        deaths = files.write_lost(reason)
        if deaths < MOST_DEATHS:
            self.observer.say(
                f"{work.id.name}: {reason}; it goes on from its last checkpoint (death {deaths} of {MOST_DEATHS})"
            )
            self.waiting.appendleft(work)
            self.tracking.update_trial(work.id)
        else:
            steps, seconds = (running.last.step, running.last.seconds) if running.last else (0, 0.0)
            files.write_result(
                TrialResult(
                    "failed",
                    steps,
                    seconds,
                    reason=f"the process that ran it died {deaths} times: {reason}",
                )
            )
            self._finish(work)

    def _finish(self, work: Work) -> None:
        """Tell what the result says. It stands in the folder already: a driver that dies here ends the trial again."""
        result = self._files(work).read_result()
        assert result is not None
        value = (
            result.best.metrics[self.metric] if result.state == "complete" and result.best else None
        )
        if isinstance(work, SearchTrial):
            costs = (
                [(result.student or {})[COSTS[name]] for name in self.plan.sweep.costs]
                if value is not None
                else []
            )
            self.studies.tell(work, result.state, value, result.reason, costs)
        else:
            self.confirm.ended()
        self.tracking.update_trial(work.id)
        self._keep_students(work.id.strategy, work.id)
        self._show_progress()
        shown = (
            f"{self.plan.space.task.metric} {value:.4f}"
            if value is not None
            else result.reason or f"after {result.steps} steps"
        )
        tested = f", {result.test[self.plan.space.task.metric]:.4f} on test" if result.test else ""
        settled = f"; {_settled(work)}" if isinstance(work, SearchTrial) else ""
        self.observer.say(
            f"{work.id.name}: {result.state}, {shown}{tested} ({result.seconds:.0f} s{settled})"
        )

    def _keep_students(self, strategy: str, ended: TrialId | None = None) -> None:
        """Let the best students of the search keep their checkpoints, and of the runs that confirm its best trial the best one."""
        most = self.plan.sweep.keep.students
        kept = tuple(
            TrialId(strategy, number) for number in self.studies.progress(strategy).order[:most]
        )
        searched = ended if ended and ended.seed_index is None else None
        self.tracking.keep_students(strategy, "search", kept, searched)
        runs = finished(self.folder, confirmations(self.plan, self.folder, self.studies, strategy))
        best = best_confirmed(self.plan.space.task.metric, runs) if most else None
        confirmed = ended if ended and ended.seed_index is not None else None
        confirmed_best = (best.id,) if best else ()
        self.tracking.keep_students(strategy, "confirm", confirmed_best, confirmed)

    def _files(self, work: Work) -> SweptTrial:
        return self.folder.trial(work.id)

    def _show_data(self) -> None:
        self.data = load_task(self.plan.space.task, self.home.cache, say=self.observer.say)
        shown, notes = dict(self.data.splits), self.data.notes
        if self.plan.space.task.unlabelled is not None:
            shown["unlabelled"], more = load_unlabelled(
                self.plan.space.task, self.data, self.home.cache, say=self.observer.say
            )
            notes += more
        self._add_facts(data={name: split.key for name, split in shown.items()})
        for note in notes:
            self.observer.say(f"data: {note}")
        self.observer.say(
            "data: " + ", ".join(f"{name} {len(split):,} rows" for name, split in shown.items())
        )
        if self.plan.sweep.costs:
            self.observer.say(
                f"objectives: {', '.join(self.plan.sweep.objective)}; nothing is pruned, as no pruner weighs several"
            )
        if not self.plan.space.needs_teacher:
            self.observer.say("teacher: no strategy needs one")
        elif self._cached_teachers():
            self.observer.say("teacher: from the cache")

    def _show_progress(self) -> None:
        strategies = list(self.plan.space.strategies)
        progress = {strategy: self.studies.progress(strategy) for strategy in strategies}
        trials = {strategy: self.studies.trials_for(strategy) for strategy in strategies}
        self.observer.progress(progress, trials, self.confirm.progress(), self.clock.seconds)

    # --- the teacher -------------------------------------------------------------------------------------------------

    def _cached_teachers(self) -> list[tuple[TeacherSettings, Teacher]]:
        """Every teacher that a trial can need, the best on validation first; none where not all of them are made."""
        space = self.plan.space
        found = [
            (one, cached_teacher(space.task, one, self.home.cache)) for one in space.teachers()
        ]
        made = [(one, teacher) for one, teacher in found if teacher is not None]
        return (
            sorted(made, key=lambda pair: -pair[1].validation[space.task.metric])
            if len(made) == len(found)
            else []
        )

    def _forget_teacher_job(self, job: TeacherJob) -> None:
        """It isn't done: give it out again."""
        if job.judge_test:
            self.teacher_judged = False
        else:
            self.teacher_begun = False

    def _teacher_ended(self, job: TeacherJob, event: Ended) -> None:
        if event.outcome in ("failed", "diverged"):
            self.fatal = TeacherError(f"teacher: {event.reason}")
            if (trace := event.trace) is not None:
                file = self.folder.root / "error.txt"
                write_atomically(file, lambda stream: stream.write(trace.encode()))
        if event.outcome != "complete":
            self._forget_teacher_job(job)
            return
        self.teacher_ready = True
        self._record_teachers()

    def _record_teachers(self) -> None:
        """The best one on validation is the teacher of the report: what students are measured by."""
        made = self._cached_teachers()
        known = [
            self._record_teacher(settings, teacher, alone=len(made) == 1)
            for settings, teacher in made
        ]
        self._add_facts(teachers=tuple(map(TeacherRecord.from_json, known)))

    def _record_teacher(
        self, settings: TeacherSettings, teacher: Teacher, *, alone: bool
    ) -> dict[str, Any]:
        metric = self.plan.space.task.metric
        known: dict[str, Any] = {
            name: getattr(teacher, name)
            for name in ("validation", "parameters", "size_mb", "latency_ms", "latency_p95_ms")
        }
        known["test"] = test = teacher_test(teacher, self.data, metric, cache=self.home.cache)
        known |= {"name": settings.words, "selected": teacher.selected}
        name = "teacher" if alone else f"teacher {settings.words}"
        self.observer.say(
            f"{name}: validation {metric} {teacher.validation[metric]:.4f}"
            + (f", {test[metric]:.4f} on test" if test else "")
        )
        run = (
            RunKey(TEACHER)
            if alone
            else RunKey(TEACHER, teacher=fingerprint(settings.model_dump(mode="json"))[:6])
        )

        update = teacher_update(settings, teacher, metric, test)
        self.tracking.send_once(run.name, lambda: self._send_update(run, update))
        return known

    def _send_update(self, run: RunKey, update: RunUpdate) -> None:
        self.tracking.tracking.runs.update(run, update)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _end(self) -> Report:
        """The report, or the error that ended it; either way MLflow is told first."""
        report: Report | None = None
        if self.fatal is None and not self.stop.requested:
            try:
                report = self._report()
            except KdsweepError as error:
                self.fatal = error
        over = report is not None and report.state == "done"
        state: RunState = "complete" if over else "paused"
        if self.fatal and not isinstance(self.fatal, BudgetSpent):
            state = "failed"
        if not over:
            self.tracking.pause(
                frozenset(work.id for work in [*self.waiting, *self.confirm.begun()])
            )
        ended = time.time_ns() // 1_000_000
        self.tracking.send_once("end", lambda: self._send_end(state, report, ended))
        unsent = self.tracking.close()
        if unsent:
            self.observer.say(
                f"tracking: {self.tracking.tracking.runs.name} doesn't answer; "
                "the next `kdsweep run` sends what is missing"
            )
        self._add_facts(tracked=not unsent)
        if over and report is not None:
            notify_once(self.folder, self.plan.sweep.on_done, report, self.observer.say)
        if self.fatal is not None:
            raise self.fatal
        if report is None:
            raise Interrupted("everything is saved; run the same command again to go on")
        if (use := use_of_slots(TimeSpent.read(self.folder.clock))) is not None:
            self.observer.say(say_use(use))
        return report

    def _a_reason(self) -> str:
        """What the first trial that has one says about its end, and where to read on."""
        for trial in self.folder.started_trials():
            files = self.folder.trial(trial)
            if (result := files.read_result()) is not None and result.reason:
                shown = files.error if files.error.exists() else files.root
                return f" ({trial.name}: {result.reason}; {shown})"
        return f" ({self.folder.trials})"

    def _report(self) -> Report:
        stopped = self.clock.over and bool(self._work_left())
        state = "stopped" if stopped else "done"
        report = build_report(self.plan, self.home, self.studies, state=state)
        if all(found.best is None for found in report.strategies.values()):
            if stopped:
                raise BudgetSpent(
                    "the budget was spent before any trial finished; give it more time (budget) and run the same command again"
                )
            raise KdsweepError(
                f"no trial finished: all failed, diverged or were pruned{self._a_reason()}; `kdsweep status {self.plan.name}` counts them"
            )
        from kdsweep.report.page import write_page

        write_json(self.folder.report, report.to_json())
        write_page(report, read_records(self.plan, self.home, self.studies), self.folder.page)
        if stopped:
            self.observer.say(
                "the budget is spent; what is open is saved: raise it and run the same command to go on"
            )
        return report

    def _send_end(self, state: RunState, report: Report | None, ended: int) -> None:
        from kdsweep.report.sentences import as_markdown

        tracker = self.tracking.tracking.runs
        sweep = RunKey("sweep")
        metrics = {metric_names.SECONDS: self.clock.seconds} if state == "complete" else {}
        tracker.update(sweep, RunUpdate(state=state, metrics=once(metrics, ended), ended=ended))
        if report is not None:
            for file in (self.folder.report, self.folder.page):
                tracker.add_file(sweep, file)
            tracker.describe_sweep(as_markdown(report))
        if state == "complete" and report is not None:
            self._register_best(report)

    def _register_best(self, report: Report) -> None:
        """The winner's student is a registered model, unless an earlier sweep's is better."""
        winner = report.winner
        if self.plan.sweep.keep.students and winner is not None:
            result = self.folder.trial(winner).read_result()
            assert result is not None and result.best is not None
            self.observer.say(
                self.tracking.tracking.students.register_best(
                    self.plan.experiment,
                    RunKey.of(winner),
                    self.metric,
                    result.best.metrics[self.metric],
                )
            )


def _sweep_params(plan: Plan) -> dict[str, Any]:
    return (
        flat("task", plan.resolved["task"])
        | flat("sampler", plan.sweep.sampler.model_dump())
        | flat("pruner", plan.sweep.pruner.model_dump())
    )


def _settled(ticket: SearchTrial) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in ticket.params.items()
    )


class _Stop:
    """The first signal asks to save and stop; the second stops at once. After SIGTERM or SIGUSR1 (a cluster takes its machine
    back) the sweep is expected to go on soon: workers wait for it."""

    def __init__(self, observer: Observer) -> None:
        self.observer, self.requested, self.coming_back = observer, False, False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self._receive)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.requested:
            self.observer.say(
                "stopping: what runs is saved at its next step (Ctrl-C once more stops at once)"
            )
        self.requested, self.coming_back = True, number != signal.SIGINT
