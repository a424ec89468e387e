"""The driver: one loop that asks for trials, starts them, and tells and tracks how they end.

Only the driver asks, tells and writes the databases. So a database has one writer, budgets are
exact, and there are no races.
"""

from __future__ import annotations

from collections import Counter

from kdsweep.config import Plan
from kdsweep.config.sweep import COSTS
from kdsweep.core.standing import standing
from kdsweep.core.trial_folder import Evaluation, TrialResult
from kdsweep.errors import FolderGone, KdsweepError
from kdsweep.report.model import Report
from kdsweep.sweep.announcing import ended_lines, read_data
from kdsweep.sweep.confirm import SeedQueue
from kdsweep.sweep.engines.base import Engine
from kdsweep.sweep.engines.events import (
    Ended,
    Evaluated,
    Event,
    LatencyMeasured,
    Message,
    StepReached,
    WorkerLost,
)
from kdsweep.sweep.engines.jobs import LatencyJob, TeacherJob, TrialJob
from kdsweep.sweep.engines.opening import open_engine
from kdsweep.sweep.engines.places import Place
from kdsweep.sweep.finish import RunEnd, finish
from kdsweep.sweep.folders import Home
from kdsweep.sweep.kept_students import keep_students
from kdsweep.sweep.latency_stage import LatencyStage
from kdsweep.sweep.mended_results import mend_trials
from kdsweep.sweep.observer import Observer
from kdsweep.sweep.open_sweep import OpenSweep, open_sweep
from kdsweep.sweep.progress import SweepProgress
from kdsweep.sweep.pruned_trials import may_prune, repeat_reports, write_pruned
from kdsweep.sweep.running_jobs import RunningJob, RunningJobs
from kdsweep.sweep.signals import StopRequest
from kdsweep.sweep.slow_steps import saying_how_long
from kdsweep.sweep.startup_timer import StartupTimer
from kdsweep.sweep.stop_file import listening_for_stop
from kdsweep.sweep.studies import SearchTrial
from kdsweep.sweep.swept_trial import SweptTrial
from kdsweep.sweep.teacher_stage import TeacherStage
from kdsweep.sweep.trial_jobs import TrialJobs
from kdsweep.sweep.work_queue import Work, WorkQueue
from kdsweep.tracking.base import Tracking
from kdsweep.trial_id import TrialId

# Jobs that are asked for together start together; the first ones shouldn't wait for hundreds.
MOST_ASKED_TOGETHER = 16


class Driver:
    """Runs one sweep. The caller holds the sweep's lock.

    tracking: replaces the tracker and the store for students that the sweep file names.
    """

    engine: Engine

    def __init__(
        self,
        plan: Plan,
        home: Home,
        observer: Observer,
        startup_timer: StartupTimer | None = None,
        tracking: Tracking | None = None,
    ) -> None:
        self.plan = plan
        self.observer = observer
        self.startup_timer = startup_timer or StartupTimer()
        self.startup_timer.enter("databases")
        with saying_how_long(observer.say, "opening the sweep"):
            self.sweep: OpenSweep = open_sweep(plan, home, observer, tracking)
        self.folder = self.sweep.folder
        self.studies = self.sweep.studies
        self.clock = self.sweep.clock
        self.tracking = self.sweep.tracking
        self.teachers = TeacherStage(self.sweep)
        self.latency = LatencyStage(self.sweep)
        self.seed_runs = SeedQueue(plan, self.folder, self.studies, observer.say)
        self.queue = WorkQueue(plan, self.studies, self.seed_runs, self.teachers)
        self.stop = StopRequest(observer.say)
        self.running = RunningJobs()
        self.error: Exception | None = None
        self.stopping = False

    def run(self) -> Report:
        """Run the sweep to its end, or until it is stopped; returns its report."""
        files = self.folder.stop_file, self.folder.lock_file
        try:
            with (
                standing(*self.studies.database.files),
                self.stop.listening(),
                listening_for_stop(*files, self.stop.ask),
            ):
                self._run_jobs()
                return finish(self.sweep, self._end())
        except FolderGone:
            self.tracking.abandon()
            raise

    def _run_jobs(self) -> None:
        """Do all jobs that are left. What goes wrong becomes `error`, unless home is gone."""
        try:
            self.startup_timer.enter("data")
            self.data = read_data(self.sweep, self.teachers)
            self.trial_jobs = TrialJobs(self.sweep)
            self.startup_timer.enter("trials so far")
            with saying_how_long(self.observer.say, "reading the trials so far"):
                self._resume()
            if self.queue.left() or self.latency.is_left():
                self.startup_timer.enter("slots")
                with self._open_engine() as self.engine:
                    self._loop()
                    self.engine.announce_end(resuming=self.stop.resuming)
            elif self.plan.space.needs_teacher:
                self.teachers.record(self.data)
        except (KdsweepError, OSError) as error:
            self.error = self.error or error
        finally:
            self.clock.no_slots()
            self.clock.save()

    def _open_engine(self) -> Engine:
        return open_engine(
            self.plan.sweep,
            self.folder,
            self._on_event,
            self.observer.say,
            plugins=self.plan.space.packages(),
            says_auto=self.plan.space.says_auto,
        )

    def _end(self) -> RunEnd:
        waiting = [*self.queue.waiting, *self.seed_runs.started()]
        return RunEnd(
            error=self.error,
            stop=self.stop,
            jobs_left=self.queue.left(),
            open_trials=frozenset(work.id for work in waiting),
        )

    # --- the loop: ask, start, events, tell, track -----------------------------------------------

    def _loop(self) -> None:
        self._show_progress()
        while True:
            self._fill_free_slots()
            if not self.running and (self.stopping or not self._has_work()):
                # The time that Ray takes to end isn't counted as slot time.
                self.clock.no_slots()
                return
            try:
                # What happens on the slots arrives at `_on_event`.
                self.engine.wait(self.clock.seconds_left())
            except KdsweepError as error:
                self.error = self.error or error
            self._stop_if_asked()

    def _has_work(self) -> bool:
        """Whether there is a job, now or once a slot is there."""
        return self.queue.has_work() or self.latency.is_left(self.engine.free_places)

    def _fill_free_slots(self) -> None:
        """Start a job on every free slot."""
        started: list[Work] = []
        while not self.stopping and (asked := self._ask_together()):
            # The database knows a trial before it starts.
            self.studies.write()
            for running in asked:
                self._start(running)
            started += [running.work for running in asked if running.work is not None]
        self._update_clock()
        self.studies.write()
        for work in started:
            files = self._files(work)
            if isinstance(work, SearchTrial):
                files.write_drawn(work.drawn.to_json())
            files.claim(work.settings)
            self.tracking.update_trial(work.id)
        if started:
            self._show_progress()
        self.engine.request_slots(self._useful_slots())

    def _ask_together(self) -> list[RunningJob]:
        """The next jobs and their slots. Empty if no job can start now."""
        asked: list[RunningJob] = []
        free = Counter(self.engine.free_places)
        self.sweep.precision.settle(free)
        while free and len(asked) < MOST_ASKED_TOGETHER:
            found = (self._ask_at(place) for place in list(free))
            running = next((one for one in found if one is not None), None)
            if running is None:
                break
            self.running.add(running)
            asked.append(running)
            free -= Counter([running.place])
        return asked

    def _ask_at(self, place: Place) -> RunningJob | None:
        """The next job for a slot there: a measurement first, which needs the machine for itself,
        then the teachers, then a trial."""
        if self.running.is_measuring(place.host):
            return None
        if self.latency.holds(place.device):
            measuring = None if self.running.uses(place.host) else self.latency.job(place)
            return None if measuring is None else RunningJob(measuring, place)
        if (job := self.teachers.first_job()) is not None:
            return RunningJob(job, place)
        work = self.queue.next(len(self.running))
        if work is None:
            return self._ask_at_the_end(place)
        if work.id.phase == "confirm" and (job := self.teachers.judging_job()) is not None:
            self.queue.waiting.append(work)
            return RunningJob(job, place)
        if self.latency.is_needed_for(work.settings, place.device):
            self.queue.waiting.appendleft(work)
            return self._ask_at(place)
        return self._trial_at(place, work)

    def _ask_at_the_end(self, place: Place) -> RunningJob | None:
        """A measurement, once nothing else is left to do."""
        if self.running or self.queue.has_work():
            return None
        job = self.latency.last_job(place)
        return None if job is None else RunningJob(job, place)

    def _trial_at(self, place: Place, work: Work) -> RunningJob:
        latency = self.latency.costs(work.settings, place.device)
        return RunningJob(self.trial_jobs.job(work, latency), place, work)

    def _start(self, running: RunningJob) -> None:
        job = running.job
        part = "first trial" if isinstance(job, TrialJob) else job.name.split()[0]
        self.startup_timer.enter(part)
        self.engine.start(job, running.place)

    def _useful_slots(self) -> int:
        if self.stopping:
            return 0
        if self.latency.is_first:
            return max(1, len(self.running))
        jobs = len(self.running) + self.queue.left() + (not self.teachers.is_started)
        return max(jobs, int(self.latency.is_left()))

    def _update_clock(self) -> None:
        self.clock.update(
            slots=self.engine.slots,
            running=len(self.running),
            has_work=not self.stopping and self.queue.has_work(),
            gpus_per_slot=self.engine.gpus_per_slot,
        )

    def _stop_if_asked(self) -> None:
        """Save everything if the user, the budget or an error says so."""
        asked = self.stop.requested or self.error or self.clock.is_over()
        if asked and not self.stopping:
            self.stopping = True
            for name in self.running:
                self.engine.stop(name, save=True)

    # --- events ----------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case StepReached() if isinstance(self.running[event.name].job, LatencyJob):
                self._stop_if_asked()
            case StepReached():
                if (line := self.startup_timer.first_step()) is not None:
                    self.observer.say(line)
                self.observer.step(event.name, event.step, event.total_steps)
                self._stop_if_asked()
            case Message():
                self.observer.say(event.line)
            case Evaluated():
                self._evaluated(self.running[event.name], event.evaluation)
            case LatencyMeasured():
                job = self.running[event.name].job
                assert isinstance(job, LatencyJob)
                self.latency.add(job, event.measured)
            case Ended():
                running = self._over(event.name)
                self.clock.spend(event.spent)
                of_teachers = event.spent.get("labelling", 0.0)
                if isinstance(running.job, TeacherJob):
                    of_teachers = sum(event.spent.values())
                self.clock.spend_on_teachers(of_teachers)
                self._ended(running, event)
                self._update_clock()
            case WorkerLost():
                self._lost(self._over(event.name), event)
                self._update_clock()

    def _over(self, name: str) -> RunningJob:
        """The job with this name, which doesn't run any more."""
        self.observer.over(name)
        return self.running.pop(name)

    def _evaluated(self, running: RunningJob, evaluation: Evaluation) -> None:
        work = running.work
        assert work is not None
        if running.pruned_at is not None:
            return
        running.evaluations += 1
        running.last = evaluation
        value = evaluation.metrics[self.sweep.metric]
        prune = isinstance(work, SearchTrial) and self.studies.report(
            work, running.evaluations, value
        )
        self.tracking.update_trial(work.id)
        if prune and may_prune(work.settings, evaluation):
            running.pruned_at = evaluation
            self.engine.stop(work.id.name, save=False)

    def _ended(self, running: RunningJob, event: Ended) -> None:
        if event.outcome == "fatal":
            self.error = self.error or event.error
            self._stop_if_asked()
        if isinstance(running.job, TeacherJob):
            error = self.teachers.ended(running.job, event, self.data)
            self.error = self.error or error
            return
        if isinstance(running.job, LatencyJob):
            problem = self.latency.ended(running.job, running.place, event)
            self.error = self.error or problem
            return
        work = running.work
        assert work is not None
        files = self._files(work)
        if event.outcome == "lost":
            self.folder.remove_half_written(work.id.name)
        if running.pruned_at is not None and event.outcome != "fatal":
            write_pruned(files, *running.how_far())
        elif event.outcome in ("saved", "fatal", "lost"):
            self.queue.waiting.appendleft(work)
            return
        elif event.outcome == "failed":
            files.write_error(event.trace or "")
            files.write_result(TrialResult("failed", *running.how_far(), reason=event.reason))
        self._tell(work)

    def _lost(self, running: RunningJob, event: WorkerLost) -> None:
        """The worker is gone. The job resumes on another, unless it kills each at one place."""
        if isinstance(running.job, TeacherJob):
            self.error = self.error or self.teachers.lost(running.job, event)
            return
        if isinstance(running.job, LatencyJob):
            problem = self.latency.lost(running.job, running.place, event)
            self.error = self.error or problem
            return
        work, reason = running.work, event.reason
        assert work is not None
        self.folder.remove_half_written(work.id.name)
        if running.pruned_at is not None:
            write_pruned(self._files(work), *running.how_far())
            self._tell(work)
            return
        if not event.counts:
            self.observer.say(f"{work.id.name}: {reason}; resumes from its last checkpoint")
            self.queue.waiting.appendleft(work)
            return
        files = self._files(work)
        failures = files.write_lost(reason)
        if not failures.are_too_many:
            self.observer.say(
                f"{work.id.name}: {reason}; resumes from its last checkpoint ({failures})"
            )
            self.queue.waiting.appendleft(work)
            self.tracking.update_trial(work.id)
            return
        steps, seconds = running.how_far()
        reason = f"the process that ran it {failures.died}: {reason}"
        files.write_result(TrialResult("failed", steps, seconds, reason=reason))
        self._tell(work)

    # --- tell and track --------------------------------------------------------------------------

    def _tell(self, work: Work) -> None:
        """Tell the study how the trial ended, and send it to the tracker.

        Its result is in its folder already: if this driver dies here, the next one tells the study.
        """
        result = self._files(work).read_result()
        assert result is not None
        drawn = work.params if isinstance(work, SearchTrial) else {}
        for line in ended_lines(self.sweep, work.id, result, drawn):
            self.observer.say(line)
        value: float | None = None
        if result.state == "complete" and result.best:
            value = result.best.metrics[self.sweep.metric]
        if isinstance(work, SearchTrial):
            costs: list[float] = []
            if value is not None:
                student = result.student or {}
                costs = [student[COSTS[name]] for name in self.plan.sweep.costs]
            self.studies.tell(work, result.state, value, result.reason, costs)
        else:
            self.seed_runs.count_ended(work.id)
        self.latency.trial_ended()
        self.tracking.update_trial(work.id)
        self._keep_students(work.id.strategy, work.id)
        self._show_progress()

    def _keep_students(self, strategy: str, ended: TrialId | None = None) -> None:
        keep_students(self.plan, self.folder, self.studies, self.tracking, strategy, ended)

    def _show_progress(self) -> None:
        progress = {one: self.studies.progress(one) for one in self.plan.space.strategies}
        trials = {one: self.studies.trials_for(one) for one in progress}
        runs = self.seed_runs.counts()
        self.observer.progress(SweepProgress(progress, trials, runs, self.clock.seconds))

    def _files(self, work: Work) -> SweptTrial:
        return self.folder.trial(work.id)

    # --- before the loop -------------------------------------------------------------------------

    def _resume(self) -> None:
        """Pick up what an earlier driver left: open trials, and what the tracker is missing."""
        self.folder.remove_half_written()
        mend_trials(self.sweep)
        for strategy in self.plan.space.strategies:
            for trial in self.studies.open_trials(strategy):
                self._resume_trial(self.studies.resume(trial))
            self.studies.write()
            ended = self.studies.progress(strategy).ended
            trials = [TrialId(strategy, number) for number in ended]
            # Those of an earlier confirm too: while the search is open again, nobody else asks.
            trials += self.folder.ended_seed_runs(strategy)
            self.tracking.update_those_behind(trials)
            self._keep_students(strategy)
        removed = set(self.studies.changed) - set(self.plan.space.strategies)
        if removed:
            started = self.folder.started_trials()
            self.tracking.update_those_behind(one for one in started if one.strategy in removed)

    def _resume_trial(self, trial: SearchTrial) -> None:
        """Let it wait for a slot. If it has ended but the study doesn't know, tell the study."""
        files = self._files(trial)
        if not files.is_over:
            self.queue.waiting.append(trial)
            return
        repeat_reports(self.studies, trial, files, self.sweep.metric)
        self._tell(trial)
