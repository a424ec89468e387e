"""Which trial is trained next."""

from __future__ import annotations

from collections import deque

from kdsweep.config import Plan
from kdsweep.sweep.confirm import SeedQueue
from kdsweep.sweep.seed_runs import SeedRun
from kdsweep.sweep.studies import SearchTrial, Studies
from kdsweep.sweep.teacher_stage import TeacherStage
from kdsweep.sweep.teacher_threads import waits_for_teacher

Work = SearchTrial | SeedRun


class WorkQueue:
    """Chooses the next trial: a waiting one, a new one of a search, or one with a fresh seed.

    waiting: trials that were started and wait for a free slot or for the teacher. They were
    preempted, lost their worker, or are left from an earlier run of the sweep.
    """

    def __init__(
        self, plan: Plan, studies: Studies, seed_runs: SeedQueue, teachers: TeacherStage
    ) -> None:
        self.waiting: deque[Work] = deque()
        self._plan = plan
        self._studies = studies
        self._seed_runs = seed_runs
        self._teachers = teachers

    def next(self, running: int) -> Work | None:
        """Removes and returns the next trial that can be trained now, beside so many other jobs.

        New trials go to the strategy with the fewest, so that strategies advance side by side. One
        that must first know how another trial ends lets others go first. Finalists and confirm come
        last: they need a search that is over.
        """
        if not self._teachers.leave_room(running):
            return None
        for work in self.waiting:
            if self._teachers.is_ready or not work.settings.needs_teacher:
                self.waiting.remove(work)
                return work
        if ready := [name for name in self._open_searches() if self._studies.may_ask(name)]:
            return self._studies.ask(
                min(ready, key=lambda name: self._studies.progress(name).counted)
            )
        return self._seed_runs.next(teacher=self._teachers.is_ready)

    def _open_searches(self) -> list[str]:
        """Strategies that have trials left and can train one now."""
        space = self._plan.space
        return [
            strategy
            for strategy in space.strategies
            if (self._teachers.is_ready or not waits_for_teacher(self._plan, strategy))
            and self._studies.trials_left(strategy)
        ]

    def has_work(self) -> bool:
        """Whether there is a job for a slot, now or once a waiting trial's teacher is ready."""
        if not self._teachers.is_started or self.waiting or self._open_searches():
            return True
        return bool(self._seed_runs.ready(teacher=self._teachers.is_ready))

    def left(self) -> int:
        """How many more trials there may be, which is an upper limit for useful slots."""
        strategies = self._plan.space.strategies
        to_ask = sum(self._studies.trials_left(strategy) for strategy in strategies)
        return len(self.waiting) + to_ask + self._seed_runs.left()
