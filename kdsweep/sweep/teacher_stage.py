"""Making the teachers that trials need, and recording what they reach.

Trials that learn from the labels alone start before a teacher is ready.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kdsweep.compare.teacher_record import TeacherRecord
from kdsweep.core.data.rows import TaskData
from kdsweep.core.evaluation.latency_figures import ModelShape
from kdsweep.core.files import fingerprint, write_array, write_atomically
from kdsweep.core.settings import TeacherSettings
from kdsweep.core.teachers.artifact import Teacher
from kdsweep.core.teachers.logits import stored_logits, teacher_test
from kdsweep.core.teachers.progress import last_saved_step, made_so_far
from kdsweep.core.teachers.selection import cached_teacher, made_teachers
from kdsweep.core.trial_folder import Predicted, write_predictions
from kdsweep.errors import TeacherError
from kdsweep.sweep.engines.events import Ended, WorkerLost
from kdsweep.sweep.engines.jobs import TeacherJob
from kdsweep.sweep.latency_file import LatencyFile
from kdsweep.sweep.open_sweep import OpenSweep
from kdsweep.sweep.run_updates import teacher_update
from kdsweep.sweep.teacher_threads import kept_threads, room_beside
from kdsweep.sweep.worker_failures import note_failure
from kdsweep.tracking.base import RunKey


class TeacherStage:
    """The jobs that make the sweep's teachers.

    is_ready: whether trials that need a teacher can start. is_started: whether the job that makes
    the teachers was started. is_judged: whether the one that reads the test split was; it comes
    before the first run of confirm.
    """

    def __init__(self, sweep: OpenSweep) -> None:
        self.sweep = sweep
        space = sweep.plan.space
        self.is_ready = not space.needs_teacher
        self.is_started = not space.needs_teacher
        self.is_judged = not space.needs_teacher or not sweep.plan.sweep.confirm.seeds
        self._threads = kept_threads(sweep.plan, sweep.folder)
        self._room = room_beside(sweep.plan, self._threads)

    def first_job(self) -> TeacherJob | None:
        """The job that makes the teachers; None once it was started."""
        if self.is_started:
            return None
        self.is_started = True
        folder = self.sweep.folder
        facts = folder.read_facts()
        if facts.teachers_found is None:
            # Written before the job starts: a sweep that dies finds what it made itself.
            folder.write_facts(replace(facts, teachers_found=self._found_in_cache()))
        return self._job(judge_test=False)

    def leave_room(self, running: int) -> bool:
        """Whether a trial can start beside so many jobs. While teachers are made, one of those jobs
        makes them, and has the threads of several slots."""
        is_making = self.is_started and not self.is_ready
        return not is_making or self._room is None or running <= self._room

    def _found_in_cache(self) -> tuple[str, ...]:
        """The names of the teachers that are there before the sweep makes one.

        An earlier version's sweep finds those that it made itself; what it recorded of them stays.
        """
        space = self.sweep.plan.space
        recorded = {one.name: one.from_cache for one in self.sweep.folder.read_facts().teachers}
        found = []
        for settings in space.teachers():
            from_cache = recorded.get(settings.words)
            if from_cache is None and settings.words not in recorded:
                cache = self.sweep.home.cache
                from_cache = cached_teacher(space.task, settings, cache) is not None
            if from_cache:
                found.append(settings.words)
        return tuple(found)

    def judging_job(self) -> TeacherJob | None:
        """The job that saves the teachers' logits of the test split; None once it was started."""
        if not self.is_ready or self.is_judged:
            return None
        self.is_judged = True
        return self._job(judge_test=True)

    def _job(self, *, judge_test: bool) -> TeacherJob:
        space = self.sweep.plan.space
        teachers = tuple(space.teachers())
        return TeacherJob(
            "teacher",
            space.task,
            teachers,
            self.sweep.home.cache,
            judge_test,
            sweep=self.sweep.plan.name,
            pins=self.sweep.folder.read_facts().pins,
            # Runs of confirm start beside the job that judges.
            teacher_threads=None if judge_test else self._threads,
        )

    # --- how a job ended -------------------------------------------------------------------------

    def ended(self, job: TeacherJob, event: Ended, data: TaskData) -> TeacherError | None:
        """Record the teachers if the job is complete. Returns the error that ends the sweep."""
        if event.outcome == "complete":
            self.is_ready = True
            self.record(data)
            return None
        self._start_again(job)
        if event.outcome not in ("failed", "diverged"):
            return None
        if (trace := event.trace) is not None:
            file = self.sweep.folder.root / "error.txt"
            write_atomically(file, lambda stream: stream.write(trace.encode()))
        return TeacherError(f"teacher: {event.reason}")

    def lost(self, job: TeacherJob, event: WorkerLost) -> TeacherError | None:
        """The worker of the job is gone. Returns the error that ends the sweep, or None."""
        reason = event.reason
        self._start_again(job)
        if not event.counts:
            self.sweep.observer.say(f"teacher: {reason}; it resumes from its last checkpoint")
            return None
        file, cache = self.sweep.folder.teacher_lost, self.sweep.home.cache
        failures = note_failure(file, reason, made_so_far(cache), last_saved_step(cache))
        if not failures.are_too_many:
            self.sweep.observer.say(
                f"teacher: {reason}; it resumes from its last checkpoint ({failures})"
            )
            return None
        # Who runs the sweep again has changed something.
        file.unlink()
        return TeacherError(f"teacher: the process that made it {failures.died}: {reason}")

    def _start_again(self, job: TeacherJob) -> None:
        if job.judge_test:
            self.is_judged = False
        else:
            self.is_started = False

    # --- what they reach -------------------------------------------------------------------------

    def cached(self) -> list[tuple[TeacherSettings, Teacher]]:
        """Every teacher that a trial can need; none if one isn't made yet."""
        space = self.sweep.plan.space
        return made_teachers(space.task, space.teachers(), self.sweep.home.cache)

    def record(self, data: TaskData) -> None:
        """Write what each teacher reaches; the best one on validation is what students are
        compared with."""
        made = self.cached()
        if not made:
            return
        latencies = LatencyFile.read(self.sweep.folder.latency)
        records: list[TeacherRecord] = []
        for settings, teacher in made:
            measured = latencies.find(ModelShape.of_teacher(settings))
            if measured is not None:
                # The teacher's own figure was measured when it was made, perhaps on another
                # machine and while trials ran.
                first = measured.first
                teacher = replace(
                    teacher, latency_ms=first.latency_ms, latency_p95_ms=first.latency_p95_ms
                )
            records.append(self._record(settings, teacher, data, alone=len(made) == 1))
        folder = self.sweep.folder
        for number, (_, teacher) in enumerate(made):
            # Kept with the sweep, because the cache may be cleaned.
            logits = stored_logits(teacher, data, cache=self.sweep.home.cache)
            if logits is not None:
                write_array(folder.teacher_test_logits(number), np.asarray(logits))
        for name, split in data.more_tests.items():
            best = made[0][1]
            logits = stored_logits(best, data, cache=self.sweep.home.cache, split=name)
            if logits is not None:
                predicted = Predicted(split.labels, data.kind.predictions(np.asarray(logits)))
                write_predictions(folder.teacher_predictions(name), predicted)
        folder.write_facts(replace(folder.read_facts(), teachers=tuple(records)))

    def _record(
        self, settings: TeacherSettings, teacher: Teacher, data: TaskData, *, alone: bool
    ) -> TeacherRecord:
        metric = self.sweep.plan.space.task.metric
        test = teacher_test(teacher, data, metric, cache=self.sweep.home.cache)
        name = "teacher" if alone else f"teacher {settings.words}"
        tested = f", {test[metric]:.4f} on test" if test else ""
        self.sweep.observer.say(
            f"{name}: validation {metric} {teacher.validation[metric]:.4f}{tested}"
        )
        run = RunKey("teacher")
        if not alone:
            run = RunKey("teacher", teacher=fingerprint(settings.model_dump(mode="json"))[:6])
        update = teacher_update(settings, teacher, metric, test)

        def send() -> None:
            self.sweep.tracking.update_run(run, update)

        self.sweep.tracking.send_once(run.name, send)
        selected: dict[str, float | None] | None = None
        if teacher.selected is not None:
            # Seeds are keys of JSON, which are strings.
            selected = {str(seed): reached for seed, reached in teacher.selected.items()}
        return TeacherRecord(
            validation=teacher.validation,
            parameters=teacher.parameters,
            size_mb=teacher.size_mb,
            latency_ms=teacher.latency_ms,
            latency_p95_ms=teacher.latency_p95_ms,
            test=test,
            name=settings.words,
            selected=selected,
            seconds=teacher.seconds,
            keys=(teacher.key, *teacher.folds),
            from_cache=settings.words in (self.sweep.folder.read_facts().teachers_found or ()),
        )
